"""Virtual networks as people and programs are shown them: tables, JSON documents, DOT.

For `orchestrator.cli_net`. Values in, text out; rich is imported by the functions that need it.
"""

# ruff: noqa: PLC0415 - see above

from collections.abc import Iterable, Sized
from dataclasses import asdict
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from orchestrator.network import Load, Network, Quality, VirtualLink
from orchestrator.networks import View
from orchestrator.routers.base import Done
from orchestrator.units import BANDWIDTH, MILLISECONDS, PERCENT

if TYPE_CHECKING:
    from rich.table import Table

Document = dict[str, Any]

UNKNOWN = Load()
ELSEWHERE = "elsewhere"  # a state: on another machine
QUALITY = ("latency_ms", "jitter_ms", "loss", "bandwidth_mbps")
MOST_NAMES = 20  # in one line of a summary


# --- words ----------------------------------------------------------------------------------------


def quality_told(quality: Quality) -> str:
    """Return what a link does to packets, such as ``6 ms ± 2 ms, 0.5 % loss, 1 Gbit/s``."""
    jitter = f" ± {MILLISECONDS.write(quality.jitter_ms)}" if quality.jitter_ms else ""
    told = [f"{MILLISECONDS.write(quality.latency_ms)}{jitter}"]
    if quality.loss:
        told.append(f"{PERCENT.write(round(quality.loss * 100, 9))} loss")
    if quality.bandwidth_mbps is not None:
        told.append(BANDWIDTH.write(quality.bandwidth_mbps))
    return ", ".join(told)


def changes_told(done: Done) -> list[str]:
    """Return what was changed, a line for each kind of change."""
    kinds = (("made", done.made), ("changed", done.changed), ("removed", done.removed))
    lines = [f"{kind:<8} {_some(names)}" for kind, names in kinds if names]
    if done.routes:
        lines.append(f"{'routes':<8} {done.routes}")
    return lines or ["nothing had to change"]


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def engines_told(view: View) -> list[str]:
    """Return which engine makes which links slow, a line for each engine."""
    by_engine: dict[str, list[str]] = {}
    for state in view.found.links:
        by_engine.setdefault(state.engine, []).append(state.link.name)
    return [f"{engine:<8} {_some(tuple(names))}" for engine, names in sorted(by_engine.items())]


def size_told(routers: Sized, links: Sized, stubs: Sized) -> str:
    """Return how large a network is, such as ``5 routers, 6 links, 1 stub``."""
    counts = ((len(routers), "router"), (len(links), "link"), (len(stubs), "stub"))
    return ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts)


def state_told(view: View, link: VirtualLink) -> str:
    """Return whether a link that is wanted is there, and carries packets."""
    there = {state.link.name: state.link for state in view.found.links}.get(link.name)
    if there is not None:
        return "up" if there.up else "down"
    machines = {each.name: each.machine for each in view.kept.network.routers}
    here = view.kept.machine in {machines[link.a], machines[link.b]}
    return "missing" if here else ELSEWHERE


# --- tables ---------------------------------------------------------------------------------------


def tables(network: Document) -> "Iterable[Table]":
    """Yield the tables of routers, links and stubs of what `document` or the API returns."""
    from rich.table import Table

    routers = Table("router", "IPv4", "IPv6", "machine", "state", box=None)
    for router in network["routers"]:
        state = f"on {router['machine']}" if router["state"] == ELSEWHERE else router["state"]
        addresses = (router["address"] or "", router["address6"] or "")
        routers.add_row(router["name"], *addresses, router["machine"], state)
    yield routers
    links = Table(
        "link", "quality", "weight", "engine", "state", "→ packets", "←", "lost", box=None
    )
    ports = {
        (router["name"], port["peer"]): port
        for router in network["routers"]
        for port in router["ports"]
    }
    for link in network["links"]:
        ends = ((link["a"], link["b"]), (link["b"], link["a"]))
        there, back = (ports.get(end) for end in ends)
        links.add_row(
            link["name"],
            quality_told(Quality(*(link[key] for key in QUALITY))),
            f"{link['weight']:g}",
            link["engine"] or "",
            link["state"],
            *(str(each["tx_packets"]) if each else "" for each in (there, back)),
            str(sum(each["drops"] for each in (there, back) if each)),
        )
    yield links
    if network["stubs"]:
        stubs = Table("stub", "router", "subnets", "there", "state", box=None)
        for stub in network["stubs"]:
            subnets = " ".join(filter(None, (stub["subnet"], stub["subnet6"])))
            stubs.add_row(stub["name"], stub["router"], subnets, _where(stub), stub["state"])
        yield stubs


