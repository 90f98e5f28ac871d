"""What every `Apps` must do; a back end's own test subclasses `AppsContract`."""

import time
from collections.abc import Iterator

import pytest

from orchestrator.errors import CannotNetwork
from orchestrator.network import App, AppState
from orchestrator.routers.base import Apps
from tests.waiting import eventually

SOON_S = 15.0  # a machine with other work to do


class AppsContract:
    """Subclass it; there are the routers ``r1`` and ``r2``. `sh` says what programs to use."""

    def make(self) -> Apps:
        """Return an `Apps`; called again, one that stands for edgewake after a restart."""
        raise NotImplementedError

    def lose(self, router: str) -> None:
        """Remove a router."""
        raise NotImplementedError

    GOES_ON = ("sleep", "600")
    SAYS = ("echo", "hello", "there")
    FAILS = ("false",)

    @pytest.fixture
    def apps(self) -> Iterator[Apps]:
        apps = self.make()
        yield apps
        for state in apps.all():
            apps.remove(state.app.router, state.app.name)

    def state(self, apps: Apps, name: str, router: str = "r1") -> AppState:
        return {(s.app.router, s.app.name): s for s in apps.all()}[router, name]

    def ended(self, apps: Apps, name: str) -> AppState:
        eventually(lambda: not self.state(apps, name).running)
        return self.state(apps, name)

    def test_one_that_goes_on_is_listed_until_it_is_removed(self, apps: Apps) -> None:
        app = App("a", "r1", self.GOES_ON)
        started = apps.start(app)
        assert started.app == app
        assert started.running
        assert started.pid
        assert abs(started.started_at - time.time()) < SOON_S
        assert self.state(apps, "a").running
        stopped = apps.stop("r1", "a")
        assert not stopped.running
        assert (stopped.exit_code, stopped.signal) == (None, 15)
        assert self.state(apps, "a") == stopped
        assert apps.stop("r1", "a") == stopped, "to stop what has ended changes nothing"
        apps.remove("r1", "a")
        assert apps.all() == ()

    def test_what_it_printed_and_how_it_ended_are_kept(self, apps: Apps) -> None:
        apps.start(App("says", "r1", self.SAYS))
        apps.start(App("fails", "r1", self.FAILS))
        assert self.ended(apps, "says").exit_code == 0
        assert apps.console("r1", "says") == b"hello there\n"
        assert self.ended(apps, "fails").exit_code == 1
        assert apps.console("r1", "fails") == b""
        assert apps.console("r2", "says") == b""

    def test_the_same_name_in_two_routers_is_two_programs(self, apps: Apps) -> None:
        apps.start(App("a", "r1", self.GOES_ON))
        apps.start(App("a", "r2", self.GOES_ON))
        apps.stop("r1", "a")
        assert [s.running for s in apps.all()] == [False, True]

    def test_one_that_runs_is_not_started_twice(self, apps: Apps) -> None:
        apps.start(App("a", "r1", self.GOES_ON))
        with pytest.raises(CannotNetwork, match="r1/a runs already; stop it first"):
            apps.start(App("a", "r1", self.SAYS))
        assert self.state(apps, "a").running

    def test_one_that_has_ended_is_started_again_with_a_new_console(self, apps: Apps) -> None:
        apps.start(App("a", "r1", self.SAYS))
        self.ended(apps, "a")
        again = apps.start(App("a", "r1", self.GOES_ON))
        assert again.running
        assert again.exit_code is None
        assert apps.console("r1", "a") == b""
        assert len(apps.all()) == 1

    def test_an_unknown_router_is_refused_and_nothing_is_kept(self, apps: Apps) -> None:
        with pytest.raises(CannotNetwork, match="nowhere: there is no such router"):
            apps.start(App("a", "nowhere", self.GOES_ON))
        assert apps.all() == ()

    def test_to_stop_what_is_not_there_is_an_error_and_to_remove_it_is_none(
        self, apps: Apps
    ) -> None:
        with pytest.raises(CannotNetwork, match="r1/a: there is no such program"):
            apps.stop("r1", "a")
        apps.remove("r1", "a")

    def test_a_program_ends_with_its_router(self, apps: Apps) -> None:
        apps.start(App("a", "r1", self.GOES_ON))
        apps.start(App("b", "r2", self.GOES_ON))
        self.lose("r1")
        assert self.ended(apps, "a").signal == 15
        assert self.state(apps, "b", "r2").running
