"""Tells each wake, once it is over, to whoever exports it: metrics, a CSV file, OpenTelemetry.

A thread of its own looks once a second for wakes that are over, so that exports cost a wake
nothing. An export that fails is told of in the log, once for each new reason, and asked again with
the next wake.
"""

import threading
from collections.abc import Callable, Sequence
from logging import getLogger

from orchestrator.trace import Wake, Wakes

log = getLogger(__name__)

PERIOD_S = 1.0

Export = Callable[[Wake], None]


class Exporter:
    """Calls every export with every wake of `wakes` that begins after `start`."""

    def __init__(self, wakes: Wakes, exports: Sequence[Export]) -> None:
        self._wakes = wakes
        self._exports = exports
        self._failed: dict[int, str] = {}
        self._missed = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgewake-traces", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._wakes.collect()
        self._thread.start()

    def close(self) -> None:
        """Tell what is over by now, then end."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
            self._tell(everything=True)

    def _run(self) -> None:
        while not self._stopping.wait(PERIOD_S):
            self._tell()

    def _tell(self, *, everything: bool = False) -> None:
        for wake in self._wakes.settled(everything=everything):
            for number, export in enumerate(self._exports):
                self._export(number, export, wake)
        if (missed := self._wakes.missed) > self._missed:
            log.warning("%d wakes were not exported: too many at once", missed - self._missed)
            self._missed = missed

    def _export(self, number: int, export: Export, wake: Wake) -> None:
        try:
            export(wake)
        except Exception as error:  # noqa: BLE001 - an export must not end the others
            if self._failed.get(number) != str(error):
                self._failed[number] = str(error)
                log.warning("wake %d was not exported: %s", wake.id, error)
        else:
            self._failed.pop(number, None)
