"""What every `Hypervisor` must do; a back end's own test subclasses `HypervisorContract`.

The subclass's module provides a fixture `rig`: one machine, and what a test may make happen on it
behind the driver's back. `rig.patience_s` bounds every wait for something that a guest does.
"""

import select
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Protocol

import pytest

from orchestrator.abilities import probe
from orchestrator.errors import HostUnreachable, StartFailed
from orchestrator.hypervisors.base import (
    Depth,
    GuestEnded,
    HostEvent,
    Hypervisor,
    KeyWatch,
    Sent,
)
from orchestrator.model import Guest, GuestState, Host
from tests.waiting import eventually


class Rig(Protocol):
    """A machine for tests. Whatever is made on it is gone after the test, failed or not."""

    host: Host
    owner: str
    patience_s: float

    def driver(self, *, owner: str = "", host: Host | None = None) -> Hypervisor:
        """Return a new driver on the machine, for this host and owner unless told otherwise."""
        ...

    def dead_driver(self) -> Hypervisor:
        """Return a driver for a host that cannot be reached."""
        ...

    def guest(self, number: int = 0) -> Guest:
        """Return a guest of `owner` on `host`."""
        ...

    def let_end(self, guest: Guest) -> None:
        """Let a running guest end without any driver's doing."""
        ...

    def hold(self, guest: Guest) -> None:
        """Pause a running guest without any driver's doing."""
        ...

    def chat(self, guest: Guest) -> None:
        """Let a running guest send much more on its network than it receives."""
        ...

    def make_foreign_guest(self, name: str) -> None:
        """Start a guest that carries no mark."""
        ...

    def has_guest(self, name: str) -> bool:
        """Return whether a guest of that name, ours or not, is there."""
        ...

    def make_foreign_network(self, name: str) -> None:
        """Make a network that is not ours."""
        ...

    def has_network(self, name: str) -> bool:
        """Return whether a network of that name, ours or not, is there."""
        ...


