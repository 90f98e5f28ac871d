"""Single flight: one start per key, one future for all, and a fresh start afterwards."""

import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from itertools import count

import pytest

from orchestrator.once import Flight, Once


class Starter:
    """Counts its starts and hands out futures that the test completes."""

    def __init__(self) -> None:
        self.futures: list[Future[int]] = []
        self.abouts: list[str] = []

    def __call__(self, about: str) -> Future[int]:
        self.abouts.append(about)
        self.futures.append(Future())
        return self.futures[-1]


def _about() -> str:
    return "trace"


@pytest.fixture
def once() -> Once[str, int]:
    return Once()


def test_callers_meanwhile_share_one_flight(once: Once[str, int]) -> None:
    start = Starter()
    first, second, third = (once.do("web", _about, start) for _ in range(3))
    assert first is second is third
    assert (first.callers, first.about, start.abouts) == (3, "trace", ["trace"])
    start.futures[0].set_result(7)
    assert second.future.result(0) == 7


def test_keys_do_not_share(once: Once[str, int]) -> None:
    start = Starter()
    web, video = once.do("web", _about, start), once.do("video", _about, start)
    assert len(once) == 2
    start.futures[1].set_result(2)
    assert video.future.result(0) == 2
    assert not web.future.done()
    assert len(once) == 1


def test_after_the_end_a_caller_starts_afresh(once: Once[str, int]) -> None:
    start = Starter()
    old = once.do("web", _about, start)
    start.futures[0].set_exception(OSError("no"))
    new = once.do("web", _about, start)
    assert isinstance(old.future.exception(0), OSError)
    assert new is not old
    assert new.callers == 1
    assert not new.future.done()


def test_a_done_callback_that_asks_again_starts_afresh(once: Once[str, int]) -> None:
    start = Starter()
    again: list[Flight[str, int]] = []
    old = once.do("web", _about, start)
    old.future.add_done_callback(lambda _: again.append(once.do("web", _about, start)))
    start.futures[0].set_result(1)
    assert len(start.futures) == 2
    assert again[0] is not old


def test_work_that_is_done_at_once_leaves_nothing_behind(once: Once[str, int]) -> None:
    done: Future[int] = Future()
    done.set_result(3)
    assert once.do("web", _about, lambda _: done).future.result(0) == 3
    assert len(once) == 0


def test_a_start_that_raises_reaches_first_caller_and_joiners(once: Once[str, int]) -> None:
    joined: list[Flight[str, int]] = []

    def start(_: str) -> Future[int]:
        joined.append(once.do("web", _about, Starter()))  # somebody joins while we start
        raise RuntimeError("pool is shut")

    with pytest.raises(RuntimeError, match="pool is shut"):
        once.do("web", _about, start)
    assert isinstance(joined[0].future.exception(0), RuntimeError)
    assert len(once) == 0


def test_one_caller_cannot_cancel_for_all_but_cancelled_work_is_told(
    once: Once[str, int],
) -> None:
    start = Starter()
    flight = once.do("web", _about, start)
    assert not flight.future.cancel()
    start.futures[0].cancel()
    assert isinstance(flight.future.exception(0), CancelledError)
    assert len(once) == 0


def test_a_slow_start_blocks_neither_joiners_nor_other_keys(once: Once[str, int]) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def slow(_: str) -> Future[int]:
        inside.set()
        go_on.wait(30)
        done: Future[int] = Future()
        done.set_result(1)
        return done

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(once.do, "web", _about, slow)
        assert inside.wait(30)
        joined = once.do("web", _about, slow)
        once.do("video", _about, Starter())
        assert not joined.future.done()
        go_on.set()
        assert first.result(30) is joined
        assert joined.future.result(30) == 1


def test_a_hundred_threads_start_once_and_none_is_left_out(once: Once[str, int]) -> None:
    start, gate = Starter(), threading.Barrier(100)

    def ask() -> Flight[str, int]:
        gate.wait(30)
        return once.do("web", _about, start)

    with ThreadPoolExecutor(100) as pool:
        flights = {each.result(30) for each in [pool.submit(ask) for _ in range(100)]}
    assert len(start.futures) == len(flights) == 1
    assert flights.pop().callers == 100


def test_a_result_is_never_older_than_its_question(once: Once[str, int]) -> None:
    """Threads ask over and over; each must get work that ended after it asked."""
    ended = count(1)
    last = [0]
    lock = threading.Lock()

    def work() -> int:
        with lock:
            last[0] = next(ended)
            return last[0]

    def ask(pool: ThreadPoolExecutor) -> None:
        for _ in range(200):
            before = last[0]
            flight = once.do("web", _about, lambda _: pool.submit(work))
            # A flight that was under way may have noted its end just before we looked.
            assert flight.future.result(30) >= before

    with ThreadPoolExecutor(2) as workers, ThreadPoolExecutor(8) as askers:
        for each in [askers.submit(partial(ask, workers)) for _ in range(8)]:
            each.result(60)
    assert len(once) == 0


def test_what_follows_a_flight_waits_until_all_have_its_result() -> None:
    told: list[tuple[str, int]] = []
    start, once = Starter(), Once[str, int](lambda about: told.append((about, len(told))))
    flight = once.do("key", _about, start)
    flight.future.add_done_callback(lambda done: told.append(("result", done.result())))
    start.futures[0].set_result(7)
    assert told == [("result", 7), ("trace", 1)]
