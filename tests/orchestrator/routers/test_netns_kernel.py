"""What routers in this machine's kernel do beyond the contract: neighbours, rights, odd names."""

import ctypes
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from orchestrator.errors import CannotNetwork
from orchestrator.linux import namespaces
from orchestrator.linux.rtnetlink import Request, Socket
from orchestrator.network import LinkEngine, Network, Quality, StubKind, VirtualLink
from orchestrator.routers import netns
from orchestrator.routers.base import Done
from orchestrator.routers.names import mark_of, namespace_of, port_of
from orchestrator.routers.netns import NetnsRouters
from orchestrator.routers.wires import Wires
from tests.contracts.routers import clients, pair, router, square, stands, with_link
from tests.orchestrator.routers.machines import (
    MACHINE,
    NAME,
    ip,
    reaches,
    standing_for_a_machine,
    what_there_is,
)

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

R1 = namespace_of(NAME, "r1")
BRIDGE = "br-guests"
LATE = VirtualLink("r1", "r2", Quality(latency_ms=4))


@pytest.fixture
def routers(tmp_path: Path) -> Iterator[NetnsRouters]:
    with standing_for_a_machine(MACHINE):
        ip(f"-n {MACHINE} link add {BRIDGE} up type bridge")
        ip(f"-n {MACHINE} addr add 10.254.8.254/24 dev {BRIDGE}")
        before = what_there_is()
        made = NetnsRouters(NAME, tmp_path, place=MACHINE)
        yield made
        made.set(Network(""))
        assert what_there_is() == before


# --- what is not ours -----------------------------------------------------------------------------


def test_a_device_of_a_wanted_name_that_is_not_ours_is_refused(routers: NetnsRouters) -> None:
    one = Network(NAME, (router(1),))
    routers.set(one)
    ip(f"-n {R1} link add r2 type bridge")
    with pytest.raises(CannotNetwork, match=rf"r1--r2: there is a device r2 in namespace {R1}"):
        routers.set(pair(NAME))
    assert stands(routers, one)
    assert "r2" in ip(f"-n {R1} -br link")


def test_a_port_of_a_wanted_name_that_is_not_ours_is_refused(routers: NetnsRouters) -> None:
    stub = replace(clients("r1", "guests"), kind=StubKind.BRIDGE, bridge=BRIDGE)
    port = port_of(mark_of(NAME, ""), "guests")
    ip(f"-n {MACHINE} link add {port} type bridge")
    with pytest.raises(CannotNetwork, match=f"guests: there is a device {port} that is not this"):
        routers.set(replace(pair(NAME), stubs=(stub,)))
    assert not routers.found().routers
    ip(f"-n {MACHINE} link del {port}")


def test_what_people_do_inside_a_router_stays(routers: NetnsRouters) -> None:
    routers.set(square(NAME))
    ip(f"-n {R1} addr add 198.51.100.1/32 dev lo")
    ip(f"-n {R1} route add 203.0.113.0/24 dev r2")
    ip(f"-n {R1} link add mine type bridge")
    routers.set(with_link(square(NAME), VirtualLink("r1", "r3", weight=7)))
    assert "198.51.100.1" in ip(f"-n {R1} addr show dev lo")
    assert "203.0.113.0/24 dev r2" in ip(f"-n {R1} route")
    assert "mine" in ip(f"-n {R1} -br link")


def test_what_people_broke_inside_a_router_is_mended(routers: NetnsRouters) -> None:
    wanted = square(NAME)
    routers.set(wanted)
    ip(f"-n {R1} route flush proto 237")
    ip(f"-n {R1} link set r2 down")
    ip(f"-n {R1} addr flush dev lo")
    routers.set(wanted)
    assert reaches(wanted, "people", "r4")
    assert reaches(wanted, "r1", "r2", version=6)
    assert routers.set(wanted) == Done()