def _where(stub: Document) -> str:
    if stub["bridge"]:
        return f"bridge {stub['bridge']}"
    return f"clients at {ip_address(stub['gateway']) + 1}"


def load_lines(load: Load) -> list[str]:
    """Return how busy a network is, a line for each link and router."""
    lines = []
    for name, link in sorted(load.links.items()):
        share = "" if link.share is None else f"{link.share:7.1%}"
        rates = f"{link.there_mbps:9.3f} →  ← {link.back_mbps:.3f} Mbit/s"
        lines.append(f"link   {name:<24} {share:>7} {rates}, {link.drops_per_s:.1f} lost/s")
    for name, router in sorted(load.routers.items()):
        rates = f"{router.rx_mbps:9.3f} in, {router.tx_mbps:.3f} out Mbit/s"
        lines.append(f"router {name:<24} {'':>7} {rates}, {router.cores:.2f} cores")
    return lines


# --- documents ------------------------------------------------------------------------------------


def document(view: View) -> Document:
    """Return a network and its state for programs, with the keys that the API's `/network` has."""
    network, here = view.kept.network, view.kept.machine
    machines = {each.name: each.machine for each in network.routers}
    found = {*view.found.routers, *view.found.stubs}

    def state(name: str, machine: str) -> str:
        if machine != here:
            return ELSEWHERE
        return "up" if name in found else "missing"

    return {
        "name": network.name,
        "machine": here,
        "routing": network.routing,
        "routers": [
            {
                "name": each.name,
                "address": str(each.address),
                "address6": None if each.address6 is None else str(each.address6),
                "machine": each.machine,
                "state": state(each.name, each.machine),
                "ports": [asdict(port) for port in view.counters if port.router == each.name],
            }
            for each in network.routers
        ],
        "links": [
            {
                "name": each.name,
                "a": each.a,
                "b": each.b,
                **asdict(each.quality),
                "weight": each.weight,
                "up": each.up,
                "engine": view.engine(each),
                "state": state_told(view, each),
            }
            for each in network.links
        ],
        "stubs": [
            {
                "name": each.name,
                "router": each.router,
                "kind": each.kind,
                "subnet": str(each.subnet),
                "gateway": str(each.gateway),
                "subnet6": None if each.subnet6 is None else str(each.subnet6),
                "gateway6": None if each.gateway6 is None else str(each.gateway6),
                "bridge": each.bridge,
                "state": state(each.name, machines[each.router]),
            }
            for each in network.stubs
        ],
    }


def dot(network: Network, load: Load = UNKNOWN) -> str:
    """Return a network as DOT, for Graphviz; links that are down are dotted.

    With `load`, links say which share of their bandwidth is used, and are the thicker for it.
    """
    lines = [f"  {_quoted(each.name)} [shape=circle];" for each in network.routers]
    for stub in network.stubs:
        shape = "box" if stub.bridge else "ellipse"
        lines.append(f"  {_quoted(stub.name)} [shape={shape}];")
        lines.append(f"  {_quoted(stub.router)} -- {_quoted(stub.name)};")
    for link in network.links:
        label = f"{quality_told(link.quality)}, weight {link.weight:g}"
        style = "" if link.up else ", style=dotted"
        busy = load.links.get(link.name)
        if busy is not None and busy.share is not None:
            label += f", {busy.share:.0%}"
            style += f", penwidth={1 + 4 * min(busy.share, 1):.1f}"
        ends = f"{_quoted(link.a)} -- {_quoted(link.b)}"
        lines.append(f"  {ends} [label={_quoted(label)}{style}];")
    return "\n".join((f"graph {_quoted(network.name)} {{", *lines, "}")) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
