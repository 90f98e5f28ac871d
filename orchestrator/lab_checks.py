"""What must go together in a lab file: checks that need more than one value.

References must lead somewhere, pools must not overlap, services must fit. Single values are for
`orchestrator.lab_values`, and the reading for `orchestrator.labfile`.
"""

from collections.abc import Iterator
from itertools import pairwise

from images.families import family
from orchestrator.lab_dns_checks import check_dns, key_references
from orchestrator.lab_network_checks import check_network, machine_references
from orchestrator.lab_report import Report, Where
from orchestrator.lab_schema import LabEntry
from orchestrator.lab_tenant_checks import check_tenants, tenant_references
from orchestrator.lab_values import LONGEST_DNS_NAME, suggestion
from orchestrator.lab_web import check_web
from orchestrator.library import traits_of
from orchestrator.model import (
    BRIDGE,
    Capacity,
    GuestNetwork,
    Host,
    Lab,
    Link,
    ProbeKind,
    Public,
    Service,
    instance_name,
)
from orchestrator.units import MEMORY, POWER

LONGEST_HOSTNAME = 63  # an instance's name is also its guest's: one DNS label, RFC 1035


def check_references(entry: LabEntry, report: Report) -> set[str]:
    """Report each name that nothing has, and memory unknown; return the services concerned."""
    known = {
        "router": list(entry.routers),
        "host": list(entry.hosts),
        "router or host": [*entry.routers, *entry.hosts],
        "image": list(entry.images),
        "service": list(entry.services),
        "key": list(entry.dns.keys),
        "clients": list(entry.clients),
    }
    broken = set()
    for where, name, noun in (*_references(entry), *tenant_references(entry)):
        if name not in known[noun]:
            report.add(where, f"unknown {noun} {name!r}; {suggestion(name, known[noun])}")
            broken.add(str(where[1]))
    return broken | _check_memory(entry, report)


def default_memory_mib(entry: LabEntry, service: str) -> int:
    """Return what a service's images are comfortable with; 0 if one does not name its family.

    What a file's bytes say does not count: it may not be there yet, and may change.
    """
    images = [entry.images[name] for name in entry.services[service].image if name in entry.images]
    if not images or not all(image.family_said for image in images):
        return 0
    return max(
        max(family(image.family_said).traits.default_memory_mib, image.least_memory or 0)
        for image in images
        if image.family_said
    )


def _check_memory(entry: LabEntry, report: Report) -> set[str]:
    """Report each service whose memory is neither given nor known; return them."""
    unknown = {
        name
        for name, service in entry.services.items()
        if service.resources.memory is None and not default_memory_mib(entry, name)
    }
    for name in unknown:
        message = "is missing, and its image does not name the family whose default would hold"
        report.add(("services", name, "resources", "memory"), message)
    return unknown


def _references(entry: LabEntry) -> Iterator[tuple[Where, str, str]]:
    """Yield where each name of something else is written, the name, and what it should name."""
    for name, host in entry.hosts.items():
        if host.router is not None:
            yield ("hosts", name, "router"), host.router, "router"
    yield from machine_references(entry)
    for index, link in enumerate(entry.links):
        for end, name in enumerate(link.between):
            yield ("links", index, "between", end), name, "router or host"
    yield from key_references(entry.dns)
    for name, clients in entry.clients.items():
        yield ("clients", name, "router"), clients.router, "router"
    for name, service in entry.services.items():
        for index, image in enumerate(service.image):
            yield ("services", name, "image", index), image, "image"
        for key, noun in _CONSTRAINTS:
            for index, other in enumerate(getattr(service.constraints, key)):
                yield ("services", name, "constraints", key, index), other, noun


_CONSTRAINTS = (
    ("hosts", "host"),
    ("avoid_hosts", "host"),
    ("apart_from", "service"),
    ("together_with", "service"),
)


def check(lab: Lab, broken: set[str], report: Report) -> None:
    """Report everything that does not go together; `broken` services are not looked at twice."""
    for host in lab.hosts:
        _check_host(host, report)
        _check_network(host.network, ("hosts", host.name, "network"), report)
    _check_pools(lab.hosts, report)
    _check_shared_networks(lab.hosts, report)
    _check_graph(lab, report)
    _check_names(lab, report)
    check_dns(lab, report)
    check_tenants(lab, report)
    check_network(lab, report)
    check_web(lab.web, report)
    whole = [service for service in lab.services if service.name not in broken]
    for service in whole:
        _check_service(service, lab, report)
        _check_room(service, lab, report)
        _check_probe(service, lab, report)
    _check_company(whole, lab, report)
    _check_public(whole, lab, report)


