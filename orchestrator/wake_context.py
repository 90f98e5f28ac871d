"""For which wake the code that runs now works, so that its log lines and events can say so.

Whoever carries a wake forward says `with working_for(trace)`; `orchestrator.background` takes that
along to its threads. Modules that know nothing of wakes (hypervisors, readiness) are found by it,
too. `facts` is how a log line has more than its sentence, for `orchestrator.logs`.
"""

from collections.abc import Mapping
from contextvars import ContextVar

from orchestrator.trace import WakeTrace

_NOW: ContextVar[WakeTrace | None] = ContextVar("wake", default=None)


class working_for:  # noqa: N801 - a statement: `with working_for(trace):`
    """Have what runs in this block, and what it begins, belong to a wake; None: as it was.

    A class, since a generator costs a wake four times as much.
    """

    __slots__ = ("_token", "_trace")

    def __init__(self, trace: WakeTrace | None) -> None:
        self._trace = trace

    def __enter__(self) -> None:
        self._token = _NOW.set(self._trace or _NOW.get())

    def __exit__(self, *_: object) -> None:
        _NOW.reset(self._token)


def wake_now() -> WakeTrace | None:
    """Return the wake that is worked for here and now."""
    return _NOW.get()


def facts(**known: str) -> Mapping[str, Mapping[str, str]]:
    """Return facts as what `logging` calls ``extra``; none of them can hide a field of a record."""
    return {"facts": known}
