"""What every `Redirector` must do; a back end's own test subclasses `RedirectorContract`."""

from dataclasses import replace

import pytest

from orchestrator.rules.parse import parse
from orchestrator.steering.redirect.base import Redirect, Redirector

OWNER, STRANGER = "ours", "somebody else"
WEB = "ip and tcp and dst 203.0.113.10 and (dst port 80 or dst port 8080)"
TIME = "dst 203.0.113.11 or dst 2001:db8::11"


class RedirectorContract:
    """Subclass it and override `make`, `state` and `remake`.

    There are devices ``in``, ``one`` and ``two``.
    """

    mac = "02:00:00:00:00:07"

    def make(self, owner: str = OWNER) -> Redirector:
        """Return a redirector of an owner on the one machine of a test."""
        raise NotImplementedError

    def state(self) -> object:
        """Return what changes when a redirect on that machine is touched, but not by traffic."""
        raise NotImplementedError

    def remake(self, device: str) -> None:
        """Take a device away and make one of the same name."""
        raise NotImplementedError

    @pytest.fixture
    def redirector(self) -> Redirector:
        return self.make()

    @property
    def web(self) -> Redirect:
        return Redirect("web", parse(WEB), "in", "one", self.mac)

    @property
    def time(self) -> Redirect:
        return Redirect("time", parse(TIME), "in", "two", self.mac)

    @staticmethod
    def names(redirector: Redirector) -> list[str]:
        return [each.redirect.name for each in redirector.in_place()]

    def test_what_is_wanted_is_there(self, redirector: Redirector) -> None:
        before = self.state()
        assert redirector.set([self.web, self.time]) == ()
        assert [each.redirect for each in redirector.in_place()] == [self.web, self.time]
        assert {each.packets for each in redirector.in_place()} == {0}
        assert redirector.set([self.time]) == ()
        assert self.names(redirector) == ["time"]
        redirector.set([])
        assert self.names(redirector) == []
        redirector.set([])
        assert redirector.in_place() == ()
        if not isinstance(before, int):
            assert self.state() == before

    def test_what_stays_is_not_touched(self, redirector: Redirector) -> None:
        redirector.set([self.web, self.time])
        before = self.state()
        redirector.set([self.time, replace(self.web, name="another name")])
        assert self.state() == before
        assert self.names(redirector) == ["time", "another name"]

    def test_another_way_takes_the_place_of_the_old_one(self, redirector: Redirector) -> None:
        redirector.set([self.web])
        other = replace(self.web, to_device="two")
        assert redirector.set([other]) == ()
        assert [each.redirect for each in redirector.in_place()] == [other]
        redirector.set([self.web])
        assert [each.redirect for each in redirector.in_place()] == [self.web]

    def test_redirects_stay_when_we_go_and_are_found_again(self, redirector: Redirector) -> None:
        redirector.set([self.web, self.time])
        before = self.state()
        redirector.close()
        redirector.close()
        again = self.make()
        again.set([self.web, self.time])
        assert self.state() == before
        again.set([self.web])
        assert self.names(again) == ["web"]
        assert self.names(redirector) == ["web"]

    def test_what_is_somebody_elses_stays(self, redirector: Redirector) -> None:
        other = self.make(STRANGER)
        other.set([self.web])
        redirector.set([self.web, self.time])
        redirector.set([])
        assert self.names(other) == ["web"]
        other.set([])
        assert self.names(other) == []

    def test_one_that_cannot_be_keeps_no_other_from_being(self, redirector: Redirector) -> None:
        nowhere = replace(self.web, to_device="nowhere")
        (refused,) = redirector.set([nowhere, self.time])
        assert refused.redirect == nowhere
        assert "no device" in refused.why
        assert "nowhere" in refused.why
        assert self.names(redirector) == ["time"]

    @pytest.mark.parametrize("device", ["in", "one"])
    def test_a_device_that_was_made_anew_is_steered_to_again(
        self, redirector: Redirector, device: str
    ) -> None:
        redirector.set([self.web, self.time])
        self.remake(device)
        assert redirector.set([self.web, self.time]) == ()
        assert self.names(redirector) == ["web", "time"]
        redirector.set([])
        assert self.names(redirector) == []

    def test_some_rung_can_be_used(self, redirector: Redirector) -> None:
        assert "" in redirector.rungs().values()