def _check_host(host: Host, report: Report) -> None:
    where = ("hosts", host.name)
    if host.usable.cpu <= 0:
        message = f"must be less than the host's {host.capacity.cpu:g} cores"
        report.add((*where, "reserve", "cpu"), message)
    if host.usable.memory_mib <= 0:
        message = f"must be less than the host's {MEMORY.write(host.capacity.memory_mib)}"
        report.add((*where, "reserve", "memory"), message)
    if host.energy.busy_w < host.energy.idle_w:
        message = f"must be at least the idle power, {POWER.write(host.energy.idle_w)}"
        report.add((*where, "energy", "busy"), message)


def _check_network(network: GuestNetwork, where: Where, report: Report) -> None:
    subnet, gateway, pool = network.subnet, network.gateway, f"{network.first}-{network.last}"
    unusable = {subnet.network_address, subnet.broadcast_address}
    if gateway not in subnet or gateway in unusable:
        report.add((*where, "gateway"), f"{gateway} is not an address for a machine in {subnet}")
    if network.first not in subnet or network.last not in subnet:
        report.add((*where, "pool"), f"{pool} is not inside the subnet {subnet}")
    for address in sorted({gateway, *unusable}):
        if network.first <= address <= network.last:
            report.add((*where, "pool"), f"{pool} has {address} in it, which no guest may have")
    if network.create and not network.bridge:
        report.add((*where, "bridge"), "is missing, and required with 'create: true'")
    if network.create and network.name.startswith(BRIDGE):
        report.add((*where, "create"), "a bridge is used as it is; edgewake makes networks only")
    if network.bridge and not network.create:
        report.add((*where, "bridge"), "has no meaning without 'create: true'")
    longest = 128 - (32 - subnet.prefixlen)
    if network.subnet6 and not 64 <= network.subnet6.prefixlen <= longest:
        report.add(
            (*where, "subnet6"),
            f"must be /64 to /{longest}, to have room for the host part of {subnet}",
        )


def _check_pools(hosts: tuple[Host, ...], report: Report) -> None:
    """Check that no address is in two pools."""
    ordered = sorted(hosts, key=lambda host: host.network.first)
    for before, host in pairwise(ordered):
        a, b = before.network, host.network
        if b.first <= a.last:
            line = report.line(("hosts", before.name, "network", "pool"))
            message = f"{b.first}-{b.last} overlaps the pool of host {before.name!r}"
            message = f"{message}, {a.first}-{a.last} in line {line}"
            report.add(("hosts", host.name, "network", "pool"), message)


def _check_shared_networks(hosts: tuple[Host, ...], report: Report) -> None:
    """Check that hosts of one libvirt describe a network alike and do not share a bridge."""
    networks: dict[tuple[str, str], Host] = {}
    bridges: dict[tuple[str, str], Host] = {}
    for host in hosts:
        network, where = host.network, ("hosts", host.name, "network")
        first = networks.setdefault((host.uri, network.name), host)
        if _shape(first.network) != _shape(network):
            line = report.line(("hosts", first.name, "network"))
            message = f"is not described as in host {first.name!r} (line {line})"
            report.add((*where, "name"), f"{message}, which has the same uri")
        first = bridges.setdefault((host.uri, network.bridge), host)
        if network.bridge and first.network.name != network.name:
            message = f"is also the bridge of {first.network.name!r}, of host {first.name!r}"
            report.add((*where, "bridge"), message)


def _shape(network: GuestNetwork) -> tuple[object, ...]:
    """Return all of a network but its pool."""
    return (
        network.subnet,
        network.gateway,
        network.create,
        network.bridge,
        network.subnet6,
        network.dhcp,
    )


def _check_graph(lab: Lab, report: Report) -> None:
    """Check that nodes have one name each, links two ends, and clients one population."""
    routers = {router.name for router in lab.routers}
    for host in lab.hosts:
        if host.name in routers:
            line = report.line(("routers", host.name))
            message = f"is also the name of a router (line {line}); links could mean either"
            report.add(("hosts", host.name), message)
    links: dict[frozenset[str], int] = {}
    for index, link in enumerate(lab.links):
        _check_link(index, link, links, report)
    subnets: dict[object, str] = {}
    for population in lab.populations:
        for index, subnet in enumerate(population.subnets):
            first = subnets.setdefault(subnet, population.name)
            if first != population.name:
                message = f"{subnet} already belongs to {first!r}; clients are in one population"
                report.add(("clients", population.name, "subnets", index), message)


