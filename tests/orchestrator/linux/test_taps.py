"""TAP devices are opened where they are, never made by mistake, and say what is wrong."""

import os
import socket
import struct
from collections.abc import Iterator
from errno import EBUSY, EINVAL, ENODEV

import pytest

from orchestrator.linux import namespaces, taps

pytestmark = pytest.mark.real

NAME = f"ewtt{os.getpid()}"
TAP = "tap0"


@pytest.fixture
def namespace() -> Iterator[str]:
    namespaces.make(NAME)
    try:
        namespaces.inside(NAME, lambda: taps.make(TAP))
        with namespaces.netlink(NAME) as ip:
            ip.link("set", index=ip.link_lookup(ifname=TAP)[0], state="up")
        yield NAME
    finally:
        namespaces.remove(NAME)


def attached(name: str = TAP) -> int:
    return namespaces.inside(NAME, lambda: taps.attach(name, 77))


def carrier(namespace: str) -> bool:
    with namespaces.netlink(namespace) as ip:
        return bool(ip.get_links(ifname=TAP)[0].get_attr("IFLA_CARRIER"))


def test_frames_come_whole_with_their_header(namespace: str) -> None:
    tap = attached()
    sent = b"\xff" * 6 + b"\x02" * 6 + b"\x88\xb5" + b"hello" * 20

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as packet:
            packet.bind((TAP, 0))
            packet.send(sent)

    try:
        namespaces.inside(namespace, send)
        frames = []
        while sent not in frames:  # IPv6 says something, too
            frames.append(os.read(tap, 2048)[taps.HEADER_BYTES :])
    finally:
        os.close(tap)


def test_the_queue_is_as_long_as_asked(namespace: str) -> None:
    os.close(attached())
    with namespaces.netlink(namespace) as ip:
        assert ip.get_links(ifname=TAP)[0].get_attr("IFLA_TXQLEN") == 77


def test_the_cable_can_be_pulled_and_put_in(namespace: str) -> None:
    tap = attached()
    try:
        assert carrier(namespace)
        taps.set_carrier(tap, on=False)
        assert not carrier(namespace)
        taps.set_carrier(tap, on=True)
        assert carrier(namespace)
        taps.offload(tap, segments=True)
        taps.offload(tap, segments=False)
    finally:
        os.close(tap)
    assert not carrier(namespace), "nobody has it open"


@pytest.mark.parametrize(("name", "number"), [("tap9", ENODEV), ("lo", EINVAL)])
def test_what_is_no_tap_is_refused_by_name(namespace: str, name: str, number: int) -> None:
    with pytest.raises(OSError, match=name) as refused:
        attached(name)
    assert refused.value.errno == number
    with namespaces.netlink(namespace) as ip:
        assert not ip.link_lookup(ifname="tap9")


def test_one_is_not_made_over_another(namespace: str) -> None:
    with pytest.raises(FileExistsError, match=TAP):
        namespaces.inside(namespace, lambda: taps.make(TAP))


def test_one_that_somebody_has_open_is_busy(namespace: str) -> None:
    tap = attached()
    try:
        with pytest.raises(OSError, match=TAP) as refused:
            attached()
        assert refused.value.errno == EBUSY
    finally:
        os.close(tap)


def test_a_file_that_is_no_tap_has_no_carrier() -> None:
    with open(os.devnull, "rb") as file, pytest.raises(OSError, match="ioctl"):  # noqa: PTH123
        taps.set_carrier(file.fileno(), on=True)
    assert struct.calcsize("BBHHHH") == taps.HEADER_BYTES


def test_a_passing_one_goes_with_its_file() -> None:
    def work() -> tuple[list[str], list[str]]:
        tap = taps.make_passing("ewtp0")
        during = [name for _, name in socket.if_nameindex()]
        os.close(tap)
        return during, [name for _, name in socket.if_nameindex()]

    during, after = namespaces.passing(work)
    assert "ewtp0" in during
    assert "ewtp0" not in after
