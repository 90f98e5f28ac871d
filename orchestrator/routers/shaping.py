"""What makes links slow, lossy or narrow: which engine can here, which to take, and the kernel's.

`probe` asks this machine once what it can do; `choose` takes the cheapest engine that does what a
link needs; `shape` gives a device the kernel's queueing disciplines, at its root and for what it
sends, so that a link needs it at both ends. `wires` has the user-space engine.

netem keeps packets in order only when it has a rate (net/sched/sch_netem.c, netem_enqueue), so it
gets one that nobody notices; its jitter is evenly spread when no table is given. The link's own
bandwidth is a token bucket behind it.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.errors import CannotNetwork
from orchestrator.linux import namespaces, taps
from orchestrator.network import LinkEngine, Quality, SliceShare
from orchestrator.routers import slicing
from orchestrator.routers.wire_schedule import burst_bytes, queue_bytes, rate_bytes

HELD_PACKETS = 30_000  # what netem may hold: 100 ms at 300,000 packets/s

_NETEM_HANDLE, _TBF_HANDLE = 0xED1_0000, 0xED2_0000  # how ours are known; minor 0, tc(8)
_ROOT = 0xFFFF_FFFF  # linux/pkt_sched.h TC_H_ROOT
_FIRST_CLASS = 1  # a netem has one class, ...:1
_MOST_RATE = 2**32 - 1  # bytes/s, of the attributes in 32 bits: 34 Gbit/s
_ORDER_RATE = 4_000_000_000  # bytes/s: 0.4 µs for a full frame
_TICK_NS = 64  # net/pkt_sched.h PSCHED_SHIFT
_NEW_QDISC = 36  # linux/rtnetlink.h RTM_NEWQDISC
_REQUEST_ACK, _CREATE_EXCL = 0x1 | 0x4, 0x400 | 0x200  # linux/netlink.h
_LOOPBACK = 1  # every namespace's lo

_ABLE = {
    LinkEngine.NONE: "",
    LinkEngine.SHAPER: "bandwidth",
    LinkEngine.NETEM: "bandwidth, latency, jitter and loss",
    LinkEngine.USER: "bandwidth, latency, jitter and loss",
}


@dataclass(frozen=True, slots=True)
class Netem:
    """The kernel's network emulator. Times in µs; `loss` of 2**32 - 1, `rate` in bytes/s."""

    delay_us: int
    jitter_us: int
    loss: int
    parent: int = _ROOT
    handle: int = _NETEM_HANDLE
    kind: str = "netem"

    def words(self) -> str:
        """Return the options as tc-netem(8) spells them."""
        loss = f" loss {self.loss / _MOST_RATE * 100:g}%" if self.loss else ""
        delay = f"delay {self.delay_us}us {self.jitter_us}us{loss}"
        return f"limit {HELD_PACKETS} {delay} rate {_ORDER_RATE}bps"


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """The kernel's token bucket filter: `rate` in bytes/s, `burst` and `limit` in bytes."""

    rate: int
    burst: int
    limit: int
    parent: int = _ROOT
    handle: int = _TBF_HANDLE
    kind: str = "tbf"

    def words(self) -> str:
        """Return the options as tc-tbf(8) spells them."""
        return f"rate {self.rate}bps burst {self.burst} limit {self.limit}"


@dataclass(frozen=True, slots=True)
class Shares:
    """The kernel's hierarchical token bucket; `slicing` puts classes into it."""

    parent: int = _ROOT
    handle: int = slicing.HANDLE
    kind: str = "htb"

    def words(self) -> str:
        """Return the options as tc-htb(8) spells them."""
        return f"default {slicing.REST:x}"


Qdisc = Netem | TokenBucket | Shares


def qdiscs(
    quality: Quality, engine: LinkEngine, slices: Sequence[SliceShare] = ()
) -> tuple[Qdisc, ...]:
    """Return what a device needs for a quality, the root first; () if it is not the kernel's."""
    if engine is LinkEngine.SHAPER or (slices and engine is not LinkEngine.NETEM):
        return _bucket(quality, _ROOT, slices)
    if engine is LinkEngine.NETEM:
        netem = Netem(
            delay_us=round(quality.latency_ms * 1000),
            jitter_us=round(quality.jitter_ms * 1000),
            loss=round(quality.loss * _MOST_RATE),
        )
        return (netem, *_bucket(quality, netem.handle | _FIRST_CLASS, slices))
    return ()


def tc_lines(device: str, wanted: tuple[Qdisc, ...]) -> list[str]:
    """Return what one would type after ``tc`` for the same effect."""
    return [
        f"qdisc replace dev {device} {_place(one.parent)} handle {one.handle >> 16:x}: "
        f"{one.kind} {one.words()}"
        for one in wanted
    ]


