"""The journal: who is told of events, and to which wake they belong."""

from collections.abc import Callable
from contextlib import closing

import pytest

from orchestrator.background import Background
from orchestrator.errors import StoreError
from orchestrator.journal import Journal
from orchestrator.model import Event
from orchestrator.store.memory import MemoryStore
from orchestrator.trace import WakeTrace
from orchestrator.wake_context import wake_now, working_for
from tests.world import World


class Full(MemoryStore):
    """A store without room for events."""

    def record(self, event: Event) -> None:
        raise StoreError("disk full")


def test_listeners_are_told_in_order_after_the_store() -> None:
    store, told = MemoryStore(), []
    journal = Journal(store)
    journal.listen(lambda event: told.append((event.kind, len(store.events()))))
    for kind in ("woke", "slept"):
        journal.record(kind, "web", "text")
    journal.close()
    assert told == [("woke", 1), ("slept", 2)]


def test_what_cannot_be_stored_is_counted_and_told_all_the_same() -> None:
    told: list[str] = []
    journal = Journal(Full())
    journal.listen(lambda event: told.append(event.kind))
    journal.record("woke", "web", "text")
    journal.close()
    assert (journal.lost, told) == (1, ["woke"])


def test_a_listener_that_fails_does_not_silence_others(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Event] = []
    journal = Journal(MemoryStore())
    journal.listen(lambda _event: 1 / 0)
    journal.listen(told.append)
    journal.record("woke", "web", "text")
    journal.close()
    assert len(told) == 1
    assert "could not be passed on" in caplog.text


def test_events_of_a_wake_have_its_number(make_world: Callable[..., World]) -> None:
    world = make_world()
    told: list[Event] = []
    world.control._journal.listen(told.append)
    world.ask("web")
    world.eventually(lambda: bool(told))
    (wake,) = world.control.wakes.last()
    (woke,) = (dict(event.data) for event in told if event.kind == "woke")
    assert woke["wake"] == str(wake.id)


def test_work_in_the_background_belongs_to_the_wake_that_began_it() -> None:
    seen: list[WakeTrace | None] = []
    trace = WakeTrace("web", number=17)
    with closing(Background("test", 1)) as background:
        with working_for(trace):
            background.call(lambda: seen.append(wake_now())).result(5)
            with working_for(None):
                background.do(lambda _: seen.append(wake_now()), "x")
        background.call(lambda: seen.append(wake_now())).result(5)
    assert seen == [trace, trace, None]
