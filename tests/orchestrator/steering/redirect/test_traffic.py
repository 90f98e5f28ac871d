"""Real packets, in namespaces: a client, an edge node, an instance on it, and an origin behind it.

The client, the instance and the origin never hear of a redirect: both servers have the public
address, and the client asks for it.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from ipaddress import IPv4Address

import pytest

from orchestrator.linux import namespaces
from orchestrator.model import DnsSettings, Endpoint, Lab, Public, mac_of
from orchestrator.packet_filter import attach
from orchestrator.rules.bpf import to_bpf
from orchestrator.rules.parse import parse
from orchestrator.steering.base import Route
from orchestrator.steering.redirect.base import Redirect, Rung
from orchestrator.steering.redirect.commands import Commands
from orchestrator.steering.redirect.ladder import LinuxRedirector
from orchestrator.steering.redirect.probe import probe
from orchestrator.steering.redirect.services import Redirects
from orchestrator.steering.redirect.ways import port_of
from tests.waiting import eventually
from tests.world import a_host, a_service

PUBLIC, PUBLIC6 = "203.0.113.10", "2001:db8:113::10"
CLIENT, CLIENT6 = "10.1.0.2", "2001:db8:1::2"
PORT, OTHER_PORT = 8080, 9000
RULE = f"udp and dst port {PORT} and (dst {PUBLIC} or dst {PUBLIC6})"
OWNER = f"traffic-{os.getpid()}"
SYSCTLS = (
    "net.ipv4.ip_forward=1",
    "net.ipv6.conf.all.forwarding=1",
    "net.ipv4.conf.all.rp_filter=0",
)
SOON_S = 10.0

probed = cache(probe)


@dataclass
class Place:
    """A namespace with one way out, to the edge node, where that way is called after it."""

    name: str
    number: int
    commands: Commands = field(init=False)

    def __post_init__(self) -> None:
        self.namespace = f"ew-{self.name}-{os.getpid()}"
        self.commands = Commands(self.namespace)

    def plug_in(self, edge: "Place") -> None:
        pair = ("type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        edge.commands.run("ip", "link", "add", "name", self.name, *pair)
        for commands, device, last in ((edge.commands, self.name, 1), (self.commands, "eth0", 2)):
            batch = [
                f"addr add 10.{self.number}.0.{last}/24 dev {device}",
                f"addr add 2001:db8:{self.number}::{last}/64 dev {device} nodad",
                f"link set {device} up",
            ]
            if last == 2:
                batch += [
                    f"route add default via 10.{self.number}.0.1",
                    f"-6 route add default via 2001:db8:{self.number}::1",
                ]
            for line in batch:
                commands.run("ip", *line.split())

    def sysctl(self, setting: str) -> None:
        self.commands.run("sysctl", "-qw", setting)

    @property
    def mac(self) -> str:
        (shown,) = self.commands.ask("ip", "-j", "link", "show", "eth0")
        return str(shown["address"])

    def socket(self, family: int = socket.AF_INET) -> socket.socket:
        return namespaces.inside(self.namespace, lambda: socket.socket(family, socket.SOCK_DGRAM))


@dataclass
class World:
    """All four places; `say` has what each server says to whom it hears."""

    client: Place
    edge: Place
    instance: Place
    origin: Place
    heard: list[tuple[str, str]] = field(default_factory=list)

    def serve(self, place: Place, undo: ExitStack) -> None:
        """Answer on both ports of the public addresses with the name of the place."""
        for family, address in ((socket.AF_INET, PUBLIC), (socket.AF_INET6, PUBLIC6)):
            for port in (PORT, OTHER_PORT):
                server = place.socket(family)
                server.bind((address, port))
                server.settimeout(0.2)
                over = threading.Event()
                thread = threading.Thread(target=self._answer, args=(server, place, over))
                thread.start()
                undo.callback(server.close)
                undo.callback(thread.join)
                undo.callback(over.set)

    def _answer(self, server: socket.socket, place: Place, over: threading.Event) -> None:
        while not over.is_set():
            try:
                asked, client = server.recvfrom(2048)
                self.heard.append((place.name, client[0]))
                server.sendto(asked + b" " + place.name.encode(), client)
            except OSError:  # nobody asks, or its way out is gone
                continue

    def ask(self, port: int = PORT, family: int = socket.AF_INET) -> str:
        """Return who answers the client, from the very address that it asked."""
        public = PUBLIC if family == socket.AF_INET else PUBLIC6
        with self.client.socket(family) as sock:
            sock.settimeout(1.0)
            sock.sendto(b"?", (public, port))
            answer, server = sock.recvfrom(2048)
            assert server[:2] == (public, port)
            return answer.partition(b" ")[2].decode()


@pytest.fixture
def world() -> Iterator[World]:
    places = [Place(name, number) for number, name in enumerate(("edge", "client", "inst", "orig"))]
    edge, client, instance, origin = places
    with ExitStack() as undo:
        for place in places:
            namespaces.make(place.namespace)
            undo.callback(namespaces.remove, place.namespace)
            place.commands.run("ip", "link", "set", "lo", "up")
        for place in places:  # without it, IPv6 rests for a second
            place.sysctl("net.ipv6.conf.default.accept_dad=0")
        for sysctl in SYSCTLS:
            edge.sysctl(sysctl)
        for place in (client, instance, origin):
            place.plug_in(edge)
        for place in (instance, origin):
            place.commands.run("ip", "addr", "add", PUBLIC, "dev", "lo")
            place.commands.run("ip", "addr", "add", PUBLIC6, "dev", "lo", "nodad")
        edge.commands.run("ip", "route", "add", PUBLIC, "via", f"10.{origin.number}.0.2")
        edge.commands.run("ip", "route", "add", PUBLIC6, "via", f"2001:db8:{origin.number}::2")
        world = World(client, edge, instance, origin)
        for place in (instance, origin):
            world.serve(place, undo)
        yield world


def redirector_of(world: World, rung: Rung) -> LinuxRedirector:
    why_not = probed()[rung].why_not
    if why_not:
        pytest.skip(f"this kernel has no {rung}: {why_not}")
    return LinuxRedirector(OWNER, force=rung, namespace=world.edge.namespace, probed=probed)


def redirect_of(world: World, rung: Rung) -> Redirect:
    """Return the redirect; without skbmod, the instance has the MAC that frames carry."""
    mac = world.instance.mac
    if probed()[rung].why_no_mac:
        (shown,) = world.edge.commands.ask("ip", "-j", "link", "show", "client")
        world.instance.commands.run("ip", "link", "set", "eth0", "address", shown["address"])
        mac = ""
    return Redirect("web", parse(RULE), "client", "inst", mac)


@pytest.mark.parametrize("rung", Rung)
def test_the_instance_answers_while_it_is_there_and_then_the_origin(
    world: World, rung: Rung
) -> None:
    redirector = redirector_of(world, rung)
    redirect = redirect_of(world, rung)
    assert world.ask() == "orig"
    assert redirector.set([redirect]) == ()
    assert world.ask() == "inst"
    assert world.ask(family=socket.AF_INET6) == "inst"
    assert world.heard[-2:] == [("inst", CLIENT), ("inst", CLIENT6)]
    assert world.ask(OTHER_PORT) == "orig"
    (in_place,) = redirector.in_place()
    assert (in_place.rung, in_place.packets) == (rung, 2)
    redirector.set([])
    assert world.ask() == "orig"
    assert world.ask(family=socket.AF_INET6) == "orig"


# --- when the instance goes -----------------------------------------------------------------------


@dataclass
class Stream:
    """A client that asks every millisecond, and notes who answers, and when (monotonic)."""

    world: World
    asked: dict[int, float] = field(default_factory=dict)
    answered: dict[int, str] = field(default_factory=dict)

    def __enter__(self) -> "Stream":
        self._over = threading.Event()
        self._socket = self.world.client.socket()
        self._socket.settimeout(0.1)
        self._threads = [threading.Thread(target=each) for each in (self._ask, self._hear)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.3)  # for answers on their way
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _ask(self) -> None:
        number = 0
        while not self._over.wait(0.001):
            self.asked[number] = time.monotonic()
            self._socket.sendto(b"%d" % number, (PUBLIC, PORT))
            number += 1

    def _hear(self) -> None:
        while not self._over.is_set():
            try:
                number, _, who = self._socket.recv(2048).partition(b" ")
            except TimeoutError:
                continue
            self.answered[int(number)] = who.decode()

    def until(self, who: str) -> None:
        """Wait until the last answer is from somebody."""
        eventually(lambda: bool(self.answered) and self.answered[max(self.answered)] == who)

    def since(self, moment: float) -> str:
        """Return how many questions got no answer, and when the first was asked that got there."""
        late = max(self.asked.values()) - 0.1  # whose answers may be on their way
        lost = [n for n, at in self.asked.items() if n not in self.answered and at < late]
        by_origin = (at for n, at in self.asked.items() if self.answered.get(n) == "orig")
        after = min(at for at in by_origin if at >= moment)
        heard = sum(at < late for at in self.asked.values())
        return (
            f"{len(lost)} of {heard} questions, one each ms, were lost; "
            f"the origin answers what was asked {(after - moment) * 1000:.1f} ms after"
        )


# --- as a service -------------------------------------------------------------------------------


def plug_into_bridge(world: World) -> None:
    """Have the instance behind a bridge of the edge node, with a MAC by rule, as guests are."""
    address = IPv4Address(f"10.{world.instance.number}.0.2")
    world.instance.commands.run("ip", "link", "set", "eth0", "address", mac_of(address))
    for line in (
        "link add name br0 type bridge",
        f"addr del 10.{world.instance.number}.0.1/24 dev inst",
        f"addr add 10.{world.instance.number}.0.1/24 dev br0",
        "link set inst master br0",
        "link set br0 up",
    ):
        world.edge.commands.run("ip", *line.split())


class Sniffer:
    """Frames that a place sends and receives, as (source, target) of what is UDP over IPv4."""

    def __init__(self, place: Place) -> None:
        self._socket = namespaces.inside(
            place.namespace, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300)
        )
        attach(self._socket, to_bpf(parse("ip and udp and net 203.0.113.0/24")))
        self._socket.setblocking(False)

    def seen(self) -> set[tuple[str, str]]:
        found = set()
        with self._socket, suppress(BlockingIOError):
            while frame := self._socket.recv(2048):
                ends = (frame[26:30], frame[30:34])
                found.add((str(IPv4Address(ends[0])), str(IPv4Address(ends[1]))))
        return found


def test_a_service_is_served_here_while_its_instance_runs(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    plug_into_bridge(world)
    redirector = LinuxRedirector(OWNER, namespace=world.edge.namespace, probed=probed)
    network = replace(a_host("here").network, bridge="br0")
    host = replace(a_host("here"), uri="netns:///", network=network)
    public = Public(IPv4Address(PUBLIC), "client", parse(f"udp and dst port {PORT}"))
    service = replace(a_service("web"), public=public)
    lab = Lab("t", DnsSettings(zone="t.test"), hosts=(host,), services=(service,))
    end = Endpoint("web", "ew-t-web-0", "here", IPv4Address(f"10.{world.instance.number}.0.2"), 10)
    commands = world.edge.commands
    redirects = Redirects(
        lambda: lab, redirector, lambda host, at: port_of(host, at, commands), patience_s=0.0
    )
    redirects.start()
    try:
        world.instance.commands.run("ping", "-c", "1", f"10.{world.instance.number}.0.1")
        assert world.ask() == "orig"
        with Stream(world) as stream:
            stream.until("orig")
            began = time.monotonic()
            redirects.set([Route(service, (end,))])
            stream.until("inst")
            first = min(at for n, at in stream.asked.items() if stream.answered.get(n) == "inst")
            wires = [Sniffer(place) for place in (world.client, world.instance)]
            eventually(lambda: len(redirects.in_place()) == 1)
            time.sleep(0.1)
            for wire in wires:
                assert wire.seen() == {(CLIENT, PUBLIC), (PUBLIC, CLIENT)}
            ended = time.monotonic()
            redirects.set([Route(service)])
            stream.until("orig")
        tell(
            capsys,
            f"a service that wakes: its instance answers {(first - began) * 1000:.0f} ms after",
        )
        assert world.ask() == "orig"
        assert redirects.in_place() == ()
        assert redirects.settled(SOON_S)
        tell(capsys, f"a service that sleeps: {stream.since(ended)}")
    finally:
        redirects.close()


def tell(capsys: pytest.CaptureFixture[str], measured: str) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\n{measured}\n")


def test_with_nobody_there_the_kernel_leads_to_the_origin_when_the_device_goes(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    redirector = redirector_of(world, Rung.NFT)
    assert redirector.set([redirect_of(world, Rung.NFT)]) == ()
    with Stream(world) as stream:
        stream.until("inst")
        gone = time.monotonic()
        world.edge.commands.run("ip", "link", "del", "inst")
        stream.until("orig")
    tell(capsys, f"nft, device gone, nobody there: {stream.since(gone)}")
    assert redirector.in_place() == ()


@pytest.mark.parametrize("rung", [Rung.U32, Rung.NFT])
@pytest.mark.parametrize("how", ["device", "process"])
def test_the_watch_leads_to_the_origin_when_the_instance_dies_after_edgewake(
    world: World, rung: Rung, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The redirector is never called again, as if its process had been killed."""
    namespace = world.edge.namespace
    with ExitStack() as undo:
        inside = ["nsenter", f"--net=/run/netns/{world.instance.namespace}", "sleep", "99"]
        program = subprocess.Popen(inside)
        kept = subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", *inside])
        for process in (program, kept):
            undo.callback(process.wait)
            undo.callback(process.kill)
        redirector = LinuxRedirector(
            OWNER, force=rung, namespace=namespace, watched=True, probed=probed
        )
        assert redirector.set([redirect_of(world, rung)]) == ()
        watch = redirector._watch
        assert watch is not None
        undo.callback(watch.wait)
        undo.callback(watch.kill)
        with Stream(world) as stream:
            stream.until("inst")
            time.sleep(1.0)  # the watch begins
            gone = time.monotonic()
            if how == "device":
                world.edge.commands.run("ip", "link", "del", "inst")
            else:
                program.kill()
            stream.until("orig")
        tell(capsys, f"{rung}, {how} gone, watched: {stream.since(gone)}")
        eventually(lambda: watch.poll() == 0)  # nothing is left to be watched
        assert redirector.in_place() == ()
