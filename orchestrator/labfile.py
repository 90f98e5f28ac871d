"""The lab file: the YAML a user writes, checked from end to end and turned into a `Lab`.

`load_lab` is for `orchestrator.cli` and whoever else starts from a file; `lab_schema` is for
editors. Everything that is wrong is reported in one `LabError`, each with its line and key. What
each key may hold is in `orchestrator.lab_schema`; here is the reading, and the checks that need
more than one value. Whether image files exist is not asked: a wake says so.

The file is not trusted: it is bounded in size and depth, anchors and tags are refused, and every
scalar stays the text that was written, so that ``no`` is a name and ``1.10`` a version.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from orchestrator.errors import LabError
from orchestrator.lab_schema import (
    LONGEST_DNS_NAME,
    ImagePlaces,
    LabEntry,
    LabJsonSchema,
    shown,
    suggestion,
)
from orchestrator.model import (
    Capacity,
    GuestNetwork,
    Host,
    Lab,
    Link,
    Router,
    Service,
    instance_name,
)
from orchestrator.units import MEMORY, POWER

IMAGES_DIR = Path("/var/lib/edgewake/images")
LARGEST_FILE = 1 << 20  # bytes
DEEPEST = 16  # levels of nesting; the schema has 7
MOST_SHOWN = 50  # problems in one message
LONGEST_HOSTNAME = 63  # an instance's name is also its guest's: one DNS label, RFC 1035

Where = tuple[str | int, ...]
Data = str | list["Data"] | dict[str, "Data"]


def load_lab(path: Path, *, images_dir: Path = IMAGES_DIR) -> Lab:
    """Read a lab file; LabError says everything that is wrong with it."""
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise LabError(f"cannot be read: {error.strerror}", file=path) from error
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise LabError("is not UTF-8 text", file=path, line=line) from error
    return parse_lab(text, path, images_dir=images_dir)


def parse_lab(text: str, path: Path, *, images_dir: Path = IMAGES_DIR) -> Lab:
    """Return the lab that a text describes; LabError says everything that is wrong with it.

    `path` is named in messages, gives the lab its default name, and image files are relative to
    its folder; files written ``built:NAME/FILE`` are below `images_dir`.
    """
    report = _Report(path)
    data = _read(text, report)
    report.raise_if_any()
    entry = _validated(_with_defaults(data, path), report)
    broken = _check_references(entry, report)
    lab = _nouns(entry, ImagePlaces(path.parent, images_dir))
    _check(lab, broken, report)
    report.raise_if_any()
    return lab


def lab_schema() -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of a lab file, for editors."""
    schema = LabEntry.model_json_schema(schema_generator=LabJsonSchema)
    return {"$schema": LabJsonSchema.schema_dialect, **schema, "title": "edgewake lab file"}


@dataclass(slots=True)
class _Report:
    """What is wrong so far, and the line of each key."""

    path: Path
    lines: dict[Where, int] = field(default_factory=dict)
    found: set[tuple[int, str, str]] = field(default_factory=set)

    def add(self, where: Where, message: str, *, line: int | None = None) -> None:
        """Note a problem; one seen through several services that share a default counts once."""
        where = self.written_at(where)
        dotted = ".".join(part if _plain(part) else shown(part) for part in map(str, where))
        self.found.add((line or self.line(where), dotted, message))

    def line(self, where: Where) -> int:
        """Return the line of a key, or of the nearest key around it that is there."""
        where = self.written_at(where)
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines.get(where, 1)

    def raise_if_any(self) -> None:
        """Raise one LabError with every problem, in the order of the file."""
        if not self.found:
            return
        first, *rest = sorted(self.found)
        others = [
            str(LabError(m, file=self.path, line=n, field=f)) for n, f, m in rest[: MOST_SHOWN - 1]
        ]
        if len(rest) >= MOST_SHOWN:
            others.append(f"and {len(rest) + 1 - MOST_SHOWN} more")
        message = "\n".join([first[2], *others])
        raise LabError(message, file=self.path, line=first[0], field=first[1])

    def written_at(self, where: Where) -> Where:
        """Return where a key is written: in `defaults`, if a service has it from there."""
        inherited = ("defaults", *where[2:])
        if where[:1] == ("services",) and where[:3] not in self.lines and inherited in self.lines:
            return inherited
        return where


def _plain(part: str) -> bool:
    return part.isprintable() and 0 < len(part) <= 60


# --- from text to plain data ------------------------------------------------------------------

