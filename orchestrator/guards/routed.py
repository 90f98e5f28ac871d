"""Guards the guests that this machine is the router for: packets to a sleeping one come to us.

While an address is guarded, a host route leads packets for it to a TUN device of ours instead of
the guests' network: forwarded ones, and those of this machine itself. The first is the reason to
wake; all wait here until the guest has answered its readiness probe, which goes by the network
itself (`device`). Then the route is taken back and they are sent on, with the addresses they came
with. An awake guest's packets never meet us: there is no route, no rule and no proxy left for it.

Why not the kernel's own queue of packets for a neighbour it does not know (``app_solicit``): that
queue empties at the first ARP packet of the guest, which is sent when its network is up and its
service is not, and at the first packet of a probe from this machine. What it held is then refused
(docs/traffic.md has the measurement).
"""

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from errno import ENETUNREACH
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from orchestrator.errors import CannotGuard
from orchestrator.guards import packets
from orchestrator.guards.base import Asked, Guarded, Listener, tell
from orchestrator.guards.held import HeldPackets
from orchestrator.guards.netlink import Address, Way, add_route, hint, remove_route, way_to
from orchestrator.guards.tun import Tun
from orchestrator.model import Host

log = logging.getLogger(__name__)

AT_ONCE = 512  # packets taken in before others have their turn; the kernel keeps 500 for us
NAP_S = 50e-6  # then, so that who waits for the lock gets it
LATE_S = 5.0  # a packet that was on its way to us when its address was released still goes on

_END, _GO_ON = b".", b"+"
_CONF4 = Path("/proc/sys/net/ipv4/conf")
_STRICT, _LOOSE = "1", "2"  # rp_filter (RFC 3704, ip-sysctl.rst)


