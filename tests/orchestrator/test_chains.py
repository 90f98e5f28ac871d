"""Packets pass the functions of a chain in order, there and back; captured in each of them."""

import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import CannotNetwork
from orchestrator.linux import namespaces
from orchestrator.rules.parse import parse
from orchestrator.steering import chains, functions
from orchestrator.steering.chains import MACHINE, ChainPaths, Passage, Station
from orchestrator.steering.functions import Function, Intercept

pytestmark = pytest.mark.real

NAME = f"ew-tch{os.getpid()}"
CLIENT, EDGE = f"{NAME}-client", f"{NAME}-edge"  # the edge routes between clients and functions
FUNCTIONS = tuple(f"{NAME}-{what}" for what in ("firewall", "cache", "app"))
PORT = 8080
_ETH_P_ALL = 3


def address(number: int) -> IPv4Address:
    return IPv4Address(f"10.77.0.{10 + number}")


def address6(number: int) -> IPv6Address:
    return IPv6Address(f"fd77::{10 + number}")


def join(near: str, far: str, device: str) -> None:
    """Lay a cable from a namespace to another's eth0."""
    with namespaces.netlink(near) as ip:
        path = str(namespaces.FOLDER / far)
        peer = {"ifname": "eth0", "net_ns_fd": path}
        ip.link("add", ifname=device, kind="veth", peer=peer)
        ip.link("set", ifname=device, state="up")


def give(name: str, device: str, *addresses: str, gateways: tuple[str, ...] = ()) -> None:
    with namespaces.netlink(name) as ip:
        ip.link("set", ifname="lo", state="up")
        (index,) = ip.link_lookup(ifname=device)
        ip.link("set", index=index, state="up")
        for each in addresses:
            host, _, bits = each.partition("/")
            ip.addr("add", index=index, address=host, prefixlen=int(bits), flags=0x02)
        for gateway in gateways:
            family = socket.AF_INET6 if ":" in gateway else socket.AF_INET
            ip.route("add", family=family, dst="default", gateway=gateway)


def at_once() -> None:
    """Use IPv6 addresses without waiting whether somebody else has them."""
    Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")


def forward() -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")


@pytest.fixture
def lab() -> Iterator[None]:
    """Clients, an edge and three functions on one bridge of the edge's."""
    everyone = (CLIENT, EDGE, *FUNCTIONS)
    try:
        for name in everyone:
            namespaces.make(name, at_once)
        with namespaces.netlink(EDGE) as ip:
            ip.link("add", ifname="br0", kind="bridge")
        join(EDGE, CLIENT, "clients")
        for number, name in enumerate(FUNCTIONS):
            join(EDGE, name, f"port{number}")
            with namespaces.netlink(EDGE) as ip:
                (bridge,) = ip.link_lookup(ifname="br0")
                ip.link("set", ifname=f"port{number}", master=bridge)
        namespaces.inside(EDGE, forward)
        give(EDGE, "clients", "10.78.0.1/24", "fd78::1/64")
        give(EDGE, "br0", "10.77.0.1/24", "fd77::1/64")
        gateways = ("10.78.0.1", "fd78::1")
        give(CLIENT, "eth0", "10.78.0.2/24", "fd78::2/64", gateways=gateways)
        for number, name in enumerate(FUNCTIONS):
            own = (f"{address(number)}/24", f"{address6(number)}/64")
            give(name, "eth0", *own, gateways=("10.77.0.1", "fd77::1"))
        yield
    finally:
        for name in everyone:
            namespaces.remove(name)


def passage(name: str = "shop", *functions: str) -> Passage:
    stations = tuple(
        Station(each, address(FUNCTIONS.index(each)), address6(FUNCTIONS.index(each)))
        for each in functions or FUNCTIONS
    )
    return Passage(
        name, (Station(EDGE, IPv4Address("10.77.0.1")),), stations, address(2), address6(2)
    )


