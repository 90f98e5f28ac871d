"""The packets of guests that are being woken: the first one of each, and the first for a client.

For the traces of wakes (`orchestrator.trace`), where a guest's network has a leg on this machine
and we may open packet sockets (CAP_NET_RAW); elsewhere the two stamps are absent. There is one
socket per network interface with wakes on it, and one thread for all. A filter in the kernel lets
only those guests through that are watched now, each for as long as its wake takes and `LINGER_S`
more; times are the kernel's.

A client's first byte is the first TCP or UDP packet with a payload that the guest sends on a
connection (or flow) that somebody opened after the guest had answered its readiness probe, so
our own probes do not count, and nothing that the guest begins by itself does.
"""

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from logging import getLogger

from orchestrator import neighbours, packet_filter
from orchestrator.model import MAC_PREFIX, GuestNetwork, Instance
from orchestrator.packet_filter import IF_EQUAL, JUMP, LOAD_HALF, LOAD_WORD, RETURN, Instruction
from orchestrator.trace import WakeTrace

log = getLogger(__name__)

LINGER_S = 2.0  # after the reply
LONGEST_S = 330.0  # of any watch; the longest deadline and what comes after it
TICK_S = 0.25  # how often watches that are over are looked for
AGAIN_S = 10.0  # how long it is believed where a network is, or that it is not here
MOST_WATCHED = 256  # guests per interface; a filter may have 4096 instructions (linux/bpf_common.h)
MOST_FLOWS = 256  # per guest
BATCH = 64  # packets of one interface before the others get their turn
SNAP_BYTES = 160  # Ethernet, IPv6 or IPv4 with options, TCP with options

_SO_TIMESTAMPNS = 35  # asm-generic/socket.h
_ETH_P_ALL = 0x0003
_ETHER = 14
_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_PREFIX = int.from_bytes(bytes(MAC_PREFIX), "big")
_TIMESPEC = struct.Struct("@ll")

WatchGuest = Callable[[GuestNetwork, Instance, WakeTrace], None]
Flow = tuple[int, bytes, int, int]  # protocol, the other's address and port, the guest's port


def watch_nobody(_network: GuestNetwork, _instance: Instance, _trace: WakeTrace) -> None:
    """Stand for a machine where no packets are looked at."""


# --- one packet -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP or UDP packet from or to a guest; `opens` if it begins a TCP connection."""

    from_guest: bool
    flow: Flow
    payload: int
    opens: bool


def segment_of(frame: bytes, *, from_guest: bool) -> Segment | None:
    """Return what an Ethernet frame carries; None if that is not one whole TCP or UDP header."""
    found = _transport(frame)
    if found is None:
        return None
    protocol, source, target, start, end = found
    header = frame[start : start + 20]
    if len(header) < (20 if protocol == socket.IPPROTO_TCP else 8):
        return None
    out, into = int.from_bytes(header[:2], "big"), int.from_bytes(header[2:4], "big")
    flow = (protocol, target, into, out) if from_guest else (protocol, source, out, into)
    if protocol == socket.IPPROTO_UDP:
        return Segment(from_guest, flow, end - start - 8, opens=False)
    opens = header[13] & 0x12 == 0x02  # SYN without ACK
    return Segment(from_guest, flow, end - start - (header[12] >> 4) * 4, opens)


def _transport(frame: bytes) -> tuple[int, bytes, bytes, int, int] | None:
    """Return protocol, source, target, and where its header starts and its payload ends."""
    kind, at = frame[12:14], _ETHER
    if kind == _IPV4 and len(frame) >= at + 20:
        start = at + (frame[at] & 15) * 4
        end = at + int.from_bytes(frame[at + 2 : at + 4], "big")
        later_fragment = int.from_bytes(frame[at + 6 : at + 8], "big") & 0x1FFF
        protocol, source, target = frame[at + 9], frame[at + 12 : at + 16], frame[at + 16 : at + 20]
        if later_fragment:
            return None
    elif kind == _IPV6 and len(frame) >= at + 40:
        start = at + 40
        end = start + int.from_bytes(frame[at + 4 : at + 6], "big")
        protocol, source, target = frame[at + 6], frame[at + 8 : at + 24], frame[at + 24 : at + 40]
    else:
        return None
    if protocol not in {socket.IPPROTO_TCP, socket.IPPROTO_UDP}:
        return None
    return protocol, source, target, start, end


