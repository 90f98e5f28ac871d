"""The seam to virtual routers: what is asked of one machine, and what may be relied on.

A back end stands for **one** machine and one owner. It is given the whole wanted network, of all
machines, and makes its own part so, touching only what differs and only what carries our mark.
`tests/contracts/routers.py` holds every back end to this page.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from orchestrator.network import App, AppState, Found, LinkEngine, Network, PortCounters

Progress = Callable[[str, int, int], None]  # of what, how many are done, of how many


@dataclass(frozen=True, slots=True)
class Done:
    """What `set` changed: names of routers, links (``a--b``) and stubs, and routes in number."""

    made: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    routes: int = 0


class Routers(Protocol):
    """The virtual routers on one machine. Methods may be called from any thread, and may block.

    Errors are `CannotNetwork` (it says what is missing and what to do) and nothing else.
    """

    def set(self, wanted: Network, progress: Progress | None = None) -> Done:
        """Make the network exist as wanted; an empty one removes all of ours.

        May be repeated, also after a crash in the middle. Packets on links and routes that stay the
        same are not disturbed. What is refused (a name that is somebody else's, an engine that this
        kernel lacks) is refused before anything is changed; an error later takes back what this
        call made.
        """
        ...

    def found(self) -> Found:
        """Return what exists of ours, whoever made it."""
        ...

    def counters(self) -> tuple[PortCounters, ...]:
        """Return what went through each end of each link and stub."""
        ...

    def engines(self) -> dict[LinkEngine, str]:
        """Return what can make links slow here: engine to why not, empty if it can."""
        ...

    def close(self) -> None:
        """Let go; the network stays. May be called twice."""
        ...


class Apps(Protocol):
    """Programs inside routers. They go on when edgewake ends, and are found again.

    Errors are `CannotNetwork`. Programs in a router that is removed are ended with it, soon after.
    """

    def start(self, app: App) -> AppState:
        """Start a program, and return when it runs; one that runs already is an error."""
        ...

    def stop(self, router: str, name: str) -> AppState:
        """End a program (SIGTERM, then SIGKILL) and return how it ended."""
        ...

    def remove(self, router: str, name: str) -> None:
        """Stop a program and forget it; one that is not there is no error."""
        ...

    def all(self) -> tuple[AppState, ...]:
        """Return every program that was started and not removed."""
        ...

    def console(self, router: str, name: str) -> bytes:
        """Return the last 64 KiB of what a program printed; empty if unknown."""
        ...
