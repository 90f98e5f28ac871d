"""What every `Store` must do; a back end's own test subclasses `StoreContract`."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from orchestrator.errors import StoreError
from orchestrator.model import Ability, Event, Instance, InstanceState, Rung, mac_of
from orchestrator.store.base import IMAGES_KEPT, VERSIONS_KEPT, Drain, Quarantine, Store, Stored


def instance_of(number: int, service: str = "web") -> Instance:
    """Return an instance that differs from others by its number only."""
    address = IPv4Address("10.0.0.1") + number
    return Instance(
        name=f"ew-lab-{service}-{number}",
        service=service,
        host="edge1",
        address=address,
        mac=mac_of(address),
        state=InstanceState.BOOTING,
        created_at=1_700_000_000.25 + number,
    )


def event_of(number: int) -> Event:
    """Return an event that differs from others by its number only."""
    return Event(
        at=float(number), kind="wake", subject="web", text=f"no. {number}", data=(("n", "é"),)
    )


class StoreContract:
    """Subclass it and override `make`."""

    def make(self) -> Store:
        """Return a store; the second call in a test opens the same one, where there is such."""
        raise NotImplementedError

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        store = self.make()
        yield store
        store.close()

    def test_a_new_store_keeps_nothing(self, store: Store) -> None:
        assert store.load() == Stored()
        assert list(store.events()) == []

    def test_an_instance_comes_back_as_it_was(self, store: Store) -> None:
        plain = instance_of(1)
        full = replace(
            instance_of(2),
            state=InstanceState.READY,
            address6=IPv6Address("fd00::2"),
            ready_at=1_700_000_003.5,
        )
        leaving = replace(instance_of(3), state=InstanceState.READY).migrating("edge2")
        for each in (plain, full, leaving):
            store.save(each)
        assert set(store.load().instances) == {plain, full, leaving}

    def test_abilities_of_images_of_long_ago_are_forgotten(self, store: Store) -> None:
        def probed(number: int, host: str = "edge1") -> Ability:
            return Ability(f"sha256:{number}", host, Rung.PAUSED, works=True, probed_at=number)

        others = {
            probed(0, "edge2"),
            replace(probed(0), rung=Rung.SAVED),
            probed(IMAGES_KEPT + 2),
        }
        for each in (*others, *map(probed, range(IMAGES_KEPT + 1))):
            store.save_ability(each)
        kept = set(store.load().abilities)
        assert kept >= others
        assert {int(each.probed_at) for each in kept - others} == {*range(2, IMAGES_KEPT + 1)}

    def test_abilities_come_back_and_are_replaced_and_forgotten(self, store: Store) -> None:
        paused = Ability("digest", "a", Rung.PAUSED, works=True, rouse_s=0.5, probed_at=7.25)
        saved = Ability("digest", "a", Rung.SAVED, works=False, why="hung", clock=False)
        for each in (paused, saved, replace(saved, host="b", clock=True)):
            store.save_ability(each)
        store.save_ability(replace(paused, works=False, why="no"))
        assert set(store.load().abilities) == {
            replace(paused, works=False, why="no"),
            saved,
            replace(saved, host="b", clock=True),
        }
        store.forget_abilities()
        assert store.load() == Stored()

    def test_a_second_save_replaces_the_first(self, store: Store) -> None:
        booting = instance_of(1)
        ready = booting.step(InstanceState.READY, ready_at=booting.created_at + 2)
        store.save(booting)
        store.save(ready)
        store.save(ready)
        assert store.load().instances == (ready,)

    def test_remove_forgets_the_instance_and_quarantines_its_address(self, store: Store) -> None:
        gone, stays = instance_of(1), instance_of(2)
        store.save(gone)
        store.save(stays)
        store.remove(gone, rest_until=2_000.5)
        assert store.load() == Stored(
            instances=(stays,),
            quarantines=(Quarantine("edge1", gone.address, "web", 2_000.5),),
        )

    def test_remove_may_be_repeated_and_needs_no_save(self, store: Store) -> None:
        store.remove(instance_of(1), rest_until=10.0)
        store.remove(instance_of(1), rest_until=10.0)
        assert store.load().quarantines == (
            Quarantine("edge1", instance_of(1).address, "web", 10.0),
        )

    def test_a_rest_is_extended_but_never_shortened(self, store: Store) -> None:
        for until in (20.0, 30.0, 10.0):
            store.remove(instance_of(1), rest_until=until)
        assert [each.until for each in store.load().quarantines] == [30.0]

    def test_the_last_user_of_an_address_is_the_one_that_is_told(self, store: Store) -> None:
        store.remove(instance_of(1, "web"), rest_until=10.0)
        store.remove(instance_of(1, "video"), rest_until=20.0)
        kept = store.load().quarantines
        assert [(each.service, each.until) for each in kept] == [("video", 20.0)]

    def test_the_same_address_on_two_hosts_rests_twice(self, store: Store) -> None:
        store.remove(instance_of(1), rest_until=10.0)
        store.remove(replace(instance_of(1), host="edge2"), rest_until=20.0)
        kept = {each.host: each.until for each in store.load().quarantines}
        assert kept == {"edge1": 10.0, "edge2": 20.0}

    def test_the_lab_comes_back_word_for_word(self, store: Store) -> None:
        store.save_lab("name: old\n", "/etc/old.yaml")
        store.save_lab("name: Gerät\r\n\n# '; DROP TABLE meta\n", "/etc/lab.yaml")
        kept = store.load()
        assert kept.lab_text == "name: Gerät\r\n\n# '; DROP TABLE meta\n"
        assert kept.lab_path == "/etc/lab.yaml"

    def test_each_lab_is_a_version_and_the_last_one_is_in_use(self, store: Store) -> None:
        assert list(store.lab_versions()) == []
        for text, path in (("a", "/x"), ("a", "/x"), ("b", "/x"), ("b", "/y"), ("a", "/x")):
            store.save_lab(text, path, actor="ann", at=7.5)
        versions = store.lab_versions()
        assert [(each.number, each.text, each.path) for each in versions] == [
            (1, "a", "/x"),
            (2, "b", "/x"),
            (3, "b", "/y"),
            (4, "a", "/x"),
        ]
        assert {(each.at, each.actor) for each in versions} == {(7.5, "ann")}
        assert versions[0].sha256 == versions[3].sha256 != versions[1].sha256
        assert [each.number for each in store.lab_versions(2)] == [3, 4]
        assert list(store.lab_versions(0)) == []
        assert store.load().lab_text == "a"

    def test_which_lab_was_as_its_file_is_known(self, store: Store) -> None:
        assert store.load().lab_on_disk == 0
        for text, on_disk, known in (
            ("a", False, 0),
            ("a", True, 1),
            ("b", True, 2),
            ("b", False, 2),
            ("c", False, 2),
            ("d", True, 4),
        ):
            store.save_lab(text, "/x", on_disk=on_disk)
            assert store.load().lab_on_disk == known, text
        assert len(store.lab_versions()) == 4

    def test_the_last_versions_of_the_lab_are_kept(self, store: Store) -> None:
        for number in range(1, VERSIONS_KEPT + 6):
            store.save_lab(f"name: l{number}", "/x")
        kept = [each.number for each in store.lab_versions(1000)]
        assert kept == list(range(6, VERSIONS_KEPT + 6))

    def test_a_drain_is_kept_until_it_is_removed(self, store: Store) -> None:
        store.save_drain(Drain("edge1", 1_700_000_000.25))
        store.save_drain(Drain("edge2", 2.0))
        store.save_drain(Drain("edge1", 3.5, force=True))
        store.remove_drain("edge2")
        store.remove_drain("edge2")
        assert store.load() == Stored(drains=(Drain("edge1", 3.5, force=True),))

    def test_the_journal_returns_the_last_events_oldest_first(self, store: Store) -> None:
        for number in range(5):
            store.record(event_of(number))
        assert list(store.events(3)) == [event_of(2), event_of(3), event_of(4)]
        assert list(store.events()) == [event_of(number) for number in range(5)]
        assert list(store.events(0)) == []

    def test_events_of_a_kind_lead_back_by_their_numbers(self, store: Store) -> None:
        for number in range(6):
            store.record(replace(event_of(number), kind="odd" if number % 2 else "even"))
        numbers = [event.number for event in store.events()]
        assert numbers == sorted(set(numbers))
        assert numbers[0] > 0
        last = store.events(2, kinds=["odd"])
        assert [event.at for event in last] == [event_of(3).at, event_of(5).at]
        (first,) = store.events(2, kinds=["odd"], before=last[0].number)
        assert first.at == event_of(1).at

    def test_threads_do_not_disturb_each_other(self, store: Store) -> None:
        def work(thread: int) -> None:
            for number in range(thread * 100, thread * 100 + 25):
                store.save(instance_of(number))
                store.record(event_of(number))
                store.load()
                store.events(5)
                if number % 2:
                    store.remove(instance_of(number), rest_until=float(number))

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(8)))

        numbers = [thread * 100 + each for thread in range(8) for each in range(25)]
        kept = store.load()
        assert {each.name for each in kept.instances} == {
            instance_of(number).name for number in numbers if number % 2 == 0
        }
        assert {each.until for each in kept.quarantines} == {n for n in numbers if n % 2}
        assert sorted(each.at for each in store.events(1000)) == numbers

    def test_after_close_every_use_is_refused(self) -> None:
        store = self.make()
        store.close()
        store.close()
        for use in (
            store.load,
            store.events,
            lambda: store.save(instance_of(1)),
            lambda: store.remove(instance_of(1), rest_until=0.0),
            lambda: store.save_lab("", ""),
            store.lab_versions,
            lambda: store.save_drain(Drain("edge1", 1.0)),
            lambda: store.remove_drain("edge1"),
            lambda: store.record(event_of(1)),
        ):
            with pytest.raises(StoreError, match="closed"):
                use()