def test_a_program_in_a_removed_router_keeps_no_device_of_ours(routers: NetnsRouters) -> None:
    routers.set(pair(NAME))
    with subprocess.Popen(["ip", "netns", "exec", R1, "sleep", "60"]) as program:
        try:
            while Path(f"/proc/{program.pid}/comm").read_text() != "sleep\n":
                time.sleep(0.005)
            routers.set(Network(""))
            inside = ["nsenter", f"--net=/proc/{program.pid}/ns/net", "ip", "-br", "link"]
            left = subprocess.run(inside, capture_output=True, text=True, check=True).stdout
            assert [line.split()[0] for line in left.splitlines()] == ["lo"]
        finally:
            program.kill()


# --- bridges --------------------------------------------------------------------------------------


def test_the_machine_reaches_routers_through_its_bridge(routers: NetnsRouters) -> None:
    stub = replace(clients("r1", "guests"), kind=StubKind.BRIDGE, bridge=BRIDGE)
    wanted = replace(pair(NAME), stubs=(stub,))
    routers.set(wanted)
    where = (MACHINE, namespace_of(NAME, "r2"))
    with (
        namespaces.inside(where[0], partial(socket.socket, type=socket.SOCK_DGRAM)) as here,
        namespaces.inside(where[1], partial(socket.socket, type=socket.SOCK_DGRAM)) as there,
    ):
        there.bind((str(router(2).address), 4000))
        there.settimeout(2)
        here.settimeout(2)
        here.sendto(b"hello", there.getsockname())
        body, origin = there.recvfrom(100)
        assert origin[0] == "10.254.8.254"
        there.sendto(body, origin)
        assert here.recv(100) == b"hello"


def test_a_bridge_that_is_down_is_refused(routers: NetnsRouters) -> None:
    ip(f"-n {MACHINE} link set {BRIDGE} down")
    stub = replace(clients("r1", "guests"), kind=StubKind.BRIDGE, bridge=BRIDGE)
    with pytest.raises(CannotNetwork, match=f"bridge {BRIDGE} is down; set it up"):
        routers.set(replace(pair(NAME), stubs=(stub,)))


# --- links by our own process ---------------------------------------------------------------------


def by_process(link: VirtualLink = LATE) -> Network:
    return replace(pair(NAME), links=(link,), engine=LinkEngine.USER)


def round_trip_s(wanted: Network) -> float:
    began = time.monotonic()
    assert reaches(wanted, "r1", "r2")
    return time.monotonic() - began


def test_a_links_latency_is_real_and_changes(routers: NetnsRouters) -> None:
    routers.set(by_process())
    assert round_trip_s(by_process()) >= 0.008
    later = by_process(replace(LATE, quality=Quality(latency_ms=40)))
    assert routers.set(later).changed == ("r1--r2",)
    assert stands(routers, later)
    assert round_trip_s(later) >= 0.080
    assert routers.set(later) == Done()


def test_a_link_changes_its_engine_and_back(routers: NetnsRouters) -> None:
    for wanted in (pair(NAME), by_process(), pair(NAME)):
        routers.set(wanted)
        assert stands(routers, wanted)
        assert reaches(wanted, "r1", "r2")
    assert routers.found().links[0].engine is LinkEngine.NONE


def test_a_link_of_our_process_goes_down_and_up(routers: NetnsRouters) -> None:
    down = by_process(replace(LATE, up=False))
    routers.set(by_process())
    routers.set(down)
    assert stands(routers, down)
    assert not reaches(down, "r1", "r2", patience_s=0.1)
    routers.set(by_process())
    assert reaches(by_process(), "r1", "r2")


def test_a_process_that_was_killed_is_replaced(routers: NetnsRouters, tmp_path: Path) -> None:
    routers.set(by_process())
    wires = Wires(tmp_path / "wires", mark_of(NAME, ""))
    os.kill(wires.process(), signal.SIGKILL)
    routers.set(by_process())
    assert reaches(by_process(), "r1", "r2")


