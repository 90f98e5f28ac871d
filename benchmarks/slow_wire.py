"""A network namespace at the end of a wire with latency, made without netem.

Two TAP devices are joined by a thread that hands each frame on when its time has come, so packets
are late but never lost. For benchmarks: the namespace is where clients are, this machine is their
router.

    with slow_wire("ewslow", 218, one_way_s=0.05) as wire:
        within(wire.namespace, lambda: ...)
"""

import fcntl
import heapq
import itertools
import os
import select
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.orchestrator.guards.wires import ip

_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_MOST_FRAME = 65_536


@dataclass(frozen=True, slots=True)
class Wire:
    """The namespace, this machine's address on the wire, and what a frame takes one way."""

    namespace: str
    address: str
    one_way_s: float


@contextmanager
def slow_wire(name: str, number: int, *, one_way_s: float) -> Iterator[Wire]:
    """Make a wire in 10.`number`.9.0/24, and remove it; each frame takes `one_way_s`."""
    near, far = f"{name}0", f"{name}1"
    with ExitStack() as undo:
        ip(f"netns add {name}")
        undo.callback(ip, f"netns del {name}")
        ends = [_tap(near), _tap(far)]
        for end in ends:
            undo.callback(os.close, end)
        ip(f"link set {far} netns {name} name eth0")
        ip(f"addr add 10.{number}.9.1/24 dev {near}")
        ip(f"link set {near} up")
        ip(f"-n {name} addr add 10.{number}.9.2/24 dev eth0")
        ip(f"-n {name} link set eth0 up")
        ip(f"-n {name} route add default via 10.{number}.9.1")
        Path(f"/proc/sys/net/ipv4/conf/{near}/forwarding").write_text("1")
        stop = threading.Event()
        relay = threading.Thread(target=_relay, args=(ends, one_way_s, stop), daemon=True)
        relay.start()
        undo.callback(relay.join)
        undo.callback(stop.set)
        yield Wire(name, f"10.{number}.9.1", one_way_s)


def _tap(name: str) -> int:
    """Return the file of a TAP device, made anew."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return tap


def _relay(ends: list[int], one_way_s: float, stop: threading.Event) -> None:
    """Hand each frame of one end to the other, `one_way_s` later."""
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    waiting: list[tuple[float, int, int, bytes]] = []
    numbers = itertools.count()  # frames of one moment keep their order
    while not stop.is_set():
        wait_s = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 0.1
        readable, _, _ = select.select(ends, [], [], min(wait_s, 0.1))
        for end in readable:
            frame = os.read(end, _MOST_FRAME)
            due = time.monotonic() + one_way_s
            heapq.heappush(waiting, (due, next(numbers), other[end], frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, end, frame = heapq.heappop(waiting)
            os.write(end, frame)
