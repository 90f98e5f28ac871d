"""Rates are differences of counters; what is made anew counts from 0, and memory is bounded."""

import itertools
from collections.abc import Sequence

import pytest

from orchestrator.errors import CannotNetwork
from orchestrator.network import (
    App,
    AppState,
    Found,
    LinkEngine,
    LinkState,
    Load,
    PortCounters,
    Quality,
    VirtualLink,
)
from orchestrator.network_monitor import Monitors, NetworkMonitor, Seen

LINK = LinkState(VirtualLink("a", "b", Quality(bandwidth_mbps=8)), LinkEngine.NONE)
FREE = LinkState(VirtualLink("a", "c"), LinkEngine.NONE)
BOTH, ONE, NONE = Found(links=(LINK, FREE)), Found(links=(LINK,)), Found()


def port(tx_bytes: int, router: str = "a", peer: str = "b", drops: int = 0) -> PortCounters:
    return PortCounters(router, peer, tx_bytes=tx_bytes, drops=drops)


def app(cpu_s: float, started_at: float = 1.0) -> AppState:
    return AppState(App("p", "a", ("x",)), running=True, started_at=started_at, cpu_s=cpu_s)


def monitor(*looks: Seen, times: Sequence[float] | None = None, kept: int = 60) -> NetworkMonitor:
    """Return a monitor whose looks show these, two seconds after each other."""
    seen = iter(looks)
    clock = iter(times or [each for at in range(0, 1000, 2) for each in (float(at), float(at))])
    return NetworkMonitor("n", lambda: next(seen), clock=lambda: next(clock), kept=kept)


def test_the_load_of_links_and_routers() -> None:
    watched = monitor(
        (BOTH, (port(0), port(0, "b", "a")), (app(1.0),)),
        (BOTH, (port(10**6, drops=4), port(500_000, "b", "a")), (app(2.5),)),
    )
    assert watched.load() == Load()
    watched.sample()
    assert watched.load() == Load()
    watched.sample()
    load = watched.load()
    assert load.interval_s == 2
    link = load.links["a--b"]
    assert (link.there_mbps, link.back_mbps, link.share, link.drops_per_s) == (4, 2, 0.5, 2)
    assert load.links["a--c"].share is None
    a, b = load.routers["a"], load.routers["b"]
    assert (a.tx_mbps, a.rx_mbps, a.cores) == (4, 0, 0.75)
    assert (b.tx_mbps, b.cores) == (2, 0)


def test_a_counter_that_falls_belongs_to_something_new() -> None:
    watched = monitor(
        (ONE, (port(10**9),), (app(100.0),)),
        (ONE, (port(10**6),), (app(1.0, started_at=2.0),)),
    )
    watched.sample()
    last = watched.sample()
    load = watched.load()
    assert load.links["a--b"].there_mbps == 4
    assert load.routers["a"].cores == 0.5
    assert last.cpu_s == {"a": 101.0}, "the sum never falls"


def test_a_load_can_be_over_a_longer_time() -> None:
    watched = monitor(*((ONE, (port(10**6 * n * n),), ()) for n in range(5)))
    for _ in range(5):
        watched.sample()
    assert watched.load().links["a--b"].there_mbps == 7 * 4
    assert watched.load(4).links["a--b"].there_mbps == (16 - 4) / 2 * 4
    assert watched.load(3600).interval_s == 8


def test_only_so_many_looks_are_kept() -> None:
    watched = monitor(*((NONE, (port(n),), ()) for n in range(9)), kept=3)
    for _ in range(9):
        watched.sample()
    assert watched.load(3600).interval_s == 4


def test_whoever_asks_at_once_gets_what_was_just_seen() -> None:
    watched = monitor((NONE, (port(1),), ()), (NONE, (port(2),), ()), times=[0, 0, 0.5, 2, 2])
    first = watched.sample()
    assert watched.sample() is first
    assert watched.sample().counters[0].tx_bytes == 2


def test_whoever_changed_the_network_has_it_looked_at_anew() -> None:
    watched = monitor((NONE, (port(1),), ()), (NONE, (port(2),), ()), times=[0, 0, 0.1, 0.1, 0.2])
    watched.sample()
    watched.outdate()
    second = watched.sample()
    assert second.counters[0].tx_bytes == 2
    assert watched.sample() is second


def test_what_takes_long_to_look_at_is_looked_at_seldom() -> None:
    looks = [(NONE, (port(n),), ()) for n in range(3)]
    watched = monitor(*looks, times=[0, 0.5, 4, 6, 6.5])
    first = watched.sample()
    assert watched.sample() is first, "half a second is a tenth of five"
    assert watched.sample().counters[0].tx_bytes == 1


def test_each_network_has_a_monitor_and_one_that_is_not_there_is_left_out() -> None:
    counts = itertools.count()

    def look(network: str) -> Seen:
        if network == "gone":
            raise CannotNetwork("no network gone")
        return NONE, (port(next(counts)),), ()

    monitors = Monitors(look)
    assert [sample.network for sample in monitors.samples(["x", "gone", "y"])] == ["x", "y"]
    assert monitors.of("x") is monitors.of("x")
    with pytest.raises(CannotNetwork):
        monitors.of("gone").sample()
