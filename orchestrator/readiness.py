"""Waits until a guest truly answers: by TCP, HTTP, ICMP, ARP, its console or a Xenstore key.

`wait` returns within a few milliseconds of the first answer, because it does not ask, wait and ask
again: attempts overlap. A fresh one starts every few milliseconds (`interval`), so one is always
about to arrive when the guest opens its door, and each lives long enough for an emulated guest to
answer it. Only a Xenstore key is not asked for: its watch says when it changes. One selector loop
in the caller's thread; no sleep is longer than `TICK_S`.
"""

import contextlib
import os
import re
import selectors
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from errno import ECONNREFUSED, ECONNRESET, EINPROGRESS
from ipaddress import IPv4Address, IPv6Address
from math import inf
from typing import Protocol

from orchestrator import console_pattern, neighbours
from orchestrator.errors import HostUnreachable, HypervisorError
from orchestrator.hypervisors.base import KeyWatch
from orchestrator.model import Probe, ProbeKind
from orchestrator.neighbours import ArpSocket

TICK_S = 0.010
LEAST_INTERVAL_S = 0.005
MOST_INTERVAL_S = 0.020  # how late an answer may be noticed
AGAIN_S = 0.005  # after a refusal: the guest is up, only its server is not there yet
NO_ROUTE_S = 0.1  # after an error of our own side
CALL_S = 0.2  # between two broadcasts for a guest that has moved
WATCH_AGAIN_S = 0.2  # after a watch that its host had no time for
HINT_S = 3.0  # the kernel gives up on a neighbour that stays silent for 5 s (arp(7))
SHORT_S = 0.2  # life of most attempts
LONG_S = 3.0  # life of every `LONG_EACH`-th: a slow guest's answer may take longer to come
LONG_EACH = 16
PATIENCE_S = 0.5  # with a request that was taken and not answered; doubles each time
MOST_STATUS_LINE = 1024
MOST_SHOWN = 100  # bytes of a key that is not what is wanted

_ECHO_REPLY, _ECHO_REQUEST = 0, 8


class NotAnswering(Exception):  # noqa: N818 - reads as a sentence where it is raised
    """The deadline passed, or the probe cannot be made; the text is what was last observed."""


class Cancelled(Exception):  # noqa: N818 - as above
    """The wait was called off; the text is the reason."""


