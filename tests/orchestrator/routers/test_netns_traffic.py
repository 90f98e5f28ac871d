"""Live traffic through namespaces: nothing of it is lost when we change the network on purpose."""

import select
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from benchmarks.reroute import Loss, changed, loss, ring
from orchestrator.linux import namespaces
from orchestrator.network import Network
from orchestrator.routers.names import namespace_of
from orchestrator.routers.netns import NetnsRouters
from tests.contracts.routers import square
from tests.orchestrator.routers.machines import (
    MACHINE,
    NAME,
    PATIENCE_S,
    address_of,
    standing_for_a_machine,
)

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

# linux/in.h, linux/errqueue.h
IP_RECVERR, IP_TTL = 11, 2
IPV6_RECVERR, IPV6_UNICAST_HOPS = 25, 16
OFFENDER = 16  # bytes; struct sock_extended_err, behind which the address is that told the error


@pytest.fixture
def routers(tmp_path: Path) -> Iterator[NetnsRouters]:
    with standing_for_a_machine(MACHINE):
        made = NetnsRouters(NAME, tmp_path, place=MACHINE)
        yield made
        made.set(Network(""))


def test_nothing_is_lost_while_routes_move(routers: NetnsRouters) -> None:
    network = ring(NAME, 6)
    routers.set(network)
    losses: list[Loss] = []
    for wanted in (changed(network, weight=9.0), network, changed(network, up=False), network):
        losses.append(loss(network, partial(routers.set, wanted)))
        print(f"lost {losses[-1].lost} of {losses[-1].sent}")  # noqa: T201 - as the issue asks
    assert [each.lost for each in losses] == [0] * 4
    assert all(each.sent > 50 for each in losses), "there was traffic"


@pytest.mark.parametrize("version", [4, 6])
def test_each_router_on_the_way_tells_its_own_address(routers: NetnsRouters, version: int) -> None:
    wanted = square(NAME)
    routers.set(wanted)
    assert who_says_too_far(wanted, "people", "r4", version, 2) == address_of(wanted, "r2", version)


def who_says_too_far(wanted: Network, origin: str, target: str, version: int, hops: int) -> str:
    """Send a packet that may go so many hops; return who says that it ended there."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with ExitStack() as held:
        where = namespace_of(wanted.name, origin)
        made = namespaces.inside(where, partial(socket.socket, family, socket.SOCK_DGRAM))
        held.enter_context(made)
        level = socket.IPPROTO_IP if version == 4 else socket.IPPROTO_IPV6
        made.setsockopt(level, IP_TTL if version == 4 else IPV6_UNICAST_HOPS, hops)
        made.setsockopt(level, IP_RECVERR if version == 4 else IPV6_RECVERR, 1)
        made.sendto(b"hello", (address_of(wanted, target, version), 33434))
        poll = select.poll()
        poll.register(made, 0)  # errors are told anyway
        assert poll.poll(PATIENCE_S * 1000)
        _, told, _, _ = made.recvmsg(512, 512, socket.MSG_ERRQUEUE)
        (error,) = (data for _, kind, data in told if kind in (IP_RECVERR, IPV6_RECVERR))
        (family,) = struct.unpack_from("=H", error, OFFENDER)
        size, start = (4, 4) if family == socket.AF_INET else (16, 8)
        packed = error[OFFENDER + start : OFFENDER + start + size]
        return socket.inet_ntop(family, packed)
