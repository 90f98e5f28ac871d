"""Requests to the kernel: many at a time, each error with its words, and read back as written."""

import subprocess
from collections.abc import Iterator
from errno import EEXIST, ENODEV, ENOENT, ESRCH
from ipaddress import IPv6Address, ip_interface

import pytest

from orchestrator.linux import namespaces
from orchestrator.linux.rtnetlink import (
    Hop,
    Socket,
    Target,
    Way,
    add_address,
    add_neighbour,
    add_veth,
    put_route,
    remove_address,
    remove_device,
    remove_route,
    set_device,
)

pytestmark = pytest.mark.real

NAME = "ewt-rtnetlink"
MACS = bytes.fromhex("02ed9e000001"), bytes.fromhex("02ed9e000002")
GATEWAY = IPv6Address("fe80::9")  # of nobody
V4, V6 = Target(bytes([192, 0, 2, 0]), 24), Target(IPv6Address("2001:db8::").packed, 32)


@pytest.fixture
def kernel() -> Iterator[Socket]:
    """Yield a socket in a namespace with two devices, a and b, joined and up."""
    namespaces.make(NAME)
    try:
        with Socket(NAME) as made, (namespaces.FOLDER / NAME).open("rb") as here:
            made.do([add_veth("a", MACS[0], "b", MACS[1], here.fileno())])
            made.do([set_device(each.index, each.name, up=True) for each in made.devices()])
            yield made
    finally:
        namespaces.remove(NAME)


def index(kernel: Socket, name: str) -> int:
    (found,) = (each.index for each in kernel.devices() if each.name == name)
    return found


def test_devices_are_as_they_were_made(kernel: Socket) -> None:
    a, b = (each for each in sorted(kernel.devices(), key=lambda each: each.name)[:2])
    assert (a.name, a.mac, a.kind, a.up) == ("a", MACS[0], "veth", True)
    assert (b.name, b.mac, b.kind, b.up) == ("b", MACS[1], "veth", True)
    kernel.do([set_device(a.index, "a", up=False)])
    kernel.do([set_device(a.index, "a", name="c", alias="mine", mac=MACS[1])])
    (c,) = (each for each in kernel.devices() if each.index == a.index)
    assert (c.name, c.alias, c.mac, c.up, c.running) == ("c", "mine", MACS[1], False, False)
    kernel.do([remove_device(a.index, "c")])
    assert {each.name for each in kernel.devices()} == {"lo"}, "both ends go"


@pytest.mark.parametrize("text", ["192.0.2.1/32", "2001:db8::1/128", "198.51.100.7/24"])
def test_addresses_are_ours_and_go(kernel: Socket, text: str) -> None:
    address = ip_interface(text)
    kernel.do([add_address(index(kernel, "a"), address)] * 2)
    assert (index(kernel, "a"), address, True) in kernel.addresses()
    subprocess.run(["ip", "-n", NAME, "addr", "add", "203.0.113.1/32", "dev", "a"], check=True)
    assert (index(kernel, "a"), ip_interface("203.0.113.1/32"), False) in kernel.addresses()
    kernel.do([remove_address(index(kernel, "a"), address)])
    assert address not in {each.interface for each in kernel.addresses()}


@pytest.mark.parametrize("target", [V4, V6, Target(bytes(4), 0), Target(bytes(16), 0)])
def test_routes_are_read_back_as_they_were_written(kernel: Socket, target: Target) -> None:
    own = ip_interface("192.0.2.1/32" if len(target.address) == 4 else "2001:db8::1/128")
    kernel.do([set_device(1, "lo", up=True), add_address(1, own)])
    hops = [Hop(index(kernel, name), GATEWAY.packed) for name in ("a", "b")]
    for way in (Way((hops[0],), own.ip.packed), Way(tuple(sorted(hops)), own.ip.packed)):
        kernel.do([put_route(target, way)])
        assert kernel.routes() == {target: way}
    kernel.do([put_route(target, Way((hops[1],)))])
    assert kernel.routes()[target].hops == (hops[1],), "in the place of the other, not beside it"
    kernel.do([remove_route(target)])
    assert kernel.routes() == {}


def test_other_peoples_routes_are_not_told_of_nor_removed(kernel: Socket) -> None:
    subprocess.run(["ip", "-n", NAME, "route", "add", "192.0.2.0/24", "dev", "a"], check=True)
    assert kernel.routes() == {}
    kernel.do([remove_route(V4, fine=frozenset({ESRCH}))])
    told = subprocess.run(["ip", "-n", NAME, "route"], capture_output=True, text=True, check=True)
    assert "192.0.2.0/24 dev a" in told.stdout


def test_neighbours_that_are_not_asked_for(kernel: Socket) -> None:
    kernel.do([add_neighbour(index(kernel, "a"), GATEWAY, MACS[1])])
    assert kernel.permanent_neighbours() == {(index(kernel, "a"), GATEWAY, MACS[1])}


def test_thousands_of_requests_at_once(kernel: Socket) -> None:
    way = Way((Hop(index(kernel, "a"), GATEWAY.packed),))
    targets = [Target(bytes([10, 1, each >> 8, each & 255]), 32) for each in range(3000)]
    kernel.do(put_route(target, way) for target in targets)
    assert kernel.routes() == dict.fromkeys(targets, way)


def test_the_first_error_is_raised_after_the_rest_was_done(kernel: Socket) -> None:
    nowhere = put_route(V4, Way((Hop(99, GATEWAY.packed),)))
    fine = put_route(V6, Way((Hop(index(kernel, "a"), GATEWAY.packed),)))
    with pytest.raises(OSError, match=r"route to 192\.0\.2\.0/24") as caught:
        kernel.do([nowhere, remove_device(98, "x"), fine])
    assert caught.value.errno == ENODEV
    assert set(kernel.routes()) == {V6}


def test_the_kernels_own_words_are_told(kernel: Socket) -> None:
    kernel.do([set_device(index(kernel, "a"), "a", up=False)])
    with pytest.raises(OSError, match="Nexthop device is not up"):
        kernel.do([put_route(V4, Way((Hop(index(kernel, "a"), GATEWAY.packed),)))])


def test_errors_that_are_fine_are_not_raised(kernel: Socket) -> None:
    with pytest.raises(OSError, match="removing device gone"):
        kernel.do([remove_device(99, "gone")])
    kernel.do([remove_device(99, "gone", fine=frozenset({ENODEV}))])


def test_a_name_that_is_taken_is_an_error(kernel: Socket) -> None:
    with (namespaces.FOLDER / NAME).open("rb") as here, pytest.raises(FileExistsError) as caught:
        kernel.do([add_veth("a", MACS[0], "c", MACS[1], here.fileno())])
    assert caught.value.errno == EEXIST


def test_a_namespace_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Socket("ewt-nowhere")
    assert caught.value.errno == ENOENT
