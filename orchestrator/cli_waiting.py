"""Shows at a terminal that something takes its time, and how far it is; elsewhere nothing."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from web.client import Client, Place

Show = Callable[[str, float, float], None]  # what is done now; steps done, of so many (0: unknown)


@contextmanager
def waiting(what: str) -> Iterator[Show]:
    """Show on a terminal's standard error that something goes on, and how far it is."""
    if not sys.stderr.isatty():
        yield lambda _text, _done, _total: None
        return
    from rich import progress  # noqa: PLC0415 - loaded only where something is shown
    from rich.console import Console  # noqa: PLC0415

    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def show(text: str, done: float, total: float) -> None:
            bar.update(task, total=total or None, completed=done, description=f"{what} {text}")

        yield show


@contextmanager
def asking(place: Place, what: str) -> Iterator[Client]:
    """Give a client that shows how far what it asks for is, once that takes a while."""
    with ExitStack() as parts:
        shown: list[Show] = []

        def watch(operation: dict[str, Any]) -> None:
            if not shown:
                shown.append(parts.enter_context(waiting(what)))
            now = operation["progress"]
            waits = "waits for its turn" if operation["state"] == "queued" else ""
            shown[0](now["text"] or waits, now["done"], now["total"])

        yield Client(place, watch=watch)
