"""What every `Guard` must do; a back end's own test subclasses `GuardContract`.

One that holds all packets itself subclasses `HoldingGuardContract`, which asks for more.
"""

import time
from collections.abc import Callable, Iterator

import pytest

from orchestrator.guards.base import Asked, Guard, Guarded
from tests.waiting import eventually

CROWD = 150  # more would not fit in the socket of a test that counts datagrams


class GuardContract:
    """Subclass it and override `make`, `thing`, `send` and `delivered`."""

    def make(self, listener: Callable[[Asked], None]) -> Guard:
        """Return a guard."""
        raise NotImplementedError

    def thing(self, number: int) -> Guarded:
        """Return one of two things that can be guarded: number 10 or 11."""
        raise NotImplementedError

    def send(self, guard: Guard, guarded: Guarded) -> None:
        """Let somebody want an address, with a packet that is not sent again."""
        raise NotImplementedError

    def delivered(self, guard: Guard, guarded: Guarded) -> int:
        """Return how many packets have come to the guest of an address."""
        raise NotImplementedError

    @pytest.fixture
    def asked(self) -> list[Asked]:
        return []

    @pytest.fixture
    def guard(self, asked: list[Asked]) -> Iterator[Guard]:
        guard = self.make(asked.append)
        yield guard
        guard.close()

    def test_the_first_packet_is_told_once_and_all_are_held(
        self, guard: Guard, asked: list[Asked]
    ) -> None:
        web = self.thing(10)
        guard.set([web])
        began = time.monotonic()
        for _ in range(3):
            self.send(guard, web)
        eventually(lambda: len(asked) == 1)
        assert asked[0].guarded == web
        assert asked[0].client
        assert began <= asked[0].at <= time.monotonic()
        assert self.delivered(guard, web) == 0
        assert len(asked) == 1

    def test_what_was_held_goes_on_when_it_is_released(
        self, guard: Guard, asked: list[Asked]
    ) -> None:
        web = self.thing(10)
        guard.set([web])
        for _ in range(3):
            self.send(guard, web)
        eventually(lambda: len(asked) == 1)
        guard.release(web.address)
        eventually(lambda: self.delivered(guard, web) == 3)
        guard.release(web.address)
        self.send(guard, web)
        eventually(lambda: self.delivered(guard, web) == 4)
        assert len(asked) == 1

    def test_a_refused_address_is_told_again(self, guard: Guard, asked: list[Asked]) -> None:
        web = self.thing(10)
        guard.set([web])
        self.send(guard, web)
        eventually(lambda: len(asked) == 1)
        guard.refuse(web.address)
        self.send(guard, web)
        eventually(lambda: len(asked) == 2)

    def test_what_was_guarded_before_is_told_again(self, guard: Guard, asked: list[Asked]) -> None:
        web, other = self.thing(10), self.thing(11)
        guard.set([web, other])
        self.send(guard, web)
        eventually(lambda: len(asked) == 1)
        guard.set([other])
        guard.set([other, web])
        self.send(guard, web)
        eventually(lambda: len(asked) == 2)

    def test_what_is_not_guarded_is_not_told(self, guard: Guard, asked: list[Asked]) -> None:
        web, other = self.thing(10), self.thing(11)
        guard.set([other])
        self.send(guard, web)
        guard.close()
        guard.close()
        self.send(guard, other)
        assert not asked

    def test_setting_the_same_again_loses_nothing(self, guard: Guard, asked: list[Asked]) -> None:
        web, other = self.thing(10), self.thing(11)
        guard.set([web])
        self.send(guard, web)
        eventually(lambda: len(asked) == 1)
        guard.set([web, other])
        self.send(guard, web)
        guard.release(web.address)
        eventually(lambda: self.delivered(guard, web) == 2)
        assert len(asked) == 1


class HoldingGuardContract(GuardContract):
    """For guards that hold what a client sends, which nobody else keeps."""

    def test_a_refused_address_is_told_again_and_what_was_held_is_gone(
        self, guard: Guard, asked: list[Asked]
    ) -> None:
        web = self.thing(10)
        guard.set([web])
        self.send(guard, web)
        eventually(lambda: len(asked) == 1)
        guard.refuse(web.address)
        self.send(guard, web)
        eventually(lambda: len(asked) == 2)
        guard.release(web.address)
        eventually(lambda: self.delivered(guard, web) == 1)

    def test_what_a_crowd_sends_at_once_is_held_whole(
        self, guard: Guard, asked: list[Asked]
    ) -> None:
        web = self.thing(10)
        guard.set([web])
        for _ in range(CROWD):
            self.send(guard, web)
        eventually(lambda: len(asked) == 1)
        guard.release(web.address)
        eventually(lambda: self.delivered(guard, web) == CROWD)

    def test_what_is_not_guarded_any_more_goes_its_own_way(
        self, guard: Guard, asked: list[Asked]
    ) -> None:
        web, other = self.thing(10), self.thing(11)
        guard.set([web, other])
        self.send(guard, web)
        eventually(lambda: len(asked) == 1)
        guard.set([other])
        self.send(guard, web)
        eventually(lambda: self.delivered(guard, web) == 1)
        guard.set([web])
        self.send(guard, web)
        eventually(lambda: len(asked) == 2)
        assert self.delivered(guard, web) == 1

    def test_closing_twice_guards_nothing(self, guard: Guard, asked: list[Asked]) -> None:
        web = self.thing(10)
        guard.set([web])
        guard.close()
        guard.close()
        self.send(guard, web)
        eventually(lambda: self.delivered(guard, web) == 1)
        assert not asked
