"""Many callers, one piece of work: single flight by key.

The first caller of a key starts the work; whoever asks for the same key while it is under way gets
the same future. Nobody ever blocks: not on the lock (no foreign code runs under it but `about`),
and not on a first caller whose `start` is slow.

What "under way" means, exactly: a flight is forgotten *before* its future completes. So whoever
has seen the future done, be it from `result()` or inside a done-callback, and asks again, starts
afresh; a stale success or failure is never handed out.
"""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Generic, TypeVar

About = TypeVar("About")
Result = TypeVar("Result")


class Flight(Generic[About, Result]):
    """One piece of work under way.

    `future` is the result, shared by all callers; it cannot be cancelled, since one caller must not
    take it from the others. `about` is what the first caller noted on it, such as a trace.
    `callers` counts those who have asked for it so far, the first one included.
    """

    __slots__ = ("about", "callers", "future")

    def __init__(self, about: About) -> None:
        self.about = about
        self.callers = 1
        self.future: Future[Result] = Future()
        self.future.set_running_or_notify_cancel()  # from here on, cancel() is refused


class Once(Generic[About, Result]):
    """The flights of one kind of work. Safe to use from many threads.

    `landed` is called with what was noted on a flight, after all who wait for it have the result.
    """

    def __init__(self, landed: Callable[[About], object] = lambda _about: None) -> None:
        self._landed = landed
        self._lock = threading.Lock()
        self._flights: dict[str, Flight[About, Result]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: str) -> bool:
        return key in self._flights

    def do(
        self,
        key: str,
        about: Callable[[], About],
        start: Callable[[About], Future[Result]],
    ) -> Flight[About, Result]:
        """Join the flight of the key, or begin one.

        For a new flight, `about()` is called under our lock (it must be quick and must not come
        back here), then `start(about)` outside of it; the flight's future completes as the one that
        `start` returned. If `start` raises, the first caller gets that exception, and those who
        joined meanwhile find it in their future.
        """
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                flight.callers += 1
                return flight
            flight = self._flights[key] = Flight(about())
        try:
            work = start(flight.about)
        except BaseException as error:
            self._forget(key)
            flight.future.set_exception(error)
            raise
        work.add_done_callback(lambda done: self._land(key, flight, done))
        return flight

    def _land(self, key: str, flight: Flight[About, Result], done: Future[Result]) -> None:
        self._forget(key)
        if done.cancelled():
            flight.future.set_exception(CancelledError())
        elif (error := done.exception()) is not None:
            flight.future.set_exception(error)
        else:
            flight.future.set_result(done.result())
        self._landed(flight.about)

    def _forget(self, key: str) -> None:
        with self._lock:
            del self._flights[key]


def together(flights: Once[None, Result], key: str, work: Callable[[], Result]) -> Result:
    """Do the work, or wait for the one who is at it already."""

    def start(_about: None) -> Future[Result]:
        done: Future[Result] = Future()
        done.set_result(work())
        return done

    return flights.do(key, lambda: None, start).future.result()
