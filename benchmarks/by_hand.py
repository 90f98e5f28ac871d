"""Guests started by hand: by the shortest QEMU command that a person would write.

What edgewake and libvirt are measured against.
"""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address

from images.bootspec import BootSpec
from images.inspect import Inspector
from orchestrator.library import Library, Place, boot_spec, traits_of
from orchestrator.model import Instance, InstanceState, Lab, mac_of

PATIENCE_S = 8.0
GET = b"GET / HTTP/1.0\r\nHost: bench\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot by hand: seconds from the start of QEMU to the first serial byte and answer."""

    serial_s: float
    answer_s: float


def command(spec: BootSpec, memory_mib: int, card: str, serial: str = "stdio") -> list[str]:
    """Return the shortest QEMU command that boots a guest with a network card."""
    initrd = ["-initrd", str(spec.initrd)] if spec.initrd else []
    return [
        *("qemu-system-x86_64", "-machine", spec.machine, "-m", str(memory_mib)),
        *("-nodefaults", "-display", "none", "-serial", serial, "-no-reboot"),
        *("-netdev", f"tap,id=n,ifname={card},script=no,downscript=no"),
        *("-device", f"virtio-net-pci,netdev=n,romfile=,mac={spec.nics[0].mac}"),
        *("-kernel", str(spec.kernel), *initrd, "-append", spec.cmdline),
    ]


def built_s(spec: BootSpec, memory_mib: int, card: str) -> float:
    """Return the seconds that QEMU takes until it could run a guest: it is built, and stands still.

    Raises `RuntimeError` if QEMU does not get so far.
    """
    began = time.monotonic()
    with subprocess.Popen(
        [*command(spec, memory_mib, card, "null"), "-S", "-qmp", "stdio"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None  # noqa: S101 - we asked for pipes
        assert process.stdout is not None  # noqa: S101
        try:
            process.stdin.write(b'{"execute": "qmp_capabilities"}\n')
            process.stdin.flush()
            process.stdout.readline()  # its greeting, before it builds anything
            if b"return" not in process.stdout.readline():
                raise RuntimeError("QEMU, started by hand, did not build its guest")
            return time.monotonic() - began
        finally:
            process.kill()


@contextmanager
def started(
    spec: BootSpec, memory_mib: int, card: str, address: IPv4Address
) -> Iterator[tuple[subprocess.Popen[bytes], Boot]]:
    """Boot a guest by hand, wait for its first answer, and end it; TimeoutError if none comes."""
    began = time.monotonic()
    with subprocess.Popen(
        command(spec, memory_mib, card), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        try:
            said = Future[float]()
            threading.Thread(target=_listen, args=(process, said), daemon=True).start()
            while True:
                with suppress(OSError):
                    fetch(address, 0.05)
                    break
                if time.monotonic() - began > PATIENCE_S or process.poll() is not None:
                    raise TimeoutError
                time.sleep(0.002)
            answer_s = time.monotonic() - began
            yield process, Boot(said.result(PATIENCE_S) - began, answer_s)
        finally:
            process.kill()


def _listen(process: subprocess.Popen[bytes], said: "Future[float]") -> None:
    """Note when the first byte comes from the serial port, and keep the pipe from filling up."""
    assert process.stdout is not None  # noqa: S101 - we asked for a pipe
    with suppress(ValueError):  # closed: the guest was ended
        while process.stdout.read(1):
            if not said.done():
                said.set_result(time.monotonic())


def fetch(address: IPv4Address, timeout_s: float) -> bytes:
    """Return the first bytes of the page at an address."""
    with socket.create_connection((str(address), 80), timeout_s) as client:
        client.settimeout(2.0)
        client.sendall(GET)
        answer = client.recv(4096)
    if not answer:
        raise ConnectionError
    return answer


def spec_of(lab: Lab, name: str, address: IPv4Address) -> BootSpec:
    """Return how edgewake would boot a service, at the address of the guest started by hand."""
    service, host = lab.service(name), lab.hosts[0]
    instance = Instance(
        f"hand-{name}", name, host.name, address, mac_of(address),
        InstanceState.BOOTING, time.time(),
    )  # fmt: skip
    place = Place(host, traits_of(host))
    fit = Library(Inspector()).fit(lab, service, place)
    return boot_spec(fit.known, fit.entry, service, instance, place)


@contextmanager
def plugged(bridge: str, card: str) -> Iterator[str]:
    """Make a network card for guests started by hand, on a bridge that edgewake made."""
    _ip("tuntap", "add", "dev", card, "mode", "tap")
    try:
        _ip("link", "set", card, "master", bridge, "up")
        yield card
    finally:
        _ip("link", "del", card)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