class Heard:
    """A listener that remembers, and lets a test wait."""

    def __init__(self) -> None:
        self.events: list[HostEvent] = []
        self._changed = threading.Condition()

    def __call__(self, event: HostEvent) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait(self, wanted: Callable[[HostEvent], bool], timeout_s: float) -> HostEvent:
        """Return the first event that is wanted; fail the test after `timeout_s` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: any(map(wanted, self.events)), timeout_s)
            for event in self.events:
                if wanted(event):
                    return event
            pytest.fail(f"not heard within {timeout_s} s; heard: {self.events}")

    def ended(self) -> list[str]:
        """Return the instances whose end was heard, in order."""
        with self._changed:
            return [event.instance for event in self.events if isinstance(event, GuestEnded)]


def ends(guest: Guest) -> Callable[[HostEvent], bool]:
    """Return what recognises the end of this guest."""
    return lambda event: isinstance(event, GuestEnded) and event.instance == guest.name


def unheard(_stage: str) -> None:
    """Ignore a stamp."""


def names(hypervisor: Hypervisor) -> set[str]:
    """Return the instances that a driver says run."""
    return {guest.mark.instance for guest in hypervisor.running()}


class HypervisorContract:
    """Subclass it where the fixture `rig` is."""

    @pytest.fixture
    def hypervisor(self, rig: Rig) -> Hypervisor:
        driver = rig.driver()
        driver.set_network(rig.host.network)
        return driver

    # --- start, running, stop ---------------------------------------------------------------------

    def test_a_started_guest_runs_with_its_mark(self, rig: Rig, hypervisor: Hypervisor) -> None:
        stamps: list[str] = []
        guest = rig.guest()
        hypervisor.start(guest, stamps.append)
        assert stamps == ["asked", "define", "start"]
        assert [running.mark for running in hypervisor.running()] == [guest.mark]
        assert rig.has_guest(guest.name)

    def test_starting_a_running_guest_again_does_nothing(
        self, rig: Rig, hypervisor: Hypervisor
    ) -> None:
        stamps: list[str] = []
        heard = Heard()
        hypervisor.watch(heard)
        hypervisor.start(rig.guest(), unheard)
        hypervisor.start(rig.guest(), stamps.append)
        assert stamps == []
        assert names(hypervisor) == {rig.guest().name}
        assert heard.events == []

    def test_many_callers_start_one_guest_once(self, rig: Rig, hypervisor: Hypervisor) -> None:
        stamps: list[str] = []
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: hypervisor.start(rig.guest(), stamps.append), range(8)))
        assert stamps == ["asked", "define", "start"]
        assert names(hypervisor) == {rig.guest().name}

    def test_a_name_in_use_by_another_mark_of_ours_is_refused(
        self, rig: Rig, hypervisor: Hypervisor
    ) -> None:
        first = rig.guest()
        hypervisor.start(first, unheard)
        other = replace(first, mark=replace(first.mark, address=IPv4Address("192.0.2.1")))
        with pytest.raises(StartFailed, match="another mark"):
            hypervisor.start(other, unheard)
        assert [running.mark for running in hypervisor.running()] == [first.mark]

    def test_a_stopped_guest_is_gone_and_stopping_repeats(
        self, rig: Rig, hypervisor: Hypervisor
    ) -> None:
        guest = rig.guest()
        hypervisor.start(guest, unheard)
        hypervisor.stop(guest.name)
        assert not rig.has_guest(guest.name)
        assert hypervisor.running() == ()
        hypervisor.stop(guest.name)
        hypervisor.stop("never-was")

    def test_five_guests_start_in_parallel(self, rig: Rig, hypervisor: Hypervisor) -> None:
        guests = [rig.guest(number) for number in range(5)]
        with ThreadPoolExecutor(5) as pool:
            list(pool.map(lambda guest: hypervisor.start(guest, unheard), guests))
        assert names(hypervisor) == {guest.name for guest in guests}
        hypervisor.stop(guests[0].name)
        assert names(hypervisor) == {guest.name for guest in guests[1:]}

    def test_a_guest_too_big_for_the_host_leaves_nothing(
        self, rig: Rig, hypervisor: Hypervisor
    ) -> None:
        guest = rig.guest()
        huge = replace(guest, boot=replace(guest.boot, memory_mib=2**32))  # 4 PiB
        with pytest.raises(StartFailed, match=f"host {rig.host.name}: start {guest.name}"):
            hypervisor.start(huge, unheard)
        assert not rig.has_guest(guest.name)
        hypervisor.start(guest, unheard)  # the name is free
        assert names(hypervisor) == {guest.name}

    @pytest.mark.parametrize("last", ["asked", "define"])
    def test_a_stamp_that_fails_leaves_nothing(
        self, rig: Rig, hypervisor: Hypervisor, last: str
    ) -> None:
        def give_up(stage: str) -> None:
            if stage == last:
                raise RuntimeError("the wake was given up")

        with pytest.raises(RuntimeError, match="given up"):
            hypervisor.start(rig.guest(), give_up)
        assert not rig.has_guest(rig.guest().name)

    # --- what is not ours -------------------------------------------------------------------------

    def test_a_foreign_guest_is_not_seen_and_not_touched(
        self, rig: Rig, hypervisor: Hypervisor
    ) -> None:
        guest = rig.guest()
        rig.make_foreign_guest(guest.name)
        with pytest.raises(StartFailed, match="not ours"):
            hypervisor.start(guest, unheard)
        hypervisor.stop(guest.name)
        assert hypervisor.running() == ()
        assert rig.has_guest(guest.name)

    def test_guests_of_another_owner_or_host_are_foreign(
        self, rig: Rig, hypervisor: Hypervisor
    ) -> None:
        guest = rig.guest()
        hypervisor.start(guest, unheard)
        neighbour = replace(rig.host, name="neighbour")
        for other in (rig.driver(owner="someone-else"), rig.driver(host=neighbour)):
            assert other.running() == ()
            other.stop(guest.name)
        assert names(hypervisor) == {guest.name}

    def test_the_network_is_made_once_and_removed(self, rig: Rig) -> None:
        hypervisor = rig.driver()
        hypervisor.set_network(rig.host.network)
        hypervisor.set_network(rig.host.network)
        assert rig.has_network(rig.host.network.name)
        hypervisor.set_network(None)
        hypervisor.set_network(None)
        assert not rig.has_network(rig.host.network.name)

    def test_a_network_that_changed_is_made_anew(self, rig: Rig, hypervisor: Hypervisor) -> None:
        gateway = rig.host.network.gateway + 1
        hypervisor.set_network(replace(rig.host.network, gateway=gateway))
        hypervisor.set_network(rig.host.network)
        assert rig.has_network(rig.host.network.name)

    def test_a_network_in_use_is_not_pulled_away(self, rig: Rig, hypervisor: Hypervisor) -> None:
        hypervisor.start(rig.guest(), unheard)
        with pytest.raises(StartFailed, match="plugged in"):
            hypervisor.set_network(None)
        assert rig.has_network(rig.host.network.name)
        hypervisor.stop(rig.guest().name)
        hypervisor.set_network(None)
        assert not rig.has_network(rig.host.network.name)

    def test_a_foreign_network_is_used_only_on_request(self, rig: Rig) -> None:
        name = rig.host.network.name
        rig.make_foreign_network(name)
        hypervisor = rig.driver()
        with pytest.raises(StartFailed, match="not ours"):
            hypervisor.set_network(rig.host.network)
        hypervisor.set_network(replace(rig.host.network, create=False))
        hypervisor.set_network(None)
        assert rig.has_network(name)

    def test_a_guest_on_a_network_that_is_not_there_is_refused(self, rig: Rig) -> None:
        hypervisor = rig.driver()
        with pytest.raises(StartFailed, match=rig.host.network.name):
            hypervisor.start(rig.guest(), unheard)
        assert not rig.has_guest(rig.guest().name)

    # --- restarts ---------------------------------------------------------------------------------

    def test_a_fresh_driver_adopts_what_runs(self, rig: Rig, hypervisor: Hypervisor) -> None:
        guest = rig.guest()
        hypervisor.start(guest, unheard)
        hypervisor.close()
        hypervisor.close()
        fresh = rig.driver()
        assert [running.mark for running in fresh.running()] == [guest.mark]
        fresh.start(guest, unheard)
        fresh.stop(guest.name)
        assert not rig.has_guest(guest.name)

    def test_a_guest_tells_what_memory_it_takes(self, rig: Rig, hypervisor: Hypervisor) -> None:
        guest = rig.guest()
        assert hypervisor.memory_bytes(guest.name) is None
        hypervisor.start(guest, unheard)
        assert (hypervisor.memory_bytes(guest.name) or 0) > 100_000

    def test_a_closed_driver_says_so(self, hypervisor: Hypervisor) -> None:
        hypervisor.close()
        with pytest.raises(HostUnreachable, match="closed"):
            hypervisor.running()

    # --- events -----------------------------------------------------------------------------------

    def test_a_guest_that_ends_by_itself_is_heard(self, rig: Rig, hypervisor: Hypervisor) -> None:
        heard = Heard()
        hypervisor.watch(heard)
        guest = rig.guest()
        hypervisor.start(guest, unheard)
        rig.let_end(guest)
        event = heard.wait(ends(guest), rig.patience_s)
        assert isinstance(event, GuestEnded)
        assert event.host == rig.host.name
        assert event.why
        assert hypervisor.running() == ()

    def test_the_end_of_an_adopted_guest_is_heard(self, rig: Rig, hypervisor: Hypervisor) -> None:
        guest = rig.guest()
        hypervisor.start(guest, unheard)
        hypervisor.close()
        heard = Heard()
        rig.driver().watch(heard)
        rig.let_end(guest)
        heard.wait(ends(guest), rig.patience_s)

    def test_an_end_that_we_caused_is_no_news(self, rig: Rig, hypervisor: Hypervisor) -> None:
        heard, witness = Heard(), Heard()
        hypervisor.watch(heard)
        guest = rig.guest()
        hypervisor.start(guest, unheard)
        rig.driver().watch(witness)
        hypervisor.stop(guest.name)
        hypervisor.start(guest, unheard)
        witness.wait(ends(guest), rig.patience_s)
        assert heard.ended() == [], "neither the stop nor a late echo of it after the new start"
        assert names(hypervisor) == {guest.name}

    def test_a_listener_that_fails_does_not_silence_the_others(
        self, rig: Rig, hypervisor: Hypervisor
    ) -> None:
        def fail(event: HostEvent) -> None:
            raise RuntimeError(f"cannot take {event}")

        heard = Heard()
        hypervisor.watch(fail)
        hypervisor.watch(heard)
        guest = rig.guest()
        hypervisor.start(guest, unheard)
        rig.let_end(guest)
        heard.wait(ends(guest), rig.patience_s)

    # --- what the host says -----------------------------------------------------------------------

    def test_free_is_memory_and_cores(self, rig: Rig) -> None:
        free = rig.driver().free()
        assert free.cpu >= 1
        assert 0 < free.memory_mib < 2**30

    def test_counters_are_the_guests_own(self, rig: Rig, hypervisor: Hypervisor) -> None:
        guest = rig.guest()
        hypervisor.start(guest, unheard)
        rig.chat(guest)
        eventually(
            lambda: [run.tx_bytes > run.rx_bytes > 0 for run in hypervisor.running()] == [True],
            rig.patience_s,
            "the guest has sent more than it received",
        )

    def test_packets_and_processor_time_are_counted(self, rig: Rig, hypervisor: Hypervisor) -> None:
        guest = rig.guest()
        hypervisor.start(guest, unheard)
        rig.chat(guest)
        eventually(
            lambda: all(run.rx_packets and run.cpu_s for run in hypervisor.running()),
            rig.patience_s,
            "the guest has received packets and used its processor",
        )
        (before,) = hypervisor.running()
        (after,) = hypervisor.running()
        assert (after.cpu_s or 0.0) >= (before.cpu_s or 0.0) > 0
        assert before.rx_packets <= before.rx_bytes

    def test_the_console_shows_what_the_guest_printed(
        self, rig: Rig, hypervisor: Hypervisor
    ) -> None:
        guest = rig.guest()
        assert hypervisor.console(guest.name) == b""
        hypervisor.start(guest, unheard)
        eventually(lambda: bool(hypervisor.console(guest.name)), rig.patience_s, "console output")
        hypervisor.stop(guest.name)
        assert hypervisor.console(guest.name)

    def test_a_host_that_cannot_be_reached_is_named(self, rig: Rig) -> None:
        dead = rig.dead_driver()
        for ask in (dead.running, dead.free, lambda: dead.start(rig.guest(), unheard)):
            with pytest.raises(HostUnreachable, match=rig.host.name):
                ask()
        heard = Heard()
        dead.watch(heard)
        heard.wait(lambda event: type(event).__name__ == "HostLost", rig.patience_s)


class TwoHosts(Rig, Protocol):
    """Two machines for tests, with one network for the guests of both: `host`, and `other`."""

    other: Host
    can_call_off: bool

    def other_driver(self) -> Hypervisor:
        """Return a new driver on the other machine."""
        ...

    def dead_other(self) -> Hypervisor:
        """Return a driver for the other machine that cannot reach it."""
        ...

    def to_foreign_guest(self, name: str) -> None:
        """Start a guest that carries no mark on the other machine."""
        ...

    def state_of(self, guest: Guest) -> str:
        """Return something that only this run of a guest knows, from the guest itself."""
        ...


def elsewhere(guest: Guest, host: Host) -> Guest:
    """Return a guest as another host would have it."""
    return replace(guest, mark=replace(guest.mark, host=host.name))


def unwatched(_sent: Sent) -> bool:
    """Want a migration whatever it tells."""
    return True


class MigrateContract:
    """Subclass it where the fixture `rig` is, of two hosts."""

    @pytest.fixture
    def here(self, rig: TwoHosts) -> Hypervisor:
        """Return a driver with a guest that runs and answers."""
        driver = rig.driver()
        driver.set_network(rig.host.network)
        driver.start(rig.guest(), unheard)
        assert rig.state_of(rig.guest())
        return driver

    @pytest.fixture
    def there(self, rig: TwoHosts) -> Hypervisor:
        driver = rig.other_driver()
        driver.set_network(rig.other.network)
        return driver

    def test_a_guest_goes_on_elsewhere_and_comes_back(
        self, rig: TwoHosts, here: Hypervisor, there: Hypervisor
    ) -> None:
        heard, heard_there = Heard(), Heard()
        here.watch(heard)
        there.watch(heard_there)
        guest = rig.guest()
        moved, before = elsewhere(guest, rig.other), rig.state_of(guest)
        printed = here.console(guest.name)
        here.migrate(moved, there, unwatched)
        assert here.running() == ()
        assert [(run.mark, run.state) for run in there.running()] == [
            (moved.mark, GuestState.RUNNING)
        ]
        assert rig.state_of(guest) == before
        assert there.console(guest.name).startswith(printed[:100])
        assert not rig.has_guest(guest.name)
        there.migrate(guest, here, unwatched)
        assert there.running() == ()
        assert [run.mark for run in here.running()] == [guest.mark]
        assert rig.state_of(guest) == before
        assert heard.ended() == heard_there.ended() == []

    def test_its_end_is_heard_where_it_is(
        self, rig: TwoHosts, here: Hypervisor, there: Hypervisor
    ) -> None:
        heard, heard_there = Heard(), Heard()
        here.watch(heard)
        there.watch(heard_there)
        here.migrate(elsewhere(rig.guest(), rig.other), there, unwatched)
        fresh = rig.other_driver()
        assert names(fresh) == {rig.guest().name}
        fresh.stop(rig.guest().name)
        heard_there.wait(ends(rig.guest()), rig.patience_s)
        assert (heard.ended(), there.running()) == ([], ())

    def test_called_off_it_runs_on_where_it_was(
        self, rig: TwoHosts, here: Hypervisor, there: Hypervisor
    ) -> None:
        if not rig.can_call_off:
            here.migrate(elsewhere(rig.guest(), rig.other), there, lambda _sent: False)
            assert names(there) == {rig.guest().name}
            return
        before, told = rig.state_of(rig.guest()), list[Sent]()

        def no_more(sent: Sent) -> bool:
            told.append(sent)
            return False

        with pytest.raises(StartFailed, match=f"migrate {rig.guest().name}"):
            here.migrate(elsewhere(rig.guest(), rig.other), there, no_more)
        assert told
        assert names(here) == {rig.guest().name}
        assert there.running() == ()
        assert rig.state_of(rig.guest()) == before
        here.migrate(elsewhere(rig.guest(), rig.other), there, unwatched)
        assert names(there) == {rig.guest().name}

    def test_what_cannot_be_sent_stays(
        self, rig: TwoHosts, here: Hypervisor, there: Hypervisor
    ) -> None:
        moved = elsewhere(rig.guest(), rig.other)
        never = replace(moved, name="never-was", mark=replace(moved.mark, instance="never-was"))
        with pytest.raises(StartFailed, match=f"host {rig.host.name}: .*does not run there"):
            here.migrate(never, there, unwatched)
        with pytest.raises(StartFailed, match="boot it there"):
            here.migrate(moved, rig.driver(), unwatched)
        with pytest.raises(HostUnreachable, match=f"host {rig.other.name}"):
            here.migrate(moved, rig.dead_other(), unwatched)
        rig.to_foreign_guest(moved.name)
        with pytest.raises(StartFailed, match=f"host {rig.other.name}: .*not ours"):
            here.migrate(moved, there, unwatched)
        assert names(here) == {rig.guest().name}
        assert there.running() == ()


def states(hypervisor: Hypervisor) -> dict[str, GuestState]:
    """Return what a driver says of the instances that are in the host's memory."""
    return {guest.mark.instance: guest.state for guest in hypervisor.running()}


