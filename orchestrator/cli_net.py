"""The commands `edgewake net ...`: make, show, change and try the virtual network of a lab.

They need no edgewake to run, and go together with one that does: both set the same networks, in
turns. docs/network.md has every command with what it prints.
"""

# ruff: noqa: PLC0415 - as in orchestrator.cli: what a command needs is imported by it

import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator import cli_net_load, cli_scenario, display
from orchestrator.cli_apps import apps_app
from orchestrator.cli_net_daemon import running
from orchestrator.cli_net_link import register
from orchestrator.cli_net_parts import (
    AnyLab,
    BackEnd,
    Json,
    lab_at,
    name_of,
    network_at,
    networks_at,
    progress_shown,
)
from orchestrator.errors import CannotNetwork

if TYPE_CHECKING:
    from orchestrator.network import App, Network
    from orchestrator.networks import Kept
    from orchestrator.routers.base import Done

MOST_WAYS = 8  # that are shown of equal ones

net_app = typer.Typer(
    name="net",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Make, show, change and try the virtual network of a lab.",
    epilog="Example: edgewake net apply lab.yaml",
)


LabFile = Annotated[Path, typer.Argument(metavar="LAB", help="A lab file.")]


@net_app.command(epilog="Example: edgewake net apply lab.yaml --dry-run")
def apply(  # noqa: PLR0917 - typer declares options as arguments
    ctx: typer.Context,
    lab: LabFile,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would change.")
    ] = False,
    back_end: Annotated[
        BackEnd, typer.Option(help="What makes it; `memory` only tries, and forgets it.")
    ] = BackEnd.NETNS,
    machine: Annotated[
        str, typer.Option(metavar="HOST", help="Which of network.machines this is; default: seen.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Make the network of a lab exist, as its file says.

    What is there already and stays the same is not disturbed. The lab must have `network: {run:
    true}`.
    """
    from orchestrator.net_report import changes_told, engines_told
    from orchestrator.network import Routing
    from orchestrator.networks import differences

    wanted = _wanted(ctx, lab, machine)
    name = wanted.network.name
    bridges = {stub.bridge for stub in wanted.network.stubs}
    with networks_at(ctx, back_end, bridges) as networks:
        if dry_run:
            _print_done(
                name, differences(wanted, networks.found(wanted)), as_json=as_json, dry=True
            )
            return
        began = time.monotonic()
        with progress_shown(quiet=as_json) as progress:
            done = networks.set(wanted, progress, _programs(ctx, lab))
        took_s = time.monotonic() - began
        view = networks.view(name)
    if as_json:
        engines = {state.link.name: state.engine for state in view.found.links}
        display.print_json({"network": name, **asdict(done), "engines": engines, "took_s": took_s})
        return
    typer.echo(f"network {name}: {_size(wanted.network)}, set in {took_s:.2f} s")
    for line in changes_told(done):
        typer.echo(f"  {line}")
    for line in engines_told(view):
        typer.echo(f"  links by {line}")
    if wanted.network.routing is Routing.OSPF:
        typer.echo("  routing daemons find the ways, within some seconds")


@net_app.command(epilog="Example: edgewake net show lab.yaml")
def show(
    ctx: typer.Context,
    lab: Annotated[
        str,
        typer.Argument(
            metavar="LAB",
            help="A lab file, or the name of a lab whose network runs; default: edgewake's.",
            show_default=False,
        ),
    ] = "",
    every: Annotated[bool, typer.Option("--all", help="List the networks that are set.")] = False,
    as_json: Json = False,
) -> None:
    """Show routers, links and stubs, and what went through them."""
    from orchestrator.net_report import document, size_told, tables

    if lab and every:
        raise typer.BadParameter("name a LAB, or give --all")
    daemon = None if every else running(ctx, name_of(ctx, lab) if lab else "")
    if daemon is not None:
        documents = [daemon.network()]
    elif not lab and not every:
        raise typer.BadParameter("no edgewake runs a network: name a LAB, or give --all")
    else:
        with networks_at(ctx) as networks:
            names = networks.names() if every else [name_of(ctx, lab)]
            documents = [document(networks.view(name)) for name in names]
    if as_json:
        display.print_json({"networks": documents} if every else documents[0])
        return
    for network in documents:
        size = size_told(network["routers"], network["links"], network["stubs"])
        typer.echo(f"network {network['name']}: {size}, routing {network['routing']}")
        if not every:
            for table in tables(network):
                display.console(markup=False).print(table)
        if network.get("differs_from_lab"):
            gone = f"; gone: {', '.join(network['gone'])}" if network["gone"] else ""
            typer.echo(f"  unlike the lab file, until it is applied again{gone}")
    if not documents:
        typer.echo("no network is set on this machine")


@net_app.command(epilog="Example: edgewake net remove lab.yaml")
def remove(ctx: typer.Context, lab: AnyLab, as_json: Json = False) -> None:
    """Remove the network of a lab from this machine, with all that runs in it."""
    name = name_of(ctx, lab)
    with networks_at(ctx) as networks, progress_shown(quiet=as_json) as progress:
        done = networks.remove(name, progress)
    _print_done(name, done, as_json=as_json)


register(net_app)


@net_app.command(epilog="Example: edgewake net path lab.yaml r1 r4 --trace")
def path(  # noqa: PLR0917 - typer declares options as arguments
    ctx: typer.Context,
    lab: AnyLab,
    a: Annotated[str, typer.Argument(metavar="A", help="A router, or clients.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    trace: Annotated[
        bool, typer.Option("--trace", help="Send packets, and show which way they really go.")
    ] = False,
    six: Annotated[bool, typer.Option("--ipv6", help="With --trace: over IPv6.")] = False,
    as_json: Json = False,
) -> None:
    """Show the cheapest ways between two routers or populations of clients.

    The network need not run, but for --trace.
    """
    from orchestrator.local import namespace_of
    from orchestrator.net_trace import traced
    from orchestrator.networks import router_at
    from orchestrator.routing import Paths

    with networks_at(ctx) as networks:
        network = network_at(ctx, networks, lab)
    start, end = router_at(network, a), router_at(network, b)
    paths = Paths(network)
    ways = list(islice(paths.paths(start, end), MOST_WAYS + 1))
    latency = _latency_ms(network, ways[0]) if ways else None
    hops = traced(network, a, b, namespace_of, six=six) if trace else []
    if as_json:
        document: dict[str, Any] = {
            "cost": paths.cost(start, end) if ways else None,
            "latency_ms": latency,
            "paths": ways,
        }
        if trace:
            told = [{**asdict(hop), "address": hop.address and str(hop.address)} for hop in hops]
            document["trace"] = told
        display.print_json(document)
        return
    cost = f"cost {paths.cost(start, end):g}, {latency:g} ms" if ways else "there is no way"
    typer.echo(f"{a} to {b}: {cost}")
    for way in ways[:MOST_WAYS]:
        typer.echo(f"  {' → '.join(way)}")
    if len(ways) > MOST_WAYS:
        typer.echo("  and more that are as good")
    for number, hop in enumerate(hops, 1):
        heard = f"{hop.node or 'unknown'} ({hop.address}) {hop.round_trip_ms:.1f} ms"
        typer.echo(f"  hop {number}: {heard if hop.address else 'nobody answered'}")


@net_app.command(
    name="exec", epilog="Example: edgewake net exec lab.yaml r1 -- ping -c 3 10.255.0.7"
)
def execute(
    ctx: typer.Context,
    lab: AnyLab,
    node: Annotated[str, typer.Argument(metavar="NODE", help="A router, or clients.")],
    command: Annotated[
        list[str], typer.Argument(metavar="-- CMD...", help="Program and arguments.")
    ],
) -> None:
    """Run a program inside a router, or as one of a population of clients.

    It has this terminal, and this command ends as it does.
    """
    from orchestrator.local import namespace_of

    with networks_at(ctx) as networks:
        view = networks.view(name_of(ctx, lab))
    network = view.kept.network
    clients = {stub.name for stub in network.stubs if not stub.bridge} & {*view.found.stubs}
    there = sorted({*view.found.routers, *clients})
    if node not in there:
        known = f"there are here: {', '.join(there) or 'none'}"
        raise CannotNetwork(f"network {network.name} has no {node!r} to run anything in; {known}")
    argv = ["ip", "netns", "exec", namespace_of(network.name, node), *command]
    try:
        os.execvp("ip", argv)  # noqa: S606 - no shell: this is what the command is for
    except OSError as error:
        raise CannotNetwork(f"ip: {error.strerror}", hint="apt install iproute2") from error


@net_app.command(epilog="Example: edgewake net dot lab.yaml | dot -Tsvg > lab.svg")
def dot(ctx: typer.Context, lab: AnyLab) -> None:
    """Print the network as DOT, for Graphviz."""
    from orchestrator import net_report

    with networks_at(ctx) as networks:
        typer.echo(net_report.dot(network_at(ctx, networks, lab)), nl=False)


net_app.add_typer(apps_app)
cli_net_load.register(net_app)
cli_scenario.register(net_app)


# --- inside ---------------------------------------------------------------------------------------


def _wanted(ctx: typer.Context, file: Path, machine: str) -> "Kept":
    """Return the network that a lab file wants here; CannotNetwork if it wants none."""
    from orchestrator.networks import Kept
    from orchestrator.wanted_network import network_of, this_machine

    lab = lab_at(ctx, file)
    known = [each.name for each in lab.network.machines]
    if machine and machine not in known:
        raise CannotNetwork(
            f"{machine!r} is none of network.machines: {', '.join(known) or 'none'}"
        )
    if not lab.network.run:
        raise CannotNetwork(
            f"{file}: this lab does not run its network",
            hint="write `network: {run: true}` into it",
        )
    return Kept(network_of(lab), machine or this_machine(lab))


def _programs(ctx: typer.Context, file: Path) -> "Sequence[App]":
    """Return the programs that a lab file wants on its routers."""
    from orchestrator.wanted_network import apps_of

    return apps_of(lab_at(ctx, file))


def _print_done(name: str, done: "Done", *, as_json: bool, dry: bool = False) -> None:
    from orchestrator.net_report import changes_told

    if as_json:
        display.print_json({"network": name, **asdict(done), "dry_run": dry})
        return
    typer.echo(f"network {name}{': what would change' if dry else ''}")
    for line in changes_told(done):
        typer.echo(f"  {line}")


def _size(network: "Network") -> str:
    from orchestrator.net_report import size_told

    return size_told(network.routers, network.links, network.stubs)


def _latency_ms(network: "Network", way: tuple[str, ...]) -> float:
    from orchestrator.networks import link_between

    return sum(link_between(network, a, b).quality.latency_ms for a, b in pairwise(way))
