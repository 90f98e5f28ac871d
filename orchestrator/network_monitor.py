"""Watches a virtual network: what went through it, and from that how busy it is.

For the metrics page and whoever draws the graph. It looks when it is asked, so nothing is spent
while nobody asks, and keeps the last looks: rates are differences between two of them. Counters
that fall belong to something that was made anew, and count from 0 then, as Prometheus's `rate` has
it. The kernel tells no processor time by namespace: a router's is that of its programs.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from orchestrator.errors import CannotNetwork
from orchestrator.network import (
    AppState,
    Found,
    LinkLoad,
    LinkState,
    Load,
    PortCounters,
    RouterLoad,
    VirtualLink,
)

KEPT = 60  # looks
LEAST_S = 1.0  # between two looks
LOOKING = 0.1  # of the time, at most: to look at 100 routers takes 0.2 s
NOTHING = Found()

Port = tuple[str, str]  # a router, and what is at the other end


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen of a network: `at` is seconds of a clock that never goes back.

    `cpu_s` are seconds of one core that each router's programs have used since the first look.
    """

    network: str
    at: float
    found: Found = NOTHING
    counters: tuple[PortCounters, ...] = ()
    apps: tuple[AppState, ...] = ()
    cpu_s: Mapping[str, float] | None = None

    @property
    def links(self) -> tuple[LinkState, ...]:
        """The links that were there."""
        return self.found.links


Seen = tuple[Found, tuple[PortCounters, ...], tuple[AppState, ...]]


class NetworkMonitor:
    """The last looks at one network. Safe to use from several threads.

    `look` returns what is there, counters and programs as they are now, or raises.
    """

    def __init__(
        self,
        network: str,
        look: Callable[[], Seen],
        *,
        clock: Callable[[], float] = time.monotonic,
        kept: int = KEPT,
    ) -> None:
        self._network, self._look, self._clock = network, look, clock
        self._lock = threading.Lock()
        self._samples: deque[Sample] = deque(maxlen=kept)
        self._outdated = False
        self._took_s = 0.0

    def outdate(self) -> None:
        """Look again the next time, however soon: somebody has changed the network."""
        with self._lock:
            self._outdated = True

    def sample(self) -> Sample:
        """Look, unless somebody just has, and return what was seen last."""
        with self._lock:
            now = self._clock()
            pause_s = max(LEAST_S, self._took_s / LOOKING)
            if not self._samples or self._outdated or now - self._samples[-1].at >= pause_s:
                self._outdated = False
                found, counters, apps = self._look()
                self._took_s = self._clock() - now
                now += self._took_s / 2  # to look takes a while where there is much
                last = self._samples[-1] if self._samples else None
                cpu_s = _cpu_s(last, apps)
                self._samples.append(Sample(self._network, now, found, counters, apps, cpu_s))
            return self._samples[-1]

    def load(self, over_s: float = 0.0) -> Load:
        """Return how busy the network is, from the last look back to one `over_s` before it.

        Back to the oldest that is kept, if there is none so old; with 0, to the look before.
        """
        with self._lock:
            samples = list(self._samples)
        if len(samples) < 2:
            return Load()
        last = samples.pop()
        earlier = [each for each in samples if last.at - each.at >= over_s]
        return load_between(earlier[-1] if earlier else samples[0], last)


class Monitors:
    """A monitor for each network that was asked about; `look` is told its name."""

    def __init__(self, look: Callable[[str], Seen]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._monitors: dict[str, NetworkMonitor] = {}

    def of(self, network: str) -> NetworkMonitor:
        """Return the monitor of a network."""
        with self._lock:
            if network not in self._monitors:
                self._monitors[network] = NetworkMonitor(network, partial(self._look, network))
            return self._monitors[network]

    def samples(self, networks: Iterable[str]) -> tuple[Sample, ...]:
        """Look at networks, and return what was seen; those that cannot be seen are left out."""
        found = []
        for network in networks:
            with suppress(CannotNetwork):
                found.append(self.of(network).sample())
        return tuple(found)


def load_between(first: Sample, last: Sample) -> Load:
    """Return what a network had to do between two looks at it."""
    interval_s = last.at - first.at
    if interval_s <= 0:
        return Load()
    before = {(each.router, each.peer): each for each in first.counters}
    ports = {
        (each.router, each.peer): _grown(before.get((each.router, each.peer)), each)
        for each in last.counters
    }
    links = {state.link.name: _link_load(state.link, ports, interval_s) for state in last.links}
    routers = {
        name: _router_load(name, ports, first, last)
        for name in sorted({router for router, _ in ports})
    }
    return Load(interval_s, links, routers)


def _grown(old: PortCounters | None, new: PortCounters) -> PortCounters:
    """Return by how much counters have grown."""

    def grown(key: str) -> int:
        now, was = int(getattr(new, key)), int(getattr(old, key)) if old else 0
        return now - was if now >= was else now

    keys = ("rx_bytes", "rx_packets", "tx_bytes", "tx_packets", "drops")
    return PortCounters(new.router, new.peer, *(grown(key) for key in keys))


def _link_load(
    link: VirtualLink, ports: Mapping[Port, PortCounters], interval_s: float
) -> LinkLoad:
    there, back = ports.get((link.a, link.b)), ports.get((link.b, link.a))
    to_b, to_a = (_mbps(each.tx_bytes if each else 0, interval_s) for each in (there, back))
    limit = link.quality.bandwidth_mbps
    drops = sum(each.drops for each in (there, back) if each)
    share = max(to_b, to_a) / limit if limit else None
    return LinkLoad(to_b, to_a, share, drops / interval_s)


def _router_load(
    name: str, ports: Mapping[Port, PortCounters], first: Sample, last: Sample
) -> RouterLoad:
    own = [port for (router, _), port in ports.items() if router == name]
    interval_s = last.at - first.at
    used_s = (last.cpu_s or {}).get(name, 0.0) - (first.cpu_s or {}).get(name, 0.0)
    return RouterLoad(
        _mbps(sum(port.rx_bytes for port in own), interval_s),
        _mbps(sum(port.tx_bytes for port in own), interval_s),
        max(0.0, used_s) / interval_s,
    )


def _mbps(count: int, interval_s: float) -> float:
    return count * 8 / 1e6 / interval_s


def _cpu_s(last: Sample | None, apps: Iterable[AppState]) -> dict[str, float]:
    """Add up what programs have used since the last look; the sum falls for none that goes."""
    total = dict(last.cpu_s or {}) if last else {}
    before = {_which(state): state.cpu_s for state in last.apps} if last else {}
    for state in apps:
        grown = max(0.0, state.cpu_s - before.get(_which(state), 0.0))
        total[state.app.router] = total.get(state.app.router, 0.0) + grown
    return total


def _which(state: AppState) -> tuple[str, str, float]:
    return state.app.router, state.app.name, state.started_at