_NOT_TEXT = yaml.reader.Reader.NON_PRINTABLE.search  # what YAML forbids, but escapes can write


class _Composer(yaml.BaseLoader):
    """Parses YAML into nodes with line numbers; refuses what an untrusted file may abuse."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor:
            raise yaml.MarkedYAMLError(
                problem="anchors and aliases (&name, *name) are not supported: write it out, or "
                "use 'defaults'; text that starts with & or * needs quotes",
                problem_mark=event.start_mark,
            )
        if getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(
                problem="tags are not supported: text that starts with ! needs quotes",
                problem_mark=event.start_mark,
            )
        if self.depth == DEEPEST:
            raise yaml.MarkedYAMLError(
                problem=f"nested more than {DEEPEST} levels deep", problem_mark=event.start_mark
            )
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _read(text: str, report: _Report) -> dict[str, Data]:
    """Return the file's top mapping; problems below it are in the report."""
    if len(text.encode(errors="replace")) > LARGEST_FILE:
        raise LabError("is larger than 1 MiB", file=report.path)
    node = _composed(text, report.path)
    if node is None:
        raise LabError("is empty: a lab needs at least a zone", file=report.path, line=1)
    data = _data(node, (), report)
    if not isinstance(data, dict):
        line = node.start_mark.line + 1
        raise LabError("must be a mapping (key: value)", file=report.path, line=line)
    return data


def _composed(text: str, path: Path) -> yaml.Node | None:
    try:
        return _Composer(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        if "'\\t'" in problem:
            problem += " (indent with spaces, not tabs)"
        elif "cannot start any token" in problem:
            problem += " (put the text in quotes)"
        raise LabError(
            f"not valid YAML: {problem}", file=path, line=mark.line + 1 if mark else None
        ) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"the character U+{error.character:04X} is not allowed"
        raise LabError(problem, file=path, line=line) from error
    except (ValueError, OverflowError) as error:  # PyYAML on escapes and versions out of range
        raise LabError(f"not valid YAML: {error}", file=path) from error


def _data(node: yaml.Node, where: Where, report: _Report) -> Data:
    """Return a node as plain data, and note the line of everything in it."""
    report.lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, where, report)
    if isinstance(node, yaml.SequenceNode):
        return [_data(child, (*where, index), report) for index, child in enumerate(node.value)]
    return _scalar(node, where, report)


def _mapping(node: yaml.MappingNode, where: Where, report: _Report) -> dict[str, Data]:
    data: dict[str, Data] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or _NOT_TEXT(key_node.value):
            report.add(where, "a key must be a plain word", line=line)
            continue
        key: str = key_node.value
        here = (*where, key)
        if key in data:
            first = report.lines[here]
            report.add(here, f"is written twice; the first is in line {first}", line=line)
            continue
        report.lines[here] = line
        data[key] = _data(value_node, here, report)
    return data


def _scalar(node: yaml.Node, where: Where, report: _Report) -> str:
    text: str = node.value
    plain = isinstance(node, yaml.ScalarNode) and node.style is None
    if plain and text in {"", "~", "null"}:
        report.add(where, "has no value: give one, or remove the key")
    if _NOT_TEXT(text):
        report.add(where, f"{shown(text)} has characters that are not text")
    return text


def _with_defaults(data: dict[str, Data], path: Path) -> dict[str, Data]:
    """Return the data with a name, and with each service's missing keys from `defaults`."""
    data = {"name": path.stem.lower(), **data}
    defaults, services = data.get("defaults"), data.get("services")
    if isinstance(defaults, dict) and isinstance(services, dict):
        data["services"] = {
            name: {**defaults, **service} if isinstance(service, dict) else service
            for name, service in services.items()
        }
    return data


# --- from plain data to entries ---------------------------------------------------------------


def _validated(data: dict[str, Data], report: _Report) -> LabEntry:
    try:
        return LabEntry.model_validate(data)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            loc = tuple(part for part in details["loc"] if part != "[key]")
            where = report.written_at(loc)
            message = _message(where, details)
            if where == ("name",) and where not in report.lines:
                message += "; it is the file's name, because the file does not set 'name'"
            report.add(where, message)
        report.raise_if_any()
        raise


_MESSAGES = {
    "missing": "is missing, and required",
    "list_type": "must be a list, such as [a, b]",
    "too_short": "must have at least {min_length} in it",
    "too_long": "must have at most {max_length} in it",
    "dict_type": "must be a mapping (key: value)",
    "model_type": "must be a mapping (key: value)",
    "value_error": "{error}",
}