def test_what_our_process_loses_is_counted(routers: NetnsRouters) -> None:
    wanted = by_process(replace(LATE, quality=Quality(loss=1.0)))
    routers.set(wanted)
    before = {(each.router, each.peer): each.drops for each in routers.counters()}
    assert not reaches(wanted, "r1", "r2", patience_s=0.1)
    after = {(each.router, each.peer): each.drops for each in routers.counters()}
    assert after["r1", "r2"] > before["r1", "r2"]


# --- names, rights, kernels -----------------------------------------------------------------------


def test_names_that_the_kernel_would_not_take(routers: NetnsRouters) -> None:
    names = ["all", "default", "lo", f"{'long-' * 10}1", f"{'long-' * 10}2"]
    made = tuple(router(number, name) for number, name in enumerate(names, 1))
    links = tuple(VirtualLink(a, b) for a in names for b in names if a < b)
    wanted = Network(NAME, made, links, (clients("lo", "a-stub-of-more-than-15-letters"),))
    routers.set(wanted)
    assert stands(routers, wanted)
    assert all(reaches(wanted, link.a, link.b) for link in links)


def test_names_too_long_to_be_marked_are_refused(routers: NetnsRouters) -> None:
    with pytest.raises(CannotNetwork, match="too long for the kernel to keep as a mark"):
        routers.set(Network(NAME, (router(1, "x" * 300),)))
    assert not routers.found().routers


def test_another_network_of_ours_takes_the_place_of_the_first(routers: NetnsRouters) -> None:
    """`a-b` in `c` and `a` in `b-c` have the same namespace."""
    first = Network(f"{NAME}-a", (router(1, "b-c"),))
    second = Network(f"{NAME}-a-b", (router(2, "c"),))
    routers.set(first)
    routers.set(second)
    assert routers.found().routers == ("c",)


def without_rights(work: partial[object]) -> None:
    """Do something in a thread without capabilities; raise what it raises."""
    errors: list[BaseException] = []

    def run() -> None:
        # capget(2): struct __user_cap_header_struct of version 3, and two of ..._data_struct
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.capset((ctypes.c_uint32 * 2)(0x2008_0522, 0), (ctypes.c_uint32 * 6)()) == 0
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised where it was asked for
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def test_without_rights_nothing_is_made_and_it_is_said_why(tmp_path: Path) -> None:
    before = set(namespaces.names())
    routers = NetnsRouters(NAME, tmp_path)
    with pytest.raises(CannotNetwork, match="run as root, or give edgewake CAP_NET_ADMIN"):
        without_rights(partial(routers.set, pair(NAME)))
    assert {name for name in set(namespaces.names()) - before if NAME in name} == set()


def test_without_veth_nothing_is_made_and_it_is_said_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = netns.add_veth

    def add_veth(*arguments: object) -> Request:
        made = real(*arguments)  # type: ignore[arg-type]
        return made._replace(body=made.body.replace(b"veth", b"none"))

    monkeypatch.setattr(netns, "add_veth", add_veth)
    with pytest.raises(CannotNetwork, match=r"on this kernel: .*; it needs .* veth devices"):
        NetnsRouters(NAME, tmp_path).set(pair(NAME))
    assert not [name for name in namespaces.names() if NAME in name]


def test_a_network_in_the_namespace_we_are_in(tmp_path: Path) -> None:
    routers = NetnsRouters(NAME, tmp_path)
    try:
        routers.set(pair(NAME))
        assert reaches(pair(NAME), "r1", "r2")
    finally:
        routers.set(Network(""))


def test_names_of_namespaces_that_a_crash_left_are_swept_away(routers: NetnsRouters) -> None:
    left = [namespaces.FOLDER / namespace_of(NAME, name) for name in ("r1", "gone")]
    for path in left:
        path.touch(0o444)
    routers.set(pair(NAME))
    assert stands(routers, pair(NAME))
    assert not left[1].exists()
    with Socket(R1) as kernel:
        assert {each.name for each in kernel.devices()} == {"lo", "r2"}
