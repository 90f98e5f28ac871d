"""Hello's TCP, segment by segment, and under load."""

import contextlib
import itertools
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import BinaryIO

import pytest

from tests.images.hello.conftest import ADDRESS, ADDRESS6, TIMEOUT_S, Fetch, Guest
from tests.images.hello.frames import (
    ACK,
    FIN,
    PEER6,
    PSH,
    RST,
    SYN,
    Peer,
    Segment,
    Wire,
)

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("guest")]

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
MSS_OPTION = {n: b"\2\4" + n.to_bytes(2, "big") for n in (1, 536, 1220, 1459, 1460, 65535)}
PORTS = iter(range(20000, 30000))


@pytest.fixture
def wire(guest: Guest) -> Iterator[Wire]:
    with Wire("tap0") as wire:
        yield wire


@pytest.fixture
def peer(wire: Wire) -> Iterator[Peer]:
    """Return a peer that has sent its SYN and got the answer; reset it afterwards."""
    peer = Peer(wire, next(PORTS))
    peer.open()
    yield peer
    peer.reset()


def connections(fetch: Fetch) -> int:
    """Return how many connections there are besides the one that asks."""
    return int(fetch("/info").json["connections"]) - 1


def wait_until_empty(fetch: Fetch) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while connections(fetch) > 0:
        assert time.monotonic() < deadline, fetch("/info").body
        time.sleep(0.2)


def body_of(reply: Segment | None) -> bytes:
    assert reply is not None
    return reply.data.partition(b"\r\n\r\n")[2]


# --- opening ----------------------------------------------------------------------------------


def test_a_syn_alone_takes_no_place(peer: Peer, fetch: Fetch) -> None:
    wait_until_empty(fetch)
    peer.send(SYN)
    assert connections(fetch) == 0