class RoutedGuard:
    """Guards one host's guests by host routes to a TUN device.

    Making one raises `CannotGuard`: this machine is not the router of that network, or we may not
    change its routes.
    """

    how = "routed"

    def __init__(self, host: Host, listener: Listener) -> None:
        network = host.network
        self._host = host.name
        self._probe4 = network.subnet.broadcast_address
        self._probe6 = network.subnet6[-1] if network.subnet6 else None
        self._listener = listener
        self._lock = threading.RLock()
        self._guarded: dict[Address, Guarded] = {}
        self._routed: set[Address] = set()
        self._as_told: Sequence[Guarded] | None = None  # the list that all of this is true for
        self._pending: set[IPv4Address] = set()
        self._released: dict[Address, float] = {}
        self._held = HeldPackets()
        self._undo = ExitStack()
        with ExitStack() as failing:
            failing.callback(self._undo.close)
            self._open()
            failing.pop_all()

    def _open(self) -> None:
        try:
            self.device, self._source = self._network()
            self._index = socket.if_nametoindex(self.device)
            self._tun = self._new_tun()
            self._undo.callback(lambda: self._tun.close())  # noqa: PLW0108 - another one by then
            self._out = {version: self._raw(version) for version in self._source}
            self._ended, self._end = os.pipe()
            self._undo.callback(os.close, self._ended)
            self._undo.callback(os.close, self._end)
            self._loosen()
        except OSError as error:
            raise CannotGuard(
                f"{self._host}: traffic to its guests that sleep cannot be noticed: "
                f"{error.strerror or error}",
                hint="edgewake needs CAP_NET_ADMIN and CAP_NET_RAW, and /dev/net/tun",
            ) from error
        self._thread = threading.Thread(
            target=self._run, name=f"edgewake-guard-{self._host}", daemon=True
        )
        self._thread.start()

    # --- the seam -----------------------------------------------------------------------------

    def set(self, guarded: Sequence[Guarded]) -> None:
        """Guard exactly these."""
        try:
            with self._lock:
                self._set(guarded)
        except OSError as error:
            raise CannotGuard(
                f"{self._host}: its guests that sleep cannot be guarded: {error}",
                hint="see whether its network is there",
            ) from error

    def _set(self, guarded: Sequence[Guarded]) -> None:
        """Guard exactly these; the same list as the last time costs nothing."""
        is_new = self._network_is_new()
        if is_new:
            self._loosen()
        if not self._tun.is_up():
            self._renew_tun()
            is_new = True
        if not is_new and guarded is self._as_told:
            return
        self._as_told = None
        wanted = {address: each for each in guarded for address in each.addresses}
        for address in self._routed - wanted.keys():
            self._unroute(address)
        for gone in {each.address for each in self._guarded.values()} - wanted.keys():
            self._pending.discard(gone)
            self._held.take(gone)
        self._guarded = wanted
        for address in wanted.keys() - (frozenset() if is_new else self._routed):
            self._route(address)
        self._as_told = guarded

    def release(self, address: IPv4Address) -> None:
        """Let packets for an address go their way again, first those that were held."""
        asked: list[Asked] = []
        with self._lock:
            guarded = self._guarded.get(address)
            if guarded is None:
                return
            self._as_told = None
            now = time.monotonic()
            self._released = {each: at for each, at in self._released.items() if at > now}
            for each in guarded.addresses:
                self._released[each] = now + LATE_S
                try:
                    self._unroute(each)
                except OSError as error:  # the next `set` tries again
                    log.warning("%s: route to %s stays for now: %s", self._host, each, error)
                with suppress(OSError):  # its network is gone
                    hint(each, self._index, guarded.mac)  # or it is asked for, a second too late
            asked += self._drain()
            for each in guarded.addresses:
                self._guarded.pop(each, None)
            self._pending.discard(address)
            for packet in self._held.take(address):
                self._send_on(packet)
        tell(self._listener, asked)

    def refuse(self, address: IPv4Address) -> None:
        """Drop what is held, and go on guarding."""
        with self._lock:
            self._pending.discard(address)
            self._held.take(address)

    def close(self) -> None:
        """Take back the routes and the device."""
        with self._lock:
            self._guarded = {}
            self._routed.clear()
        if self._thread.is_alive():
            os.write(self._end, _END)
            if self._thread is not threading.current_thread():
                self._thread.join()
            self._undo.close()  # the kernel takes the routes back with the device

    # --- the network --------------------------------------------------------------------------

    def _network(self) -> tuple[str, dict[int, Address | None]]:
        """Return the interface of the guests' network, and our own addresses on it.

        Raises `CannotGuard` if this machine has no address there, so is not the guests' router.
        """
        try:
            way: Way | None = way_to(self._probe4)
        except OSError:
            way = None
        if way is None or way.gateway is not None or way.source is None:
            raise CannotGuard(
                f"{self._host}: this machine has no address on its guests' network, so their "
                "traffic does not pass through it",
                hint="give the bridge the network's gateway address",
            )
        sources: dict[int, Address | None] = {4: way.source}
        with suppress(OSError):
            if self._probe6 and (way6 := way_to(self._probe6)).interface == way.interface:
                sources[6] = way6.source
        return way.interface, sources

    def _network_is_new(self) -> bool:
        """Return whether the interface was made anew: our routes went with the old one."""
        device, sources = self._network()
        index = socket.if_nametoindex(device)
        if (device, index, sources) == (self.device, self._index, self._source):
            return False
        self.device, self._index, self._source = device, index, sources
        for version in sources.keys() - self._out.keys():
            self._out[version] = self._raw(version)
        return True

    def _new_tun(self) -> Tun:
        mtu = int(Path(f"/sys/class/net/{self.device}/mtu").read_text())
        return Tun(mtu, f"edgewake: guests of {self._host} that sleep")

    def _renew_tun(self) -> None:
        """Go on with another device: somebody removed ours, or switched it off, and its routes."""
        old, self._tun = self._tun, self._new_tun()
        log.warning("%s: %s was taken away; it is %s now", self._host, old.name, self._tun.name)
        old.close()
        os.write(self._end, _GO_ON)

    def _loosen(self) -> None:
        """Have what guests send accepted although the way back to them leads to us meanwhile."""
        if any(_filter(name) == _STRICT for name in (self.device, "all")):
            own = _CONF4 / self.device / "rp_filter"
            before = own.read_text().strip()
            own.write_text(_LOOSE)
            self._undo.callback(_put_back, own, before)

    def _route(self, address: Address) -> None:
        if address.version == 6 and 6 not in self._source:
            return  # this machine does not route their IPv6
        add_route(address, self._tun.index, self._source[address.version])
        self._routed.add(address)

    def _unroute(self, address: Address) -> None:
        if address in self._routed:
            remove_route(address, self._tun.index)
            self._routed.discard(address)

    def _raw(self, version: int) -> socket.socket:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._undo.callback(raw.close)
        return raw

    # --- packets ------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            poll = select.poll()  # anew each time, as the device may be
            poll.register(self._ended, select.POLLIN)
            if not self._tun.lost:
                poll.register(self._tun, select.POLLIN)
            if any(file == self._ended for file, _ in poll.poll()):
                if os.read(self._ended, 1) == _END:
                    return
                continue
            with self._lock:
                asked = self._drain()
            tell(self._listener, asked)
            time.sleep(NAP_S)

    def _drain(self) -> list[Asked]:
        """Take in the packets that are there, not all of a flood; return who is asked for."""
        asked = []
        for _ in range(AT_ONCE):
            if (packet := self._tun.read()) is None:
                break
            if found := self._take_in(packet, time.monotonic()):
                asked.append(found)
        return asked

    def _take_in(self, raw: bytes, now: float) -> Asked | None:
        packet = packets.read(raw)
        if packet is None:
            return None
        guarded = self._guarded.get(packet.target)
        if guarded is None:
            # While its route is there, it would only come to us again.
            if self._released.get(packet.target, 0.0) > now and packet.target not in self._routed:
                self._send_on(raw)
            return None
        pending = guarded.address in self._pending
        if not pending and not packets.wakes(packet, guarded):
            return None
        self._held.keep(guarded.address, raw)
        if pending:
            return None
        self._pending.add(guarded.address)
        return Asked(guarded, str(packet), now, packet.source)

    def _send_on(self, raw: bytes) -> None:
        """Send a packet as it came; the kernel finds the way, which is the network's by now."""
        version = raw[0] >> 4
        if version not in self._out:
            return
        to = IPv4Address(raw[16:20]) if version == 4 else IPv6Address(raw[24:40])
        try:
            self._out[version].sendto(raw, (str(to), 0))
        except OSError as error:
            level = logging.INFO if error.errno == ENETUNREACH else logging.WARNING
            log.log(level, "a packet held for %s could not be sent on: %s", to, error)


def _filter(name: str) -> str:
    return (_CONF4 / name / "rp_filter").read_text().strip()


def _put_back(setting: Path, before: str) -> None:
    with suppress(OSError):  # it went with its interface
        if setting.read_text().strip() == _LOOSE:
            setting.write_text(before)
