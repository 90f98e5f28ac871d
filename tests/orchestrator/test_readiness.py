"""Waiting for a guest, against servers that behave as booting guests do."""

import os
import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import HypervisorError, StartFailed
from orchestrator.model import Probe, ProbeKind
from orchestrator.readiness import (
    LEAST_INTERVAL_S,
    MOST_INTERVAL_S,
    Cancelled,
    NotAnswering,
    Target,
    echo_request,
    interval,
    status_of,
    wait,
)
from tests.ports import free_port
from tests.world import World, a_service

HERE = IPv4Address("127.0.0.1")
SOON_S = 0.3
LONG_S = 20.0
GENEROUS_S = 0.1  # between the first possible answer and the return of `wait`

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.0 503 Service Unavailable\r\n\r\n"

Answer = Callable[[socket.socket, int], None]


def target(console: Callable[[], bytes] = bytes, address: IPv4Address = HERE) -> Target:
    return Target(address, None, "02:ed:7f:00:00:01", console)


def http(port: int, path: str = "/") -> Probe:
    return Probe(ProbeKind.HTTP, port=port, path=path)


def wait_for(probe: Probe, to: Target | None = None, *, within: float = LONG_S) -> None:
    deadline = time.monotonic() + within
    wait(probe, to or target(), deadline=deadline, cancelled=lambda: None)