class SleepContract:
    """Subclass it where the fixture `rig` is, if guests can sleep; name the depths they can."""

    depths: tuple[Depth, ...] = tuple(Depth)

    @pytest.fixture
    def guest(self, rig: Rig) -> Guest:
        return rig.guest()

    @pytest.fixture
    def sleeper(self, rig: Rig, guest: Guest) -> Hypervisor:
        """Return a driver with a guest that runs."""
        driver = rig.driver()
        driver.set_network(rig.host.network)
        driver.start(guest, unheard)
        return driver

    def test_a_guest_sleeps_and_is_roused_at_every_depth(
        self, rig: Rig, sleeper: Hypervisor, guest: Guest
    ) -> None:
        heard = Heard()
        sleeper.watch(heard)
        for depth in self.depths:
            for _twice in range(2):
                sleeper.sleep(guest.name, depth)
            if depth is Depth.PAUSED:
                assert states(sleeper) == {guest.name: GuestState.PAUSED}
                assert sleeper.saved() == ()
            else:
                assert states(sleeper) == {}
                assert not rig.has_guest(guest.name)
                assert sleeper.saved() == (guest.mark,)
            for _twice in range(2):
                sleeper.rouse(guest.name)
            assert states(sleeper) == {guest.name: GuestState.RUNNING}
            assert sleeper.saved() == ()
        assert heard.events == []

    def test_what_sleeps_is_found_after_a_restart_and_roused(
        self, rig: Rig, sleeper: Hypervisor, guest: Guest
    ) -> None:
        for depth in self.depths:
            sleeper.sleep(guest.name, depth)
            sleeper.close()
            sleeper = rig.driver()
            asleep = {run.mark for run in sleeper.running() if run.state is GuestState.PAUSED}
            assert asleep | set(sleeper.saved()) == {guest.mark}
            sleeper.rouse(guest.name)
            assert states(sleeper) == {guest.name: GuestState.RUNNING}

    def test_stopping_ends_what_sleeps(self, rig: Rig, sleeper: Hypervisor, guest: Guest) -> None:
        for depth in self.depths:
            sleeper.start(guest, unheard)
            sleeper.sleep(guest.name, depth)
            sleeper.stop(guest.name)
            assert (states(sleeper), sleeper.saved()) == ({}, ())
            assert not rig.has_guest(guest.name)
            with pytest.raises(StartFailed, match="does not sleep"):
                sleeper.rouse(guest.name)

    def test_starting_boots_anew_what_sleeps(
        self, rig: Rig, sleeper: Hypervisor, guest: Guest
    ) -> None:
        for depth in self.depths:
            stamps: list[str] = []
            sleeper.sleep(guest.name, depth)
            sleeper.start(guest, stamps.append)
            assert stamps == ["asked", "define", "start"]
            assert states(sleeper) == {guest.name: GuestState.RUNNING}
            assert sleeper.saved() == ()

    def test_a_guest_that_somebody_paused_is_shown_as_held(
        self, rig: Rig, sleeper: Hypervisor, guest: Guest
    ) -> None:
        eventually(lambda: bool(sleeper.console(guest.name)), rig.patience_s, "it has run")
        rig.hold(guest)
        assert states(sleeper) == {guest.name: GuestState.HELD}
        sleeper.rouse(guest.name)
        assert states(sleeper) == {guest.name: GuestState.RUNNING}

    def test_a_claimed_guest_has_its_new_mark_also_after_a_restart(
        self, rig: Rig, sleeper: Hypervisor, guest: Guest
    ) -> None:
        assert {run.mark for run in sleeper.running()} == {guest.mark}
        for service, state in (("one", GuestState.RUNNING), ("other", GuestState.PAUSED)):
            if state is GuestState.PAUSED:
                sleeper.sleep(guest.name, Depth.PAUSED)
            mark = replace(guest.mark, service=service)
            sleeper.claim(guest.name, mark)
            for driver in (sleeper, rig.driver()):
                assert {run.mark for run in driver.running()} == {mark}
                assert states(driver) == {guest.name: state}
        sleeper.rouse(guest.name)
        assert states(sleeper) == {guest.name: GuestState.RUNNING}
        sleeper.stop(guest.name)
        assert not rig.has_guest(guest.name)

    def test_only_a_guest_of_ours_that_is_there_is_claimed(
        self, rig: Rig, sleeper: Hypervisor, guest: Guest
    ) -> None:
        other = rig.driver(owner="someone-else")
        with pytest.raises(StartFailed):
            other.claim(guest.name, replace(guest.mark, owner="someone-else", service="other"))
        with pytest.raises(StartFailed, match=f"host {rig.host.name}: .*never-was"):
            sleeper.claim("never-was", replace(guest.mark, instance="never-was"))
        assert {run.mark for run in sleeper.running()} == {guest.mark}

    def test_who_does_not_run_cannot_sleep(self, rig: Rig, sleeper: Hypervisor) -> None:
        with pytest.raises(StartFailed, match=f"host {rig.host.name}: .*never-was"):
            sleeper.sleep("never-was", self.depths[0])

    def test_a_foreign_guest_is_not_put_to_sleep(
        self, rig: Rig, sleeper: Hypervisor, guest: Guest
    ) -> None:
        other = rig.driver(owner="someone-else")
        for depth in self.depths:
            with pytest.raises(StartFailed):
                other.sleep(guest.name, depth)
            with pytest.raises(StartFailed):
                other.rouse(guest.name)
        assert states(sleeper) == {guest.name: GuestState.RUNNING}

    def test_a_probe_says_whether_a_guest_survives_it(
        self, rig: Rig, sleeper: Hypervisor, guest: Guest
    ) -> None:
        for depth in self.depths:
            found = probe(sleeper, guest.name, depth, lambda: bool(states(sleeper)), 1.0)
            assert found.works, found.why
            assert found.sleep_s > 0 or found.rouse_s >= 0
        deaf = probe(sleeper, guest.name, self.depths[0], lambda: False, 0.0)
        assert not deaf.works
        assert "did not answer" in deaf.why
        gone = probe(sleeper, "never-was", self.depths[0], lambda: True, 1.0)
        assert not gone.works
        assert "never-was" in gone.why


