"""For which wake the code that runs now works, so that its log lines and events can say so.

Whoever carries a wake forward says `with working_for(trace)`; `orchestrator.background` takes that
along to its threads. Modules that know nothing of wakes (hypervisors, readiness) are found by it,
too. `facts` is how a log line has more than its sentence, for `orchestrator.logs`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from orchestrator.trace import WakeTrace

_NOW: ContextVar[WakeTrace | None] = ContextVar("wake", default=None)


@contextmanager
def working_for(trace: WakeTrace | None) -> Iterator[None]:
    """Have what runs in this block, and what it begins, belong to a wake; None: as it was."""
    if trace is None:
        yield
        return
    token = _NOW.set(trace)
    try:
        yield
    finally:
        _NOW.reset(token)


def wake_now() -> WakeTrace | None:
    """Return the wake that is worked for here and now."""
    return _NOW.get()


def facts(**known: str) -> Mapping[str, Mapping[str, str]]:
    """Return facts as what `logging` calls ``extra``; none of them can hide a field of a record."""
    return {"facts": known}