def _no_keys(key: str) -> KeyWatch:
    raise NotAnswering(f"nobody can watch the Xenstore key {key} here")


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to ask.

    `console` returns what the guest has printed so far; `watch_key` is `Hypervisor.watch_key` of
    this guest. `moved` says that it may be at another place of its network than it was: it is asked
    for by broadcast, and its answer shows bridges on the way where it is now. `device`, unless
    empty, is the interface to ask by, whatever the routes say (`orchestrator.guards`).
    """

    address: IPv4Address
    address6: IPv6Address | None
    mac: str
    console: Callable[[], bytes]
    watch_key: Callable[[str], KeyWatch] = _no_keys
    moved: bool = False
    device: str = ""


def interval(waited: float) -> float:
    """Return the seconds between two attempts after having waited so long: 1 % of it, in bounds.

    A unikernel that boots in 0.2 s is noticed at once, and twenty slow guests are not slowed
    further by those who wait for them.
    """
    return min(MOST_INTERVAL_S, max(LEAST_INTERVAL_S, waited / 100))


class _Prober(Protocol):
    """One way of asking. `last` is what was last observed, in words."""

    last: str
    due: float  # when to ask next, in monotonic seconds

    def launch(self, now: float, pace: float) -> bool:
        """Ask, and ask again after `pace` seconds; True if the guest has answered."""
        ...

    def answered(self, key: selectors.SelectorKey) -> bool:
        """Take what has arrived; True if it is the answer."""
        ...


def wait(
    probe: Probe,
    target: Target,
    *,
    deadline: float,
    cancelled: Callable[[], str | None],
) -> None:
    """Return as soon as the guest answers the probe.

    `deadline` is monotonic seconds; `cancelled` is asked all the time and returns a reason to stop
    waiting, such as the guest's death. Raises `NotAnswering` or `Cancelled`, nothing else.
    """
    with contextlib.ExitStack() as closing:
        selector = closing.enter_context(selectors.DefaultSelector())
        closing.callback(_close_all, selector)
        prober = _prober(probe, target, selector, closing)
        began = now = time.monotonic()
        next_hint = now
        while now < deadline:
            if reason := cancelled():
                raise Cancelled(reason)
            if now >= next_hint and probe.kind not in _OFF_NETWORK:
                neighbours.hint(target.address, target.mac, target.device)
                next_hint = now + HINT_S
                if target.moved and neighbours.call(target.address):
                    next_hint = now + CALL_S
            if now >= prober.due and prober.launch(now, interval(now - began)):
                return
            timeout = min(TICK_S, deadline - now, max(0.0, prober.due - now))
            if any(prober.answered(key) for key in _arrived(selector, timeout)):
                return
            now = time.monotonic()
        raise NotAnswering(prober.last)


def _arrived(selector: selectors.BaseSelector, timeout: float) -> list[selectors.SelectorKey]:
    return [key for key, _ in selector.select(timeout)]


def _close_all(selector: selectors.BaseSelector) -> None:
    for key in list((selector.get_map() or {}).values()):
        if isinstance(key.fileobj, socket.socket):
            key.fileobj.close()


def _prober(
    probe: Probe,
    target: Target,
    selector: selectors.BaseSelector,
    closing: contextlib.ExitStack,
) -> _Prober:
    match probe.kind:
        case ProbeKind.TCP:
            return _Connections(selector, target, probe)
        case ProbeKind.HTTP:
            return _Requests(selector, target, probe)
        case ProbeKind.ICMP:
            return _Pings(selector, target)
        case ProbeKind.ARP:
            return _ArpRequests(selector, target.address)
        case ProbeKind.CONSOLE:
            return _Console(target.console, probe.pattern)
        case ProbeKind.XENSTORE:
            return _Key(target.watch_key, probe, selector, closing)


# --- TCP and HTTP -----------------------------------------------------------------------------


@dataclass(slots=True)
class _Attempt:
    """One connection. `reply` is what has been read of the answer; None before it is connected."""

    dies_at: float
    reply: bytearray | None = None


class _Connections:
    """TCP: the guest has answered when one of many overlapping connections is made."""

    def __init__(self, selector: selectors.BaseSelector, target: Target, probe: Probe) -> None:
        self.last = "no answer to SYN"
        self._selector = selector
        self._to = (str(target.address), probe.port)
        self._device = target.device
        self.due = 0.0
        self._started = 0

    def launch(self, now: float, pace: float) -> bool:
        for key in list(self._selector.get_map().values()):
            if key.data.dies_at <= now:
                self._drop(key)
        self.due = now + pace
        self._connect(now)
        return False

    def answered(self, key: selectors.SelectorKey) -> bool:
        error = _socket(key).getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._failed(key, error)
        return not error

    def _connect(self, now: float) -> None:
        self._started += 1
        life = LONG_S if self._started % LONG_EACH == 1 else SHORT_S
        try:
            attempt = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            _bind(attempt, self._device)
        except OSError as none_left:
            self.last = in_words(none_left.errno or 0)
            self._again(NO_ROUTE_S)
            return
        error = attempt.connect_ex(self._to)
        key = self._selector.register(attempt, selectors.EVENT_WRITE, _Attempt(now + life))
        if error not in (0, EINPROGRESS):
            self._failed(key, error)

    def _failed(self, key: selectors.SelectorKey, error: int) -> None:
        self._drop(key)
        self.last = in_words(error)
        self._again(AGAIN_S if error in _REFUSALS else NO_ROUTE_S)

    def _again(self, after: float) -> None:
        self.due = time.monotonic() + after

    def _drop(self, key: selectors.SelectorKey) -> None:
        self._selector.unregister(key.fileobj)
        _socket(key).close()


class _Requests(_Connections):
    """HTTP: the guest has answered when a GET gets the wanted status.

    The first connection that is made carries a request and ends the attempts beside it; the next
    ones are started only when it has been silent for a while, then for twice as long, so that a
    guest which thinks about its first answer is not flooded.
    """

    def __init__(self, selector: selectors.BaseSelector, target: Target, probe: Probe) -> None:
        super().__init__(selector, target, probe)
        self._status = probe.status
        self._patience = PATIENCE_S
        self._heard = False  # what it said once tells more than that it says nothing just now
        self._request = (
            f"GET {probe.path} HTTP/1.1\r\nHost: {target.address}\r\n"
            "Connection: close\r\n\r\n".encode()
        )

    def answered(self, key: selectors.SelectorKey) -> bool:
        if _socket(key).fileno() < 0:
            return False  # dropped a moment ago, for another one that came in the same tick
        if key.data.reply is not None:
            return self._read(key)
        if super().answered(key):
            self._ask(key)
        return False

    def _ask(self, key: selectors.SelectorKey) -> None:
        try:
            _socket(key).send(self._request)  # a fresh connection has room for it
        except OSError as error:
            self._failed(key, error.errno or 0)
            return
        if not self._heard:
            self.last = "connected, no answer to the request"
        self._selector.modify(key.fileobj, selectors.EVENT_READ, _Attempt(inf, bytearray()))
        for other in list(self._selector.get_map().values()):
            if other.data.reply is None:
                self._drop(other)
        self._again(self._patience)
        self._patience *= 2

    def _read(self, key: selectors.SelectorKey) -> bool:
        reply = key.data.reply
        try:
            received = _socket(key).recv(MOST_STATUS_LINE)
        except BlockingIOError:
            return False
        except OSError as error:
            self._failed(key, error.errno or 0)
            return False
        reply += received
        if received and b"\n" not in reply and len(reply) < MOST_STATUS_LINE:
            return False
        self._drop(key)
        status = status_of(bytes(reply))
        if status != self._status:
            self._heard = True
            self.last = f"HTTP status {status}" if status else "closed without an HTTP answer"
            self._again(AGAIN_S)
        return status == self._status


def status_of(reply: bytes) -> int | None:
    """Return the status code of an HTTP/1.x reply (RFC 9112, section 4), None if it is not one."""
    match = re.match(rb"HTTP/1\.\d (\d{3})(?:[ \r\n]|$)", reply)
    return int(match[1]) if match else None


# --- ICMP, ARP, console, Xenstore -------------------------------------------------------------


class _Pings:
    """ICMP: the guest has answered when an echo reply to us comes from its address."""

    def __init__(self, selector: selectors.BaseSelector, target: Target) -> None:
        self.last = "no echo reply"
        self._to = str(target.address)
        self.due = 0.0
        self._sequence = 0
        self._number = int.from_bytes(os.urandom(2))
        self._socket = _icmp_socket()
        try:
            _bind(self._socket, target.device)
        except OSError as error:
            raise NotAnswering(in_words(error.errno or 0)) from error
        selector.register(self._socket, selectors.EVENT_READ)

    def launch(self, now: float, pace: float) -> bool:
        self.due = now + pace
        self._sequence = (self._sequence + 1) & 0xFFFF
        try:
            self._socket.sendto(echo_request(self._number, self._sequence), (self._to, 0))
        except OSError as error:
            self.last = in_words(error.errno or 0)
            self.due = now + NO_ROUTE_S
        return False

    def answered(self, key: selectors.SelectorKey) -> bool:  # noqa: ARG002 - there is one socket
        try:
            packet, sender = self._socket.recvfrom(2048)
        except OSError as error:
            self.last = in_words(error.errno or 0)
            return False
        if sender[0] != self._to or not packet:
            return False
        if self._socket.type == socket.SOCK_DGRAM:
            return packet[0] == _ECHO_REPLY  # the kernel gives us replies to our own number only
        message = packet[(packet[0] & 15) * 4 :]  # a raw socket shows the IP header as well
        return message[:2] == bytes((_ECHO_REPLY, 0)) and message[4:6] == self._number.to_bytes(2)


def _icmp_socket() -> socket.socket:
    """Return a ping socket if our group may have one, else a raw one, which sees all ICMP."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            return socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)
        except PermissionError:
            continue
        except OSError as error:
            raise NotAnswering(in_words(error.errno or 0)) from error
    raise NotAnswering(
        "an ICMP probe needs root, CAP_NET_RAW, or our group in net.ipv4.ping_group_range"
    )


