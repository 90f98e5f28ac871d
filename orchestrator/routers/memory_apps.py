"""Programs on routers that are remembered instead of run: for tests, and networks in memory.

What a program would do is told by a table: by the first of its arguments, what it prints and with
which code it ends, None if it goes on. A program that the table lacks prints nothing and goes on.
"""

import signal
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from orchestrator.errors import CannotNetwork
from orchestrator.linux.consoles import CONSOLE_BYTES
from orchestrator.network import App, AppState

Act = Callable[[Sequence[str]], tuple[bytes, int | None]]


class MemoryApps:
    """See `base.Apps` for the contract; `nodes` returns the routers and stubs that there are."""

    def __init__(
        self, nodes: Callable[[], Collection[str]], acts: Mapping[str, Act] | None = None
    ) -> None:
        self._nodes = nodes
        self._acts = dict(acts or {})
        self._lock = threading.Lock()
        self._states: dict[tuple[str, str], AppState] = {}
        self._consoles: dict[tuple[str, str], bytes] = {}

    def start(self, app: App) -> AppState:
        """Start a program, and return when it runs; one that runs already is an error."""
        key = app.router, app.name
        with self._lock:
            self._look()
            if app.router not in self._nodes():
                raise CannotNetwork(
                    f"{app.router}: there is no such router or clients' stub on this machine",
                    hint="start the network first",
                )
            if key in self._states and self._states[key].running:
                raise CannotNetwork(f"{app.router}/{app.name} runs already", hint="stop it first")
            act = self._acts.get(app.argv[0])
            said, code = act(app.argv) if act else (b"", None)
            self._consoles[key] = said[-CONSOLE_BYTES:]
            self._states[key] = AppState(
                app,
                running=code is None,
                pid=1 if code is None else 0,
                started_at=time.time(),
                exit_code=code,
            )
            return self._states[key]

    def stop(self, router: str, name: str) -> AppState:
        """End a program (SIGTERM, then SIGKILL) and return how it ended."""
        with self._lock:
            self._look()
            if (router, name) not in self._states:
                raise CannotNetwork(
                    f"{router}/{name}: there is no such program",
                    hint="`edgewake net app list` has them all",
                )
            self._end((router, name))
            return self._states[router, name]

    def remove(self, router: str, name: str) -> None:
        """Stop a program and forget it; one that is not there is no error."""
        with self._lock:
            self._states.pop((router, name), None)
            self._consoles.pop((router, name), None)

    def all(self) -> tuple[AppState, ...]:
        """Return every program that was started and not removed."""
        with self._lock:
            self._look()
            return tuple(state for _, state in sorted(self._states.items()))

    def console(self, router: str, name: str) -> bytes:
        """Return the last 64 KiB of what a program printed; empty if unknown."""
        with self._lock:
            return self._consoles.get((router, name), b"")

    def _look(self) -> None:
        """End the programs whose router is gone."""
        there = self._nodes()
        for key, state in self._states.items():
            if state.app.router not in there:
                self._end(key)

    def _end(self, key: tuple[str, str]) -> None:
        state = self._states[key]
        if state.running:
            self._states[key] = replace(state, running=False, pid=0, signal=int(signal.SIGTERM))