def shape(
    ip: Any,
    index: int,
    quality: Quality,
    engine: LinkEngine,
    slices: Sequence[SliceShare] = (),
) -> None:
    """Give a device what its link needs, through a pyroute2 `IPRoute` of its namespace.

    Where the link has a bandwidth, each of `slices` has its part of that, whatever the engine; see
    `left_to_wire`. What has the right kind already is changed,
    which loses no packets; removing one, or another engine, loses those that wait in it. Raises
    CannotNetwork, also if somebody else's discipline is at the device's root.
    """
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - 0.2 s, where needed

    try:
        _shape(ip, index, qdiscs(quality, engine, slices))
        if slices and quality.bandwidth_mbps is not None:
            slicing.share(ip, index, quality.bandwidth_mbps, slices)
    except NetlinkError as error:
        raise CannotNetwork(
            f"the kernel refuses {engine} on device {index}: {os.strerror(error.code)}",
            hint="leave the choice of the engine to edgewake",
        ) from error


def left_to_wire(quality: Quality, slices: Sequence[SliceShare]) -> Quality:
    """Return what the user-space engine does: not the bandwidth, where that is shared out here."""
    return replace(quality, bandwidth_mbps=None) if slices else quality


def probe() -> dict[LinkEngine, str]:
    """Try each engine in a namespace that nobody else sees; return why one cannot, or ""."""
    found = {LinkEngine.NONE: ""}
    for engine, attempt in _ATTEMPTS.items():
        try:
            namespaces.passing(attempt)
        except OSError as error:
            found[engine] = _reason(engine, error)
        else:
            found[engine] = ""
    return found


def choose(
    quality: Quality, forced: LinkEngine | None, engines: dict[LinkEngine, str]
) -> LinkEngine:
    """Return the engine for a link: the forced one, else the cheapest that is able and can here.

    Raises CannotNetwork when there is none, or the forced one does not do.
    """
    if forced is not None:
        return _checked(forced, quality, engines)
    able = _able(quality)
    for engine in able:
        if not engines.get(engine, "unknown"):
            return engine
    reasons = "; ".join(f"{engine}: {engines.get(engine, 'unknown')}" for engine in able)
    raise CannotNetwork(f"nothing here can make a link with {_wishes(quality)}: {reasons}")


# --- choosing ---------------------------------------------------------------------------------


def _able(quality: Quality) -> tuple[LinkEngine, ...]:
    """Return the engines that do what a quality asks, the cheapest first."""
    if quality.latency_ms or quality.jitter_ms or quality.loss:
        return LinkEngine.NETEM, LinkEngine.USER
    if quality.bandwidth_mbps is not None:
        return LinkEngine.SHAPER, LinkEngine.NETEM, LinkEngine.USER
    return LinkEngine.NONE, LinkEngine.SHAPER, LinkEngine.NETEM, LinkEngine.USER


def _checked(forced: LinkEngine, quality: Quality, engines: dict[LinkEngine, str]) -> LinkEngine:
    if forced not in _able(quality):
        others = " or ".join(_able(quality))
        raise CannotNetwork(
            f"link engine {forced} makes {_ABLE[forced] or 'nothing'}, "
            f"and a link has {_wishes(quality)}",
            hint=f"force {others}, or leave the choice to edgewake",
        )
    reason = engines.get(forced, "unknown")
    if reason:
        raise CannotNetwork(
            f"link engine {forced} is asked for and cannot be had here: {reason}",
            hint="leave the choice to edgewake, or mend that",
        )
    return forced


def _wishes(quality: Quality) -> str:
    asked = {
        "latency": quality.latency_ms,
        "jitter": quality.jitter_ms,
        "loss": quality.loss,
        "bandwidth": quality.bandwidth_mbps,
    }
    return ", ".join(name for name, value in asked.items() if value) or "no wishes"


# --- the kernel's -----------------------------------------------------------------------------


def _bucket(quality: Quality, parent: int, slices: Sequence[SliceShare]) -> tuple[Qdisc, ...]:
    mbps = quality.bandwidth_mbps
    if mbps is None:
        return ()
    if slices:
        return (Shares(parent),)
    rate = min(_MOST_RATE, max(1, round(rate_bytes(mbps))))
    return (TokenBucket(rate, burst_bytes(mbps), queue_bytes(mbps), parent),)


def _place(parent: int) -> str:
    return "root" if parent == _ROOT else f"parent {parent >> 16:x}:{parent & 0xFFFF:x}"


