"""Operations: what is told of them while they run, when they end, and when edgewake does."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from orchestrator import operations
from orchestrator.errors import EdgewakeError, UnknownOperation
from orchestrator.operations import Document, Job, Operation, Operations, Progress, State

PATIENCE_S = 10.0


@pytest.fixture
def all_of_them() -> Iterator[Operations]:
    made = Operations(threads=2)
    yield made
    made.close()


def _ended(all_of_them: Operations, operation: Operation) -> Operation:
    ended = all_of_them.wait(operation.id, PATIENCE_S)
    assert ended.ended
    return ended


class Gate:
    """Work that says that it has begun, and ends when it is let through."""

    def __init__(self) -> None:
        self.begun, self.open = threading.Event(), threading.Event()

    def __call__(self, job: Job) -> Document:
        job.tell("half", 1, 2)
        self.begun.set()
        assert self.open.wait(PATIENCE_S)
        return {"by": job.actor}


def test_each_state_of_an_operation_is_told_in_order(all_of_them: Operations) -> None:
    told: list[Operation] = []
    all_of_them.listener = told.append
    gate = Gate()
    gate.open.set()
    begun = all_of_them.begin("plan", "lab", "ann", gate)
    done = _ended(all_of_them, begun)
    assert (done.kind, done.subject, done.actor) == ("plan", "lab", "ann")
    assert (done.state, done.result, done.error) == (State.DONE, {"by": "ann"}, None)
    assert done.started_at is not None
    assert done.ended_at is not None
    assert begun.asked_at <= done.started_at <= done.ended_at
    states = [each.state for each in told]
    assert states == [State.QUEUED, State.RUNNING, State.RUNNING, State.DONE]
    assert told[2].progress == Progress(1, 2, "half")


def test_what_fails_keeps_its_error_and_a_defect_is_not_told(all_of_them: Operations) -> None:
    def refused(_job: Job) -> Document:
        raise EdgewakeError("too full", hint="end something")

    def broken(_job: Job) -> Document:
        raise RuntimeError("the name of a table")

    failed = _ended(all_of_them, all_of_them.begin("move", "web", "ann", refused))
    assert (failed.state, str(failed.error)) == (State.FAILED, "too full; end something")
    failed = _ended(all_of_them, all_of_them.begin("move", "web", "ann", broken))
    assert str(failed.error).startswith("internal error")


def test_who_waits_is_told_of_progress_and_of_the_end(all_of_them: Operations) -> None:
    gate = Gate()
    begun = all_of_them.begin("plan", "lab", "ann", gate)
    assert gate.begun.wait(PATIENCE_S)
    now = all_of_them.wait(begun.id, PATIENCE_S, news_of=begun)
    assert now != begun
    assert not all_of_them.wait(begun.id, 0.0).ended
    gate.open.set()
    assert _ended(all_of_them, begun).state is State.DONE


def test_more_than_there_are_threads_wait_for_their_turn(all_of_them: Operations) -> None:
    gates = [Gate() for _ in range(3)]
    begun = [all_of_them.begin("plan", "lab", "ann", gate) for gate in gates]
    assert all(gate.begun.wait(PATIENCE_S) for gate in gates[:2])
    assert all_of_them.get(begun[2].id).state is State.QUEUED
    for gate in gates:
        gate.open.set()
    assert [_ended(all_of_them, each).state for each in begun] == [State.DONE] * 3


def test_what_has_one_lane_is_done_in_order_and_takes_one_thread(all_of_them: Operations) -> None:
    gate, done = Gate(), list[str]()

    def refused(_job: Job) -> Document:
        done.append("refused")
        raise EdgewakeError("too full")

    first = all_of_them.begin("up", "a--b", "ann", gate, lane="network")
    second = all_of_them.begin("down", "a--b", "ann", refused, lane="network")
    third = all_of_them.begin(
        "up", "a--b", "ann", lambda _: {"n": done.append("third")}, lane="network"
    )
    assert gate.begun.wait(PATIENCE_S)
    assert _ended(all_of_them, all_of_them.begin("plan", "t", "ann", lambda _: {})).result == {}
    assert [all_of_them.get(each.id).state for each in (second, third)] == [State.QUEUED] * 2
    gate.open.set()
    assert _ended(all_of_them, third).state is State.DONE
    assert done == ["refused", "third"]
    assert all_of_them.get(first.id).result == {"by": "ann"}
    again = all_of_them.begin("up", "a--b", "ann", lambda _: {}, lane="network")
    assert _ended(all_of_them, again).result == {}


def test_a_future_is_followed_to_its_end(all_of_them: Operations) -> None:
    good, bad, gone, at_once = (Future[int]() for _ in range(4))
    at_once.set_result(1)

    def follow(future: Future[int]) -> Operation:
        return all_of_them.follow("wake", "web", "ann", future, lambda value: {"value": value})

    operations = [follow(each) for each in (good, bad, gone, at_once)]
    assert [each.state for each in operations] == [State.RUNNING] * 3 + [State.DONE]
    good.set_result(5)
    bad.set_exception(EdgewakeError("no"))
    gone.cancel()
    ended = [_ended(all_of_them, each) for each in operations]
    assert [each.result for each in ended] == [{"value": 5}, None, None, {"value": 1}]
    assert [str(each.error)[:20] for each in ended[1:3]] == ["no", "edgewake was stopped"]


def test_the_last_to_have_ended_are_kept_and_listed_in_pages() -> None:
    all_of_them = Operations(threads=1, kept=3)
    begun = [all_of_them.begin("plan", str(n), "ann", lambda _job: {}) for n in range(5)]
    _ended(all_of_them, begun[4])
    all_of_them.close()
    assert [each.subject for each in all_of_them.last(10)] == ["2", "3", "4"]
    assert [each.subject for each in all_of_them.last(1, before=begun[4].id)] == ["3"]
    with pytest.raises(UnknownOperation, match="no such operation"):
        all_of_them.get(begun[0].id)


def test_ids_of_another_process_are_not_ours(all_of_them: Operations) -> None:
    other = Operations(threads=1)
    begun = other.begin("plan", "lab", "ann", lambda _job: {})
    other.close()
    all_of_them.begin("plan", "lab", "ann", lambda _job: {})
    with pytest.raises(UnknownOperation, match=begun.id):
        all_of_them.get(begun.id)


def test_too_many_at_once_are_refused(
    all_of_them: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "MOST_UNDER_WAY", 1)
    gate = Gate()
    begun = all_of_them.begin("plan", "lab", "ann", gate)
    with pytest.raises(EdgewakeError, match="no more may be at once"):
        all_of_them.begin("plan", "lab", "ann", gate)
    gate.open.set()
    _ended(all_of_them, begun)
    _ended(all_of_them, all_of_them.begin("plan", "lab", "ann", gate))


@pytest.mark.parametrize("begin", ["begin", "follow"])
def test_the_end_of_edgewake_is_told_and_nothing_begins_after_it(
    monkeypatch: pytest.MonkeyPatch, begin: str
) -> None:
    monkeypatch.setattr(operations, "STOP_S", 0.0)
    all_of_them, gate = Operations(threads=1), Gate()
    running = all_of_them.begin("plan", "lab", "ann", gate)
    assert gate.begun.wait(PATIENCE_S)
    queued = all_of_them.begin("plan", "lab", "ann", gate)
    all_of_them.close()
    for each in (running, queued):
        ended = all_of_them.get(each.id)
        assert "edgewake was stopped" in str(ended.error)
    again: dict[str, Callable[[], object]] = {
        "begin": lambda: all_of_them.begin("plan", "lab", "ann", gate),
        "follow": lambda: all_of_them.follow("wake", "web", "ann", Future[int](), lambda _: {}),
    }
    with pytest.raises(EdgewakeError, match="stopping"):
        again[begin]()
    gate.open.set()
    for thread in all_of_them._threads:
        thread.join(PATIENCE_S)
    assert all_of_them.get(running.id).state is State.FAILED, "what was told stays told"


def test_what_took_long_is_kept_when_it_ends_after_many_others() -> None:
    operations_ = Operations(threads=2, kept=3)
    gate = Gate()
    long = operations_.begin("drain", "h1", "ann", gate)
    assert gate.begun.wait(PATIENCE_S)
    others = [operations_.begin("plan", "lab", "bob", lambda _job: {}) for _ in range(5)]
    for each in others[-3:]:
        operations_.wait(each.id, PATIENCE_S)
    gate.open.set()
    assert _ended(operations_, long).result == {"by": "ann"}
    assert [each.id for each in operations_.last(9)] == [long.id, *(e.id for e in others[-2:])]
    operations_.close()