def _message(where: Where, details: ErrorDetails) -> str:
    """Return pydantic's message in our words."""
    if details["type"] == "extra_forbidden":
        return f"unknown key; {suggestion(str(where[-1]), _keys_at(where[:-1]))}"
    message = _MESSAGES.get(details["type"])
    return message.format_map(details.get("ctx", {})) if message else details["msg"]


def _keys_at(where: Where) -> list[str]:
    """Return the keys that the mapping at `where` may have."""
    kind: Any = LabEntry
    for part in where:
        if get_origin(kind) in {dict, list}:
            kind = _bare(get_args(kind)[-1])
        else:
            kind = _bare(kind.model_fields[part].annotation)
    return list(kind.model_fields)


def _bare(kind: Any) -> Any:
    """Return a type without its `Annotated` and without its `| None`."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    options = [option for option in get_args(kind) if option is not NoneType]
    return _bare(options[0]) if get_origin(kind) in {UnionType, Union} else kind


def _nouns(entry: LabEntry, places: ImagePlaces) -> Lab:
    zone = entry.zone
    return Lab(
        name=entry.name or "",
        dns=entry.dns.noun(zone),
        hosts=tuple(host.noun(name) for name, host in entry.hosts.items()),
        routers=tuple(Router(name, router.site) for name, router in entry.routers.items()),
        links=tuple(link.noun() for link in entry.links),
        populations=tuple(clients.noun(name) for name, clients in entry.clients.items()),
        images=tuple(image.noun(name, places) for name, image in entry.images.items()),
        services=tuple(service.noun(name, zone) for name, service in entry.services.items()),
    )


# --- checks that need more than one value -----------------------------------------------------


def _check_references(entry: LabEntry, report: _Report) -> set[str]:
    """Report each name that nothing has; return the services that have such names."""
    known = {
        "router": list(entry.routers),
        "host": list(entry.hosts),
        "router or host": [*entry.routers, *entry.hosts],
        "image": list(entry.images),
        "service": list(entry.services),
    }
    broken = set()
    for where, name, noun in _references(entry):
        if name not in known[noun]:
            report.add(where, f"unknown {noun} {name!r}; {suggestion(name, known[noun])}")
            broken.add(str(where[1]))
    return broken


def _references(entry: LabEntry) -> Iterator[tuple[Where, str, str]]:
    """Yield where each name of something else is written, the name, and what it should name."""
    for name, host in entry.hosts.items():
        if host.router is not None:
            yield ("hosts", name, "router"), host.router, "router"
    for index, link in enumerate(entry.links):
        for end, name in enumerate(link.between):
            yield ("links", index, "between", end), name, "router or host"
    for name, clients in entry.clients.items():
        yield ("clients", name, "router"), clients.router, "router"
    for name, service in entry.services.items():
        yield ("services", name, "image"), service.image, "image"
        for key, noun in _CONSTRAINTS:
            for index, other in enumerate(getattr(service.constraints, key)):
                yield ("services", name, "constraints", key, index), other, noun


_CONSTRAINTS = (
    ("hosts", "host"),
    ("avoid_hosts", "host"),
    ("apart_from", "service"),
    ("together_with", "service"),
)


def _check(lab: Lab, broken: set[str], report: _Report) -> None:
    """Report everything that does not go together; `broken` services are not looked at twice."""
    for host in lab.hosts:
        _check_host(host, report)
        _check_network(host.network, ("hosts", host.name, "network"), report)
    _check_pools(lab.hosts, report)
    _check_shared_networks(lab.hosts, report)
    _check_graph(lab, report)
    _check_names(lab, report)
    whole = [service for service in lab.services if service.name not in broken]
    for service in whole:
        _check_service(service, lab, report)
        _check_room(service, lab, report)
    _check_company(whole, lab, report)


def _check_host(host: Host, report: _Report) -> None:
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


def _check_network(network: GuestNetwork, where: Where, report: _Report) -> None:
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
    if network.bridge and not network.create:
        report.add((*where, "bridge"), "has no meaning without 'create: true'")
    longest = 128 - (32 - subnet.prefixlen)
    if network.subnet6 and not 64 <= network.subnet6.prefixlen <= longest:
        report.add(
            (*where, "subnet6"),
            f"must be /64 to /{longest}, to have room for the host part of {subnet}",
        )


def _check_pools(hosts: tuple[Host, ...], report: _Report) -> None:
    """Check that no address is in two pools."""
    ordered = sorted(hosts, key=lambda host: host.network.first)
    for before, host in pairwise(ordered):
        a, b = before.network, host.network
        if b.first <= a.last:
            line = report.line(("hosts", before.name, "network", "pool"))
            message = f"{b.first}-{b.last} overlaps the pool of host {before.name!r}"
            message = f"{message}, {a.first}-{a.last} in line {line}"
            report.add(("hosts", host.name, "network", "pool"), message)


def _check_shared_networks(hosts: tuple[Host, ...], report: _Report) -> None:
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
    )


def _check_graph(lab: Lab, report: _Report) -> None:
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


def _check_link(index: int, link: Link, links: dict[frozenset[str], int], report: _Report) -> None:
    where = ("links", index, "between")
    if link.a == link.b:
        report.add(where, f"joins {link.a!r} to itself")
    first = links.setdefault(frozenset({link.a, link.b}), index)
    if first != index:
        line = report.line(("links", first))
        report.add(where, f"{link.a} and {link.b} are joined already, in line {line}")


def _check_names(lab: Lab, report: _Report) -> None:
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


def _check_service(service: Service, lab: Lab, report: _Report) -> None:
    where = ("services", service.name)
    longest = instance_name(lab.name, service.name, service.replicas - 1)
    if len(longest) > LONGEST_HOSTNAME:
        message = f"instances would be called {longest}, longer than {LONGEST_HOSTNAME} characters"
        report.add(where, f"{message}: shorten the name of the service or of the lab")
    if len(set(service.ports)) < len(service.ports):
        report.add((*where, "ports"), "has a port twice")
    for host in sorted(service.constraints.hosts & service.constraints.avoid_hosts):
        report.add((*where, "constraints", "avoid_hosts"), f"{host!r} is also in 'hosts'")


def _allowed(service: Service, lab: Lab) -> list[Host]:
    """Return the hosts that a service's constraints on hosts leave to it."""
    wanted = service.constraints
    return [
        host
        for host in lab.hosts
        if (not wanted.hosts or host.name in wanted.hosts)
        and host.name not in wanted.avoid_hosts
        and set(wanted.labels) <= set(host.labels)
    ]


