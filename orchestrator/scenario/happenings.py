"""What can happen to a virtual network, as values, and what the network is afterwards.

Pure: `after` returns another network. A happening that makes no sense, such as a link that is there
already, is `Impossible`, with a sentence that says why.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from orchestrator.network import Network, Quality, VirtualLink, VirtualRouter


class Impossible(ValueError):  # noqa: N818 - reads as a sentence where it is raised
    """Something cannot happen to a network as it is."""


@dataclass(frozen=True, slots=True)
class AddRouter:
    """A router arrives, with links to others."""

    name: str
    address: IPv4Address
    address6: IPv6Address | None = None
    links: tuple[VirtualLink, ...] = ()


@dataclass(frozen=True, slots=True)
class RemoveRouter:
    """A router goes, and with it its links, stubs and programs."""

    name: str


@dataclass(frozen=True, slots=True)
class AddLink:
    """A link arrives."""

    link: VirtualLink


@dataclass(frozen=True, slots=True)
class RemoveLink:
    """A link goes."""

    a: str
    b: str


@dataclass(frozen=True, slots=True)
class SetLink:
    """A link goes down or up, or gets another weight or quality; None leaves what is."""

    a: str
    b: str
    up: bool | None = None
    weight: float | None = None
    quality: Quality | None = None


@dataclass(frozen=True, slots=True)
class StartApp:
    """A ready-made program is started; see `orchestrator.programs.catalogue`."""

    router: str
    name: str
    run: str
    parameters: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class StopApp:
    """A program is ended, and forgotten."""

    router: str
    name: str


@dataclass(frozen=True, slots=True)
class Request:
    """A client at one router or stub asks something of another: a packet there, and one back."""

    source: str
    target: str


Happening = AddRouter | RemoveRouter | AddLink | RemoveLink | SetLink | StartApp | StopApp | Request


@dataclass(frozen=True, slots=True)
class Event:
    """What happens, when (seconds after the start), and its place in the list, from 1 on."""

    number: int
    at_s: float
    what: Happening


def link_between(a: str, b: str, *, quality: Quality, weight: float = 1.0) -> VirtualLink:
    """Return a link whose ends are in the order that links have."""
    return VirtualLink(min(a, b), max(a, b), quality, weight)


def node_names(network: Network) -> list[str]:
    """Return the names of all that packets can come from: routers, then stubs."""
    return [router.name for router in network.routers] + [stub.name for stub in network.stubs]


def words(what: Happening) -> str:  # noqa: PLR0911 - one for each kind
    """Return a happening in the words of a scenario file."""
    match what:
        case AddRouter(name, _, _, links):
            peers = ", ".join(link.b if link.a == name else link.a for link in links)
            return f"add-router {name}" + (f" linked to {peers}" if peers else "")
        case RemoveRouter(name):
            return f"remove-router {name}"
        case AddLink(link):
            return f"add-link {link.name}"
        case RemoveLink(a, b):
            return f"remove-link {a}--{b}"
        case SetLink():
            return _link_words(what)
        case StartApp(router, name, run):
            return f"start-app {router}/{name}: {run}"
        case StopApp(router, name):
            return f"stop-app {router}/{name}"
        case Request(source, target):
            return f"request {source} to {target}"


def _link_words(what: SetLink) -> str:
    said = []
    if what.up is not None:
        said.append(f"link-{'up' if what.up else 'down'} {what.a}--{what.b}")
    if what.weight is not None:
        said.append(f"weight {what.a}--{what.b}: {what.weight:g}")
    if what.quality is not None:
        said.append(f"quality {what.a}--{what.b}")
    return ", ".join(said)


def after(network: Network, what: Happening) -> Network:
    """Return a network after something has happened to it; `Impossible` says why it cannot."""
    match what:
        case AddRouter():
            return _with_router(network, what)
        case RemoveRouter(name):
            _check_routers(network, (name,))
            return replace(
                network,
                routers=tuple(each for each in network.routers if each.name != name),
                links=tuple(each for each in network.links if name not in {each.a, each.b}),
                stubs=tuple(each for each in network.stubs if each.router != name),
            )
        case AddLink(link):
            return _with_links(network, (link,))
        case RemoveLink(a, b):
            gone = _link(network, a, b)
            return replace(network, links=tuple(each for each in network.links if each != gone))
        case SetLink():
            old = _link(network, what.a, what.b)
            new = _changed(old, what)
            links = tuple(new if each == old else each for each in network.links)
            return replace(network, links=links)
        case StartApp(node) | StopApp(node):
            _check_nodes(network, (node,))
        case Request(source, target):
            _check_nodes(network, (source, target))
    return network


def _with_router(network: Network, what: AddRouter) -> Network:
    for router in network.routers:
        if router.name == what.name:
            raise Impossible(f"there is a router {what.name} already")
        if router.address == what.address:
            raise Impossible(f"router {router.name} has the address {what.address} already")
    made = VirtualRouter(what.name, what.address, what.address6)
    return _with_links(replace(network, routers=(*network.routers, made)), what.links)


def _with_links(network: Network, links: tuple[VirtualLink, ...]) -> Network:
    there = {link.name for link in network.links}
    for link in links:
        _check_routers(network, (link.a, link.b))
        if link.a == link.b:
            raise Impossible(f"{link.a} cannot be linked to itself")
        if link.name in there:
            raise Impossible(f"there is a link {link.name} already")
        there.add(link.name)
    return replace(network, links=(*network.links, *links))


def _changed(link: VirtualLink, what: SetLink) -> VirtualLink:
    return replace(
        link,
        up=link.up if what.up is None else what.up,
        weight=link.weight if what.weight is None else what.weight,
        quality=link.quality if what.quality is None else what.quality,
    )


def _link(network: Network, a: str, b: str) -> VirtualLink:
    a, b = sorted((a, b))
    for link in network.links:
        if (link.a, link.b) == (a, b):
            return link
    raise Impossible(f"there is no link {a}--{b}")


def _check_routers(network: Network, names: Iterable[str]) -> None:
    _check(names, {router.name for router in network.routers}, "router")


def _check_nodes(network: Network, names: Iterable[str]) -> None:
    _check(names, set(node_names(network)), "router or stub")


def _check(names: Iterable[str], known: set[str], kind: str) -> None:
    for name in names:
        if name not in known:
            raise Impossible(f"there is no {kind} {name}")
