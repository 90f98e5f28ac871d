"""The ladder from ready to cold: which rung is next, what a wake from each costs. Only decisions.

An instance that nobody uses sinks from rung to rung, and a wake takes the shortest way up. A rung
is left out where the policy says so, where guests of the image do not survive it on that host, and
where coming back from it was seen to take longer than a boot. `orchestrator.sleeping` acts on it.
"""

import statistics
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from orchestrator.model import LADDER, Ability, IdlePolicy, Rung

REMEMBERED = 15  # wakes of one kind, of which the median counts
# What a wake is taken to cost until one was seen (seconds). A pause costs two calls and an answer,
# a restore reads the memory of a small guest from a disk.
GUESS_S = {Rung.READY: 0.0, Rung.PAUSED: 0.02, Rung.SAVED: 1.0, Rung.COLD: 3.0}


class SeenWakes:
    """How long wakes took, by what was woken, host and rung. Safe to use from many threads.

    What was woken is told apart by any text, such as the version of a flavour. A rung may
    also be ``pooled``, for anonymous instances that a service claimed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: defaultdict[tuple[str, str, str], deque[float]] = defaultdict(
            lambda: deque(maxlen=REMEMBERED)
        )

    def note(self, what: str, host: str, rung: str, seconds: float) -> None:
        """Take note of a wake: from the decision to the guest's answer."""
        with self._lock:
            self._seen[what, host, rung].append(seconds)

    def seen(self, what: str, host: str, rung: str) -> float | None:
        """Return the median of the last wakes in seconds; None if there was none in this run."""
        with self._lock:
            found = self._seen.get((what, host, rung))
            return statistics.median(found) if found else None


@dataclass(frozen=True, slots=True)
class Prospects:
    """What is known of the rungs for one image on one host.

    `abilities` are by rung, `costs` the seconds of a wake from each rung as far as it was seen.
    """

    abilities: dict[Rung, Ability]
    costs: dict[Rung, float]

    def cost(self, rung: Rung) -> float:
        """Return what a wake from a rung is expected to cost, in seconds."""
        if rung in self.costs:
            return self.costs[rung]
        ability = self.abilities.get(rung)
        return ability.rouse_s if ability and ability.works else GUESS_S[rung]

    def why_not(self, rung: Rung, policy: IdlePolicy) -> str:
        """Return why a rung is left out; empty if it is not, as ready and cold never are."""
        if rung in {Rung.READY, Rung.COLD}:
            return ""
        ability = self.abilities.get(rung)
        if policy.rests_s(rung) == 0:
            return "the policy leaves it out"
        if ability is not None and not ability.works:
            return ability.why
        if ability is not None and policy.needs_clock and ability.clock is False:
            return "its clock is wrong afterwards"
        known = {Rung.COLD, rung} <= self.costs.keys()
        if known and self.costs[rung] >= self.costs[Rung.COLD]:
            slow, cold = self.costs[rung], self.costs[Rung.COLD]
            return f"a wake from there took {slow:.2f} s, a boot {cold:.2f} s"
        return ""


def below(rung: Rung, policy: IdlePolicy, prospects: Prospects) -> Rung | None:
    """Return the next rung down that is used; None if the policy allows no deeper sleep."""
    for each in LADDER[rung.depth + 1 : policy.deepest.depth + 1]:
        if not prospects.why_not(each, policy):
            return each
    return None


@dataclass(frozen=True, slots=True)
class Victim:
    """An instance that could give memory back: how much (MiB), and what it is worth where it is.

    Its value is that of `placement.warm.formulas.value`. An anonymous one goes before another of
    the same value.
    """

    instance: str
    memory_mib: int
    value: float
    anonymous: bool = False


def sacrifice(victims: Iterable[Victim], needed_mib: float) -> tuple[Victim, ...]:
    """Return the least valuable victims that give back what is needed; empty if all are too few.

    One that is not needed once more valuable ones are in is left out again.
    """
    chosen: list[Victim] = []
    got = 0
    for victim in sorted(victims, key=lambda each: (each.value, not each.anonymous, each.instance)):
        if got >= needed_mib:
            break
        chosen.append(victim)
        got += victim.memory_mib
    if got < needed_mib:
        return ()
    for victim in reversed(chosen):
        if got - victim.memory_mib >= needed_mib:
            chosen.remove(victim)
            got -= victim.memory_mib
    return tuple(chosen)


class Rates:
    """How often each service is used: a mean that forgets, of uses per second.

    A use is a second in which there was any: more often than that, a service does not sleep.
    `half_life_s` is after how long a use counts half.
    """

    def __init__(self, prior: Callable[[str], float], *, half_life_s: float = 3600.0) -> None:
        self._prior = prior
        self._decay = 0.5 ** (1 / half_life_s)
        self._weight = 1 - self._decay
        self._seen: dict[str, tuple[float, float]] = {}  # mean and when it was right

    def use(self, service: str, now: float) -> None:
        """Take note of a second (monotonic) in which a service was used."""
        before = self.of(service, now)
        self._seen[service] = (before + self._weight, now)

    def seen(self, now: float) -> dict[str, float]:
        """Return the uses per second of the services that were used."""
        return {service: self.of(service, now) for service in tuple(self._seen)}

    def of(self, service: str, now: float) -> float:
        """Return the uses per second of a service; before any was seen, what the lab expects."""
        if service not in self._seen:
            return float(self._prior(service))
        mean, at = self._seen[service]
        return float(mean * self._decay ** max(0.0, now - at))
