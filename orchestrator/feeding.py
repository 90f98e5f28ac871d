"""Looks at what changes too often to be told of each time, and tells the feed at a bounded rate.

A thread of its own looks ten times a second while somebody reads the feed, else twice, so that
whoever carries a wake forward, or answers queries, does nothing for it. `WakeNews` and `StatusNews`
are what to look at here; `dns_boot.log` has another.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from logging import getLogger

from orchestrator.feed import Feed
from orchestrator.fleet import Fleet
from orchestrator.trace import KEPT, SETTLE_S, Wake, Wakes, WakeTrace

log = getLogger(__name__)

TICK_S = 0.1
IDLE_TICK_S = 0.5  # while nobody reads
MOST_AT_ONCE = 200  # wakes of one look; the others have their turn in the next
EVENT, WAKE, STATUS, QUERIES, OPERATION = "event", "wake", "status", "queries", "operation"


@dataclass(slots=True)
class Look:
    """What to publish under a topic, asked for every `every_s` seconds at most.

    With `idle`, that is called instead while nobody reads the feed.
    """

    topic: str
    every_s: float
    news: Callable[[], Iterable[object]]
    idle: Callable[[], None] | None = None
    due: float = field(default=0.0, init=False)  # monotonic


class Feeder:
    """Publishes what looks find, until it is closed."""

    def __init__(self, feed: Feed, looks: Sequence[Look]) -> None:
        self._feed = feed
        self._looks = tuple(looks)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgewake-feed", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End, and let the feed's readers go. May be called twice."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._feed.close()

    def look(self) -> None:
        """Publish what is new by all looks that are due."""
        now = time.monotonic()
        for look in self._looks:
            if now < look.due:
                continue
            look.due = now + look.every_s
            try:
                if look.idle is not None and not self._feed.listened:
                    look.idle()
                    continue
                for value in look.news():
                    self._feed.publish(look.topic, value)
            except Exception:
                log.exception("live news of %s could not be told; the next may be", look.topic)

    def _run(self) -> None:
        while not self._stopping.wait(TICK_S if self._feed.listened else IDLE_TICK_S):
            self.look()


class WakeNews:
    """Tells wakes that began, got on or ended since it was last asked."""

    def __init__(self, wakes: Wakes) -> None:
        self._wakes = wakes
        self._seen = 0
        self._told: dict[int, tuple[WakeTrace, tuple[int, int, float]]] = {}

    def __call__(self) -> list[Wake]:
        """Return pictures of them, at most `MOST_AT_ONCE`; by number."""
        for number, trace in self._wakes.after(self._seen):
            self._told[number] = trace, (0, 0, 0.0)
            self._seen = number
        settled = time.monotonic() - SETTLE_S
        news: list[Wake] = []
        for number, (trace, told) in tuple(self._told.items()):
            progress = trace.progress
            if progress != told:
                if len(news) == MOST_AT_ONCE:
                    break
                self._told[number] = trace, progress
                news.append(trace.wake(number))
            elif 0.0 < trace.ended_at < settled or number <= self._seen - KEPT:
                del self._told[number]
        return news


class StatusNews:
    """Tells that hosts, instances or the lab are not what they were when it was last asked."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._last = self._look()

    def __call__(self) -> list[object]:
        """Return one empty document if anything changed."""
        before, self._last = self._last, self._look()
        return [{}] if before != self._last else []

    def _look(self) -> tuple[object, ...]:
        fleet = self._fleet
        # Of what did not change, it is the same objects: to compare them takes no time.
        return fleet.lab, fleet.instances(), fleet.lost(), fleet.draining()
