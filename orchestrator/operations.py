"""Long work that somebody asked for, and how far it is: for front doors that answer before its end.

`Operations` runs work on threads of its own, or follows a future that others complete, and tells
every step to a listener. It remembers what has ended for a while, in memory: an operation ends with
the process, and its number is of this process only, so that a later one is never taken for it.
"""

import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field, replace
from enum import StrEnum
from logging import getLogger
from queue import SimpleQueue
from typing import Any, TypeVar

from orchestrator.errors import EdgewakeError, Unforeseen, UnknownOperation

log = getLogger(__name__)

Document = Mapping[str, Any]
Value = TypeVar("Value")

THREADS = 8  # operations that run at the same time; wakes take none
MOST_UNDER_WAY = 2000  # operations that have not ended; more are refused
KEPT = 500  # operations that have ended, to be asked about
STOP_S = 2.0  # for what runs to end when edgewake stops; it is told to be stopped either way
LOCAL = "local"  # who asks through the socket file: its owner
STOPPED = "edgewake was stopped before it had ended"


class State(StrEnum):
    """Where an operation is; the last two are ends."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` steps of `total` (0: nobody knows), and what is being done now in a few words."""

    done: int = 0
    total: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as it is at some moment; times are wall-clock seconds.

    `kind` is the verb, such as plan or move, `subject` what it is about, `actor` who asked.
    `result` is there when it is done, `error` when it has failed.
    """

    id: str
    kind: str
    subject: str
    actor: str
    asked_at: float
    state: State = State.QUEUED
    started_at: float | None = None
    ended_at: float | None = None
    progress: Progress = field(default_factory=Progress)
    result: Document | None = None
    error: EdgewakeError | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing of it will change any more."""
        return self.state in {State.DONE, State.FAILED}


@dataclass(frozen=True, slots=True)
class Job:
    """What work is told of the operation that it is: its id, who asked, and where to say how far.

    Verbs that nobody made an operation of take `ALONE`.
    """

    id: str = ""
    actor: str = LOCAL
    say: Callable[[Progress], None] = lambda _progress: None

    def tell(self, text: str, done: int = 0, total: int = 0) -> None:
        """Say how far it is."""
        self.say(Progress(done, total, text))


ALONE = Job()

Work = Callable[[Job], Document]
Waiting = tuple[str, Work, str]  # an operation, by its id, and in which lane it is


