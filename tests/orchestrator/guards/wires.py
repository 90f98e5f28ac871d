"""A guest and a client as network namespaces, with this machine as the router between them."""

import ctypes
import os
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import TypeVar

from orchestrator.guards.base import Guarded
from orchestrator.model import Capacity, GuestNetwork, Host, mac_of

Result = TypeVar("Result")

CLONE_NEWNET = 0x40000000  # linux/sched.h
_NETNS = Path("/run/netns")


def ip(words: str) -> None:
    """Run one `ip` command."""
    done = subprocess.run(["ip", *words.split()], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {words}: {done.stderr}"


def within(namespace: str, work: Callable[[], Result]) -> Future[Result]:
    """Have something done by a thread that lives in a namespace; its sockets stay there."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            if namespace:
                with (_NETNS / namespace).open() as entrance:
                    libc = ctypes.CDLL(None, use_errno=True)
                    assert libc.setns(entrance.fileno(), CLONE_NEWNET) == 0, os.strerror(
                        ctypes.get_errno()
                    )
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


@dataclass
class Wires:
    """Names and addresses of one rig; `number` makes its networks differ from those of others.

    The guest's address is not there until `up`, as if it were still booting.
    """

    number: int
    name: str = field(default_factory=lambda: f"ewt{uuid.uuid4().hex[:6]}")

    @property
    def guest(self) -> str:
        return f"{self.name}g"

    @property
    def client(self) -> str:
        return f"{self.name}c"

    @property
    def neighbour(self) -> str:
        return f"{self.name}n"

    @property
    def network(self) -> GuestNetwork:
        subnet = IPv4Network(f"10.{self.number}.1.0/24")
        return GuestNetwork(
            name=f"bridge:{self.name}",
            subnet=subnet,
            gateway=subnet[1],
            first=subnet[10],
            last=subnet[99],
            subnet6=IPv6Network(f"fd00:ed:{self.number}::/64"),
        )

    @property
    def host(self) -> Host:
        return Host("box", "qemu:///system", Capacity(1, 1024), self.network)

    def guarded(self, last: int = 10, **changes: object) -> Guarded:
        address = self.network.subnet[last]
        known = {"service": "web", "address": address, "mac": mac_of(address)}
        known["address6"] = self.network.address6(address)
        return Guarded(**{**known, **changes})  # type: ignore[arg-type]

    def up(self, last: int = 10) -> None:
        """Have the guest's card get the addresses of a guest."""
        guarded = self.guarded(last)
        ip(f"-n {self.guest} link set eth0 address {guarded.mac}")
        ip(f"-n {self.guest} addr add {guarded.address}/24 dev eth0")
        ip(f"-n {self.guest} addr add {guarded.address6}/64 dev eth0 nodad")
        ip(f"-n {self.guest} route replace default via {self.network.gateway}")
        ip(f"-n {self.guest} -6 route replace default via {self.network.address6(self.gateway)}")

    @property
    def gateway(self) -> IPv4Address:
        return self.network.gateway


@contextmanager
def wired(number: int, *, routed: bool = True) -> Iterator[Wires]:
    """Make a rig, and remove it; without `routed`, this machine has no address on the bridge."""
    wires = Wires(number)
    name = wires.name
    try:
        ip(f"link add {name} type bridge forward_delay 0 mcast_snooping 0")
        ip(f"link set {name} address {mac_of(wires.gateway)} up")
        if routed:
            ip(f"addr add {wires.gateway}/24 dev {name}")
            ip(f"addr add {wires.network.address6(wires.gateway)}/64 dev {name} nodad")
        for side in (wires.guest, wires.client, wires.neighbour):
            ip(f"netns add {side}")
            ip(f"link add {side} type veth peer name eth0 netns {side}")
            ip(f"link set {side} up")
            ip(f"-n {side} link set lo up")
            ip(f"-n {side} link set eth0 up")
        ip(f"link set {wires.guest} master {name}")
        ip(f"link set {wires.neighbour} master {name}")
        ip(f"-n {wires.neighbour} addr add {wires.network.subnet[200]}/24 dev eth0")
        ip(f"-n {wires.neighbour} addr add {wires.network.subnet6[200]}/64 dev eth0 nodad")  # type: ignore[index]
        ip(f"addr add 10.{number}.2.1/24 dev {wires.client}")
        ip(f"addr add fd00:ed:{number}:2::1/64 dev {wires.client} nodad")
        ip(f"-n {wires.client} addr add 10.{number}.2.2/24 dev eth0")
        ip(f"-n {wires.client} addr add fd00:ed:{number}:2::2/64 dev eth0 nodad")
        ip(f"-n {wires.client} route add default via 10.{number}.2.1")
        ip(f"-n {wires.client} -6 route add default via fd00:ed:{number}:2::1")
        yield wires
    finally:
        for side in (wires.guest, wires.client, wires.neighbour):
            subprocess.run(["ip", "link", "del", side], capture_output=True, check=False)
            subprocess.run(["ip", "netns", "del", side], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", name], capture_output=True, check=False)


def get(address: str, port: int = 80, timeout_s: float = 10.0) -> bytes:
    """Connect and return what is said; from the caller's namespace."""
    with socket.create_connection((address, port), timeout=timeout_s) as connection:
        return connection.recv(100)


class Server:
    """Says hello to each TCP client of a namespace, from `opens_after` seconds on until `stop`."""

    def __init__(self, namespace: str, *, opens_after: float = 0.0, page: bytes = b"hello") -> None:
        self._stop = threading.Event()
        self._listens = threading.Event()
        self._page = page
        self._served = within(namespace, lambda: self._run(opens_after))

    def wait_open(self) -> None:
        """Return when clients are taken."""
        assert self._listens.wait(10), "the server did not open"

    def stop(self) -> int:
        """End it, and return how many clients there were."""
        self._stop.set()
        return self._served.result(5)

    def _run(self, opens_after: float) -> int:
        served = 0
        self._stop.wait(opens_after)
        with socket.create_server(
            ("::", 80), family=socket.AF_INET6, dualstack_ipv6=True
        ) as server:
            server.settimeout(0.02)
            self._listens.set()
            while not self._stop.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.sendall(self._page)
                served += 1
        return served
