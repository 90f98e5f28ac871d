"""What every `Routers` must do; a back end's own test subclasses `RoutersContract`.

The subclass's module provides a fixture `rig`: one machine, and what a test may make happen on it
behind the back end's back. Packets are real where the back end's are.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import count
from typing import Protocol

import pytest

from orchestrator.errors import CannotNetwork
from orchestrator.network import (
    LinkEngine,
    Network,
    PortCounters,
    Quality,
    Stub,
    StubKind,
    VirtualLink,
    VirtualRouter,
)
from orchestrator.routers.base import Done, Routers

NARROW = Quality(bandwidth_mbps=80.0)  # what any kernel with a token bucket can


class Rig(Protocol):
    """A machine for tests. Whatever is made on it is gone after the test, failed or not."""

    network: str  # what networks are to be called
    bridge: str  # a bridge of the machine
    stride: int  # calls are made to fail at each so-manieth step, to be quick

    def routers(self, owner: str = "", machine: str = "") -> Routers:
        """Return a new back end, of the rig's own owner unless told otherwise."""
        ...

    def reaches(self, wanted: Network, origin: str, target: str, version: int = 4) -> bool:
        """Return whether packets go from a router or clients to another and back."""
        ...

    def failing(self, steps: int) -> AbstractContextManager[None]:
        """Let what the kernel is asked in this block fail once, after so many steps."""
        ...

    def killed(self, wanted: Network, steps: int) -> bool:
        """Let someone set a network who is killed after so many steps; False: they were fewer."""
        ...

    def make_foreign(self, wanted: Network, name: str) -> None:
        """Make something that is not ours where a router or clients of that name would be."""
        ...

    def has_foreign(self, wanted: Network, name: str) -> bool:
        """Return whether that is still there and as it was."""
        ...


def router(number: int, name: str = "", machine: str = "") -> VirtualRouter:
    """Return a router with the addresses of its number."""
    return VirtualRouter(
        name or f"r{number}",
        IPv4Address("10.254.7.0") + number,
        IPv6Address("fd00:ed::") + number,
        machine,
    )


def clients(of: str, name: str = "people") -> Stub:
    """Return clients of a router."""
    return Stub(
        name,
        of,
        StubKind.CLIENTS,
        IPv4Network("10.254.8.0/24"),
        IPv4Address("10.254.8.1"),
        IPv6Network("fd00:ed:8::/64"),
        IPv6Address("fd00:ed:8::1"),
    )


def square(name: str) -> Network:
    """Return r1 to r4 in a circle, clients at r1; the way over r2 is the shorter one."""
    links = (
        VirtualLink("r1", "r2"),
        VirtualLink("r2", "r4", NARROW),
        VirtualLink("r1", "r3", weight=2),
        VirtualLink("r3", "r4", weight=2.5),
    )
    routers = tuple(map(router, range(1, 5)))
    return Network(name, routers, links, (clients("r1"),))


def pair(name: str) -> Network:
    """Return two routers with a link, which is the least there is."""
    return Network(name, (router(1), router(2)), (VirtualLink("r1", "r2"),))


def with_link(network: Network, other: VirtualLink) -> Network:
    """Return a network with another link in the place of that of the same name."""
    links = tuple(other if link.name == other.name else link for link in network.links)
    return replace(network, links=links)


def without(network: Network, *names: str) -> Network:
    """Return a network without these routers, links and stubs, and what hangs on those."""
    return replace(
        network,
        routers=tuple(each for each in network.routers if each.name not in names),
        links=tuple(each for each in network.links if not {each.name, each.a, each.b} & set(names)),
        stubs=tuple(each for each in network.stubs if not {each.name, each.router} & set(names)),
    )


def stands(back_end: Routers, wanted: Network) -> bool:
    """Return whether exactly what is wanted is found."""
    found = back_end.found()
    return (
        set(found.routers) == {each.name for each in wanted.routers}
        and {each.link for each in found.links} == set(wanted.links)
        and set(found.stubs) == {each.name for each in wanted.stubs}
    )