def _check_link(index: int, link: Link, links: dict[frozenset[str], int], report: Report) -> None:
    where = ("links", index, "between")
    if link.a == link.b:
        report.add(where, f"joins {link.a!r} to itself")
    first = links.setdefault(frozenset({link.a, link.b}), index)
    if first != index:
        line = report.line(("links", first))
        report.add(where, f"{link.a} and {link.b} are joined already, in line {line}")


def _check_names(lab: Lab, report: Report) -> None:
    """Check that each DNS name is in the zone, short enough, and of one service only."""
    zone = lab.dns.zone
    owners: dict[str, Where] = {}
    for service in lab.services:
        for index, name in enumerate(service.names):
            where = ("services", service.name, "names", index)
            if name != zone and not name.endswith(f".{zone}"):
                report.add(where, f"{name} is not in the zone {zone}")
            if len(name) > LONGEST_DNS_NAME:
                message = f"is longer than {LONGEST_DNS_NAME} characters with the zone {zone}"
                report.add(where, message)
            first = owners.setdefault(name, where)
            if first != where:
                line = report.line(first)
                report.add(where, f"{name} is already a name of {first[1]!r}, in line {line}")


def _check_service(service: Service, lab: Lab, report: Report) -> None:
    where = ("services", service.name)
    longest = instance_name(lab.name, service.name, service.most - 1)
    if len(longest) > LONGEST_HOSTNAME:
        message = f"instances would be called {longest}, longer than {LONGEST_HOSTNAME} characters"
        report.add(where, f"{message}: shorten the name of the service or of the lab")
    if len(set(service.ports)) < len(service.ports):
        report.add((*where, "ports"), "has a port twice")
    if service.scale is not None and service.scale.most < service.replicas:
        message = f"must be at least `replicas`, the {service.replicas} that a wake boots"
        report.add((*where, "scale", "most"), message)
    if service.cpu_cap is not None and service.cpu_cap < service.resources.cpu:
        message = f"must be at least `cpu`, the {service.resources.cpu:g} cores it is promised"
        report.add((*where, "resources", "cpu_cap"), message)
    for host in sorted(service.constraints.hosts & service.constraints.avoid_hosts):
        report.add((*where, "constraints", "avoid_hosts"), f"{host!r} is also in 'hosts'")


def _check_public(services: list[Service], lab: Lab, report: Report) -> None:
    """Report public addresses that no guest can have, or that two services want all of."""
    taken: dict[Public, str] = {}
    for service in services:
        if service.public is None:
            continue
        where = ("services", service.name, "public")
        anonymous = [name for name in service.images if lab.image(name).anonymous]
        if anonymous:
            report.add(
                where,
                f"cannot be with image {anonymous[0]!r}: anonymous guests are not told of it",
            )
        first = taken.setdefault(service.public, service.name)
        if first != service.name:
            report.add(where, f"is the same as that of service {first!r}; give them other rules")


def _allowed(service: Service, lab: Lab) -> list[Host]:
    """Return the hosts that a service's constraints on hosts leave to it."""
    return [host for host in lab.hosts if service.constraints.allow(host)]


def _check_room(service: Service, lab: Lab, report: Report) -> None:
    """Check that there are as many hosts a service can run on as it has copies."""
    where, allowed = ("services", service.name), _allowed(service, lab)
    if not lab.hosts:
        report.add(where, "has no host to run on: the lab has no hosts")
        return
    if not allowed:
        has = "; ".join(f"{host.name}: {_labels(host)}" for host in lab.hosts)
        report.add((*where, "constraints"), f"leave no host for {service.name!r} (labels: {has})")
        return
    need = service.resources
    fitting = [host.name for host in allowed if _fits(host.taken_by(need), host.usable)]
    if not fitting:
        rooms = "; ".join(f"{host.name}: {_amount(host.usable)}" for host in allowed)
        message = f"{_amount(need)} for {service.name!r} fit on none of its hosts"
        if any(host.taken_by(need) != need for host in allowed):
            message = f"{message}, where the hypervisor takes more"
        report.add((*where, "resources"), f"{message} (capacity without reserve: {rooms})")
    elif service.most > len(fitting):
        short = service.replicas > len(fitting)
        copies = service.replicas if short else service.most
        message = f"{copies} copies of {service.name!r} need as many hosts (copies never"
        message = f"{message} share one), but it can run on {len(fitting)}: {', '.join(fitting)}"
        report.add((*where, *(("replicas",) if short else ("scale", "most"))), message)


