"""Hello takes its address by DHCP: gets it, keeps it, loses it, asks again."""

import random
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

import pytest

from tests.images.hello.conftest import ADDRESS, HOST, TIMEOUT_S, Fetch, Guest, Lan
from tests.images.hello.frames import GUEST_MAC

pytestmark = pytest.mark.real

SO_BINDTODEVICE = 25
MAGIC = bytes.fromhex("63825363")
DISCOVER, OFFER, REQUEST, ACK, NAK = 1, 2, 3, 5, 6
MASK, ROUTER, HOST_NAME, WANTED, LEASE, TYPE, SERVER, CLIENT_ID = 1, 3, 12, 50, 51, 53, 54, 61


@dataclass(frozen=True)
class Message:
    """A DHCP message from the guest."""

    xid: bytes
    options: dict[int, bytes]
    client_ip: IPv4Address
    flags: int
    source: str
    at: float

    @property
    def type(self) -> int:
        return self.options[TYPE][0]


class Server:
    """As much of a DHCP server as a test wants to be, on an ordinary socket."""

    def __init__(self, tap: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, tap.encode())
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self._socket.settimeout(TIMEOUT_S)
        self._socket.bind(("", 67))

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def hear(self, *kinds: int) -> Message:
        """Return the next message, which must be of one of these kinds."""
        data, (source, port) = self._socket.recvfrom(2048)
        assert port == 68
        assert data[:4] == bytes([1, 1, 6, 0])
        assert data[28:34] == GUEST_MAC
        assert data[236:240] == MAGIC
        options, at = {}, 240
        while data[at] != 255:
            options[data[at]] = data[at + 2 : at + 2 + data[at + 1]]
            at += 2 + data[at + 1]
        flags = int.from_bytes(data[10:12], "big")
        message = Message(
            data[4:8], options, IPv4Address(data[12:16]), flags, source, time.monotonic()
        )
        assert message.type in kinds
        return message

    def say(self, kind: int, to: Message, *, lease_s: int = 600, address: str = ADDRESS) -> None:
        to_ip = str(to.client_ip) if to.client_ip != IPv4Address(0) else "255.255.255.255"
        self._socket.sendto(reply(kind, to, lease_s=lease_s, address=address), (to_ip, 68))

    def raw(self, data: bytes) -> None:
        self._socket.sendto(data, ("255.255.255.255", 68))

    def give(self, *, lease_s: int = 600, address: str = ADDRESS) -> Message:
        """Go once through all four messages."""
        self.say(OFFER, self.hear(DISCOVER), lease_s=lease_s, address=address)
        request = self.hear(REQUEST)
        self.say(ACK, request, lease_s=lease_s, address=address)
        return request


def reply(kind: int, to: Message, *, lease_s: int, address: str) -> bytes:
    head = struct.pack(">4B4sHH", 2, 1, 6, 0, to.xid, 0, to.flags)
    ips = bytes(4) + IPv4Address(address).packed + bytes(8)
    options = {
        TYPE: bytes([kind]),
        SERVER: IPv4Address(HOST).packed,
        LEASE: lease_s.to_bytes(4, "big"),
        MASK: IPv4Address("255.255.255.0").packed,
        ROUTER: IPv4Address(HOST).packed,
    }
    if kind == NAK:
        ips, options = bytes(16), {key: options[key] for key in (TYPE, SERVER)}
    packed = b"".join(bytes([code, len(value)]) + value for code, value in options.items())
    return head + ips + GUEST_MAC + bytes(10 + 64 + 128) + MAGIC + packed + b"\xff"


@pytest.fixture
def tap(lan: Lan) -> Lan:
    lan.tap("tap0", f"{HOST}/24")
    return lan


@pytest.fixture
def server(tap: Lan) -> Iterator[Server]:
    with Server("tap0") as server:
        yield server


@pytest.fixture
def client(tap: Lan, server: Server) -> Guest:
    return tap.boot("name=by-dhcp")