class RoutersContract:
    """Subclass it where the fixture `rig` is."""

    @pytest.fixture
    def routers(self, rig: Rig) -> Routers:
        return rig.routers()

    # --- the wanted state is reached --------------------------------------------------------------

    def test_a_network_is_made_as_wanted(self, rig: Rig, routers: Routers) -> None:
        wanted = square(rig.network)
        done = routers.set(wanted)
        assert set(done.made) == {
            *(f"r{number}" for number in range(1, 5)),
            *(link.name for link in wanted.links),
            "people",
        }
        assert not done.changed
        assert not done.removed
        assert stands(routers, wanted)
        for origin, target in (("r1", "r4"), ("people", "r4"), ("r3", "people"), ("r2", "r3")):
            assert rig.reaches(wanted, origin, target), (origin, target)
            assert rig.reaches(wanted, origin, target, version=6), (origin, target)

    def test_what_is_as_wanted_is_not_touched(self, rig: Rig, routers: Routers) -> None:
        wanted = square(rig.network)
        routers.set(wanted)
        assert routers.set(wanted) == Done()
        assert rig.routers().set(wanted) == Done()

    def test_what_makes_each_link_slow_is_told(self, rig: Rig, routers: Routers) -> None:
        routers.set(square(rig.network))
        engines = {state.link.name: state.engine for state in routers.found().links}
        assert engines["r1--r2"] is LinkEngine.NONE
        assert engines["r2--r4"] is not LinkEngine.NONE

    def test_an_empty_network_removes_all(self, rig: Rig, routers: Routers) -> None:
        wanted = square(rig.network)
        routers.set(wanted)
        done = routers.set(Network(rig.network))
        assert set(done.removed) == {
            each.name for each in (*wanted.routers, *wanted.links, *wanted.stubs)
        }
        assert stands(routers, Network(rig.network))
        assert routers.set(Network(rig.network)) == Done()

    def test_another_back_end_finds_what_there_is(self, rig: Rig, routers: Routers) -> None:
        routers.set(square(rig.network))
        routers.close()
        routers.close()
        assert stands(rig.routers(), square(rig.network))

    @pytest.mark.parametrize("gone", ["people", "r1--r2", "r2", "r4"])
    def test_parts_come_and_go(self, rig: Rig, routers: Routers, gone: str) -> None:
        whole, rest = square(rig.network), without(square(rig.network), gone)
        routers.set(whole)
        assert gone in routers.set(rest).removed
        assert stands(routers, rest)
        assert rig.reaches(rest, "r1", "r3")
        assert gone in routers.set(whole).made
        assert stands(routers, whole)
        assert rig.reaches(whole, "people", "r4")

    def test_progress_is_told(self, rig: Rig, routers: Routers) -> None:
        told: list[tuple[str, int, int]] = []
        routers.set(pair(rig.network), lambda what, done, of: told.append((what, done, of)))
        assert told
        assert all(what and 0 <= done <= of for what, done, of in told)

    # --- links change -----------------------------------------------------------------------------

    def test_a_link_that_goes_down_is_gone_round(self, rig: Rig, routers: Routers) -> None:
        up = square(rig.network)
        down = with_link(up, VirtualLink("r1", "r2", up=False))
        routers.set(up)
        assert routers.set(down).changed == ("r1--r2",)
        assert stands(routers, down)
        assert rig.reaches(down, "people", "r2")
        assert routers.set(up).changed == ("r1--r2",)
        assert stands(routers, up)
        assert rig.reaches(up, "people", "r2")

    def test_nothing_is_reached_over_the_only_link_when_it_is_down(
        self, rig: Rig, routers: Routers
    ) -> None:
        down = replace(pair(rig.network), links=(VirtualLink("r1", "r2", up=False),))
        routers.set(down)
        assert not rig.reaches(down, "r1", "r2")
        routers.set(pair(rig.network))
        assert rig.reaches(pair(rig.network), "r1", "r2")

    @pytest.mark.parametrize(
        "link",
        [
            VirtualLink("r1", "r2", NARROW),
            VirtualLink("r1", "r2", weight=9.25),
            VirtualLink("r2", "r4"),
            VirtualLink("r2", "r4", replace(NARROW, bandwidth_mbps=12.5), weight=3),
        ],
        ids=["made narrow", "another weight", "made wide", "all at once"],
    )
    def test_a_link_changes(self, rig: Rig, routers: Routers, link: VirtualLink) -> None:
        routers.set(square(rig.network))
        other = with_link(square(rig.network), link)
        assert routers.set(other).changed == (link.name,)
        assert stands(routers, other)
        assert rig.reaches(other, "people", "r4")

    def test_a_router_gets_another_address(self, rig: Rig, routers: Routers) -> None:
        before = pair(rig.network)
        after = replace(before, routers=(router(1), router(9, "r2")))
        routers.set(before)
        assert routers.set(after).changed == ("r2",)
        assert rig.reaches(after, "r1", "r2")
        assert rig.reaches(after, "r1", "r2", version=6)

    # --- counters ---------------------------------------------------------------------------------

    def test_what_goes_through_is_counted_at_both_ends(self, rig: Rig, routers: Routers) -> None:
        wanted = pair(rig.network)
        routers.set(wanted)
        before = self._ports(routers)
        assert set(before) == {("r1", "r2"), ("r2", "r1")}
        assert rig.reaches(wanted, "r1", "r2")
        after = self._ports(routers)
        for here, there in (("r1", "r2"), ("r2", "r1")):
            sent, heard = after[here, there], after[there, here]
            assert sent.tx_packets > before[here, there].tx_packets
            assert heard.rx_packets > before[there, here].rx_packets
            assert heard.rx_bytes > before[there, here].rx_bytes

    def test_stubs_are_counted_too(self, rig: Rig, routers: Routers) -> None:
        routers.set(square(rig.network))
        before = self._ports(routers)["r1", "people"]
        assert rig.reaches(square(rig.network), "people", "r4")
        assert self._ports(routers)["r1", "people"].rx_packets > before.rx_packets

    def _ports(self, routers: Routers) -> dict[tuple[str, str], PortCounters]:
        return {(each.router, each.peer): each for each in routers.counters()}

    # --- whose it is ------------------------------------------------------------------------------

    def test_other_machines_routers_are_left_to_them(self, rig: Rig, routers: Routers) -> None:
        there = (router(3, machine="far"), router(4, machine="far"))
        wanted = replace(
            pair(rig.network),
            routers=(router(1), router(2), *there),
            links=(VirtualLink("r1", "r2"), VirtualLink("r3", "r4")),
        )
        routers.set(wanted)
        assert stands(routers, pair(rig.network))

    @pytest.mark.parametrize("name", ["r2", "people"])
    def test_what_is_somebody_elses_is_refused_before_anything_changes(
        self, rig: Rig, routers: Routers, name: str
    ) -> None:
        routers.set(without(square(rig.network), "r2", "people"))
        rig.make_foreign(square(rig.network), name)
        with pytest.raises(CannotNetwork, match=rf"{name}: there is .* not this edgewake's"):
            routers.set(square(rig.network))
        assert rig.has_foreign(square(rig.network), name)
        assert stands(routers, without(square(rig.network), "r2", "people"))
        routers.set(Network(rig.network))
        assert rig.has_foreign(square(rig.network), name)

    def test_owners_do_not_see_each_other(self, rig: Rig, routers: Routers) -> None:
        mine, theirs = pair(rig.network), replace(pair(rig.network), name=f"{rig.network}x")
        other = rig.routers(owner="other")
        routers.set(mine)
        other.set(theirs)
        assert stands(routers, mine)
        routers.set(Network(rig.network))
        assert stands(other, theirs)
        other.set(Network(""))

    # --- refusals ---------------------------------------------------------------------------------

    def test_all_engines_are_told_of(self, routers: Routers) -> None:
        assert set(routers.engines()) == set(LinkEngine)
        assert not routers.engines()[LinkEngine.NONE]

    def test_an_engine_that_does_not_do_is_refused_before_anything_changes(
        self, rig: Rig, routers: Routers
    ) -> None:
        routers.set(pair(rig.network))
        forced = replace(square(rig.network), engine=LinkEngine.NONE)
        with pytest.raises(CannotNetwork, match=r"r2--r4.*none"):
            routers.set(forced)
        assert stands(routers, pair(rig.network))

    def test_a_bridge_that_is_not_there_is_refused(self, rig: Rig, routers: Routers) -> None:
        stub = replace(clients("r1", "guests"), kind=StubKind.BRIDGE, bridge="ew-nowhere")
        with pytest.raises(CannotNetwork, match="guests: there is no bridge ew-nowhere"):
            routers.set(replace(pair(rig.network), stubs=(stub,)))
        assert stands(routers, Network(rig.network))

    def test_a_router_hangs_on_a_bridge(self, rig: Rig, routers: Routers) -> None:
        stub = replace(clients("r1", "guests"), kind=StubKind.BRIDGE, bridge=rig.bridge)
        wanted = replace(pair(rig.network), stubs=(stub,))
        routers.set(wanted)
        assert stands(routers, wanted)
        assert routers.set(wanted) == Done()
        routers.set(pair(rig.network))
        assert stands(routers, pair(rig.network))

    # --- errors, crashes, crowds ------------------------------------------------------------------

    def test_an_error_takes_back_what_was_made(self, rig: Rig, routers: Routers) -> None:
        before = pair(rig.network)
        after = with_link(square(rig.network), VirtualLink("r1", "r2", NARROW))
        routers.set(before)
        failures = 0
        for steps in count(0, rig.stride):
            with rig.failing(steps):
                try:
                    routers.set(after)
                except CannotNetwork:
                    failures += 1
                else:
                    break
            assert stands(rig.routers(), before), steps
            assert rig.reaches(before, "r1", "r2"), steps
        assert failures >= 2
        assert stands(routers, after)

    def test_whoever_is_killed_anywhere_the_next_one_gets_there(self, rig: Rig) -> None:
        wanted, rest = square(rig.network), without(square(rig.network), "r2", "people")
        for steps in count(0, rig.stride):
            was_killed = rig.killed(wanted, steps)
            then = (wanted, rest)[steps % 2]
            rig.routers().set(then)
            assert stands(rig.routers(), then), steps
            self._is_whole(rig, then)
            rig.routers().set(Network(rig.network))
            if not was_killed:
                break
        assert steps > rig.stride

    def test_whoever_is_killed_while_removing_the_next_one_gets_there(self, rig: Rig) -> None:
        for steps in count(0, rig.stride):
            rig.routers().set(square(rig.network))
            was_killed = rig.killed(Network(rig.network), steps)
            rig.routers().set(pair(rig.network))
            assert stands(rig.routers(), pair(rig.network)), steps
            self._is_whole(rig, pair(rig.network))
            if not was_killed:
                break
        assert steps > 0

    def test_two_at_once_take_turns(self, rig: Rig) -> None:
        choices = [square(rig.network), pair(rig.network)]
        work: list[Callable[[], Done]] = [
            lambda wanted=wanted: rig.routers().set(wanted)  # type: ignore[misc]
            for wanted in choices * 2
        ]
        with ThreadPoolExecutor(len(work)) as pool:
            for future in [pool.submit(each) for each in work]:
                future.result()
        assert any(stands(rig.routers(), wanted) for wanted in choices)

    def _is_whole(self, rig: Rig, wanted: Network) -> None:
        assert rig.reaches(wanted, "r1", wanted.routers[-1].name)
        assert rig.routers().set(wanted) == Done()
