"""Bridges and taps on this machine's kernel: made whole, found, changed, removed."""

import fcntl
import os
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from errno import EEXIST, ENODEV, ERANGE
from ipaddress import ip_interface
from pathlib import Path

import pytest

from orchestrator.linux.bridges import Link, Links

pytestmark = pytest.mark.real

TUNSETIFF, IFF_TAP_NO_PI = 0x400454CA, 0x1002  # linux/if_tun.h
MAC = "02:ed:0a:58:01:01"
SYS = Path("/sys/class/net")


@pytest.fixture
def name() -> Iterator[str]:
    """Return a prefix of device names; what has it is removed after the test."""
    prefix = f"ewb{uuid.uuid4().hex[:6]}"
    yield prefix
    with Links() as links:
        for link in links.all():
            if link.name.startswith(prefix):
                links.remove(link)


@pytest.fixture
def links() -> Iterator[Links]:
    with Links() as links:
        yield links


def found(links: Links, name: str) -> Link:
    link = links.find(name)
    assert link is not None
    return link


def drafts(links: Links) -> set[str]:
    """Return the bridges that somebody is just making, or has left half-made."""
    return {link.name for link in links.all() if link.name.startswith("ewd") and not link.alias}


def test_a_bridge_is_made_marked_addressed_and_removed(links: Links, name: str) -> None:
    made = links.add_bridge(name, "edgewake:x", MAC)
    assert (made.name, made.kind, made.alias, made.up) == (name, "bridge", "edgewake:x", False)
    for addresses in (["10.88.1.1/24"], ["10.88.1.2/25", "fd88::1/64"], ["fd88::2/64"], []):
        wanted = {ip_interface(address) for address in addresses}
        links.bring_up(made, wanted)
        links.bring_up(made, wanted)
        assert links.addresses(made) == wanted
        assert found(links, name).up
    assert (SYS / name / "address").read_text().strip() == MAC
    links.remove(made)
    links.remove(made)
    assert links.find(name) is None


def test_a_bridge_is_not_made_over_another_device(links: Links, name: str) -> None:
    before = drafts(links)
    subprocess.run(["ip", "tuntap", "add", name, "mode", "tap"], check=True)
    with pytest.raises(FileExistsError, match=name) as caught:
        links.add_bridge(name, "edgewake:x", MAC)
    assert caught.value.errno == EEXIST
    assert drafts(links) == before


def test_a_bridge_cut_short_is_no_obstacle(links: Links, name: str) -> None:
    before = drafts(links)
    script = (
        "import os, sys; from orchestrator.linux.bridges import Links\n"
        "Links._set = lambda *_, **__: os._exit(7)\n"
        "with Links() as links: links.add_bridge(sys.argv[1], 'edgewake:x', sys.argv[2])"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", script, name, MAC], cwd=root, check=False)
    assert done.returncode == 7
    assert len(drafts(links) - before) == 1
    links.add_bridge(name, "edgewake:x", MAC)
    assert drafts(links) == before


def test_a_tap_belongs_to_a_bridge_a_user_and_us(links: Links, name: str) -> None:
    bridge = links.add_bridge(f"{name}b", "edgewake:x", MAC)
    links.bring_up(bridge, [])
    links.add_tap(f"{name}t", "edgewake:x:guest", bridge, 12345)
    (tap,) = links.ports(bridge)
    assert (tap.name, tap.kind, tap.alias, tap.up) == (f"{name}t", "tun", "edgewake:x:guest", True)
    assert (SYS / tap.name / "owner").read_text().strip() == "12345"
    assert not links.addresses(tap)


def test_a_tap_is_not_ready_while_somebody_else_has_it_open(
    links: Links, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a child does that another thread is forking: it has a copy of every open file."""
    bridge = links.add_bridge(f"{name}b", "edgewake:x", MAC)
    real, closed = Links._set, threading.Event()

    def close(copy: int) -> None:
        closed.set()
        os.close(copy)

    def forking(self: Links, index: int, **attributes: object) -> None:
        copy = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(copy, TUNSETIFF, struct.pack("16sH22x", f"{name}t".encode(), IFF_TAP_NO_PI))
        threading.Timer(0.3, close, [copy]).start()
        real(self, index, **attributes)

    monkeypatch.setattr(Links, "_set", forking)
    links.add_tap(f"{name}t", "edgewake:x:guest", bridge, 0)
    assert closed.is_set()


def test_a_tap_that_cannot_be_finished_is_not_left(links: Links, name: str) -> None:
    gone = links.add_bridge(f"{name}b", "edgewake:x", MAC)
    links.remove(gone)
    with pytest.raises(OSError, match=f"{name}t"):
        links.add_tap(f"{name}t", "edgewake:x:guest", gone, 0)
    assert links.find(f"{name}t") is None


def test_errors_name_the_device(links: Links, name: str) -> None:
    bridge = links.add_bridge(name, "edgewake:x", MAC)
    links.remove(bridge)
    with pytest.raises(OSError, match=f"No such device: '{name}'") as caught:
        links.bring_up(bridge, [])
    assert caught.value.errno == ENODEV
    with pytest.raises(OSError, match="sixteen-letters-") as caught:
        links.add_bridge("sixteen-letters-", "edgewake:x", MAC)
    assert caught.value.errno == ERANGE
