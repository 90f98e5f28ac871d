"""An idle hello uses next to nothing of its host's processor."""

import contextlib
import socket
import time

import pytest

from tests.images.hello.conftest import ADDRESS, HOST, Fetch, Guest, Lan

pytestmark = pytest.mark.real

SPAN_S = 1.5


def busy_and_idle(guest: Guest, fetch: Fetch, address: str) -> tuple[int, int]:
    """Return the clock ticks QEMU uses while it is asked all the time, and while it is not."""
    start, until = guest.cpu_ticks(), time.monotonic() + SPAN_S
    while time.monotonic() < until:
        fetch(address=address)
    busy = guest.cpu_ticks() - start
    time.sleep(0.2)
    start = guest.cpu_ticks()
    time.sleep(SPAN_S)
    return busy, guest.cpu_ticks() - start


def test_asleep_between_requests(lan: Lan, fetch: Fetch) -> None:
    lan.tap("tap0", f"{HOST}/24")
    guest = lan.boot()
    guest.says("listening on 10.")
    busy, idle = busy_and_idle(guest, fetch, ADDRESS)
    assert busy > 10
    assert idle < busy / 10


def test_asleep_while_a_timer_is_pending(lan: Lan, fetch: Fetch) -> None:
    """Open connections have time-outs, and a client of DHCP has a lease: none of them ticks."""
    lan.tap("tap0", f"{HOST}/24")
    guest = lan.boot("")  # asks for an address for ever
    other = lan.boot(tap=second_tap(lan), mac="02:00:00:00:00:03")
    other.says("listening on 10.")
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.create_connection((ADDRESS, 80), 10))
        busy, idle = busy_and_idle(other, fetch, ADDRESS)
        start = guest.cpu_ticks()
        time.sleep(SPAN_S)
        asking = guest.cpu_ticks() - start
    assert idle < busy / 10
    assert asking < busy / 10


def second_tap(lan: Lan) -> str:
    lan.ip("addr", "del", f"{HOST}/24", "dev", "tap0")
    lan.tap("tap1", f"{HOST}/24")
    return "tap1"
