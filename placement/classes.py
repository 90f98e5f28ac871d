"""Which demands are one class: identical but for their names, so that one count places them all.

Merging loses nothing: every plan of the class splits into plans of its members (`placement.expand`
does it). Demands that a rule, traffic or a chain names stay alone, as do those whose requests are
shared among several copies, since it matters which copies belong together.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from placement.problem import EVERY_COPY, Demand, Flavour, Problem
from placement.rules import Ban, Fence, demands_of


@dataclass(frozen=True, slots=True)
class Filters:
    """What must-rules of the kinds `Ban` and `Fence` leave of the hosts, per demand."""

    banned: Mapping[str, frozenset[str]] = field(default_factory=dict)
    fenced: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, problem: Problem) -> "Filters":
        """Return the filters of a problem."""
        banned: dict[str, frozenset[str]] = {}
        fenced: dict[str, frozenset[str]] = {}
        for rule in problem.rules:
            if isinstance(rule, Ban) and rule.must:
                for name in rule.demands:
                    banned[name] = banned.get(name, frozenset()) | rule.hosts
            if isinstance(rule, Fence) and rule.must:
                for name in rule.demands:
                    fenced[name] = fenced[name] & rule.hosts if name in fenced else rule.hosts
        return cls(banned, fenced)


def merge(problem: Problem, filters: Filters) -> tuple[tuple[int, ...], ...]:
    """Return the demands of each class by index; classes in the order of their first demand."""
    alone = _named(problem)
    slice_of = {name: each.name for each in problem.slices for name in each.demands}
    classes: dict[object, list[int]] = {}
    for index, demand in enumerate(problem.demands):
        key: object = index
        if demand.name not in alone and _mergeable(problem, demand):
            key = (
                *_key(demand),
                slice_of.get(demand.name),
                filters.banned.get(demand.name),
                filters.fenced.get(demand.name),
                frozenset(problem.unfit.get(demand.name, ())),
            )
        classes.setdefault(key, []).append(index)
    return tuple(tuple(members) for members in classes.values())


def flavours(demand: Demand) -> tuple[Flavour, ...]:
    """Return the flavours of a demand, at least one."""
    return demand.flavours or (_PLAIN,)


def need(demand: Demand, flavour: Flavour, host: str) -> dict[str, float]:
    """Return what one copy needs on a host."""
    if not flavour.resources and not flavour.resources_at:
        return dict(demand.resources)
    return {**demand.resources, **flavour.resources, **flavour.resources_at.get(host, {})}


_PLAIN = Flavour("")


def _named(problem: Problem) -> frozenset[str]:
    names: set[str] = set()
    for rule in problem.rules:
        if not (rule.must and isinstance(rule, Ban | Fence)):
            names |= demands_of(rule)
    for traffic in problem.traffic:
        names |= {traffic.source, traffic.target}
    for chain in problem.chains:
        names.update(chain.demands)
    return frozenset(names)


def _mergeable(problem: Problem, demand: Demand) -> bool:
    now = problem.current.get(demand.name, ())
    if demand.replicas == 1:
        sure = (
            demand.least is None or demand.bound_for == EVERY_COPY or not any(demand.rates.values())
        )
        return len(now) <= 1 and demand.copy_rps is None and sure
    return not now and not demand.one_flavour and not any(demand.rates.values())


def _key(demand: Demand) -> tuple[object, ...]:
    return (
        _items(demand.resources),
        demand.replicas,
        tuple(_flavour(each) for each in demand.flavours),
        demand.one_flavour,
        demand.share_host,
        demand.least,
        demand.weight,
        _items(demand.rates),
        demand.latency_bound_ms,
        demand.bound_for,
        demand.labels,
        _items(demand.cost_at),
        demand.boot_ms,
        demand.idle_s,
        demand.cold,
        demand.move,
        demand.move_cost,
    )


def _flavour(flavour: Flavour) -> tuple[object, ...]:
    at = frozenset((host, _items(each)) for host, each in flavour.resources_at.items())
    return (flavour.name, _items(flavour.resources), at, tuple(flavour.unfit), flavour.boot_ms)


def _items(mapping: Mapping[str, float]) -> Iterable[tuple[str, float]]:
    return tuple(mapping.items()) if len(mapping) < 2 else frozenset(mapping.items())