@pytest.fixture
def paths(lab: None) -> Iterator[ChainPaths]:
    made = ChainPaths(NAME)
    yield made
    made.set(())


# --- captures -------------------------------------------------------------------------------------

_SO_TIMESTAMPNS = 35  # linux/asm-generic/socket.h; the kernel's own clock, when it saw a packet


def capture(name: str) -> socket.socket:
    """Return a socket that sees every packet of a namespace's devices, with the kernel's time."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        made.setblocking(False)
        return made

    return namespaces.inside(name, make)


def captured(tap: socket.socket) -> dict[str, int]:
    """Return when the first SYN and the first SYN-ACK came by, in ns; tunnels' own are UDP."""
    first: dict[str, int] = {}
    while True:
        try:
            packet, ancillary, *_ = tap.recvmsg(2048, 128)
        except BlockingIOError:
            return first
        seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
        if (flags := tcp_flags(packet)) in FLAGS:
            first.setdefault(FLAGS[flags], seconds * 10**9 + nanoseconds)


FLAGS = {0x02: "SYN", 0x12: "SYN-ACK"}


def tcp_flags(packet: bytes) -> int:
    if packet[0] >> 4 == 4 and packet[9] == socket.IPPROTO_TCP:
        return packet[(packet[0] & 15) * 4 + 13] & 0x17
    if packet[0] >> 4 == 6 and packet[6] == socket.IPPROTO_TCP:
        return packet[40 + 13] & 0x17
    return 0


@contextmanager
def app(name: str = FUNCTIONS[2], port: int = PORT) -> Iterator[None]:
    """Run a server in a namespace that tells its clients their address."""
    listener = namespaces.inside(
        name,
        lambda: socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True),
    )

    def serve() -> None:
        while True:
            try:
                peer, who = listener.accept()
            except OSError:
                return
            with peer:
                peer.sendall(who[0].encode())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def ask(*, ipv6: bool = False, patience_s: float = 5.0) -> str:
    """Ask the app from the client; return what it takes for the client's address."""
    target = str(address6(2) if ipv6 else address(2))

    def call() -> str:
        with socket.create_connection((target, PORT), timeout=patience_s) as peer:
            return peer.recv(100).decode()

    return namespaces.inside(CLIENT, call)


def seen_by(*, ipv6: bool = False) -> dict[str, dict[str, int]]:
    """Ask the app once, and return what each namespace saw of it, and when."""
    with ExitStack() as stack, app():
        taps = {
            name: stack.enter_context(closing(capture(name))) for name in (CLIENT, EDGE, *FUNCTIONS)
        }
        ask(ipv6=ipv6)  # so that stations know their neighbours, and the kernel stamps packets
        time.sleep(0.05)
        for tap in taps.values():
            captured(tap)
        said = ask(ipv6=ipv6)
        assert said.removeprefix("::ffff:") == ("fd78::2" if ipv6 else "10.78.0.2")
        return {name: captured(tap) for name, tap in taps.items()}


def order(seen: dict[str, dict[str, int]], what: str) -> list[str]:
    when = {name: each[what] for name, each in seen.items() if what in each}
    return sorted(when, key=lambda name: when[name])


def forwarding_rules(ip: Any) -> list[Any]:
    return [rule for rule in ip.get_rules() if rule.get_attr("FRA_PRIORITY") == 8991]


def everything() -> dict[str, tuple[list[str], list[tuple[int, int]], int]]:
    """Return what there is in each namespace: devices, rules, routes in tables of ours."""
    found = {}
    for name in (CLIENT, EDGE, *FUNCTIONS):
        with namespaces.netlink(name) as ip:
            devices = sorted(link.get_attr("IFLA_IFNAME") for link in ip.get_links())
            rules = sorted((r["family"], r.get_attr("FRA_PRIORITY") or 0) for r in ip.get_rules())
            routes = [route for route in ip.get_routes() if route.get_attr("RTA_TABLE") > 10000]
            found[name] = devices, rules, len(routes)
    return found


