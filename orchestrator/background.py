"""Work that nobody waits for, on threads that do not lose its errors."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from logging import getLogger
from typing import ParamSpec, TypeVar

log = getLogger(__name__)

Args = ParamSpec("Args")
About = TypeVar("About")
Result = TypeVar("Result")


class Background:
    """A pool of threads with a name. After `close`, new work is left undone without a word.

    What is done there belongs to the same wake as whoever asked for it (`wake_context`).
    """

    def __init__(self, name: str, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, f"edgewake-{name}")

    def do(self, work: Callable[[About], object], about: About) -> None:
        """Have something done; what goes wrong there unforeseen is logged, not lost."""

        def done() -> None:
            try:
                work(about)
            except Exception:
                log.exception("%s failed in a way we did not foresee", about)

        with suppress(RuntimeError):  # closed: whatever needs doing is done by the next start
            self._pool.submit(copy_context().run, done)

    def call(
        self, work: Callable[Args, Result], *args: Args.args, **named: Args.kwargs
    ) -> Future[Result]:
        """Have something done and return its future; RuntimeError after `close`."""
        context = copy_context()
        return self._pool.submit(lambda: context.run(work, *args, **named))

    def close(self) -> None:
        """Drop what has not begun, and wait for the rest."""
        self._pool.shutdown(wait=True, cancel_futures=True)