class Operations:
    """The operations of one process. `listener` is told each state of each, in order; it is quick.

    All methods may be called from any thread.
    """

    def __init__(
        self,
        listener: Callable[[Operation], None] = lambda _operation: None,
        *,
        threads: int = THREADS,
        kept: int = KEPT,
    ) -> None:
        self.listener = listener
        self._kept = kept
        self._news = threading.Condition(threading.RLock())
        self._all: OrderedDict[str, Operation] = OrderedDict()
        self._under_way = 0
        self._numbers = 0
        self._prefix = secrets.token_hex(4)
        self._closed = False
        self._waiting: SimpleQueue[Waiting | None] = SimpleQueue()
        self._lanes: dict[str, deque[Waiting]] = {}  # what comes after the one that is in hand
        self._most_threads = threads
        self._threads: list[threading.Thread] = []  # begun when there is work for them

    # --- beginning --------------------------------------------------------------------------

    def begin(
        self, kind: str, subject: str, actor: str, work: Work, *, lane: str = ""
    ) -> Operation:
        """Have work done when a thread is free, and return its operation at once.

        What has the same `lane` is done one after the other, as it came, and takes one thread.
        Raises `EdgewakeError` while too many are under way, and once edgewake stops.
        """
        with self._news:
            operation = self._new(kind, subject, actor)
            waiting = (operation.id, work, lane)
            if lane in self._lanes:
                self._lanes[lane].append(waiting)
                return operation
            if lane:
                self._lanes[lane] = deque()
            self._waiting.put(waiting)
            if len(self._threads) < self._most_threads:
                name = f"edgewake-operation-{len(self._threads)}"
                self._threads.append(threading.Thread(target=self._serve, name=name, daemon=True))
                self._threads[-1].start()
        return operation

    def follow(
        self,
        kind: str,
        subject: str,
        actor: str,
        future: Future[Value],
        result: Callable[[Value], Document],
    ) -> Operation:
        """Return an operation that ends with a future that somebody else completes; as `begin`.

        `result` is called by whoever completes it, or here if it is complete.
        """
        with self._news:
            operation = self._new(kind, subject, actor)
            self._step(operation.id, state=State.RUNNING, started_at=operation.asked_at)
        future.add_done_callback(
            lambda ended: self._end(operation.id, lambda _job: result(ended.result()))
        )
        return self.get(operation.id)

    # --- looking ----------------------------------------------------------------------------

    def get(self, id_: str) -> Operation:
        """Return an operation as it is now; raises `UnknownOperation`."""
        with self._news:
            if (operation := self._all.get(id_)) is not None:
                return operation
        raise UnknownOperation(
            f"{id_}: no such operation",
            hint="it ended long ago, or with the edgewake that it was asked of; the journal tells",
        )

    def last(self, limit: int, before: str = "") -> tuple[Operation, ...]:
        """Return the last operations, oldest first, or the last of those older than `before`.

        Raises `UnknownOperation`.
        """
        with self._news:
            listed = [*self._all.values()]
            if before:
                listed = listed[: listed.index(self.get(before))]
        return tuple(listed[-limit:])

    def wait(self, id_: str, timeout_s: float, *, news_of: Operation | None = None) -> Operation:
        """Return an operation once it has ended, or after so many seconds as it is then.

        With `news_of`, also as soon as it is not as it was then. Raises `UnknownOperation`.
        """

        def enough() -> bool:
            now = self.get(id_)
            return now.ended or (news_of is not None and now != news_of)

        with self._news:
            self._news.wait_for(enough, timeout_s)
            return self.get(id_)

    def close(self) -> None:
        """Say of everything that has not ended that edgewake was stopped, and begin nothing more.

        Waits a moment for what runs, which may go on until the process ends. May be called twice.
        """
        with self._news:
            self._closed = True
            error = EdgewakeError(STOPPED, hint="ask again when it is up")
            for operation in tuple(self._all.values()):
                if not operation.ended:
                    self._step(operation.id, **_failed(error))
        for _ in self._threads:
            self._waiting.put(None)
        until = time.monotonic() + STOP_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    # --- inside -----------------------------------------------------------------------------

    def _new(self, kind: str, subject: str, actor: str) -> Operation:
        if self._closed:
            raise EdgewakeError("edgewake is stopping", hint="ask again when it is up")
        if self._under_way >= MOST_UNDER_WAY:
            raise EdgewakeError(
                f"{self._under_way} operations are under way, and no more may be at once",
                hint="ask again when some have ended",
            )
        self._numbers += 1
        operation = Operation(
            f"{self._prefix}-{self._numbers}", kind, subject, actor, asked_at=time.time()
        )
        self._all[operation.id] = operation
        self._under_way += 1
        self.listener(operation)
        return operation

    def _serve(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            id_, work, lane = waiting
            if self._step(id_, state=State.RUNNING, started_at=time.time()):
                self._end(id_, work)
            if lane:
                self._next(lane)

    def _next(self, lane: str) -> None:
        """Let the next of a lane have its turn, if there is one."""
        with self._news:
            if self._lanes[lane]:
                self._waiting.put(self._lanes[lane].popleft())
            else:
                del self._lanes[lane]

    def _end(self, id_: str, work: Work) -> None:
        """Do the work of an operation, and note how that ended."""
        operation = self.get(id_)
        job = Job(id_, operation.actor, lambda progress: self._say(id_, progress))
        try:
            result = work(job)
        except EdgewakeError as error:
            self._step(id_, **_failed(error))
        except CancelledError:
            self._step(id_, **_failed(EdgewakeError(STOPPED, hint="ask again when it is up")))
        except Exception:
            log.exception("%s %s failed in a way we did not foresee", operation.kind, id_)
            self._step(id_, **_failed(Unforeseen()))
        else:
            self._step(id_, state=State.DONE, ended_at=time.time(), result=result)

    def _say(self, id_: str, progress: Progress) -> None:
        self._step(id_, progress=progress)

    def _step(self, id_: str, **changes: Any) -> bool:
        """Note that something of an operation has changed; False if it had ended before."""
        with self._news:
            before = self._all.get(id_)
            if before is None or before.ended:
                return False
            now = self._all[id_] = replace(before, **changes)
            if now.ended:
                self._under_way -= 1
                self._forget_old()
            self._news.notify_all()
            self.listener(now)
        return True

    def _forget_old(self) -> None:
        """Let go of those that ended first: who waits for one that ends now can still ask."""
        ended = [each for each in self._all.values() if each.ended]
        if len(ended) <= self._kept:
            return
        ended.sort(key=lambda each: each.ended_at or 0.0)  # those that end at once stay in order
        for each in ended[: -self._kept or None]:
            del self._all[each.id]


def _failed(error: EdgewakeError) -> dict[str, Any]:
    return {"state": State.FAILED, "ended_at": time.time(), "error": error}
