"""Time passes: demands come, go and move, hosts fail and come back.

`churn` makes of one instance a sequence of epochs, each a problem of its own, out of the random
source alone: whatever an algorithm does, the same things happen to it. Where copies run is what
the algorithm left behind; `placement.study.replay` adds it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

from placement.generate import _make
from placement.generate.demands import check
from placement.generate.instance import Instance
from placement.problem import Problem


@dataclass(frozen=True, slots=True)
class Epoch:
    """What is to be placed from here on; the counts say what has changed since the epoch before."""

    problem: Problem
    arrived: int = 0
    departed: int = 0
    moved: int = 0
    failed: int = 0


def churn(
    rng: Random,
    instance: Instance,
    *,
    epochs: int = 10,
    active: float = 0.7,
    arrivals: float = 0.15,
    departures: float = 0.1,
    moves: float = 0.1,
    failures: float = 0.02,
    repair_epochs: int = 2,
) -> tuple[Epoch, ...]:
    """Return the epochs of one run of events.

    A share `active` of the demands is there at first. Per epoch, each absent demand arrives with
    probability `arrivals`, each present one departs with `departures` and its clients move to other
    populations with `moves`; each host fails with probability `failures` and is back after
    `repair_epochs`. At least one host stays up and at least one demand is present.
    """
    check("epochs", epochs, least=1)
    check("repair_epochs", repair_epochs, least=1)
    for name, share in (
        ("active", active),
        ("arrivals", arrivals),
        ("departures", departures),
        ("moves", moves),
        ("failures", failures),
    ):
        check(name, share, least=0.0, most=1.0)
    chances = _Chances(arrivals, departures, moves, failures, repair_epochs)
    return tuple(_epochs(_State(instance.problem, rng, active), chances, epochs))


@dataclass(frozen=True, slots=True)
class _Chances:
    arrivals: float
    departures: float
    moves: float
    failures: float
    repair_epochs: int


class _State:
    """What is there now: demands with their rates, and for how long each host is still down."""

    def __init__(self, problem: Problem, rng: Random, active: float) -> None:
        self.problem, self.rng = problem, rng
        self.rates = _make.rates(problem)
        self.populations = sorted(_make.latencies_ms(problem))
        self.present = {name: rng.random() < active for name in self.rates}
        self.down = dict.fromkeys(_make.host_names(problem), 0)
        self._keep_one()

    def step(self, chances: _Chances) -> tuple[int, int, int, int]:
        """Let one epoch's events happen; return how many arrived, departed, moved and failed.

        Every demand and host draws the same numbers in every state, so that events of one kind do
        not depend on how likely the others are.
        """
        arrived = departed = moved = failed = 0
        for name, present in self.present.items():
            change, move = self.rng.random(), self.rng.random()
            shift = self.rng.randrange(1, max(2, len(self.populations)))
            if not present and change < chances.arrivals:
                self.present[name] = True
                arrived += 1
            elif present and change < chances.departures:
                self.present[name] = False
                departed += 1
            elif present and move < chances.moves and len(self.populations) > 1:
                self.rates[name] = self._shifted(self.rates[name], shift)
                moved += 1
        for name, left in self.down.items():
            fails = self.rng.random() < chances.failures
            self.down[name] = max(0, left - 1)
            if fails and not left and list(self.down.values()).count(0) > 1:
                self.down[name] = chances.repair_epochs
                failed += 1
        self._keep_one()
        return arrived, departed, moved, failed

    def now(self) -> Problem:
        """Return the problem of this epoch, without where copies run."""
        here = [name for name, present in self.present.items() if present]
        up = {name for name, left in self.down.items() if not left}
        return _make.with_rates(_make.part(self.problem, hosts=up, demands=here), self.rates)

    def _shifted(self, rates: Mapping[str, float], shift: int) -> dict[str, float]:
        order = self.populations
        return {order[(order.index(p) + shift) % len(order)]: rate for p, rate in rates.items()}

    def _keep_one(self) -> None:
        if not any(self.present.values()):
            self.present[next(iter(self.present))] = True


def _epochs(state: _State, chances: _Chances, count: int) -> Iterator[Epoch]:
    yield Epoch(state.now())
    for _ in range(count - 1):
        arrived, departed, moved, failed = state.step(chances)
        yield Epoch(state.now(), arrived, departed, moved, failed)
