"""What a whole edgewake says by DNS: budgets, client subnets, copies of the zone, local names."""

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dns_boot.query import ask
from images.bootspec import Image
from orchestrator.daemon import Daemon
from orchestrator.errors import EdgewakeError
from tests.world import an_image

LAB = """\
name: t
zone: names.test
dns:
  listen: 127.0.0.1:{port}
  client_subnet: true
  wake_budget: {{per_client: 1/h, burst: 3, total: 1/h, total_burst: 5}}
  transfer: {{allow: [127.0.0.1/32]}}
  records:
    - {{name: "@", type: MX, value: 10 mail.example.org.}}
hosts:
  a:
    uri: memory:///
    router: west
    capacity: {{cpu: 4, memory: 4 GiB}}
    network: {{name: net-a, subnet: 10.9.0.0/24, gateway: 10.9.0.1, pool: 10.9.0.10-10.9.0.99}}
  b:
    uri: memory:///
    router: east
    capacity: {{cpu: 4, memory: 4 GiB}}
    network: {{name: net-b, subnet: 10.9.1.0/24, gateway: 10.9.1.1, pool: 10.9.1.10-10.9.1.99}}
routers: {{west: {{}}, east: {{}}}}
links: [{{between: [west, east], latency: 10 ms, bandwidth: 1 Gbit/s}}]
clients:
  westerners: {{subnets: [192.0.2.0/24], router: west}}
  easterners: {{subnets: [198.51.100.0/25], router: east}}
images:
  tiny: {{family: linux, kernel: {image.kernel}, initrd: {image.initrd}}}
defaults:
  image: tiny
  resources: {{cpu: 0.1, memory: 100 MiB}}
  ready: {{tcp: 80}}
  idle: never
services:
  near: {{replicas: 2}}
  turn: {{replicas: 2, answer: rotated}}
"""


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return an_image(tmp_path)


@contextmanager
def running(folder: Path, image: Image, more: str = "") -> Iterator[Daemon]:
    """Run an edgewake with that lab, and with more services."""
    with socket.socket() as tcp:
        tcp.bind(("127.0.0.1", 0))
        port = tcp.getsockname()[1]
    lab = folder / "lab.yaml"
    lab.write_text(LAB.format(image=image, port=port) + more)
    daemon = Daemon(folder / "state", lab, ephemeral=True)
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.stop()


def dig(daemon: Daemon, *arguments: str) -> str:
    program = shutil.which("dig")
    assert program, "dig is missing: apt-get install dnsutils"
    address, port = daemon.dns_address
    command = [program, f"@{address}", "-p", str(port), "+tries=1", "+time=10", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def addresses(daemon: Daemon, *arguments: str) -> list[str]:
    return dig(daemon, *arguments, "A", "+short").split()


def both_awake(daemon: Daemon, service: str) -> None:
    ask(daemon.dns_address, f"{service}.names.test")
    end = time.monotonic() + 10
    while len(daemon.orchestrator.fleet.serving(service)) < 2:
        assert time.monotonic() < end, "the second copy did not come"
        time.sleep(0.02)


def test_an_address_tells_which_copy_is_near(tmp_path: Path, image: Image) -> None:
    with running(tmp_path, image) as daemon:
        both_awake(daemon, "near")
        west = dig(daemon, "near.names.test", "+subnet=192.0.2.0/24")
        east = dig(daemon, "near.names.test", "+subnet=198.51.100.7/32")
        assert "CLIENT-SUBNET: 192.0.2.0/24/24" in west
        assert "CLIENT-SUBNET: 198.51.100.7/32/25" in east
        first = [re.findall(r"IN\tA\t(\S+)", said)[0] for said in (west, east)]
        assert [each.rpartition(".")[0] for each in first] == ["10.9.0", "10.9.1"]
        unknown = [addresses(daemon, "near.names.test")[0] for _ in range(4)]
        assert len(set(unknown)) == 2  # each in turn for those who are nowhere
        both_awake(daemon, "turn")
        turns = [addresses(daemon, "turn.names.test", "+subnet=192.0.2.0/24") for _ in range(4)]
        assert turns[0] == turns[2] == turns[1][::-1]
        assert turns[1] == turns[3]


def test_a_scan_from_one_address_is_stopped_and_told(tmp_path: Path, image: Image) -> None:
    more = "".join(f"  s{number}: {{}}\n" for number in range(30))
    with running(tmp_path, image, more) as daemon:
        replies = [ask(daemon.dns_address, f"s{n}.names.test") for n in range(30)]
        assert [reply.rcode for reply in replies] == ["NOERROR"] * 3 + ["SERVFAIL"] * 27
        assert replies[-1].text == "s29: not woken: 127.0.0.1/32 began too many wakes"
        assert all(reply.seconds < 5 for reply in replies)
        assert ask(daemon.dns_address, "s0.names.test").rcode == "NOERROR"  # it is awake
        end = time.monotonic() + 10
        while not (told := [e for e in daemon.orchestrator.events() if e.kind == "wake-budget"]):
            assert time.monotonic() < end, "nobody was told"
            time.sleep(0.05)
        assert "of 127.0.0.1/32" in told[0].text


def test_the_serial_is_kept_and_grows_with_the_names(tmp_path: Path, image: Image) -> None:
    def serial(daemon: Daemon) -> int:
        return int(dig(daemon, "names.test", "SOA", "+short").split()[2])

    with running(tmp_path, image) as daemon:
        first = serial(daemon)
        copy = dig(daemon, "names.test", "AXFR")
        assert re.search(r"near\.names\.test\.\s+3600\s+IN\s+NS\s+ns\.names\.test\.", copy)
        assert re.search(r"names\.test\.\s+3600\s+IN\s+MX\s+10 mail\.example\.org\.", copy)
        assert "10.9." not in copy
        ask(daemon.dns_address, "near.names.test")
        assert serial(daemon) == first  # a wake changes nothing of it
    with running(tmp_path, image) as daemon:
        assert serial(daemon) == first
    with running(tmp_path, image, "  new: {}\n") as daemon:
        second = serial(daemon)
        assert second > first
        assert "new.names.test." in dig(daemon, "names.test", "AXFR")
        path = tmp_path / "lab.yaml"
        path.write_text(path.read_text() + "  newer: {}\n")
        daemon.reload()
        assert serial(daemon) > second


def test_an_interface_that_is_not_there_stops_the_start(tmp_path: Path, image: Image) -> None:
    lab = tmp_path / "lab.yaml"
    text = LAB.format(image=image, port=5999)
    lab.write_text(text.replace("  client_subnet: true\n", "  mdns: ewnone0\n"))
    with pytest.raises(EdgewakeError, match="multicast DNS on ewnone0"):
        Daemon(tmp_path / "state", lab, ephemeral=True).start()


def test_local_names_are_answered_where_the_lab_says(tmp_path: Path, image: Image) -> None:
    lab = tmp_path / "lab.yaml"
    text = LAB.format(image=image, port=5998)
    lab.write_text(text.replace("  client_subnet: true\n", "  mdns: lo\n"))
    daemon = Daemon(tmp_path / "state", lab, ephemeral=True)
    daemon.start()
    try:
        program = shutil.which("dig")
        assert program
        command = [program, "@224.0.0.251", "-p", "5353", "near.local", "+time=2", "+tries=1"]
        subprocess.run([*command, "-b", "127.0.0.1"], check=False, capture_output=True)
        end = time.monotonic() + 10
        while not daemon.orchestrator.fleet.serving("near"):  # dig does not hear it, but it woke
            assert time.monotonic() < end, "nothing was woken"
            time.sleep(0.05)
    finally:
        daemon.stop()
