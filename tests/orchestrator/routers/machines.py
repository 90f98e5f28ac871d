"""Namespaces that stand for machines, and packets between routers, for tests of routers."""

import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from orchestrator.linux import namespaces
from orchestrator.linux.rtnetlink import Socket
from orchestrator.network import Network, Stub, VirtualRouter
from orchestrator.routers.names import namespace_of

NAME = f"t{os.getpid() % 10_000}"  # in the name of all that tests make
MACHINE = f"ewm-{NAME}"
PATIENCE_S, RETRY_S = 2.0, 0.1


def reaches(
    wanted: Network, origin: str, target: str, version: int = 4, patience_s: float = PATIENCE_S
) -> bool:
    """Send datagrams from one to the other, and then back; return whether some arrive."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    here, there = address_of(wanted, origin, version), address_of(wanted, target, version)
    with ExitStack() as held:
        ends = []
        for node, address in ((origin, here), (target, there)):
            made = namespaces.inside(
                namespace_of(wanted.name, node), partial(socket.socket, family, socket.SOCK_DGRAM)
            )
            ends.append(held.enter_context(made))
            made.bind((address, 0))
        return all(
            _arrives(sender, receiver, patience_s) for sender, receiver in (ends, ends[::-1])
        )


def _arrives(sender: socket.socket, receiver: socket.socket, patience_s: float) -> bool:
    """Send datagrams until one comes; return whether one did."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with suppress(OSError):  # no route
            sender.sendto(b"hello", receiver.getsockname())
        if select.select([receiver], [], [], RETRY_S)[0]:
            return True
    return False


def address_of(wanted: Network, node: str, version: int) -> str:
    """Return the address of a router, or of the people in a clients' stub."""
    nodes: dict[str, VirtualRouter | Stub] = {each.name: each for each in wanted.routers}
    nodes |= {each.name: each for each in wanted.stubs}
    found = nodes[node]
    if isinstance(found, Stub):
        gateway = found.gateway if version == 4 else found.gateway6
        assert gateway is not None
        return str(gateway + 1)
    return str(found.address if version == 4 else found.address6)


@contextmanager
def standing_for_a_machine(name: str) -> Iterator[None]:
    namespaces.make(name)
    try:
        ip(f"-n {name} link set lo up")
        yield
    finally:
        namespaces.remove(name)


def ip(line: str) -> str:
    """Run iproute2; no argument may have a blank."""
    done = subprocess.run(["ip", *line.split()], capture_output=True, text=True, check=True)
    return done.stdout


def what_there_is() -> tuple[set[str], set[tuple[str, bytes]], set[str]]:
    """Return what can be told from others': namespaces, the machine's devices, processes."""
    spaces = {name for name in namespaces.names() if NAME in name}
    with Socket(MACHINE) as kernel:
        devices = {(each.name, each.mac) for each in kernel.devices() if each.kind != "bridge"}
    processes = {
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if NAME.encode() in _read(path)
    }
    return spaces, devices, processes


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""