# --- tests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
def test_packets_pass_each_function_in_order_there_and_back(
    paths: ChainPaths, *, ipv6: bool
) -> None:
    before = seen_by(ipv6=ipv6)
    assert order(before, "SYN") == [CLIENT, EDGE, FUNCTIONS[2]]
    paths.set([passage()])
    seen = seen_by(ipv6=ipv6)
    assert order(seen, "SYN") == [CLIENT, EDGE, *FUNCTIONS]
    back = [name for name in order(seen, "SYN-ACK") if name != EDGE]  # it sees the bridge, too
    assert back == [*reversed(FUNCTIONS), CLIENT]


def without_ipv6() -> None:
    for name in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")


def test_functions_that_speak_no_ipv6_are_passed_all_the_same(paths: ChainPaths) -> None:
    """As guests of a host without `subnet6`: tunnels have their own link-local addresses."""
    for name in FUNCTIONS:
        namespaces.inside(name, without_ipv6)
    stations = tuple(replace(each, address6=None) for each in passage().stations)
    paths.set([replace(passage(), stations=stations, target6=None)])
    assert order(seen_by(), "SYN") == [CLIENT, EDGE, *FUNCTIONS]


def test_a_firewall_lets_pass_what_it_admits(paths: ChainPaths) -> None:
    closed = replace(
        passage().stations[0], function=Function(admits=parse(f"tcp and dst port {PORT + 1}"))
    )
    opened = replace(closed, function=Function(admits=parse(f"tcp and dst port {PORT}")))
    rest = passage().stations[1:]
    with app():
        paths.set([replace(passage(), stations=(closed, *rest))])
        with pytest.raises(TimeoutError):
            ask(patience_s=0.5)
        paths.set([replace(passage(), stations=(opened, *rest))])
        assert ask().endswith("10.78.0.2")
        assert ask(ipv6=True) == "fd78::2"
        paths.set([replace(passage(), stations=(closed, *rest))])
        paths.set([passage()])
        assert ask().endswith("10.78.0.2"), "without a filter again"


@pytest.mark.parametrize("rule", [f"tcp and dst port {PORT}", "any"])
def test_a_cache_answers_for_the_end_of_the_chain(paths: ChainPaths, rule: str) -> None:
    intercepts = (Intercept(parse(rule), 3128),)
    cache = replace(passage().stations[1], function=Function(intercepts=intercepts))
    first, _, last = passage().stations
    paths.set([replace(passage(), stations=(first, cache, last))])
    with app(FUNCTIONS[1], 3128):  # and no app at all
        assert ask().endswith("10.78.0.2")
        assert ask(ipv6=True) == "fd78::2"


def test_another_order_is_taken_at_once(paths: ChainPaths) -> None:
    paths.set([passage()])
    other = (FUNCTIONS[1], FUNCTIONS[0], FUNCTIONS[2])
    paths.set([passage("shop", *other)])
    assert order(seen_by(), "SYN") == [CLIENT, EDGE, *other]


def test_nothing_is_left_of_a_chain_that_is_no_more(paths: ChainPaths) -> None:
    before = everything()
    paths.set([passage()])
    assert everything() != before
    paths.set([])
    assert everything() == before
    assert order(seen_by(), "SYN") == [CLIENT, EDGE, FUNCTIONS[2]]


def test_what_is_set_already_is_not_touched(paths: ChainPaths) -> None:
    paths.set([passage()])
    with namespaces.netlink(FUNCTIONS[0]) as ip:
        before = {link.get_attr("IFLA_IFNAME"): link["index"] for link in ip.get_links()}
    paths.set([passage()])
    with namespaces.netlink(FUNCTIONS[0]) as ip:
        assert before == {link.get_attr("IFLA_IFNAME"): link["index"] for link in ip.get_links()}