def _shape(ip: Any, index: int, wanted: tuple[Qdisc, ...]) -> None:
    there = {
        found["parent"]: found["handle"]
        for found in ip.get_qdiscs(index)
        if found["index"] == index and found["handle"] & 0xFFFF_0000  # 0: the kernel's default
    }
    root = there.get(_ROOT)
    if root not in (None, _NETEM_HANDLE, _TBF_HANDLE, slicing.HANDLE):
        raise CannotNetwork(
            f"device {index} has queueing discipline {root >> 16:x}: which is not edgewake's",
            hint="remove it (tc qdisc del), or let the link use another device",
        )
    if root is not None and (not wanted or wanted[0].handle != root):
        ip.tc("del", index=index, handle=root, parent=_ROOT)
        there = {}
    handles = {one.parent: one.handle for one in wanted}
    for parent in [parent for parent in there if there[parent] != handles.get(parent)]:
        ip.tc("del", index=index, handle=there[parent], parent=parent)
    for one in wanted:
        _put(ip, index, one, there=there.get(one.parent) == one.handle)


def _put(ip: Any, index: int, one: Qdisc, *, there: bool) -> None:
    if isinstance(one, TokenBucket):
        ip.tc(
            "change" if there else "add",
            one.kind,
            index=index,
            handle=one.handle,
            parent=one.parent,
            rate=f"{one.rate * 8}bit",
            burst=one.burst,
            limit=one.limit,
        )
    elif isinstance(one, Shares):
        if not there:
            ip.tc(
                "add",
                one.kind,
                index=index,
                handle=one.handle,
                parent=one.parent,
                default=slicing.REST,
            )
    else:
        ip.nlm_request_batch([netem_message(index, one, there=there)])


def netem_message(index: int, netem: Netem, *, there: bool) -> Any:
    """Return the RTM_NEWQDISC message that adds a netem, or changes the one there is.

    pyroute2 0.9 cannot make one with a rate: it sends the rate also as TCA_RATE, which the kernel
    refuses (ERANGE).
    """
    from pyroute2.netlink.rtnl.tcmsg import tcmsg  # noqa: PLC0415 - as above

    message = tcmsg()
    message["header"]["type"] = _NEW_QDISC
    message["header"]["flags"] = _REQUEST_ACK | (0 if there else _CREATE_EXCL)
    message["index"], message["handle"], message["parent"] = index, netem.handle, netem.parent
    rate = {"rate": _ORDER_RATE, "packet_overhead": 0, "cell_size": 0, "cell_overhead": 0}
    options = {
        "delay": netem.delay_us * 1000 // _TICK_NS,
        "limit": HELD_PACKETS,
        "loss": netem.loss,
        "gap": 0,
        "duplicate": 0,
        "jitter": netem.jitter_us * 1000 // _TICK_NS,
        "attrs": [["TCA_NETEM_RATE", rate]],
    }
    message["attrs"] = [["TCA_KIND", netem.kind], ["TCA_OPTIONS", options]]
    return message


# --- probing ----------------------------------------------------------------------------------


def _try_kernel(engine: LinkEngine) -> Callable[[], None]:
    quality = Quality(latency_ms=1.0 if engine is LinkEngine.NETEM else 0.0, bandwidth_mbps=1.0)

    def attempt() -> None:
        from pyroute2 import IPRoute  # noqa: PLC0415 - as above
        from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - as above

        try:
            with IPRoute() as ip:
                _shape(ip, _LOOPBACK, qdiscs(quality, engine))
        except NetlinkError as error:
            raise OSError(error.code, os.strerror(error.code)) from error

    return attempt


def _try_user() -> None:
    os.close(taps.make_passing("ewprobe0"))


_ATTEMPTS: dict[LinkEngine, Callable[[], None]] = {
    LinkEngine.SHAPER: _try_kernel(LinkEngine.SHAPER),
    LinkEngine.NETEM: _try_kernel(LinkEngine.NETEM),
    LinkEngine.USER: _try_user,
}
_MODULES = {
    LinkEngine.SHAPER: "sch_tbf",
    LinkEngine.NETEM: "sch_netem",
    LinkEngine.USER: "tun",
}


def _reason(engine: LinkEngine, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "no permission: run as root, or give edgewake CAP_NET_ADMIN and CAP_SYS_ADMIN"
    if isinstance(error, FileNotFoundError):
        what = taps.DEVICE if engine is LinkEngine.USER else "such discipline in this kernel"
        return f"there is no {what}; try `modprobe {_MODULES[engine]}`"
    return f"{error.strerror or error}"