@pytest.mark.parametrize(("offered", "used"), [(None, 536), (536, 536), (1220, 1220), (1459, 1440)])
def test_the_peers_segment_size_is_kept_to(wire: Wire, offered: int | None, used: int) -> None:
    peer = Peer(wire, next(PORTS))
    options = MSS_OPTION[offered] if offered else b""
    wire.send(Segment(peer.last.source, 80, peer.last.seq, flags=SYN, options=options).frame())
    answer = peer.reply()
    assert answer is not None
    assert answer.options == MSS_OPTION[1460]
    peer.advance(1)
    peer.expected = answer.seq + 1
    peer.send(ACK | PSH, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    replies = [peer.reply() for _ in range(2)]
    largest = max(len(reply.data) for reply in replies if reply)
    peer.reset()
    assert largest == used


def test_data_may_come_with_the_first_ack(peer: Peer) -> None:
    peer.send(ACK | PSH, GET)
    assert body_of(peer.reply()) == b"ok\n"


def test_a_second_segment_may_come_first(peer: Peer) -> None:
    """Both the handshake's last segment and the first data are late: nothing must break."""
    peer.send(ACK | PSH, GET[10:], ahead=10)
    assert peer.reply(0.3) is None
    peer.send(ACK | PSH, GET)
    assert body_of(peer.reply()) == b"ok\n"


@pytest.mark.parametrize(("seq", "ack"), [(0, 1), (77, 0), (1 << 30, 1 << 29), (-1, 0)])
def test_an_ack_that_belongs_to_nothing_is_reset(peer: Peer, seq: int, ack: int) -> None:
    """By how much the numbers are off from those of the handshake."""
    peer.advance(seq)
    peer.expected = (peer.expected + ack) % 2**32
    peer.send(ACK)
    answer = peer.reply()
    assert answer is not None
    assert (answer.flags, answer.seq) == (RST, peer.expected)


def test_the_last_ack_of_a_connection_opens_no_new_one(wire: Wire) -> None:
    """Both numbers have grown by one since the handshake, which it must not be taken for."""
    peer = Peer(wire, next(PORTS))
    peer.open()
    peer.advance(1)
    peer.expected += 1
    peer.send(ACK)
    answer = peer.reply()
    assert answer is not None
    assert answer.flags == RST


@pytest.mark.parametrize("flags", [0, FIN, SYN | ACK, SYN | FIN, RST, RST | ACK, SYN | RST])
def test_other_segments_open_nothing(wire: Wire, fetch: Fetch, flags: int) -> None:
    peer = Peer(wire, next(PORTS))
    peer.send(flags)
    answer = peer.reply(0.3)
    if flags & RST:
        assert answer is None
    else:
        assert answer is not None
        assert answer.flags & RST


def test_sequence_numbers_differ_from_peer_to_peer(wire: Wire) -> None:
    numbers = [Peer(wire, next(PORTS)).open().seq for _ in range(20)]
    steps = {(b - a) % 2**32 for a, b in itertools.pairwise(numbers)}
    assert len(steps) == 19


# --- receiving --------------------------------------------------------------------------------


def test_pieces_out_of_order_twice_and_overlapping(peer: Peer) -> None:
    peer.send(ACK)
    answer: Segment | None = None
    for start, end in ((20, 30), (0, 10), (0, 10), (5, 15), (25, 30), (12, 20), (8, 30)):
        peer.send(ACK, GET[start:end], ahead=start)
        answer = peer.reply()
        assert answer is not None
        assert answer.data == b""
    assert answer is not None
    assert answer.ack == peer.last.seq + 30
    peer.send(ACK | PSH, GET[30:], ahead=30)
    answer = peer.reply()
    assert body_of(answer) == b"ok\n"
    assert answer is not None
    assert answer.ack == peer.last.seq + len(GET)


def test_a_keep_alive_probe_is_answered(peer: Peer) -> None:
    peer.send(ACK)
    peer.send(ACK, ahead=-1)
    answer = peer.reply()
    assert answer is not None
    assert (answer.flags, answer.ack, answer.seq) == (ACK, peer.last.seq, peer.expected)


@pytest.mark.parametrize(("ahead", "ends"), [(0, True), (1, False), (1000, False), (-1, False)])
def test_only_the_exact_reset_ends_a_connection(peer: Peer, ahead: int, ends: bool) -> None:
    """RFC 5961, 3: a forger would have to hit the very number."""
    peer.send(ACK)
    peer.send(RST, ahead=ahead)
    peer.send(ACK | PSH, GET, ahead=3 if ends else 0)
    answers = [answer for answer in peer.replies(0.3) if answer.data or answer.flags & RST]
    assert [bool(answer.data) for answer in answers] == ([] if ends else [True] * len(answers))
    assert bool(answers) != ends


def test_a_syn_in_an_open_connection_changes_nothing(peer: Peer) -> None:
    """RFC 5961, 4."""
    peer.send(ACK)
    peer.send(SYN, ahead=5)
    answer = peer.reply()
    assert answer is not None
    assert (answer.flags, answer.ack) == (ACK, peer.last.seq)
    peer.send(ACK | PSH, GET)
    assert body_of(peer.reply()) == b"ok\n"


def test_the_window_is_what_there_is_room_for(peer: Peer) -> None:
    peer.send(ACK)
    piece = b"GET / HTTP/1.1\r\nX: " + b"x" * 481
    peer.send(ACK, piece)
    answer = peer.reply()
    assert answer is not None
    assert answer.window == 2048 - 500


# --- sending ----------------------------------------------------------------------------------


def test_what_is_not_acknowledged_is_sent_again_ever_more_slowly(peer: Peer) -> None:
    peer.send(ACK | PSH, GET)
    times, copies = [], []
    for reply in peer.replies(10):
        times.append(time.monotonic())
        copies.append((reply.seq, reply.data))
        if len(times) == 3:
            break
    assert len(set(copies)) == 1
    first, second = (b - a for a, b in itertools.pairwise(times))
    assert 1.2 < second / first < 4


def test_a_closed_window_is_respected_and_asked_about(peer: Peer) -> None:
    peer.send(ACK | PSH, GET, window=0)
    replies = peer.replies(8)
    first, probe = next(replies), next(replies)
    assert (first.data, first.ack) == (b"", peer.last.seq + len(GET))
    assert len(probe.data) == 1
    peer.advance(len(GET))
    peer.send(ACK, window=20)
    assert len(next(replies).data) == 20
    peer.expected += 20
    peer.send(ACK, window=5000)
    assert next(replies).data.endswith(b"\r\n\r\nok\n")


def test_it_closes_after_the_answer_and_lingers_a_while(peer: Peer, fetch: Fetch) -> None:
    peer.send(ACK | PSH, LAST)
    answer = peer.reply()
    assert answer is not None
    assert answer.flags & FIN
    peer.advance(len(LAST))
    peer.expected += len(answer.data) + 1
    for _ in range(2):  # our FIN, and once more as if its acknowledgement had been lost
        peer.send(ACK | FIN)
        last = peer.reply()
        assert last is not None
        assert (last.flags, last.ack) == (ACK, peer.last.seq + 1)
    wait_until_empty(fetch)


def test_a_port_can_be_used_again_while_it_lingers(peer: Peer) -> None:
    peer.send(ACK | PSH, LAST)
    answer = peer.reply()
    assert answer is not None
    peer.advance(len(LAST))
    peer.expected += len(answer.data) + 1
    peer.send(ACK | FIN)
    assert peer.reply() is not None
    peer.advance(5000)
    again = peer.open()
    assert again.flags == SYN | ACK
    peer.send(ACK | PSH, GET)
    assert body_of(peer.reply()) == b"ok\n"


def test_a_peer_that_closes_first_is_gone_at_once(peer: Peer, fetch: Fetch) -> None:
    wait_until_empty(fetch)
    peer.send(ACK)
    peer.send(ACK | FIN)
    answer = peer.reply()
    assert answer is not None
    assert answer.flags & FIN
    peer.advance(1)
    peer.expected += 1
    peer.send(ACK)
    assert connections(fetch) == 0


def test_it_works_the_same_over_ipv6(wire: Wire) -> None:
    peer = Peer(wire, next(PORTS), PEER6, ADDRESS6)
    peer.open()
    peer.send(ACK | PSH, GET)
    assert body_of(peer.reply()) == b"ok\n"
    peer.reset()


# --- many -------------------------------------------------------------------------------------


def test_a_flood_of_syns_blocks_nobody(wire: Wire, fetch: Fetch) -> None:
    chance = random.Random(7)  # noqa: S311 - a seed, so that a failure comes again
    for number in range(5000):
        source = f"10.0.{chance.randrange(1, 255)}.{chance.randrange(1, 255)}"
        wire.send(Segment(chance.randrange(1024, 65536), 80, number, flags=SYN).frame(source))
        if number % 500 == 0:
            assert fetch().status == 200
    assert connections(fetch) <= 1


def test_idle_connections_make_room(fetch: Fetch) -> None:
    """More connections than there are places, all idle: a new one is served nevertheless."""
    with contextlib.ExitStack() as stack:
        for _ in range(160):
            stack.enter_context(socket.create_connection((ADDRESS, 80), TIMEOUT_S))
        assert fetch().status == 200
        assert connections(fetch) > 100
    wait_until_empty(fetch)


def test_ten_thousand_requests(fetch: Fetch) -> None:
    """On one connection; nothing is left behind, and the count is right."""
    before = fetch("/info").json
    with socket.create_connection((ADDRESS, 80), TIMEOUT_S) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = peer.makefile("rb")
        for _ in range(2000):
            peer.sendall(GET * 5)
            for _ in range(5):
                assert read_response(stream) == b"ok\n"
        stream.close()
    wait_until_empty(fetch)
    after = fetch("/info").json
    assert after["requests"] - before["requests"] >= 10_001
    assert after["frames"]["unsent"] == 0


def read_response(stream: BinaryIO) -> bytes:
    length = 0
    while (line := stream.readline()) != b"\r\n":
        name, _, value = line.partition(b": ")
        if name == b"Content-Length":
            length = int(value)
    return stream.read(length)


def test_two_thousand_connections_32_at_a_time(fetch: Fetch) -> None:
    with ThreadPoolExecutor(32) as clients:
        replies = list(clients.map(partial(one_connection, fetch), range(2000)))
    assert replies == [b"ok\n"] * 2000
    wait_until_empty(fetch)


def one_connection(fetch: Fetch, number: int) -> bytes:
    return fetch(address=(ADDRESS, ADDRESS6)[number % 2]).body


def test_a_slow_reader_gets_every_byte() -> None:
    """The client's kernel closes the window; what waited comes when it reads again."""
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        peer.settimeout(TIMEOUT_S)
        peer.connect((ADDRESS, 80))
        peer.setblocking(False)
        sent = 0
        requests = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * 1500
        with contextlib.suppress(BlockingIOError):
            sent = peer.send(requests)
        time.sleep(1)
        peer.settimeout(TIMEOUT_S)
        with ThreadPoolExecutor(1) as sender:
            done = sender.submit(peer.sendall, requests[sent:])
            stream = peer.makefile("rb")
            for _ in range(1500):
                assert read_response(stream) == b"404 Not Found\n"
            stream.close()
            done.result(TIMEOUT_S)