def test_another_process_finds_what_a_crash_left(paths: ChainPaths) -> None:
    before = everything()
    paths.set([passage()])
    with namespaces.netlink(FUNCTIONS[1]) as ip:  # half made, half removed
        for rule in ip.get_rules():
            if rule.get_attr("FRA_PRIORITY") == 8991:
                table = rule.get_attr("FRA_TABLE")
                ip.rule("del", family=rule["family"], priority=8991, table=table)
    again = ChainPaths(NAME)
    again.set([passage()])
    assert order(seen_by(), "SYN") == [CLIENT, EDGE, *FUNCTIONS]
    ChainPaths(NAME).set([])
    assert everything() == before


def test_what_others_made_is_left_alone(paths: ChainPaths) -> None:
    other = ChainPaths("somebody else")
    other.set([passage("theirs", FUNCTIONS[0], FUNCTIONS[2])])
    theirs = everything()
    paths.set([Passage("mine", passage().entries, passage().stations[1:], address(1))])
    paths.set([])
    assert everything() == theirs
    other.set([])


def test_a_function_that_ended_is_no_error(paths: ChainPaths) -> None:
    paths.set([passage()])
    namespaces.remove(FUNCTIONS[1])
    paths.set([])


def test_the_machine_itself_can_be_an_entry(paths: ChainPaths) -> None:
    """In a namespace that stands for it."""

    def work() -> None:
        mine = ChainPaths(NAME)
        mine.set([replace(passage(), entries=(Station(MACHINE, IPv4Address("10.77.0.1")),))])

    namespaces.inside(EDGE, work)
    assert order(seen_by(), "SYN") == [CLIENT, EDGE, *FUNCTIONS]
    paths.set([])


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_function_made_anew_under_its_name_has_another_address(paths: ChainPaths) -> None:
    paths.set([passage()])
    with namespaces.netlink(FUNCTIONS[1]) as ip:
        (index,) = ip.link_lookup(ifname="eth0")
        ip.addr("del", index=index, address=str(address(1)), prefixlen=24)
    give(FUNCTIONS[1], "eth0", "10.77.0.33/24", gateways=("10.77.0.1",))
    first, cache, last = passage().stations
    moved = replace(cache, address=IPv4Address("10.77.0.33"))
    paths.set([replace(passage(), stations=(first, moved, last))])
    assert order(seen_by(), "SYN") == [CLIENT, EDGE, *FUNCTIONS]


def test_a_tunnel_that_a_crash_left_half_made(paths: ChainPaths) -> None:
    before = everything()

    def cut_short() -> None:
        paths.set([passage()])
        with namespaces.netlink(EDGE) as ip:
            (tunnel,) = (each for each in ip.get_links() if each.get_attr("IFLA_IFALIAS"))
            for rule in forwarding_rules(ip):
                table = rule.get_attr("FRA_TABLE")
                ip.rule("del", family=rule["family"], priority=8991, table=table)
            ip.flush_routes(table=table)
            ip.link("set", index=tunnel["index"], ifalias="")

    cut_short()
    again = ChainPaths(NAME)
    again.set([passage()])
    assert order(seen_by(), "SYN") == [CLIENT, EDGE, *FUNCTIONS]
    cut_short()
    ChainPaths(NAME).set([])
    assert everything() == before


