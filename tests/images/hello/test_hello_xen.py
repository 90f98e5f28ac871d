"""Hello as a PVH guest of a real Xen: the emulated host of `tests.xenbed`, through its libvirt.

What hello says above its network card is tested on QEMU, where a guest costs less. Here are the
card (netfront), the console, Xenstore and the clock, and the ends of a domain's life.
"""

import http.client
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import libvirt
import pytest

from tests.images.hello.conftest import Fetch
from tests.images.hello.frames import with_checksum
from tests.xenbed.bed import Bed

# The first test may wait for the bed's start, or for its build.
pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

PATIENCE_S = 150.0
WORDS_OF_CONFIG = "greeting=Hi%20from%20Xen"
FULL_PING = 1472  # with the headers of ICMP and IPv4: an MTU of 1500
CLIENTS, REQUESTS = 8, 40
REQUEST_SIZES = (300, 700, 1100, 1460, 1461, 1500)  # 1460 is what one segment holds
IDLE_S = 3.0
BURST = 200  # frames: more than the ring of received frames holds, and than are taken in one go
QUIET_S = 2.0  # nothing comes, and no timer of the guest's runs that would wake it


def until(seen: Callable[[], object], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not seen():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


@dataclass
class Domain:
    """A hello on the bed."""

    xen: "Xen"
    name: str
    address: str
    card: str
    domain: libvirt.virDomain

    def console(self) -> str:
        log = self.xen.bed.ssh("cat", f"/var/log/xen/guest-{self.name}.log")
        return log.stdout.decode(errors="replace")

    def healthy(self) -> bool:
        connection = http.client.HTTPConnection(self.address, 80, timeout=2)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().read() == b"ok\n"
        except OSError:
            return False
        finally:
            connection.close()

    def answers(self) -> "Domain":
        until(self.healthy, lambda: f"{self.name} does not answer\n{self.console()}")
        return self

    def exists(self) -> bool:
        names = [domain.name() for domain in self.xen.libvirt.listAllDomains()]
        return self.name in names

    def ends(self) -> None:
        until(lambda: not self.exists(), lambda: f"{self.name} is still there\n{self.console()}")

    def cpu_s(self) -> float:
        """Return the processor time that it has used."""
        return float(self.domain.info()[4]) / 1e9


@dataclass
class Xen:
    """The bed with hello in its folder of images."""

    bed: Bed
    libvirt: libvirt.virConnect
    kernel: str
    taken: int = 0

    def boot(self, name: str, *, memory_mib: int = 8, card: bool = True) -> Domain:
        """Create a domain; do not wait for it to answer."""
        self.taken += 1
        address = str(self.bed.state.lan.subnet[100 + self.taken])
        mac = f"00:16:3e:00:01:{self.taken:02x}"
        interface = f"""<interface type='bridge'><mac address='{mac}'/>
            <source bridge='xenbr0'/><script path='vif-fast'/></interface>"""
        line = f"ip={address}/24 gw={self.bed.state.lan.gateway} name={name} {WORDS_OF_CONFIG}"
        domain = self.libvirt.createXML(f"""
            <domain type='xen'>
              <name>{name}</name> <memory unit='MiB'>{memory_mib}</memory> <vcpu>1</vcpu>
              <os><type arch='x86_64' machine='xenpvh'>xenpvh</type>
                <kernel>{escape(self.kernel)}</kernel><cmdline>{escape(line)}</cmdline></os>
              <clock offset='utc'><timer name='tsc' mode='native'/></clock>
              <on_reboot>destroy</on_reboot> <on_crash>destroy</on_crash>
              <devices>{interface if card else ""}
                <console type='pty'><target type='xen' port='0'/></console></devices>
            </domain>""")
        return Domain(self, name, address, interface, domain)

    def ready_at(self, domain: Domain) -> str:
        """Return what a guest wrote into Xenstore when it listened."""
        key = f"/local/domain/{domain.domain.ID()}/data/ready"
        return self.bed.ssh("xenstore-read", key).stdout.decode().strip()

    def ping(self, address: str, size: int) -> subprocess.CompletedProcess[bytes]:
        """Ping from dom0, by frames that never saw a wire."""
        return self.bed.ssh("ping", "-c", "3", "-s", str(size), address)


@pytest.fixture(scope="module")
def xen(xen_bed: Bed, kernel: Path) -> Iterator[Xen]:
    if not xen_bed.reachable:
        pytest.skip("a bed without root has no tap, and guests have no address here")
    with ExitStack() as stack:
        connection = libvirt.open(xen_bed.libvirt_uri)
        stack.callback(connection.close)
        xen = Xen(xen_bed, connection, xen_bed.put(kernel, "hello"))
        yield xen
        for domain in connection.listAllDomains():
            if domain.ID() != 0 and domain.name().startswith("hello"):
                domain.destroy()


@pytest.fixture(scope="module")
def web(xen: Xen) -> Domain:
    """Boot one guest for most tests."""
    return xen.boot("hello-web").answers()


def info(fetch: Fetch, domain: Domain) -> dict[str, object]:
    told = fetch("/info", domain.address).json
    assert isinstance(told, dict)
    return told


def echo(line: socket.socket, number: int, size: int) -> bool:
    """Return whether an ICMP echo request (RFC 792) of that size comes back as it was."""
    data = bytes((number + n) % 251 for n in range(size))
    request = with_checksum(struct.pack("!BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, number) + data, 2)
    reply = with_checksum(b"\0" + request[1:], 2)
    line.send(request)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if line.recv(2048)[20:] == reply:  # behind the IP header; others are replies come late
            return True
    return False


def pings(line: socket.socket) -> bool:
    try:
        return echo(line, 1, 56)
    except OSError:
        return False


def test_what_it_says_of_itself(xen: Xen, web: Domain, fetch: Fetch) -> None:
    console = web.console()
    assert f"hello: listening on {web.address} port 80" in console
    assert xen.ready_at(web) == web.address
    told = info(fetch, web)
    assert (told["name"], told["platform"]) == ("hello-web", "Xen")
    assert told["config"] == {"greeting": "Hi from Xen"}
    clock = int(xen.bed.ssh("date", "+%s").stdout)
    assert abs(int(str(told["time"])) - clock) < 20


def test_the_clock_runs_at_the_right_speed(web: Domain, fetch: Fetch) -> None:
    before, start = info(fetch, web), time.monotonic()
    time.sleep(2)
    after, took = info(fetch, web), time.monotonic() - start
    grew = float(str(after["uptime"])) - float(str(before["uptime"]))
    assert 1.9 < grew < took + 0.1


def test_frames_of_every_size_come_and_go_whole(xen: Xen, web: Domain) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as line:
        line.settimeout(5)
        line.connect((web.address, 0))
        sizes = [*range(0, FULL_PING, 53), FULL_PING]
        assert [size for n, size in enumerate(sizes) if not echo(line, n, size)] == []
    from_dom0 = xen.ping(web.address, FULL_PING)
    assert b" 0% packet loss" in from_dom0.stdout, from_dom0


def test_dom0_is_answered_as_well(xen: Xen, web: Domain) -> None:
    """Linux leaves the checksums of what it sends to a vif to others, unless told not to."""
    got = xen.bed.ssh("wget", "-O", "-", f"http://{web.address}/healthz")
    assert got.stdout == b"ok\n", got


@pytest.mark.parametrize("size", REQUEST_SIZES)
def test_requests_of_any_size(web: Domain, size: int) -> None:
    head, end = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: ", b"\r\n\r\n"
    with socket.create_connection((web.address, 80), PATIENCE_S) as peer:
        peer.sendall(head + b"a" * (size - len(head) - len(end)) + end)
        answer = b"".join(iter(lambda: peer.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\nok\n")


def test_many_requests_leave_nothing_behind(web: Domain, fetch: Fetch) -> None:
    before = info(fetch, web)
    with ThreadPoolExecutor(CLIENTS) as clients:
        replies = list(
            clients.map(lambda _: fetch("/", web.address).status, range(CLIENTS * REQUESTS))
        )
    assert set(replies) == {200}
    after = info(fetch, web)
    assert int(str(after["requests"])) - int(str(before["requests"])) == CLIENTS * REQUESTS + 1
    frames = after["frames"]
    assert isinstance(frames, dict)
    assert frames["unsent"] == 0


def test_the_processor_sleeps_when_there_is_nothing_to_do(web: Domain) -> None:
    start, until_then = web.cpu_s(), time.monotonic() + IDLE_S
    while time.monotonic() < until_then:
        web.healthy()
    busy, start = web.cpu_s() - start, web.cpu_s()
    time.sleep(IDLE_S)
    idle = web.cpu_s() - start
    assert idle < busy / 10
    assert idle < IDLE_S / 20


def test_a_burst_while_it_was_not_running_leaves_it_with_open_ears(xen: Xen) -> None:
    """A busy dom0 lets a guest wait while others' broadcasts fill its ring."""
    deaf = xen.boot("hello-deaf")
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as line:
        line.settimeout(5)
        line.connect((deaf.address, 0))
        until(lambda: pings(line), deaf.console)
        time.sleep(QUIET_S)
        deaf.domain.suspend()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(BURST):
                sender.sendto(b"x", (deaf.address, 9))
        time.sleep(QUIET_S)
        deaf.domain.resume()
        time.sleep(QUIET_S)
        assert pings(line), deaf.console()
    deaf.domain.destroy()


def test_two_side_by_side(xen: Xen, web: Domain, fetch: Fetch) -> None:
    other = xen.boot("hello-other", memory_mib=3).answers()
    assert [info(fetch, each)["name"] for each in (web, other)] == ["hello-web", "hello-other"]
    other.domain.destroy()
    assert not other.exists()
    assert web.healthy()


def test_a_card_that_is_taken_away_and_put_back(web: Domain) -> None:
    web.domain.detachDevice(web.card)
    until(lambda: "network card detached" in web.console(), web.console)
    assert not web.healthy()
    web.domain.attachDevice(web.card)
    web.answers()


def test_it_can_be_saved_and_restored(xen: Xen, web: Domain, fetch: Fetch) -> None:
    before = info(fetch, web)
    web.domain.save("/var/lib/xen/hello.save")
    assert not web.exists()
    xen.libvirt.restore("/var/lib/xen/hello.save")
    web.domain = xen.libvirt.lookupByName(web.name)
    web.answers()
    after = info(fetch, web)
    assert after["started"] == before["started"]
    assert int(str(after["requests"])) > int(str(before["requests"]))
    assert "hello: restored" in web.console()
    assert xen.ready_at(web) == web.address, "it wrote that anew"


def test_it_obeys_a_request_to_shut_down(web: Domain) -> None:
    web.domain.shutdown()
    web.ends()
    assert "hello: asked to stop" in web.console()


def test_without_a_card_it_says_so_and_ends(xen: Xen) -> None:
    lone = xen.boot("hello-lone", card=False)
    lone.ends()
    assert "no network card" in lone.console()