def echo_request(number: int, sequence: int) -> bytes:
    """Return an ICMP echo request (RFC 792) with its checksum (RFC 1071)."""
    total = (_ECHO_REQUEST << 8) + number + sequence
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!BBHHH", _ECHO_REQUEST, 0, ~total & 0xFFFF, number, sequence)


class _ArpRequests:
    """ARP: the guest has answered when any ARP packet gives its address as the sender's."""

    def __init__(self, selector: selectors.BaseSelector, to: IPv4Address) -> None:
        self.last = "no ARP reply"
        self._to = to
        self._selector = selector
        self.due = 0.0
        self._arp: ArpSocket | None = None

    def launch(self, now: float, pace: float) -> bool:
        self.due = now + pace
        try:
            if self._arp is None:
                self._arp = ArpSocket(self._to)
                self._selector.register(self._arp.socket, selectors.EVENT_READ)
            self._arp.ask()
        except PermissionError:
            raise NotAnswering("an ARP probe needs root or CAP_NET_RAW") from None
        except OSError as error:
            self.last = error.strerror or in_words(error.errno or 0)
            self.due = now + NO_ROUTE_S
        return False

    def answered(self, key: selectors.SelectorKey) -> bool:  # noqa: ARG002 - there is one socket
        return self._arp is not None and self._arp.heard()


