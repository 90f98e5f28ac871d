"""From a scenario to its list of events: what is scripted, and what chance adds.

The seed decides everything: the same scenario, seed and network at the start give the same list, on
any machine. Each source of chance draws from a generator of its own, so that, say, other requests
do not change which links fail. Generating keeps track of the network, so that every event makes
sense when its time comes; scripted ones that do not are errors of the file.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import count
from random import Random

from orchestrator.errors import LabError
from orchestrator.model import ROUTERS, ROUTERS6
from orchestrator.network import Network, VirtualLink, VirtualRouter
from orchestrator.scenario.chance import Duration, Lifetimes, Picker, Shape, pick
from orchestrator.scenario.happenings import (
    AddLink,
    AddRouter,
    Event,
    Happening,
    Impossible,
    RemoveLink,
    RemoveRouter,
    Request,
    SetLink,
    StartApp,
    StopApp,
    after,
    link_between,
    node_names,
)
from orchestrator.scenario.spec import MOST_EVENTS, Arrivals, Scenario, Scripted


@dataclass(frozen=True, slots=True)
class Pools:
    """Where routers have their addresses from."""

    four: IPv4Network = ROUTERS
    six: IPv6Network = ROUTERS6


ANYWHERE = Pools()


def start_of(scenario: Scenario, pools: Pools = ANYWHERE) -> Network:
    """Return the network of a scenario that starts with routers of its own, each linked to one."""
    chance = _chance(scenario, "start")
    weights: dict[str, float] = {}
    routers, links = [], []
    for number in range(1, scenario.routers + 1):
        name = f"r{number}"
        peers = pick(weights, 1, chance)
        weights[name] = 1.0
        if scenario.picker is Picker.PREFERENTIAL:
            for end in (name, *peers) if peers else ():
                weights[end] += 1
        links += [_link(scenario, name, peer) for peer in peers]
        routers.append(VirtualRouter(name, pools.four[number], pools.six[number]))
    return Network(scenario.name, tuple(routers), tuple(links))


def events_of(scenario: Scenario, start: Network, pools: Pools = ANYWHERE) -> tuple[Event, ...]:
    """Return all events in order of time; LabError for a scripted one that makes no sense."""
    return tuple(_Generator(scenario, start, pools).run())


def _chance(scenario: Scenario, source: str) -> Random:
    return Random(f"{scenario.seed} {source}")  # noqa: S311 - chance that can be repeated


def _exponential(mean_s: float, chance: Random) -> float:
    return Duration(Shape.EXPONENTIAL, mean_s).draw(chance)


def _link(scenario: Scenario, a: str, b: str) -> VirtualLink:
    return link_between(a, b, quality=scenario.quality, weight=scenario.weight)


def _weights(
    network: Network, picker: Picker, born: dict[str, float], lifetimes: Lifetimes, now: float = 0.0
) -> dict[str, float]:
    """Return by how much each router is preferred as the end of a new link."""
    names = [router.name for router in network.routers]
    if picker is Picker.RANDOM:
        return dict.fromkeys(names, 1.0)
    if picker is Picker.LIFETIME:
        return lifetimes.remaining({name: now - born.get(name, 0.0) for name in names})
    degrees = dict.fromkeys(names, 1.0)
    for link in network.links:
        degrees[link.a] += 1
        degrees[link.b] += 1
    return degrees


Due = Callable[[], Iterable[Happening]]


class _Generator:
    """Walks through time; what is due is on a heap, and does what it does if it still can."""

    def __init__(self, scenario: Scenario, start: Network, pools: Pools) -> None:
        self._scenario, self._network, self._pools = scenario, start, pools
        self._now = 0.0
        self._heap: list[tuple[float, int, Due]] = []
        self._order = count()
        self._born = {router.name: 0.0 for router in start.routers}
        self._lifetimes = Lifetimes()
        self._names = count(1)
        # Which link it is: one that comes again between the same routers is another one.
        self._links: dict[str, object] = {}

    def run(self) -> list[Event]:
        """Return all events, in order."""
        for scripted in self._scenario.events:
            self._at(scripted.at_s, partial(self._scripted, scripted))
        for link in self._network.links:
            self._follow(link)
        for source, arrivals, arrive in (
            ("routers", self._scenario.router_arrivals, self._router),
            ("links", self._scenario.link_arrivals, self._new_link),
            ("requests", self._scenario.requests, self._request),
        ):
            if arrivals is not None:
                self._arrivals(arrivals, _chance(self._scenario, source), arrive)
        return self._walk()

    def _walk(self) -> list[Event]:
        events: list[Event] = []
        while self._heap and self._heap[0][0] <= self._scenario.duration_s:
            self._now, _, due = heapq.heappop(self._heap)
            for what in due():
                self._network = after(self._network, what)
                self._note(what)
                events.append(Event(len(events) + 1, self._now, what))
                if len(events) > MOST_EVENTS:
                    raise LabError(
                        f"makes more than {MOST_EVENTS} events",
                        file=self._scenario.file,
                        hint="make it shorter, or let less happen",
                    )
        return events

    def _at(self, at_s: float, due: Due) -> None:
        heapq.heappush(self._heap, (round(at_s, 6), next(self._order), due))

    def _arrivals(
        self,
        arrivals: Arrivals,
        chance: Random,
        arrive: Callable[[Arrivals, Random], Iterable[Happening]],
    ) -> None:
        def due() -> Iterable[Happening]:
            self._at(self._now + arrivals.every.draw(chance), due)
            return arrive(arrivals, chance)

        self._at(arrivals.every.draw(chance), due)

    def _note(self, what: Happening) -> None:
        """Learn what has happened: who is there since when, and which links are new."""
        match what:
            case AddRouter(name, _, _, links):
                self._born[name] = self._now
                for link in links:
                    self._follow(link)
            case RemoveRouter(name):
                self._lifetimes.add(self._now - self._born.pop(name))
                there = {link.name for link in self._network.links}
                self._links = {key: one for key, one in self._links.items() if key in there}
            case AddLink(link):
                self._follow(link)
            case RemoveLink(a, b):
                self._links.pop("--".join(sorted((a, b))), None)

    # --- what comes by chance ---------------------------------------------------------------------

    def _router(self, arrivals: Arrivals, chance: Random) -> Iterable[Happening]:
        if len(self._network.routers) >= arrivals.most:
            return []
        name = self._new_name()
        weights = _weights(self._network, arrivals.picker, self._born, self._lifetimes, self._now)
        peers = pick(weights, arrivals.links, chance)
        links = tuple(_link(self._scenario, name, peer) for peer in peers)
        if arrivals.lifetime is not None:
            self._at(self._now + arrivals.lifetime.draw(chance), lambda: self._go(name))
        return [self._with_addresses(name, links=links)]

    def _go(self, name: str) -> Iterable[Happening]:
        return [RemoveRouter(name)] if name in self._born else []

    def _new_link(self, arrivals: Arrivals, chance: Random) -> Iterable[Happening]:
        if len(self._network.links) >= arrivals.most:
            return []
        routers = dict.fromkeys((router.name for router in self._network.routers), 1.0)
        a = next(iter(pick(routers, 1, chance)), "")
        joined = {a} | {
            each
            for link in self._network.links
            if a in {link.a, link.b}
            for each in (link.a, link.b)
        }
        weights = _weights(self._network, arrivals.picker, self._born, self._lifetimes, self._now)
        free = {name: weight for name, weight in weights.items() if name not in joined}
        peers = pick(free, 1, chance)
        if not peers:
            return []
        link = _link(self._scenario, a, peers[0])
        if arrivals.lifetime is not None:
            until = self._now + arrivals.lifetime.draw(chance)
            self._at(until, lambda: self._unlink(link, self._links.get(link.name)))
        return [AddLink(link)]

    def _request(self, _arrivals: Arrivals, chance: Random) -> Iterable[Happening]:
        chosen = pick(dict.fromkeys(node_names(self._network), 1.0), 2, chance)
        return [Request(*chosen)] if len(chosen) == 2 else []

    def _unlink(self, link: VirtualLink, which: object) -> Iterable[Happening]:
        there = which is not None and self._links.get(link.name) is which
        return [RemoveLink(link.a, link.b)] if there else []

    def _follow(self, link: VirtualLink) -> None:
        """Remember a link, and let it fail when its time comes."""
        which = self._links[link.name] = object()
        failures = self._scenario.failures
        if failures is None:
            return
        chance = _chance(self._scenario, f"failures {link.name} {self._now:.6f}")

        def fail() -> Iterable[Happening]:
            return change(up=False, then_s=failures.mttr_s, then=mend)

        def mend() -> Iterable[Happening]:
            return change(up=True, then_s=failures.mtbf_s, then=fail)

        def change(*, up: bool, then_s: float, then: Due) -> Iterable[Happening]:
            if self._links.get(link.name) is not which:
                return []
            self._at(self._now + _exponential(then_s, chance), then)
            now = next(each for each in self._network.links if each.name == link.name)
            return [] if now.up == up else [SetLink(link.a, link.b, up=up)]

        self._at(self._now + _exponential(failures.mtbf_s, chance), fail)

    # --- what is scripted -------------------------------------------------------------------------

    def _scripted(self, scripted: Scripted) -> Iterable[Happening]:
        try:
            what = self._happening(scripted)
            after(self._network, what)
        except Impossible as error:
            raise LabError(
                f"{error} at {scripted.at_s:g} s",
                file=self._scenario.file,
                line=scripted.line,
                field=f"events.{scripted.index}.{scripted.verb}",
            ) from error
        return [what]

    def _happening(self, scripted: Scripted) -> Happening:  # noqa: PLR0911 - a table
        value = scripted.value
        match scripted.verb:
            case "add_router":
                links = tuple(_link(self._scenario, value.name, peer) for peer in value.links)
                return self._with_addresses(value.name, value.address, value.address6, links=links)
            case "remove_router":
                return RemoveRouter(value)
            case "add_link":
                a, b = value.link
                return AddLink(link_between(a, b, quality=value.noun(), weight=value.weight))
            case "remove_link":
                return RemoveLink(*value)
            case "link_down" | "link_up":
                a, b = value
                return SetLink(a, b, up=scripted.verb == "link_up")
            case "weight":
                a, b = value.link
                return SetLink(a, b, weight=value.to)
            case "quality":
                a, b = value.link
                return SetLink(a, b, weight=value.weight, quality=value.noun())
            case "start_app":
                router, name = value.app
                return StartApp(router, name, value.run, tuple(value.parameters.items()))
            case "stop_app":
                return StopApp(*value)
            case _:
                return Request(value.source, value.target)

    # --- names and addresses ----------------------------------------------------------------------

    def _new_name(self) -> str:
        taken = set(node_names(self._network))
        return next(name for name in (f"n{number}" for number in self._names) if name not in taken)

    def _with_addresses(
        self,
        name: str,
        four: IPv4Address | None = None,
        six: IPv6Address | None = None,
        *,
        links: tuple[VirtualLink, ...] = (),
    ) -> AddRouter:
        """Return the arrival of a router; without addresses of its own it gets the first free."""
        pools, routers = self._pools, self._network.routers
        taken = {int(each.address) - int(pools.four.network_address) for each in routers}
        taken |= {int(each.address6 or 0) - int(pools.six.network_address) for each in routers}
        place = next(place for place in count(1) if place not in taken)
        if place >= pools.four.num_addresses - 1:
            raise Impossible(f"{pools.four} has no address left for router {name}")
        return AddRouter(name, four or pools.four[place], six or pools.six[place], links)
