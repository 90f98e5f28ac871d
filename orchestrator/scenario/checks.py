"""What must be true after every event, whatever happened: pure, from what was wanted and is found.

Each check returns sentences about what is not so. Who joins whom is worked out here in another way
than routing does it, so that one can be wrong without the other.
"""

from collections.abc import Iterable, Iterator, Mapping

from orchestrator.network import AppState, Found, LinkEngine, Network, PortCounters, VirtualLink
from orchestrator.scenario.happenings import node_names

Port = tuple[str, str]


def differences(wanted: Network, found: Found) -> Iterator[str]:
    """Yield what is not there, not wanted, or other than wanted."""
    yield from _compared("router", {each.name for each in wanted.routers}, found.routers)
    yield from _compared("stub", {each.name for each in wanted.stubs}, found.stubs)
    there = {state.link.name: state.link for state in found.links}
    yield from _compared("link", {link.name for link in wanted.links}, there)
    for link in wanted.links:
        if link.name in there and there[link.name] != link:
            yield f"link {link.name} is {_told(there[link.name])}, wanted {_told(link)}"
    for state in found.links:
        if wanted.engine is LinkEngine.NONE and state.engine is not LinkEngine.NONE:
            yield f"link {state.link.name} is by {state.engine}, wanted {wanted.engine}"


def fallen(
    before: Iterable[PortCounters], now: Iterable[PortCounters], made: Iterable[str]
) -> Iterator[str]:
    """Yield the counters that count less than before; what has just been made counts from 0."""
    new = set(made)
    earlier = {(each.router, each.peer): each for each in before}
    for each in now:
        old = earlier.get((each.router, each.peer))
        if old is None or old == each or _names(each) & new:
            continue
        for key in ("rx_bytes", "rx_packets", "tx_bytes", "tx_packets", "drops"):
            if getattr(each, key) < getattr(old, key):
                yield (
                    f"{key} of {each.router} to {each.peer} fell from {getattr(old, key)} to "
                    f"{getattr(each, key)}"
                )


def orphans(wanted: Network, apps: Iterable[AppState]) -> Iterator[str]:
    """Yield the programs whose router is not there."""
    nodes = set(node_names(wanted))
    for state in apps:
        if state.app.router not in nodes:
            yield f"program {state.app.router}/{state.app.name} is there without its router"


def joined(network: Network) -> dict[str, int]:
    """Return which part of the network each router and stub is in: the same number, the same part.

    Parts are joined by the links that are up (union-find).
    """
    parent = {router.name: router.name for router in network.routers}

    def top(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for link in network.links:
        if link.up:
            parent[top(link.a)] = top(link.b)
    numbers: dict[str, int] = {}
    parts = {name: numbers.setdefault(top(name), len(numbers)) for name in parent}
    return {**parts, **{stub.name: parts[stub.router] for stub in network.stubs}}


def _names(port: PortCounters) -> set[str]:
    """Return what a port belongs to: its router, its stub or link, and the other end."""
    a, b = sorted((port.router, port.peer))
    return {a, b, f"{a}--{b}"}


def _compared(
    kind: str, wanted: set[str], found: Iterable[str] | Mapping[str, object]
) -> list[str]:
    there = set(found)
    return [
        *(f"{kind} {name} is not there" for name in sorted(wanted - there)),
        *(f"{kind} {name} is there, and not wanted" for name in sorted(there - wanted)),
    ]


def _told(link: VirtualLink) -> str:
    state = "up" if link.up else "down"
    quality = link.quality
    return (
        f"{state}, weight {link.weight:g}, {quality.latency_ms:g} ms ± {quality.jitter_ms:g}, "
        f"loss {quality.loss:g}, {quality.bandwidth_mbps} Mbit/s"
    )