class Server:
    """Accepts connections from a given moment on; `answer` gets each with its number from 0."""

    def __init__(self, answer: Answer, *, opens_after: float = 0.0) -> None:
        self.port = free_port()
        self.accepted = 0
        self.opened_at = 0.0
        self._answer = answer
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(opens_after,))

    def _serve(self, opens_after: float) -> None:
        if self._stop.wait(opens_after):
            return
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((str(HERE), self.port))
            listener.listen(50)
            listener.settimeout(0.02)
            self.opened_at = time.monotonic()
            held = []
            while not self._stop.is_set():
                try:
                    client, _ = listener.accept()
                except TimeoutError:
                    continue
                held.append(client)
                self.accepted += 1
                with suppress(ConnectionError):  # the probe has its answer from another attempt
                    self._answer(client, self.accepted - 1)
            for client in held:
                client.close()

    @contextmanager
    def running(self) -> Iterator["Server"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()


def say(*replies: bytes) -> Answer:
    """Answer with these replies in turn, the last one for ever."""

    def answer(client: socket.socket, number: int) -> None:
        client.settimeout(1)
        try:
            client.recv(4096)
            client.sendall(replies[min(number, len(replies) - 1)])
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    return answer


def nothing(client: socket.socket, number: int) -> None:
    """Accept, and never answer."""


def hang_up(client: socket.socket, number: int) -> None:
    client.close()


def reset(client: socket.socket, number: int) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("kind", [ProbeKind.TCP, ProbeKind.HTTP])
def test_it_returns_soon_after_the_first_answer(kind: ProbeKind) -> None:
    late = []
    for _ in range(10):
        with Server(say(OK), opens_after=0.1).running() as server:
            wait_for(Probe(kind, port=server.port))
            late.append(time.monotonic() - server.opened_at)
    assert statistics.median(late) < GENEROUS_S


def test_a_request_names_path_and_host() -> None:
    asked: list[bytes] = []

    def note(client: socket.socket, number: int) -> None:
        asked.append(client.recv(4096))
        client.sendall(OK)

    with Server(note).running() as server:
        wait_for(http(server.port, "/healthz"))
    assert asked[0].startswith(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n")


def test_another_status_is_not_an_answer() -> None:
    with Server(say(BUSY, BUSY, BUSY, OK)).running() as server:
        wait_for(http(server.port))
    assert server.accepted >= 4


def test_the_wanted_status_may_be_any() -> None:
    with Server(say(BUSY)).running() as server:
        wait_for(Probe(ProbeKind.HTTP, port=server.port, status=503))


def test_a_reply_in_small_pieces_is_an_answer() -> None:
    def slowly(client: socket.socket, number: int) -> None:
        for byte in OK[:20]:
            client.sendall(bytes((byte,)))
            time.sleep(0.002)

    with Server(slowly).running() as server:
        wait_for(http(server.port))
    assert server.accepted == 1


def test_one_lost_connection_does_not_hold_up_the_next() -> None:
    def second_only(client: socket.socket, number: int) -> None:
        if number:
            say(OK)(client, number)

    with Server(second_only).running() as server:
        wait_for(http(server.port))
    assert server.accepted == 2


def test_a_thinking_guest_is_not_flooded() -> None:
    with Server(nothing).running() as server:
        with pytest.raises(NotAnswering, match="connected, no answer to the request"):
            wait_for(http(server.port), within=0.8)
        assert server.accepted <= 4


@pytest.mark.parametrize(
    ("answer", "observed"),
    [
        (say(BUSY), "HTTP status 503"),
        (say(b"SSH-2.0-OpenSSH_9.2\r\n"), "closed without an HTTP answer"),
        (say(b"x" * 5000), "closed without an HTTP answer"),
        (hang_up, "closed without an HTTP answer|connection reset"),
        (reset, "connection reset"),
        (nothing, "connected, no answer to the request"),
    ],
)
def test_the_deadline_tells_what_was_last_observed(answer: Answer, observed: str) -> None:
    with (
        Server(answer).running() as server,
        pytest.raises(NotAnswering, match=f"^({observed})$"),
    ):
        wait_for(http(server.port), within=SOON_S)


@pytest.mark.parametrize("kind", [ProbeKind.TCP, ProbeKind.HTTP])
def test_nobody_listening_is_a_refusal(kind: ProbeKind) -> None:
    with pytest.raises(NotAnswering, match=r"^connection refused$"):
        wait_for(Probe(kind, port=free_port()), within=SOON_S)


@pytest.mark.parametrize("kind", [ProbeKind.TCP, ProbeKind.HTTP, ProbeKind.ICMP, ProbeKind.ARP])
def test_no_sockets_left_is_said(kind: ProbeKind, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoSocket(socket.socket):
        def __init__(self, *arguments: object) -> None:
            raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socket", NoSocket)
    with pytest.raises(NotAnswering, match=r"(?i)too many open files"):
        wait_for(Probe(kind, port=9), within=SOON_S)


def test_a_dead_guest_ends_the_wait_at_once() -> None:
    dies_at = time.monotonic() + 0.1

    def dead() -> str | None:
        return "crashed" if time.monotonic() > dies_at else None

    with pytest.raises(Cancelled, match=r"^crashed$"):
        wait(http(free_port()), target(), deadline=dies_at + LONG_S, cancelled=dead)
    assert time.monotonic() - dies_at < LONG_S / 2


def test_a_deadline_in_the_past_asks_nothing() -> None:
    with Server(say(OK)).running() as server:
        with pytest.raises(NotAnswering):
            wait_for(http(server.port), within=-1.0)
        assert server.accepted == 0


def test_nothing_stays_open() -> None:
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all that is wanted
    with pytest.raises(NotAnswering):
        wait_for(http(free_port()), within=SOON_S)
    with Server(say(OK)).running() as server:
        wait_for(http(server.port))
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_console() -> None:
    printed = bytearray(b"booting\n")
    timer = threading.Timer(0.1, printed.extend, [b"edgewake: ready\n"])
    timer.start()
    wait_for(Probe(ProbeKind.CONSOLE, pattern=r"edgewake: \w+"), target(lambda: bytes(printed)))
    timer.join()


def test_console_without_the_pattern_and_a_bad_pattern() -> None:
    with pytest.raises(NotAnswering, match="no 'ready' on the console"):
        wait_for(Probe(ProbeKind.CONSOLE, pattern="ready"), within=SOON_S)
    with pytest.raises(NotAnswering, match="not a regular expression"):
        wait_for(Probe(ProbeKind.CONSOLE, pattern="("), within=SOON_S)


def may_open(*arguments: int) -> bool:
    try:
        socket.socket(*arguments).close()
    except PermissionError:
        return False
    return True


MAY_PING = may_open(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


@pytest.mark.skipif(not MAY_PING, reason="raw sockets need root")
def test_icmp() -> None:
    wait_for(Probe(ProbeKind.ICMP))
    broadcast = target(address=IPv4Address("255.255.255.255"))  # which the kernel will not ping
    with pytest.raises(NotAnswering, match="permission denied"):
        wait_for(Probe(ProbeKind.ICMP), broadcast, within=SOON_S)


@pytest.mark.skipif(not MAY_PING, reason="raw sockets need root")
def test_arp_has_no_meaning_on_loopback() -> None:
    with pytest.raises(NotAnswering, match="not an Ethernet"):
        wait_for(Probe(ProbeKind.ARP), within=SOON_S)


@pytest.mark.parametrize("kind", [ProbeKind.ICMP, ProbeKind.ARP])
def test_a_probe_we_may_not_make_says_so(kind: ProbeKind, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forbidden(socket.socket):
        def __init__(self, family: int = -1, type: int = -1, *rest: int) -> None:  # noqa: A002
            if family == socket.AF_PACKET or rest[:1] == (socket.IPPROTO_ICMP,):
                raise PermissionError(1, "Operation not permitted")
            super().__init__(family, type, *rest)

    monkeypatch.setattr(socket, "socket", Forbidden)
    with pytest.raises(NotAnswering, match="needs root"):
        wait_for(Probe(kind))


# --- a key in Xenstore ----------------------------------------------------------------------------


class Key:
    """A key whose news are put in by hand; what is an error is raised."""

    def __init__(self) -> None:
        self._news: list[bytes | HypervisorError | None] = []
        self._pipe = os.pipe()
        self.closed = 0

    def put(self, value: bytes | HypervisorError | None) -> "Key":
        self._news.append(value)
        os.write(self._pipe[1], b".")
        return self

    def fileno(self) -> int:
        return self._pipe[0]

    def value(self) -> bytes | None:
        os.read(self._pipe[0], 1)
        news = self._news.pop(0)
        if isinstance(news, HypervisorError):
            raise news
        return news

    def close(self) -> None:
        self.closed += 1
        for end in self._pipe:
            os.close(end)


def wait_for_key(key: Key, pattern: str = "", *, within: float = LONG_S) -> None:
    def watch(name: str) -> Key:
        assert name == "data/ready"
        return key

    to = Target(HERE, None, "02:ed:7f:00:00:01", bytes, watch)
    try:
        wait_for(Probe(ProbeKind.XENSTORE, key="data/ready", pattern=pattern), to, within=within)
    finally:
        assert key.closed == 1


@pytest.mark.parametrize(("value", "pattern"), [(b"", ""), (b"x", ""), (b"a\n10.0.0.2", "^10")])
def test_a_key_is_the_answer_when_it_is_there_and_holds_what_is_wanted(
    value: bytes, pattern: str
) -> None:
    wait_for_key(Key().put(None).put(value), pattern)


def test_a_key_that_comes_late_is_noticed_at_once() -> None:
    key, put_at = Key().put(None), []

    def late() -> None:
        put_at.append(time.monotonic())
        key.put(b"ready")

    timer = threading.Timer(SOON_S, late)
    timer.start()
    wait_for_key(key)
    assert time.monotonic() - put_at[0] < GENEROUS_S
    timer.join()


@pytest.mark.parametrize(
    ("news", "pattern", "last"),
    [
        ((), "", "no data/ready in its Xenstore"),
        ((b"x", None), "y", "no data/ready in its Xenstore"),
        ((b"not yet \xff",), "^ready$", "data/ready in its Xenstore is 'not yet \ufffd'"),
        ((None, StartFailed("pc1", "the connection was lost")), "", "the connection was lost"),
    ],
)
def test_a_key_that_does_not_come_says_what_is_there(
    news: tuple[bytes | HypervisorError | None, ...], pattern: str, last: str
) -> None:
    key = Key()
    for each in news:
        key.put(each)
    with pytest.raises(NotAnswering, match=last):
        wait_for_key(key, pattern, within=SOON_S)


def test_a_host_without_a_xenstore_ends_the_wait() -> None:
    probe = Probe(ProbeKind.XENSTORE, key="data/ready")
    with pytest.raises(NotAnswering, match="nobody can watch the Xenstore key data/ready"):
        wait_for(probe)

    def refuse(_key: str) -> Key:
        raise StartFailed("pc1", "use xen+ssh")

    with pytest.raises(NotAnswering, match=r"use xen\+ssh"):
        wait_for(probe, Target(HERE, None, "02:ed:7f:00:00:01", bytes, refuse))


def test_a_wake_ends_when_the_guest_writes_its_key(make_world: Callable[..., World]) -> None:
    probe = Probe(ProbeKind.XENSTORE, key="data/ready", pattern="^yes$")
    world = make_world(a_service("web", probe=probe, deadline_s=LONG_S), start=False)
    opened = world.open_host
    world.open_host = lambda host: replace(opened(host), wait=wait)  # type: ignore[method-assign]
    world.start()
    asked = world.summon("web")
    world.eventually(lambda: bool(world.machines.get("a") and world.machines["a"].watched))
    (instance,) = world.guests()
    for value in ("no", "yes"):
        assert not asked.done()
        world.drivers["a"].write_key(instance, "data/ready", value)
    (end,) = asked.result(LONG_S)
    assert end.instance == instance
    assert not world.machines["a"].watched


@pytest.mark.parametrize("waited", [0.0, 0.2, 1.0, 60.0])
def test_the_interval_follows_the_wait_in_bounds(waited: float) -> None:
    assert LEAST_INTERVAL_S <= interval(waited) <= MOST_INTERVAL_S


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (OK, 200),
        (b"HTTP/1.0 404\r\n", 404),
        (b"HTTP/1.1 200", 200),
        (b"HTTP/2 200 OK\r\n", None),
        (b"HTTP/1.1 2000 OK\r\n", None),
        (b"HTTP/1.1 20", None),
        (b"ICY 200 OK\r\n", None),
        (b"", None),
    ],
)
def test_status_lines(reply: bytes, status: int | None) -> None:
    assert status_of(reply) == status


@given(st.one_of(st.binary(max_size=64), st.binary(max_size=64).map(lambda b: b"HTTP/1.1 " + b)))
def test_no_reply_upsets_the_parser(reply: bytes) -> None:
    status = status_of(reply)
    assert status is None or 0 <= status <= 999


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_the_icmp_checksum_sums_to_all_ones(number: int, sequence: int) -> None:
    total = sum(struct.unpack("!4H", echo_request(number, sequence)))
    assert (total & 0xFFFF) + (total >> 16) in {0xFFFF, 0x1FFFE - 0xFFFF}
