"""What things of the virtual network are called in the kernel, and the marks they carry.

For back ends of namespaces, and for whoever looks into one. All is derived by rule from the names
of the lab, so nothing has to be remembered, and two machines agree on both ends of a link. Names
are kept as they are wherever the kernel takes them, for people who look with ``ip netns``.

A mark is a text that begins with ``edgewake:`` and a hash of whose it is. It is the alias of each
device of ours, and of `lo` in each namespace of ours.
"""

import hashlib
import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import quote, unquote

from orchestrator.linux.bridges import NAME_MAX
from orchestrator.network import LinkEngine, LinkState, Quality, VirtualLink

NAMESPACE_MAX = 60  # characters; it is a file's name, and people type it
OUR_MACS = b"\x02\xed\x9e"  # of local meaning (IEEE 802); a device has its MAC before its alias
ALIAS_MAX = 255  # bytes; linux/if.h IFALIASZ with its final NUL

IPAddress = IPv4Address | IPv6Address

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_TAKEN = {"lo", "all", "default"}  # devices or folders below /proc/sys/net/ipv4/conf
_ROUTER, _CLIENTS, _LINK, _STUB = "router", "clients", "link", "stub"


def namespace_of(network: str, node: str) -> str:
    """Return the namespace of a router or of a clients' stub."""
    return _fit(f"ew-{network}-{node}", NAMESPACE_MAX)


def device_to(peer: str) -> str:
    """Return the device by which a router reaches a neighbour or stub: its name, if that fits."""
    return _fit(peer, NAME_MAX) if peer not in _TAKEN else f"to-{peer}"


def port_of(mark: str, stub: str) -> str:
    """Return the device of a stub that is a port of a bridge of the machine."""
    return f"ewn{_hash(mark, stub)[: NAME_MAX - 3]}"


def mac_of(*parts: str) -> bytes:
    """Return a MAC address that begins like all of ours."""
    return OUR_MACS + bytes.fromhex(_hash(*parts))[:3]


def link_local(mac: bytes) -> IPv6Address:
    """Return the link-local address that the kernel makes of a MAC (RFC 4291, appendix A)."""
    halves = bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
    return IPv6Address(b"\xfe\x80" + bytes(6) + halves)


def tunnel_numbers(network: str, links: list[str]) -> dict[str, int]:
    """Return a number of 24 bits for each link that crosses machines, the same on all of them."""
    taken: dict[int, str] = {}
    for link in sorted(links):
        tries = 0
        while (number := int(_hash(network, link, str(tries))[:6], 16)) in taken:
            tries += 1
        taken[number] = link
    return {link: number for number, link in taken.items()}


# --- marks ----------------------------------------------------------------------------------------


def mark_of(owner: str, machine: str) -> str:
    """Return how every mark of an owner on a machine begins."""
    return f"edgewake:{_hash(owner, machine)[:12]}:"


def router_mark(mark: str, network: str, name: str) -> str:
    """Return the mark of a router's namespace."""
    return _joined(mark, _ROUTER, network, name)


def clients_mark(mark: str, network: str, name: str) -> str:
    """Return the mark of the namespace of a clients' stub."""
    return _joined(mark, _CLIENTS, network, name)


def node_marked(mark: str, alias: str) -> tuple[str, bool]:
    """Return the name in such a mark, and whether it is a router's; an empty one if it is none."""
    kind, *words = _split(mark, alias)
    if kind not in {_ROUTER, _CLIENTS} or len(words) != 2:
        return "", False
    return words[1], kind == _ROUTER


def link_mark(mark: str, state: LinkState) -> str:
    """Return the mark of both ends of a link: all that the kernel does not tell otherwise."""
    link, quality = state.link, state.link.quality
    numbers = (link.weight, quality.latency_ms, quality.jitter_ms, quality.loss)
    narrow = "" if quality.bandwidth_mbps is None else repr(float(quality.bandwidth_mbps))
    told = (repr(float(number)) for number in numbers)
    shares = _hash(*map(repr, link.slices))[:8] if link.slices else ""
    return _joined(mark, _LINK, link.a, link.b, *told, narrow, state.engine, shares)


def link_marked(mark: str, alias: str) -> LinkState | None:
    """Return what such a mark says, `up` and slices left open; None if it is not one of ours."""
    kind, *words = _split(mark, alias)
    if kind != _LINK or len(words) != 9:
        return None
    a, b, *numbers, narrow, engine, _shares = words
    weight, latency, jitter, loss = map(float, numbers)
    quality = Quality(latency, jitter, loss, float(narrow) if narrow else None)
    return LinkState(VirtualLink(a, b, quality, weight), LinkEngine(engine))


def is_sliced(alias: str) -> bool:
    """Return whether the mark of a link of ours says that it is shared out among slices."""
    return not alias.endswith(":")


def stub_mark(mark: str, name: str, gateways: tuple[IPAddress, ...]) -> str:
    """Return the mark of the devices by which a stub hangs on its router."""
    return _joined(mark, _STUB, name, *map(str, gateways))


def unsliced(alias: str) -> str:
    """Return the mark of a link of ours as if it were not shared out."""
    return f"{alias.rpartition(':')[0]}:"


def stub_marked(mark: str, alias: str) -> tuple[str, frozenset[bytes]]:
    """Return name and gateways of the stub in such a mark; an empty name if it is none."""
    kind, *words = _split(mark, alias)
    if kind != _STUB or not words:
        return "", frozenset()
    return words[0], frozenset(ip_address(word).packed for word in words[1:])


def _joined(mark: str, *words: str) -> str:
    return mark + ":".join(quote(word, safe="") for word in words)


def _split(mark: str, alias: str) -> list[str]:
    if not alias.startswith(mark):
        return [""]
    return [unquote(word) for word in alias.removeprefix(mark).split(":")]


def _fit(name: str, most: int) -> str:
    if len(name) <= most and _PLAIN.fullmatch(name):
        return name
    plain = re.sub(r"[^A-Za-z0-9_.-]", "-", name)[: most - 7]
    return f"{plain}-{_hash(name)[:6]}"


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
