"""A slice always has its part of a link, and what others leave; by real TCP in namespaces."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from orchestrator.linux import namespaces
from orchestrator.network import LinkEngine, Quality, SliceShare
from orchestrator.routers import shaping, slicing

GOLD = SliceShare("gold", (ip_network("10.71.0.0/16"), ip_network("fd71::/32")), 30.0)
TIN = SliceShare("tin", (ip_network("10.72.0.0/16"),), 10.0)
LINK = Quality(bandwidth_mbps=50.0)
PORT = 7001


# --- what is wanted -----------------------------------------------------------------------------


def test_each_slice_has_a_class_and_so_has_the_rest() -> None:
    link, *parts, rest = slicing.classes(50.0, (GOLD, TIN))
    assert (link.mbps, link.most_mbps) == (50.0, 50.0)
    assert [(each.mbps, each.most_mbps) for each in parts] == [(30.0, 50.0), (10.0, 50.0)]
    assert (rest.mbps, rest.most_mbps) == (10.0, 50.0)
    assert len({each.minor for each in (link, *parts, rest)}) == 4
    assert all(each.parent == link.minor for each in (*parts, rest))


def test_what_the_slices_leave_is_never_nothing() -> None:
    assert slicing.classes(30.0, (GOLD,))[-1].mbps == pytest.approx(0.01)


def test_a_slice_keeps_its_class_when_another_comes() -> None:
    def minor(*slices: SliceShare) -> int:
        return slicing.classes(50.0, slices)[1].minor

    assert minor(GOLD) == minor(GOLD, TIN)


def test_packets_are_known_by_either_address() -> None:
    wanted = slicing.filters((TIN, GOLD))
    assert len({each.priority for each in wanted}) == len(wanted) == 6
    assert sorted(key for each in wanted for key in each.matches()) == [
        "0x0a470000/0xffff0000+12",
        "0x0a470000/0xffff0000+16",
        "0x0a480000/0xffff0000+12",
        "0x0a480000/0xffff0000+16",
        "0xfd710000/0xffffffff+24",
        "0xfd710000/0xffffffff+8",
    ]


@pytest.mark.parametrize(
    ("engine", "kinds"),
    [
        (LinkEngine.SHAPER, ["htb"]),
        (LinkEngine.USER, ["htb"]),
        (LinkEngine.NETEM, ["netem", "htb"]),
    ],
)
def test_the_bandwidth_is_shared_out_whatever_the_engine(
    engine: LinkEngine, kinds: list[str]
) -> None:
    slow = Quality(latency_ms=5.0, bandwidth_mbps=50.0)
    assert [each.kind for each in shaping.qdiscs(slow, engine, (GOLD,))] == kinds
    assert shaping.left_to_wire(slow, (GOLD,)) == Quality(latency_ms=5.0)
    assert shaping.left_to_wire(slow, ()) == slow


def test_it_is_told_as_tc_spells_it() -> None:
    (shares,) = shaping.qdiscs(LINK, LinkEngine.SHAPER, (GOLD,))
    assert shaping.tc_lines("d", (shares,)) == [
        "qdisc replace dev d root handle ed3: htb default ffff"
    ]
    assert slicing.classes(50.0, (GOLD,))[0].words() == (
        "parent ed3: classid ed3:1 htb rate 50mbit ceil 50mbit"
    )


# --- in the kernel ------------------------------------------------------------------------------

NEAR, FAR = f"ew-tsl{os.getpid()}-near", f"ew-tsl{os.getpid()}-far"
real = pytest.mark.real


@pytest.fixture
def pair() -> Iterator[None]:
    """Two namespaces, joined by a veth, with an address of each slice and one of nobody's."""
    try:
        for name in (NEAR, FAR):
            namespaces.make(name)
        with namespaces.netlink(NEAR) as ip:
            peer = {"ifname": "eth0", "net_ns_fd": str(namespaces.FOLDER / FAR)}
            ip.link("add", ifname="eth0", kind="veth", peer=peer)
        for number, name in enumerate((NEAR, FAR), 1):
            with namespaces.netlink(name) as ip:
                (index,) = ip.link_lookup(ifname="eth0")
                ip.link("set", index=index, state="up")
                for net in (71, 72, 73):
                    ip.addr("add", index=index, address=f"10.{net}.0.{number}", prefixlen=16)
        yield
    finally:
        for name in (NEAR, FAR):
            namespaces.remove(name)


def shape(quality: Quality, *slices: SliceShare) -> None:
    with namespaces.netlink(NEAR) as ip:
        (index,) = ip.link_lookup(ifname="eth0")
        shaping.shape(ip, index, quality, LinkEngine.SHAPER, slices)


def tree() -> tuple[list[str], set[int], set[int]]:
    """Return the kinds of disciplines, the classes and the priorities of filters that there are."""
    with namespaces.netlink(NEAR) as ip:
        (index,) = ip.link_lookup(ifname="eth0")
        kinds = [each.get_attr("TCA_KIND") for each in ip.get_qdiscs(index) if each["handle"]]
        found = {each["handle"] & 0xFFFF for each in ip.get_classes(index)}
        priorities = {each["info"] >> 16 for each in ip.get_filters(index, slicing.HANDLE)}
        return kinds, found, priorities


def send(net: int, seconds: float, got: dict[int, float]) -> None:
    """Send as fast as TCP can from one slice's address; note what arrived (Mbit/s)."""
    listener = namespaces.inside(FAR, lambda: socket.create_server((f"10.{net}.0.2", PORT)))

    def connect() -> socket.socket:
        return socket.create_connection((f"10.{net}.0.2", PORT), 5, (f"10.{net}.0.1", 0))

    with listener, namespaces.inside(NEAR, connect) as sender:
        receiver, _ = listener.accept()
        with receiver:
            sender.setblocking(False)
            receiver.setblocking(False)
            data, size, start = bytes(65536), 0, time.monotonic()
            warm = start + seconds / 3
            while (now := time.monotonic()) < start + seconds:
                try:
                    sender.send(data)
                except BlockingIOError:
                    time.sleep(0.001)
                try:
                    read = len(receiver.recv(1 << 20))
                    size += read if now > warm else 0
                except BlockingIOError:
                    pass
            got[net] = size * 8 / 1e6 / (seconds * 2 / 3)


def rates(*nets: int, seconds: float = 1.5) -> dict[int, float]:
    got: dict[int, float] = {}
    threads = [threading.Thread(target=send, args=(net, seconds, got)) for net in nets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


@real
def test_two_slices_at_once_have_what_they_were_promised(pair: None) -> None:
    shape(LINK, GOLD, TIN)
    got = rates(71, 72, 73)
    assert got[71] > 0.85 * GOLD.mbps
    assert got[72] > 0.75 * TIN.mbps
    assert sum(got.values()) < 1.15 * 50
    alone = rates(72)
    assert alone[72] > 2.5 * TIN.mbps, "what others leave is had as well"


@real
def test_slices_come_change_and_go(pair: None) -> None:
    shape(LINK)
    assert tree()[0] == ["tbf"]
    shape(LINK, GOLD)
    kinds, made, filters = tree()
    assert kinds == ["htb"]
    shape(LINK, TIN, GOLD)
    assert made < tree()[1]
    assert filters < tree()[2]
    again = tree()
    shape(LINK, TIN, GOLD)
    assert tree() == again
    shape(LINK, GOLD)
    assert tree() == (kinds, made, filters)
    shape(LINK)
    assert tree()[::2] == (["tbf"], set())
    shape(Quality(), GOLD)
    assert tree()[0] == []