# --- one guest ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Watch:
    """What is looked for in one guest's packets. `guest` is the last 32 bits of its MAC."""

    interface: str
    guest: int
    trace: WakeTrace
    since: float
    seen: bool = False
    begun: set[Flow] = field(default_factory=set)  # by clients, after the guest was ready
    own: set[Flow] = field(default_factory=set)  # by the guest itself
    done: bool = False

    def over(self, now: float) -> bool:
        """Say whether there is nothing left to look for."""
        replied_at = self.trace.at("reply")
        late = replied_at is not None and now > replied_at + LINGER_S
        failed = self.trace.outcome not in {"waking", "ready"}
        return self.done or late or failed or now > self.since + LONGEST_S

    def take(self, frame: bytes, at: float) -> None:
        """Look at one packet; `at` is its monotonic time."""
        from_guest = frame[6:12] == bytes(MAC_PREFIX) + self.guest.to_bytes(4, "big")
        if from_guest and not self.seen:
            self.seen = True
            self.trace.stamp("frame", at)
        ready_at = self.trace.at("answer")
        if ready_at is None or at < ready_at:
            return
        segment = segment_of(frame, from_guest=from_guest)
        if segment is not None and len(self.begun) + len(self.own) < MOST_FLOWS:
            self._follow(segment, at)

    def _follow(self, segment: Segment, at: float) -> None:
        udp = segment.flow[0] == socket.IPPROTO_UDP
        if not segment.from_guest:
            if segment.opens or (udp and segment.flow not in self.own):
                self.begun.add(segment.flow)
        elif segment.flow not in self.begun:
            self.own.add(segment.flow)
        elif segment.payload > 0:
            self.trace.stamp("client", at)
            self.done = True


# --- one interface --------------------------------------------------------------------------------


def filter_for(guests: Iterable[int]) -> tuple[Instruction, ...]:
    """Return the program that takes frames from and to these guests, and no others."""
    program: list[Instruction] = []
    for mac_at in (6, 0):  # source, destination
        match = [step for guest in guests for step in ((IF_EQUAL, 0, 1, guest), _TAKE)]
        program += [
            (LOAD_HALF, 0, 0, mac_at),
            (IF_EQUAL, 1, 0, _PREFIX),
            (JUMP, 0, 0, 1 + len(match)),
            (LOAD_WORD, 0, 0, mac_at + 2),
            *match,
        ]
    return (*program, (RETURN, 0, 0, 0))


_TAKE = (RETURN, 0, 0, SNAP_BYTES)


class _Ear:
    """A packet socket on one interface, open while somebody is watched there."""

    def __init__(self, interface: str) -> None:
        self.watches: dict[int, _Watch] = {}
        self.socket: socket.socket | None = None
        self._interface = interface

    def add(self, watch: _Watch) -> socket.socket | None:
        """Watch one guest more; return the socket if it was opened for it. Raises OSError."""
        before = [known for known in self.watches.values() if known.trace is watch.trace]
        for known in before:  # the same wake on another host of this network, or again
            del self.watches[known.guest]
        if len(self.watches) >= MOST_WATCHED:
            return None
        self.watches[watch.guest] = watch
        if self.socket is not None:
            self._refilter(self.socket)
            return None
        # Protocol 0 until it is bound: nothing comes in before the filter is there.
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        with contextlib.ExitStack() as failing:
            failing.callback(sock.close)
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._refilter(sock)
            sock.bind((self._interface, _ETH_P_ALL))
            failing.pop_all()
        self.socket = sock
        return sock

    def sweep(self, now: float) -> bool:
        """Let go of watches that are over; say whether any is left."""
        left = {guest: watch for guest, watch in self.watches.items() if not watch.over(now)}
        if len(left) < len(self.watches):
            self.watches = left
            if left and self.socket is not None:
                self._refilter(self.socket)
        return bool(left)

    def hear(self) -> None:
        """Take some of the packets that have come."""
        assert self.socket is not None  # noqa: S101 - it was readable
        for _ in range(BATCH):
            try:
                frame, notes, _, place = self.socket.recvmsg(SNAP_BYTES, socket.CMSG_SPACE(16))
            except BlockingIOError:
                return
            except OSError as error:  # such as ENETDOWN, told once when the interface goes
                log.debug("packets on %s: %s", self._interface, error)
                return
            at = _monotonic(notes)
            sent_here = place[2] == socket.PACKET_OUTGOING
            # In a guest's name, its guard answers questions (`guards.bridged`).
            for mac in (frame[:6],) if sent_here else (frame[6:12], frame[:6]):
                if watch := self.watches.get(int.from_bytes(mac[2:], "big")):
                    watch.take(frame, at)
                    break

    def close(self) -> None:
        """Close the socket."""
        if self.socket is not None:
            self.socket.close()

    def _refilter(self, sock: socket.socket) -> None:
        packet_filter.attach(sock, filter_for(self.watches))