def _check_room(service: Service, lab: Lab, report: _Report) -> None:
    """Check that there are as many hosts a service can run on as it has copies."""
    where, allowed = ("services", service.name), _allowed(service, lab)
    if not lab.hosts:
        report.add(where, "has no host to run on: the lab has no hosts")
        return
    if not allowed:
        has = "; ".join(f"{host.name}: {_labels(host)}" for host in lab.hosts)
        report.add((*where, "constraints"), f"leave no host for {service.name!r} (labels: {has})")
        return
    fitting = [host.name for host in allowed if _fits(service.resources, host.usable)]
    if not fitting:
        rooms = "; ".join(f"{host.name}: {_amount(host.usable)}" for host in allowed)
        message = f"{_amount(service.resources)} for {service.name!r} fit on none of its hosts"
        report.add((*where, "resources"), f"{message} (capacity without reserve: {rooms})")
    elif service.replicas > len(fitting):
        message = f"{service.replicas} copies of {service.name!r} need as many hosts (copies never"
        message = f"{message} share one), but it can run on {len(fitting)}: {', '.join(fitting)}"
        report.add((*where, "replicas"), message)


def _fits(need: Capacity, room: Capacity) -> bool:
    return need.cpu <= room.cpu and need.memory_mib <= room.memory_mib


def _amount(capacity: Capacity) -> str:
    return f"{capacity.cpu:g} cores and {MEMORY.write(capacity.memory_mib)}"


def _labels(host: Host) -> str:
    return ", ".join(f"{key}={value}" for key, value in host.labels) or "none"


def _check_company(services: list[Service], lab: Lab, report: _Report) -> None:
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


def _check_together(service: Service, other: Service, lab: Lab, report: _Report) -> None:
    where = ("services", service.name, "constraints", "together_with")
    names = {host.name for host in _allowed(service, lab)}
    if names.isdisjoint(host.name for host in _allowed(other, lab)):
        report.add(where, f"no host is allowed for both {service.name!r} and {other.name!r}")
    if service.replicas > other.replicas:
        message = f"{service.replicas} copies cannot each be beside one of {other.name!r}"
        report.add(where, f"{message}, which has {other.replicas}")


def _check_apart(services: dict[str, Service], report: _Report) -> None:
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