def _check_probe(service: Service, lab: Lab, report: Report) -> None:
    """Check that a Xenstore key is waited for where there is a Xenstore."""
    allowed = _allowed(service, lab)
    if service.probe.kind is not ProbeKind.XENSTORE or not allowed:
        return
    if not any(traits_of(host).xenstore for host in allowed):
        uris = "; ".join(f"{host.name}: {host.uri}" for host in allowed)
        report.add(
            ("services", service.name, "ready", "xenstore"),
            f"needs a Xen host whose uri is xen:///system or xen+ssh, and there is none that "
            f"{service.name!r} may run on ({uris}); use another probe",
        )


def _fits(need: Capacity, room: Capacity) -> bool:
    return need.cpu <= room.cpu and need.memory_mib <= room.memory_mib


def _amount(capacity: Capacity) -> str:
    return f"{capacity.cpu:g} cores and {MEMORY.write(capacity.memory_mib)}"


def _labels(host: Host) -> str:
    return ", ".join(f"{key}={value}" for key, value in host.labels) or "none"


def _check_company(services: list[Service], lab: Lab, report: Report) -> None:
    """Check that who must be together or apart can be (as `placement.problem.Demand` means it)."""
    by_name = {service.name: service for service in services}
    for service in services:
        where = ("services", service.name, "constraints")
        for key in ("apart_from", "together_with"):
            if service.name in getattr(service.constraints, key):
                report.add((*where, key), "names the service itself; copies are apart anyway")
        for other in sorted(service.constraints.together_with & by_name.keys() - {service.name}):
            _check_together(service, by_name[other], lab, report)
        for other in sorted(service.constraints.apart_from & by_name.keys() - {service.name}):
            only = _only_host(service, lab)
            if only and only == _only_host(by_name[other], lab):
                message = f"{other!r} and {service.name!r} have the same single host to run on"
                report.add((*where, "apart_from"), message)
    _check_apart(by_name, report)


def _check_together(service: Service, other: Service, lab: Lab, report: Report) -> None:
    where = ("services", service.name, "constraints", "together_with")
    names = {host.name for host in _allowed(service, lab)}
    if names.isdisjoint(host.name for host in _allowed(other, lab)):
        report.add(where, f"no host is allowed for both {service.name!r} and {other.name!r}")
    if service.replicas > other.replicas:
        message = f"{service.replicas} copies cannot each be beside one of {other.name!r}"
        report.add(where, f"{message}, which has {other.replicas}")


def _check_apart(services: dict[str, Service], report: Report) -> None:
    """Check that nobody must be, also indirectly, beside two services that keep apart."""
    beside = _beside(services)
    for service in services.values():
        for other in sorted(service.constraints.apart_from & services.keys() - {service.name}):
            both = _reached(service.name, beside) & _reached(other, beside)
            if both:
                report.add(
                    ("services", service.name, "constraints", "apart_from"),
                    f"{other!r} and {service.name!r} must share a host by the 'together_with' of "
                    f"{min(both)!r}",
                )


def _beside(services: dict[str, Service]) -> dict[str, set[str]]:
    """Return, for each service, those that run only on hosts where it runs too."""
    beside: dict[str, set[str]] = {name: set() for name in services}
    for name, service in services.items():
        for other in service.constraints.together_with & services.keys():
            beside[other].add(name)
            if services[other].replicas == service.replicas:  # then both are on the same hosts
                beside[name].add(other)
    return beside


def _reached(start: str, steps: dict[str, set[str]]) -> set[str]:
    """Return everything that any number of steps leads to, the start included."""
    reached, ahead = {start}, [start]
    while ahead:
        new = steps[ahead.pop()] - reached
        reached |= new
        ahead += new
    return reached


def _only_host(service: Service, lab: Lab) -> str:
    allowed = _allowed(service, lab)
    return allowed[0].name if len(allowed) == 1 else ""