class _Console:
    """Console: the guest has answered when a pattern is found in what it printed."""

    def __init__(self, console: Callable[[], bytes], pattern: str) -> None:
        self.last = f"no {pattern!r} on the console"
        self.due = 0.0
        self._console = console
        self._pattern = pattern
        try:
            console_pattern.check(pattern)
        except console_pattern.NotAPattern as error:
            raise NotAnswering(str(error)) from error

    def launch(self, now: float, pace: float) -> bool:
        self.due = now + pace
        return console_pattern.found(self._pattern, self._console())

    def answered(self, key: selectors.SelectorKey) -> bool:  # noqa: ARG002 - nothing is selected
        return False


class _Key:
    """Xenstore: the guest has answered when a key is there, and holds what is wanted."""

    def __init__(
        self,
        watch_key: Callable[[str], KeyWatch],
        probe: Probe,
        selector: selectors.BaseSelector,
        closing: contextlib.ExitStack,
    ) -> None:
        self.last = f"no {probe.key} in its Xenstore"
        self.due = 0.0
        self._probe = probe
        self._watch_key = watch_key
        self._selector = selector
        self._watch: KeyWatch | None = None
        closing.callback(self._close)
        try:
            console_pattern.check(probe.pattern)
        except console_pattern.NotAPattern as error:
            raise NotAnswering(str(error)) from error
        self._begin()

    def _begin(self) -> None:
        try:
            self._watch = self._watch_key(self._probe.key)
        except HypervisorError as error:
            raise NotAnswering(str(error)) from error
        self._selector.register(self._watch, selectors.EVENT_READ)

    def _close(self) -> None:
        if self._watch is not None:
            self._selector.unregister(self._watch)
            self._watch.close()
            self._watch = None

    def launch(self, now: float, pace: float) -> bool:  # noqa: ARG002 - the watch speaks by itself
        if self._watch is None:
            self._begin()
        self.due = inf
        return False

    def answered(self, key: selectors.SelectorKey) -> bool:  # noqa: ARG002 - there is one watch
        if self._watch is None:
            return False
        try:
            value = self._watch.value()
        except HostUnreachable as error:
            self.last = str(error)
            self._close()
            self.due = time.monotonic() + WATCH_AGAIN_S
            return False
        except HypervisorError as error:
            raise NotAnswering(str(error)) from error
        if value is None:
            self.last = f"no {self._probe.key} in its Xenstore"
            return False
        self.last = f"{self._probe.key} in its Xenstore is {_shown(value)}"
        return console_pattern.found(self._probe.pattern, value)


def _shown(value: bytes) -> str:
    return repr(value[:MOST_SHOWN].decode(errors="replace"))


_OFF_NETWORK = frozenset({ProbeKind.CONSOLE, ProbeKind.XENSTORE})
_REFUSALS = {ECONNREFUSED: "connection refused", ECONNRESET: "connection reset"}


def in_words(error: int) -> str:
    """Return an errno as an operator would say it."""
    return _REFUSALS.get(error) or os.strerror(error).lower()


def _bind(asking: socket.socket, device: str) -> None:
    """Have a socket send and hear by one interface, if one is named; else by any."""
    if device:
        try:
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        except OSError:
            asking.close()
            raise


def _socket(key: selectors.SelectorKey) -> socket.socket:
    if not isinstance(key.fileobj, socket.socket):
        raise TypeError("only sockets are registered")
    return key.fileobj