def test_no_packet_goes_past_while_a_passage_changes(
    paths: ChainPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.set([passage()])
    kernels = chains._rule
    left = []

    def watched(ip: Any, verb: str, rule: Any) -> None:
        kernels(ip, verb, rule)
        if verb == "del" and rule.priority == 8991:
            left.append([each.get_attr("FRA_DST") for each in forwarding_rules(ip)])

    monkeypatch.setattr(chains, "_rule", watched)
    paths.set([passage("shop", FUNCTIONS[1], FUNCTIONS[0], FUNCTIONS[2])])
    monkeypatch.undo()
    assert left
    assert all(str(address(2)) in each for each in left)


def test_what_comes_back_takes_the_way_of_its_own_chain(paths: ChainPaths) -> None:
    """Two chains have a function in the middle in common, and others before it."""
    backwards = passage("back", *reversed(FUNCTIONS))
    paths.set([passage(), replace(backwards, target=address(0), target6=address6(0))])
    with namespaces.netlink(FUNCTIONS[1]) as ip:
        devices = {each["index"]: each for each in ip.get_links()}
        (eth0,) = ip.link_lookup(ifname="eth0")
        for target, before in ((2, 0), (0, 2)):
            answer = {"src": str(address(target)), "iif": eth0}
            (way,) = ip.route("get", dst="10.78.0.2", **answer)
            info = devices[way.get_attr("RTA_OIF")].get_attr("IFLA_LINKINFO")
            assert info is not None, "it goes by no tunnel"
            towards = info.get_attr("IFLA_INFO_DATA").get_attr("IFLA_VXLAN_GROUP")
            assert towards == str(address(before))


def test_a_machine_without_ipv6_has_tunnels_nevertheless(paths: ChainPaths) -> None:
    for name in (EDGE, *FUNCTIONS):  # as processes of hosts without an IPv6 network have it
        for which in ("all", "default"):
            setting = Path("/proc/sys/net/ipv6/conf", which, "disable_ipv6")
            namespaces.inside(name, partial(setting.write_text, "1"))
    paths.set([passage()])
    assert order(seen_by(), "SYN") == [CLIENT, EDGE, *FUNCTIONS]


def does(function: Function) -> Passage:
    first, *rest = passage().stations
    return replace(passage(), stations=(replace(first, function=function), *rest))


def test_a_rule_that_cannot_be_said_closes_its_chain_only(paths: ChainPaths) -> None:
    ports = " or ".join(f"src port {2 * each}" for each in range(100))
    with app(), pytest.raises(CannotNetwork, match=f"{FUNCTIONS[0]}: .* more than 128"):
        paths.set([does(Function(admits=parse(ports)))])
    with app(), pytest.raises(TimeoutError):
        ask(patience_s=0.5)
    paths.set([passage()])
    with app():
        assert ask().endswith("10.78.0.2")


def test_a_machine_without_nft_is_told_so(
    paths: ChainPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "NFT", "/usr/sbin/no-such-program")
    with pytest.raises(CannotNetwork, match="install the package nftables"):
        paths.set([does(Function(admits=parse("tcp")))])
    paths.set([passage()])


def test_a_filter_of_an_earlier_run_is_taken_away(paths: ChainPaths) -> None:
    paths.set([does(Function(admits=parse("udp")))])
    again = ChainPaths(NAME)
    again.set([passage()])
    with app():
        assert ask().endswith("10.78.0.2")


def test_filters_of_others_are_not_made_anew(
    paths: ChainPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = does(Function(admits=parse("tcp")))
    paths.set([whole])
    monkeypatch.setattr(functions, "apply", lambda *_: pytest.fail("asked nft again"))
    paths.set([whole, Passage("other", whole.entries, whole.stations[1:2], address(1))])


def test_what_could_not_be_removed_is_removed_next_time(
    paths: ChainPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything()
    paths.set([passage()])

    def refuse(*_: object) -> None:
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(chains, "_rule", refuse)
    with pytest.raises(CannotNetwork, match="busy"):
        paths.set([])
    monkeypatch.undo()
    paths.set([])
    assert everything() == before


def test_a_closed_chain_leads_nowhere(paths: ChainPaths) -> None:
    before = everything()
    closed = replace(passage(), stations=())
    paths.set([closed])
    with app():
        for ipv6 in (False, True):
            with pytest.raises(TimeoutError):
                ask(ipv6=ipv6, patience_s=0.3)
    ChainPaths(NAME).set([passage()])
    assert order(seen_by(), "SYN") == [CLIENT, EDGE, *FUNCTIONS]
    paths.set([closed])
    ChainPaths(NAME).set([])
    assert everything() == before
