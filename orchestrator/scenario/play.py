"""Plays a list of events on a back end, and checks after each that all is as it should be.

It stops at the first event after which something is not: what comes later would tell nothing. At
the end, and after any error, all that the scenario made is removed. Waiting for an event's time is
for who calls: `pace` is told the time of each.
"""

import json
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from orchestrator.errors import CannotNetwork
from orchestrator.network import Network, PortCounters
from orchestrator.programs import catalogue
from orchestrator.routers.base import Done
from orchestrator.scenario import checks
from orchestrator.scenario.chance import pick
from orchestrator.scenario.ground import Ground
from orchestrator.scenario.happenings import (
    Event,
    Happening,
    RemoveRouter,
    Request,
    StartApp,
    StopApp,
    after,
    node_names,
    words,
)

PAIRS = 3  # of joined nodes between which a packet is sent after each event

Pace = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Row:
    """What an event did; `at_s` is when it was due, `took_s` how long it took to be so.

    Event 0 is the start, and the one after the last the end. `answered` says of a request whether
    it was; None for all else. `lost` are the datagrams that `receive` programs found lost since the
    event before; None without such programs. `broken` says what is not as it should be.
    """

    number: int
    at_s: float
    event: str
    took_s: float
    check_s: float
    routers: int
    links: int
    made: int
    changed: int
    removed: int
    routes: int
    answered: bool | None
    lost: int | None
    broken: tuple[str, ...] = ()


class Player:
    """Plays one list of events, once. `seed` chooses between whom packets are sent for checks."""

    def __init__(
        self,
        ground: Ground,
        start: Network,
        events: Sequence[Event],
        *,
        seed: int,
        pairs: int = PAIRS,
    ) -> None:
        self._ground, self._network, self._events = ground, start, events
        self._chance = Random(f"{seed} checks")  # noqa: S311 - chance that can be repeated
        self._pairs = pairs
        self._counters: tuple[PortCounters, ...] = ()
        self._receivers: dict[tuple[str, str], int] = {}  # lost so far, by program
        self._strangers: object = None

    def play(self, pace: Pace) -> Generator[Row, None, None]:
        """Yield a row for each event; the last has `broken`, if anything is.

        Whoever stops listening closes it: then all is removed, too.
        """
        self._strangers = self._ground.strangers()
        try:
            row = self._row(0, 0.0, "start", self._start)
            yield row
            for event in self._events:
                if row.broken:
                    return
                pace(event.at_s)
                row = self._event(event)
                yield row
        finally:
            last = self._end()
        if not row.broken:
            yield last

    def _start(self) -> Done:
        """Make the network of the start; programs that a killed player left are no part of it."""
        self._remove_apps(set())
        return self._ground.routers.set(self._network)

    # --- events -----------------------------------------------------------------------------------

    def _event(self, event: Event) -> Row:
        self._network = after(self._network, event.what)
        answered: list[bool] = []

        def act() -> Done:
            if isinstance(event.what, Request):
                answered.append(self._asked(event.what))
                return Done()
            return self._act(event.what)

        return self._row(event.number, event.at_s, words(event.what), act, answered)

    def _act(self, what: Happening) -> Done:
        match what:
            case StartApp(router, name, run, parameters):
                known = catalogue.addresses(self._network)
                made = catalogue.app(name, router, run, dict(parameters), known.__getitem__)
                self._ground.apps.start(made)
                if run == "receive":
                    self._receivers[router, name] = 0
                return Done(made=(f"{router}/{name}",))
            case StopApp(router, name):
                self._ground.apps.remove(router, name)
                self._receivers.pop((router, name), None)
                return Done(removed=(f"{router}/{name}",))
            case RemoveRouter():
                self._remove_apps(set(node_names(self._network)))
        return self._ground.routers.set(self._network)

    def _remove_apps(self, kept: set[str]) -> None:
        for state in self._ground.apps.all():
            if state.app.router not in kept:
                self._ground.apps.remove(state.app.router, state.app.name)
                self._receivers.pop((state.app.router, state.app.name), None)

    def _asked(self, what: Request) -> bool:
        return not self._ground.astray(self._network, what.source, what.target)

    def _end(self) -> Row:
        number = self._events[-1].number + 1 if self._events else 1
        at_s = self._events[-1].at_s if self._events else 0.0

        def remove_all() -> Done:
            self._remove_apps(set())
            return self._ground.routers.set(self._network)

        self._network = Network(self._network.name)
        return self._row(number, at_s, "end", remove_all)

    # --- rows -------------------------------------------------------------------------------------

    def _row(
        self,
        number: int,
        at_s: float,
        event: str,
        act: Callable[[], Done],
        answered: Sequence[bool] = (),
    ) -> Row:
        done, broken = Done(), []
        began = time.monotonic()
        try:
            done = act()
        except (CannotNetwork, ValueError) as error:
            broken.append(f"it cannot be done: {error}")
        acted = time.monotonic()
        try:
            broken += self._broken(done) if not broken else []
        except CannotNetwork as error:
            broken.append(f"it cannot be checked: {error}")
        return Row(
            number=number,
            at_s=at_s,
            event=event,
            took_s=acted - began,
            check_s=time.monotonic() - acted,
            routers=len(self._network.routers),
            links=len(self._network.links),
            made=len(done.made),
            changed=len(done.changed),
            removed=len(done.removed),
            routes=done.routes,
            answered=next(iter(answered), None),
            lost=self._lost(),
            broken=tuple(broken),
        )

    def _lost(self) -> int | None:
        """Return what programs that receive found lost since they were asked last."""
        if not self._receivers:
            return None
        total = 0
        for (router, name), before in self._receivers.items():
            now = lost_by(self._ground.apps.console(router, name))
            total += max(0, now - before)
            self._receivers[router, name] = now
        return total

    # --- checks -----------------------------------------------------------------------------------

    def _broken(self, done: Done) -> list[str]:
        network, ground = self._network, self._ground
        counters = ground.routers.counters()
        made = {*done.made, *done.changed}
        found = [
            *checks.differences(network, ground.routers.found()),
            *checks.fallen(self._counters, counters, made),
            *checks.orphans(network, ground.apps.all()),
            *self._astray(),
            *(f"{name} was left behind" for name in ground.leaked(network)),
        ]
        if ground.strangers() != self._strangers:
            found.append("what is not ours was changed")
        self._counters = counters
        return found

    def _astray(self) -> Iterator[str]:
        """Send packets between some nodes that are joined, and two that are not."""
        parts = checks.joined(self._network)
        nodes = [*parts]
        for _ in range(self._pairs if len(nodes) > 1 else 0):
            source, target = pick(dict.fromkeys(nodes, 1.0), 2, self._chance)
            if parts[source] != parts[target]:
                continue
            why = self._ground.astray(self._network, source, target)
            if why:
                yield f"{source} does not reach {target}: {why}"


def lost_by(console: bytes) -> int:
    """Return how many datagrams a `receive` program found lost, by its last word on each run."""
    last: dict[str, int] = {}
    for line in console.decode(errors="replace").splitlines():
        with suppress(ValueError, KeyError, TypeError):  # a line that was cut, or is no report
            told = json.loads(line)
            last[told["run"]] = int(told["lost"])
    return sum(last.values())