class KeyRig(Rig, Protocol):
    """A machine whose guests have a Xenstore."""

    def write_key(self, guest: Guest, key: str, value: str) -> None:
        """Write a key of a running guest, as it could itself."""
        ...


class KeyContract:
    """Subclass it where the fixture `rig` is, if guests have a Xenstore."""

    KEY = "data/contract"

    @pytest.fixture
    def guest(self, rig: KeyRig) -> Guest:
        guest = rig.guest()
        return replace(guest, boot=replace(guest.boot, xenstore=(("some/where", "as told"),)))

    @pytest.fixture
    def booted(self, rig: KeyRig, guest: Guest) -> Hypervisor:
        """Return a driver with a guest that runs."""
        driver = rig.driver()
        driver.set_network(rig.host.network)
        driver.start(guest, unheard)
        return driver

    @pytest.fixture
    def key(self, booted: Hypervisor, guest: Guest) -> Iterator[KeyWatch]:
        key = booted.watch_key(guest.name, self.KEY)
        yield key
        key.close()
        key.close()

    def test_a_key_is_seen_when_it_is_written_and_when_its_guest_ends(
        self, rig: KeyRig, booted: Hypervisor, guest: Guest, key: KeyWatch
    ) -> None:
        def holds(value: bytes | None) -> bool:
            return bool(select.select([key], [], [], rig.patience_s)[0]) and key.value() == value

        assert holds(None)
        for value in ("first", "second \\ 'x'"):
            rig.write_key(guest, self.KEY, value)
            eventually(lambda value=value: holds(value.encode()), rig.patience_s, "the new value")  # type: ignore[misc]
        booted.stop(guest.name)
        eventually(lambda: holds(None), rig.patience_s, "its end")

    def test_a_guest_of_ours_that_runs_has_the_keys_that_it_is_to_read(
        self, rig: KeyRig, booted: Hypervisor, guest: Guest
    ) -> None:
        key = booted.watch_key(guest.name, "some/where")
        try:
            eventually(lambda: key.value() == b"as told", rig.patience_s, "the key")
        finally:
            key.close()
        with pytest.raises(StartFailed, match="does not run there"):
            booted.watch_key(rig.guest(1).name, self.KEY)
        with pytest.raises(StartFailed, match="does not run there"):
            rig.driver(owner="someone-else").watch_key(guest.name, self.KEY)
