"""Shared connections: one attempt for many callers, told once when lost, made again by itself."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from orchestrator.hypervisors import connection as module
from orchestrator.hypervisors.connection import Connection, Connections, Unopened

PATIENCE_S = 10.0


class Line:
    alive = True


class Wire:
    """A transport whose other end can be taken away."""

    def __init__(self) -> None:
        self.up = True
        self.opened: list[Line] = []
        self.closed: SimpleQueue[Line] = SimpleQueue()
        self.may_open = threading.Event()
        self.may_open.set()
        self.asked = threading.Event()
        self.attempts = 0

    def open(self, uri: str, connection: Connection[Line]) -> Line:
        gate = self.may_open
        self.attempts += 1
        self.asked.set()
        gate.wait(PATIENCE_S)
        if not self.up:
            raise Unopened(f"nobody at {uri}")
        self.opened.append(Line())
        return self.opened[-1]

    def alive(self, line: Line) -> bool:
        return line.alive

    def close(self, line: Line) -> None:
        line.alive = False
        self.closed.put(line)


class Told:
    """A tenant that remembers what it was told."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[str] = SimpleQueue()

    def ended(self, uuid: str, why: str) -> None:
        self.queue.put(f"ended {uuid} {why}")

    def lost(self, why: str) -> None:
        self.queue.put(f"lost: {why}")

    def back(self) -> None:
        self.queue.put("back")

    def next(self) -> str:
        return self.queue.get(timeout=PATIENCE_S)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_FIRST_S", 0.01)


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def line(wire: Wire, told: Told) -> Iterator[Connection[Line]]:
    connections = Connections(wire)
    connection = connections.join("here", told)
    yield connection
    connections.leave(connection, told)


def test_many_callers_share_one_attempt(wire: Wire, line: Connection[Line]) -> None:
    wire.may_open.clear()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(line.get) for _ in range(8)]
        wire.may_open.set()
        lines = {id(future.result(PATIENCE_S)) for future in asked}
    assert len(lines) == len(wire.opened) == 1


def test_a_caller_waits_only_so_long_and_the_attempt_goes_on(
    wire: Wire, line: Connection[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OPEN_TIMEOUT_S", 0.01)
    wire.may_open.clear()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            line.get()
    wire.may_open.set()
    monkeypatch.setattr(module, "OPEN_TIMEOUT_S", PATIENCE_S)
    assert line.get() is wire.opened[0]
    assert wire.attempts == 1


def test_a_failure_is_for_those_who_asked_and_the_next_may_succeed(
    wire: Wire, line: Connection[Line]
) -> None:
    wire.up = False
    with pytest.raises(Unopened, match="nobody at here"):
        line.get()
    wire.up = True
    assert line.get().alive


def test_a_lost_line_is_told_once_and_made_again(
    wire: Wire, line: Connection[Line], told: Told
) -> None:
    first = line.get()
    wire.up = False
    line.lose(first, "cut")
    line.lose(first, "cut again")
    assert told.next() == "lost: cut"
    assert wire.closed.get(timeout=PATIENCE_S) is first
    wire.up = True
    assert told.next() == "back"
    assert told.queue.empty()
    assert line.get() is wire.opened[1]


def test_a_dead_line_is_noticed_when_it_is_wanted(
    wire: Wire, line: Connection[Line], told: Told
) -> None:
    first = line.get()
    first.alive = False
    assert line.get() is not first
    assert told.next() == "lost: the connection is dead"
    assert told.next() == "back"


def test_a_host_that_never_answered_is_tried_until_it_does(
    wire: Wire, line: Connection[Line], told: Told
) -> None:
    wire.up = False
    line.keep_trying("nobody there")
    line.keep_trying("nobody there")
    assert told.next() == "lost: nobody there"
    wire.up = True
    assert told.next() == "back"
    assert told.queue.empty()


def test_the_last_tenant_out_closes_the_line(wire: Wire) -> None:
    connections = Connections(wire)
    first, second = Told(), Told()
    line = connections.join("here", first)
    assert connections.join("here", second) is line
    assert connections.join("there", first) is not line
    opened = line.get()
    connections.leave(line, first)
    assert wire.closed.empty()
    connections.leave(line, second)
    assert wire.closed.get(timeout=PATIENCE_S) is opened
    assert connections.join("here", first) is not line


def test_a_line_opened_after_everyone_left_is_closed(wire: Wire) -> None:
    connections = Connections(wire)
    tenant = Told()
    line = connections.join("here", tenant)
    wire.may_open.clear()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(line.get)
        assert wire.asked.wait(PATIENCE_S)
        connections.leave(line, tenant)
        wire.may_open.set()
        asked.result(PATIENCE_S)
    assert wire.closed.get(timeout=PATIENCE_S) is wire.opened[0]


def test_while_a_lost_host_is_tried_nobody_else_tries_it(
    wire: Wire, line: Connection[Line], told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control asks every second, and ssh must not be started as often for a host that is off."""
    monkeypatch.setattr(module, "RETRY_FIRST_S", 3600.0)
    wire.up = False
    with pytest.raises(Unopened):
        line.get()
    line.keep_trying("nobody there")
    for _ in range(100):
        with pytest.raises(Unopened, match="nobody at here"):
            line.get()
    assert wire.attempts == 1


def test_pauses_between_tries_grow_to_a_limit(
    wire: Wire, line: Connection[Line], told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: SimpleQueue[float] = SimpleQueue()

    class Closed(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.put(timeout or 0.0)
            return super().wait(0.001)

    monkeypatch.setattr(module, "RETRY_MOST_S", 0.05)
    line._closed = Closed()
    wire.up = False
    line.keep_trying("nobody there")
    assert [pauses.get(timeout=PATIENCE_S) for _ in range(5)] == [0.01, 0.02, 0.04, 0.05, 0.05]
    wire.up = True


def test_an_attempt_that_hangs_is_given_up_and_another_made_beside_it(
    wire: Wire, line: Connection[Line], told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other side took our bytes and says nothing: no error ever comes."""
    monkeypatch.setattr(module, "OPEN_TIMEOUT_S", 0.01)
    monkeypatch.setattr(module, "HUNG_FIRST_S", 0.0)
    is_open, hung = wire.may_open, threading.Event()
    wire.may_open = hung
    with pytest.raises(TimeoutError):
        line.get()
    assert wire.asked.wait(PATIENCE_S)
    wire.may_open = is_open
    monkeypatch.setattr(module, "OPEN_TIMEOUT_S", PATIENCE_S)
    good = line.get()
    assert good is wire.opened[0]
    assert wire.attempts == 2
    hung.set()  # the first one comes through after all: one too many
    surplus = wire.closed.get(timeout=PATIENCE_S)
    assert surplus is wire.opened[1]
    assert line.get() is good


def test_each_attempt_that_hangs_makes_the_next_more_patient(
    wire: Wire, line: Connection[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a host that swallows everything does not cost a thread every half minute."""
    now = 1000.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(module, "OPEN_TIMEOUT_S", 0.0)
    wire.may_open.clear()
    started = []
    for _ in range(7200):
        now += 1
        with pytest.raises(TimeoutError):
            line.get()
        if line._attempt_at == now:
            started.append(now - 1000.0)
    assert started[:4] == [1.0, 32.0, 93.0, 214.0]
    assert len(started) < 10
    wire.may_open.set()