def test_it_takes_what_it_is_offered(client: Guest, server: Server, fetch: Fetch) -> None:
    discover = server.hear(DISCOVER)
    assert discover.options[HOST_NAME] == b"by-dhcp"
    assert discover.options[CLIENT_ID] == b"\1" + GUEST_MAC
    server.say(OFFER, discover)
    request = server.hear(REQUEST)
    assert request.xid == discover.xid
    assert request.options[WANTED] == IPv4Address(ADDRESS).packed
    assert request.options[SERVER] == IPv4Address(HOST).packed
    server.say(ACK, request)
    client.says(f"hello: listening on {ADDRESS} port 80")
    assert fetch("/info").json["ip"] == ADDRESS


def test_it_asks_again_ever_more_slowly(client: Guest, server: Server) -> None:
    asked = [server.hear(DISCOVER) for _ in range(3)]
    first, second = asked[1].at - asked[0].at, asked[2].at - asked[1].at
    assert 1.3 < second / first < 3
    server.say(OFFER, asked[-1])
    assert server.hear(REQUEST).xid == asked[-1].xid


def test_it_repeats_a_request_that_was_lost(client: Guest, server: Server) -> None:
    server.say(OFFER, server.hear(DISCOVER))
    first, second = server.hear(REQUEST), server.hear(REQUEST)
    assert first.options == second.options
    server.say(ACK, second)
    client.says("listening on")


def test_it_renews_its_lease_with_its_server(client: Guest, server: Server, fetch: Fetch) -> None:
    server.give(lease_s=2)
    client.says("listening on")
    for _ in range(3):  # longer than the first lease
        renewal = server.hear(REQUEST)
        assert renewal.client_ip == IPv4Address(ADDRESS)
        assert renewal.source == ADDRESS
        assert not renewal.options.keys() & {SERVER, WANTED}
        server.say(ACK, renewal, lease_s=2)
    assert fetch().status == 200
    assert client.console.count("listening on") == 1


def test_it_gives_the_address_up_when_the_lease_is_over(client: Guest, server: Server) -> None:
    server.give(lease_s=2)
    client.says("listening on")
    client.says("the lease is over")
    while server.hear(REQUEST, DISCOVER).type != DISCOVER:
        pass  # its vain attempts to renew the lease
    with pytest.raises(OSError, match=r"unreachable|timed out|No route"):
        socket.create_connection((ADDRESS, 80), 0.5)


def test_it_starts_again_when_it_is_refused(client: Guest, server: Server, fetch: Fetch) -> None:
    server.say(OFFER, server.hear(DISCOVER))
    server.say(NAK, server.hear(REQUEST))
    client.says("refused")
    server.give(address="10.0.0.9")
    client.says("listening on 10.0.0.9")
    assert fetch(address="10.0.0.9").status == 200


def test_an_offer_nobody_stands_by_is_forgotten(client: Guest, server: Server) -> None:
    """The server falls silent after its offer: after some requests another one may answer."""
    server.say(OFFER, server.hear(DISCOVER))
    requests = [server.hear(REQUEST) for _ in range(3)]
    assert len({request.xid for request in requests}) == 1
    server.give()
    client.says("listening on")


def test_damaged_answers_do_not_disturb_it(client: Guest, server: Server, fetch: Fetch) -> None:
    chance = random.Random(3)  # noqa: S311 - a seed, so that a failure comes again
    discover = server.hear(DISCOVER)
    good = reply(OFFER, discover, lease_s=600, address=ADDRESS)
    for _ in range(1000):
        bad = bytearray(good)
        for _ in range(3):
            bad[chance.choice((chance.randrange(len(bad)), chance.randrange(236, len(bad))))] = (
                chance.randrange(256)
            )
        cut = chance.randrange(len(bad)) if chance.random() < 0.3 else len(bad)
        bad[4] ^= 0xFF  # some other client's transaction, or it may be believed
        if chance.random() < 0.5:
            bad[4] ^= 0xFF
            bad[242] = 0xEE  # no type of message there is
        server.raw(bytes(bad[:cut]))
    server.say(OFFER, discover)
    message = server.hear(REQUEST)
    server.say(ACK, message)
    client.says("listening on")
    assert "exception" not in client.console
    assert fetch().status == 200