def _monotonic(notes: list[tuple[int, int, bytes]]) -> float:
    """Return the monotonic time of a packet, from the kernel's note of when it came."""
    now = time.monotonic()
    for level, kind, data in notes:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            waited = time.time() - seconds - nanoseconds / 1e9
            return now - waited if 0 <= waited < TICK_S * 4 else now  # else the clock was set
    return now


# --- all of them ----------------------------------------------------------------------------------


class Frames:
    """Watches guests' packets. `watch` is a `WatchGuest`; it may be called from any thread."""

    def __init__(self) -> None:
        self.trouble = ""  # why nothing is watched at all
        self._new: deque[tuple[GuestNetwork, Instance, WakeTrace]] = deque()
        self._places: dict[IPv4Network, tuple[str, float]] = {}
        self._ears: dict[str, _Ear] = {}
        self._selector = selectors.DefaultSelector()
        self._bell, self._hand = socket.socketpair()
        self._bell.setblocking(False)
        self._hand.setblocking(False)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="edgewake-frames", daemon=True)

    def start(self) -> None:
        """Begin to listen for wakes."""
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._thread.start()

    def close(self) -> None:
        """Watch nobody any more."""
        self._closing = True
        self._ring()
        if self._thread.is_alive():
            self._thread.join()
        for ear in self._ears.values():
            ear.close()
        self._selector.close()
        self._bell.close()
        self._hand.close()

    def watch(self, network: GuestNetwork, instance: Instance, trace: WakeTrace) -> None:
        """Stamp ``frame`` and ``client`` on a wake, if its guest's packets can be seen from here.

        Returns at once: sockets are opened by our own thread, while the guest is being built.
        """
        interface, until = self._places.get(network.subnet, ("?", 0.0))
        if self.trouble or (not interface and time.monotonic() < until):
            return
        self._new.append((network, instance, trace))
        self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake; closed: nobody listens
            self._hand.send(b"\0")

    def _run(self) -> None:
        while not self._closing:
            try:
                for key, _ in self._selector.select(TICK_S if self._ears else None):
                    if key.data is None:
                        self._take_new()
                    else:
                        key.data.hear()
                self._sweep()
            except Exception:
                log.exception("packets could not be looked at; it goes on")
                time.sleep(TICK_S)

    def _take_new(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._bell.recv(4096)
        while self._new:
            network, instance, trace = self._new.popleft()
            interface = self._place(network.subnet, instance)
            if interface:
                guest = int.from_bytes(bytes.fromhex(instance.mac.replace(":", ""))[2:], "big")
                self._begin(_Watch(interface, guest, trace, time.monotonic()))

    def _place(self, subnet: IPv4Network, instance: Instance) -> str:
        """Return the interface of this machine that is on a network; empty if there is none."""
        now = time.monotonic()
        interface, until = self._places.get(subnet, ("", 0.0))
        if now >= until:
            interface = neighbours.interface_on(subnet, instance.address)
            self._places[subnet] = interface, now + AGAIN_S
        return interface

    def _begin(self, watch: _Watch) -> None:
        ear = self._ears.setdefault(watch.interface, _Ear(watch.interface))
        try:
            opened = ear.add(watch)
        except PermissionError:
            self.trouble = "packet sockets need root or the capability CAP_NET_RAW"
            log.info("guests' first packets are not stamped: %s", self.trouble)
        except OSError as error:
            log.debug("packets on %s cannot be seen: %s", watch.interface, error)
        else:
            if opened is not None:
                self._selector.register(opened, selectors.EVENT_READ, ear)
            return
        self._let_go(watch.interface)

    def _sweep(self) -> None:
        now = time.monotonic()
        for interface, ear in list(self._ears.items()):
            try:
                used = ear.sweep(now)
            except OSError as error:  # such as an interface that is gone
                log.debug("packets on %s are not looked at any more: %s", interface, error)
                used = False
            if not used:
                self._let_go(interface)

    def _let_go(self, interface: str) -> None:
        ear = self._ears.pop(interface)
        if ear.socket is not None:
            self._selector.unregister(ear.socket)
        ear.close()
