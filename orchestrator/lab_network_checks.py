"""What must go together in a lab file whose routers and links are run (``network.run: true``).

For `orchestrator.lab_checks`. While they are only counted with in placement, nothing of this is
asked but that no address is given twice. The rules themselves are `orchestrator.wanted_network`'s.
"""

from collections.abc import Iterator
from ipaddress import ip_network
from itertools import pairwise

from orchestrator.lab_report import Report, Where
from orchestrator.lab_schema import LabEntry
from orchestrator.model import Host, IPNetwork, Lab
from orchestrator.programs import catalogue
from orchestrator.wanted_network import attached, bridge_of, client_subnets, room, stations


def machine_references(entry: LabEntry) -> Iterator[tuple[Where, str, str]]:
    """Yield where each machine of routers is named, its name, and that it should name a host."""
    for name, router in entry.routers.items():
        if router.host is not None:
            yield ("routers", name, "host"), router.host, "host"
    for name in entry.network.machines:
        yield ("network", "machines", name), name, "host"


def check_network(lab: Lab, report: Report) -> None:
    """Report each mistake that keeps the lab's network from being made."""
    _check_addresses(lab, report)
    _check_apps(lab, report)
    if not lab.network.run:
        return
    _check_links(lab, report)
    _check_clients(lab, report)
    _check_machines(lab, report)
    known = {router.name for router in lab.routers}
    if all(host.router in {"", *known} for host in lab.hosts):
        _check_bridges(lab, report)
        _check_overlaps(lab, report)
    _check_room(lab, report)


def _check_addresses(lab: Lab, report: Report) -> None:
    first: dict[object, str] = {}
    for router in lab.routers:
        for key in ("address", "address6"):
            address = getattr(router, key)
            if address is not None and first.setdefault(address, router.name) != router.name:
                message = f"{address} is also the address of router {first[address]!r}"
                report.add(("routers", router.name, key), message)


def _check_apps(lab: Lab, report: Report) -> None:
    nodes = [each.name for each in lab.routers]
    nodes += [each.name for each in lab.populations] + [each.name for each in lab.hosts]
    for router in lab.routers:
        for app in router.apps:
            try:
                catalogue.check(app.run, dict(app.parameters), nodes)
            except ValueError as error:
                report.add(("routers", router.name, "apps", app.name), str(error))


def _check_links(lab: Lab, report: Report) -> None:
    hosts = {host.name for host in lab.hosts}
    for index, link in enumerate(lab.links):
        for end in sorted({link.a, link.b} & hosts):
            report.add(
                ("links", index, "between"),
                f"{end!r} is a host, and does not forward: with 'network.run', name its router in "
                f"hosts.{end}.router, and link that",
            )


def _check_clients(lab: Lab, report: Report) -> None:
    nodes = {router.name for router in lab.routers} | {host.name for host in lab.hosts}
    for population in lab.populations:
        where = ("clients", population.name)
        if population.name in nodes:
            message = "is also the name of a router or host; with 'network.run' each needs its own"
            report.add(where, message)
        if client_subnets(population)[0] is None:
            report.add(
                (*where, "subnets"),
                "needs, with 'network.run', an IPv4 subnet of /30 or larger that packets can come "
                "from: not loopback, link-local or multicast",
            )


def _check_machines(lab: Lab, report: Report) -> None:
    machines = {machine.name for machine in lab.network.machines}
    named = [router.name for router in lab.routers if router.host]
    for router in lab.routers:
        if router.host and router.host not in machines:
            message = f"{router.host!r} is not in network.machines: say there how it is reached"
            report.add(("routers", router.name, "host"), message)
        elif named and not router.host:
            message = f"has no 'host', but {named[0]!r} has: with several machines, each names its"
            report.add(("routers", router.name), f"{message} own")
    for host in lab.hosts:
        at = next((each.host for each in lab.routers if each.name == host.router), "")
        if host.name in machines and at in machines - {host.name}:
            message = f"{host.router!r} runs on {at!r}, and guests are attached to a router of"
            report.add(("hosts", host.name, "router"), f"{message} their own machine")


def _check_bridges(lab: Lab, report: Report) -> None:
    addresses = stations(lab)
    for host in attached(lab):
        where = ("hosts", host.name, "network")
        if not bridge_of(host):
            message = "only libvirt knows the bridge of this network: with 'network.run', let "
            message = f"{message}edgewake make it (`create`), or name the bridge (`bridge:NAME`)"
            report.add((*where, "name"), message)
        if addresses[host.name] is None:
            message = f"leaves no address of {host.network.subnet} for router {host.router!r}"
            report.add((*where, "pool"), message)


def _check_room(lab: Lab, report: Report) -> None:
    for key, subnet in (("address", lab.network.subnet), ("address6", lab.network.subnet6)):
        own = [getattr(router, key) for router in lab.routers]
        inside = sum(address is not None and address in subnet for address in own)
        wanted = own.count(None)
        if wanted + inside > room(subnet):
            message = f"{subnet} has {room(subnet)} addresses for routers, and {wanted} need one"
            report.add(("network", "subnet6" if key == "address6" else "subnet"), message)


def _check_overlaps(lab: Lab, report: Report) -> None:
    """Check that no address means two places; hosts may share a network."""
    found = sorted(_subnets(lab), key=lambda each: (each[2].version, each[2]))
    for (first_where, first_noun, first), (where, noun, subnet) in pairwise(found):
        if first.version != subnet.version or not first.overlaps(subnet):
            continue
        if first != subnet or {first_where[0], where[0]} != {"hosts"}:
            line = report.line(first_where)
            report.add(where, f"{subnet} of {noun} overlaps {first} of {first_noun} (line {line})")


def _subnets(lab: Lab) -> Iterator[tuple[Where, str, IPNetwork]]:
    """Yield where each subnet of the network is written, what has it, and itself."""
    yield ("network", "subnet"), "the routers", lab.network.subnet
    yield ("network", "subnet6"), "the routers", lab.network.subnet6
    for router in lab.routers:
        for key, within in (("address", lab.network.subnet), ("address6", lab.network.subnet6)):
            address = getattr(router, key)
            if address is not None and address not in within:
                yield ("routers", router.name, key), f"router {router.name!r}", ip_network(address)
    for population in lab.populations:
        for subnet in client_subnets(population):
            if subnet is not None:
                index = population.subnets.index(subnet)
                where = ("clients", population.name, "subnets", index)
                yield where, f"clients {population.name!r}", subnet
    for host in attached(lab):
        yield from _guest_subnets(host)


def _guest_subnets(host: Host) -> Iterator[tuple[Where, str, IPNetwork]]:
    where = ("hosts", host.name, "network")
    yield (*where, "subnet"), f"host {host.name!r}", host.network.subnet
    if host.network.subnet6 is not None:
        yield (*where, "subnet6"), f"host {host.name!r}", host.network.subnet6
