"""The commands `edgewake host ...`: look at machines that are to run guests, and empty them.

`add` needs no edgewake to run, and changes nothing on any host; `drain` asks the one that runs.
docs/cli.md has every command with an example, docs/hosts.md what a host needs.
"""

# ruff: noqa: PLC0415 - as in orchestrator.cli: what a command needs is imported by it

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator import display
from orchestrator.cli_drain import register

if TYPE_CHECKING:
    from orchestrator.host_advice import Entry, Missing
    from orchestrator.host_probe import FoundNetwork, HostFacts
    from orchestrator.model import Lab

hosts_app = typer.Typer(
    name="host",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Look at machines that are to run guests, and empty them.",
    epilog="Example: edgewake host add xen+ssh://root@pc1/system",
)


@hosts_app.command(epilog="Example: edgewake host add xen+ssh://root@pc1/system")
def add(
    ctx: typer.Context,
    uri: Annotated[str, typer.Argument(metavar="URI", help="How its libvirt is reached.")],
    name: Annotated[
        str, typer.Option(metavar="NAME", help="What the lab is to call it; default: its own name.")
    ] = "",
    lab: Annotated[
        Path | None,
        typer.Option(metavar="LAB", help="A lab file that it is to join: its subnets are left."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Look at a host, and print its entry for a lab file.

    Connects, says what is there, prints an entry for `hosts` to paste, and says what is missing,
    with the command that helps. Nothing is changed, neither there nor in any file.
    """
    from orchestrator.doctor import probe_kernel
    from orchestrator.host_advice import entry_for, missing, stanza
    from orchestrator.host_probe import probe
    from orchestrator.host_shell import here
    from orchestrator.labfile import load_lab

    wanted = load_lab(lab, images_dir=ctx.obj.images) if lab else None
    _check_name(name, wanted)
    facts = probe(uri, name=name, kvm_kernel=lambda: probe_kernel(ctx.obj.images))
    entry = entry_for(facts, name, wanted, (own.network for _, own in here().addresses))
    lacks = missing(facts, entry, wanted)
    if as_json:
        document = {
            "name": entry.name,
            "facts": _document(facts),
            "stanza": stanza(entry),
            "missing": [
                {"what": each.what, "do": list(each.do), "note": each.note} for each in lacks
            ],
        }
        display.print_json(document)
    else:
        _print(facts, entry, stanza(entry), lacks)


register(hosts_app)  # behind `add`, also in the list of commands: nobody drains a host first


def _check_name(name: str, lab: "Lab | None") -> None:
    from orchestrator.host_advice import HOST_NAME

    if name and not HOST_NAME.fullmatch(name):
        raise typer.BadParameter("a host's name is 1 to 30 of a-z, 0-9 and inner hyphens")
    twin = next((host for host in lab.hosts if host.name == name), None) if lab else None
    if twin:
        raise typer.BadParameter(f"the name {name} is taken: the lab has it for {twin.uri}")


def _document(value: Any) -> Any:
    """Return nouns as JSON has them; what JSON has no word for, as text."""
    if is_dataclass(value):
        return {each.name: _document(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple):
        return [_document(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _print(facts: "HostFacts", entry: "Entry", written: str, lacks: "tuple[Missing, ...]") -> None:
    typer.echo(f"{entry.name}: {_plain(facts.uri)}\n")
    for what, found in _told(facts):
        typer.echo(f"  {what:<12} {_plain(found)}")
    typer.echo(f"\nFor the lab file, under hosts:\n\n{written}")
    for each in lacks:
        typer.echo(f"{'note' if each.note else 'missing'}: {_plain(each.what)}")
        for command in each.do:
            typer.echo(f"    {_plain(command)}")
    if all(each.note for each in lacks):
        typer.echo("nothing is missing")


def _told(facts: "HostFacts") -> Iterator[tuple[str, str]]:
    """Yield what people want to know, line by line."""
    yield "hypervisor", f"{facts.kind} {facts.version}, libvirt {facts.libvirt}"
    numa = f", {facts.numa_nodes} NUMA nodes" if facts.numa_nodes > 1 else ""
    yield "processor", f"{facts.cores} cores, {facts.architecture}{numa}"
    free = "" if facts.free_mib is None else f", {facts.free_mib} MiB free"
    yield "memory", f"{facts.memory_mib} MiB{free}, {facts.guests_mib} MiB in guests"
    if facts.dom0:
        yield "dom0", f"{facts.dom0.memory_mib} MiB, {facts.dom0.cpus} virtual processors"
    yield "guests", ", ".join(_guests(facts)) or "none that edgewake boots"
    yield "abilities", ", ".join(_abilities(facts)) or "none"
    yield "networks", _networks(facts)
    yield "bridges", "not known" if facts.bridges is None else ", ".join(facts.bridges) or "none"
    yield "storage", _pools(facts)
    offset = facts.shell.clock_offset_s
    yield "clock", "not known" if offset is None else "as ours" if not offset else f"{offset:+g} s"
    dnsmasq = facts.shell.dnsmasq
    yield "dnsmasq", "not known" if dnsmasq is None else "there" if dnsmasq else "not there"


def _guests(facts: "HostFacts") -> Iterator[str]:
    if facts.kind == "Xen":
        yield from (word for word, can in (("PV", facts.pv), ("PVH", facts.pvh)) if can)
    if facts.kind == "QEMU":
        machines = ("microvm", "q35", "pc")
        yield from (each for each in machines if each in facts.machines)
        tried = facts.kvm_boots
        tested = "not tried" if tried is None else "boots" if tried.usable else "does not boot"
        yield f"KVM offered ({tested})" if facts.kvm_device else "no KVM"


def _abilities(facts: "HostFacts") -> Iterator[str]:
    words = (
        ("live migration", facts.live_migration),
        ("managed save", facts.managed_save),
        ("console streams", facts.streams),
    )
    yield from (word for word, can in words if can)


def _networks(facts: "HostFacts") -> str:
    if facts.networks is None:
        return "no driver"
    return ", ".join(map(_network, facts.networks)) or "none"


def _network(network: "FoundNetwork") -> str:
    where = f", {network.address.network}" if network.address else ""
    state = "" if network.active else ", inactive"
    return f"{network.name} ({network.mode} on {network.bridge or 'no bridge'}{where}{state})"


def _pools(facts: "HostFacts") -> str:
    if facts.pools is None:
        return "no driver"
    return ", ".join(f"{each.name} ({each.path})" for each in facts.pools) or "no pool yet"


def _plain(text: str) -> str:
    """Return text from another machine as a terminal may have it."""
    return "".join(each if each.isprintable() else "?" for each in text)
