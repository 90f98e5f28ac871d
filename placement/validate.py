"""What makes a question senseless: names that are not there, numbers that mean nothing.

`validate` is asked by everything that takes a problem from outside. It looks at each field once and
names the first that is wrong by its path in the JSON, such as ``demands[3].replicas``.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from numbers import Integral, Real
from typing import TypeGuard

from placement.problem import (
    EVERY_COPY,
    KILL_AND_BOOT,
    MAKE_BEFORE_BREAK,
    NEAREST_COPY,
    Demand,
    Host,
    Malformed,
    Options,
    Problem,
)
from placement.rules import (
    Beside,
    MaxOnline,
    MaxSkew,
    MigrationBudget,
    Occupy,
    Overbook,
    Percentile,
    Preserve,
    Rule,
    ServeAfterFailure,
    Split,
    SplitAmong,
    Survive,
    demands_of,
)

LARGEST = 1e12  # of any number: solvers refuse much larger ones, and lose the small beside them
SHOWN = 30  # characters of a wrong number
MOST_COPIES = 1_000_000  # of one demand: a plan lists each of them

Numbers = Iterator[tuple[str, float | None]]


def validate(problem: Problem) -> None:
    """Raise `Malformed` at the first name or number of a problem that makes no sense.

    Names must be unique and those that refer to demands must exist; every number must be from 0 to
    `LARGEST`. Hosts named by a rule, a demand or `current` may be absent: hosts come and go.
    """
    _unique("hosts", (host.name for host in problem.hosts))
    _unique("demands", (demand.name for demand in problem.demands))
    _unique("slices", (each.name for each in problem.slices))
    _unique("chains", (each.name for each in problem.chains))
    for path, number in _numbers(problem):
        if number is not None and not _in_range(number):
            raise Malformed(path, f"must be a number from 0 to {LARGEST:g}, not {_shown(number)}")
    for index, demand in enumerate(problem.demands):
        _demand(f"demands[{index}]", demand)
    for name, unfit in problem.unfit.items():
        _reasons(f"unfit.{name}", unfit)
    _references(problem, {demand.name: demand for demand in problem.demands})


def check_options(options: Options, terms: Iterable[str]) -> None:
    """Raise `Malformed` at the first option that makes no sense; `terms` are the known ones."""
    known = tuple(terms)
    for kind in ("weights", "limits"):
        _by_term(kind, getattr(options, kind), known)
    if not isinstance(options.order, tuple):
        raise Malformed("order", f"must be a tuple of terms, not {options.order!r}")
    for name in options.order:
        _term("order", name, known)
    _unique("order", options.order)
    if options.solver != "auto":
        from placement.solvers import check_name  # noqa: PLC0415 - numpy, only for who names one

        check_name(options.solver)
    if not _is_number(options.deadline_s) or not options.deadline_s > 0:
        raise Malformed("deadline_s", f"must be a number above 0, not {options.deadline_s!r}")
    for field in ("gap", "slack"):
        _finite(field, getattr(options, field))
    for field, least in (("nearest", 1), ("threads", 1), ("seed", 0)):
        value = getattr(options, field)
        if value is not None and (not isinstance(value, Integral) or value < least):
            raise Malformed(field, f"must be a whole number, at least {least}, not {value!r}")


def demand_named(problem: Problem, name: str) -> Demand:
    """Return a demand by name; `Malformed` with the known names if there is none."""
    for demand in problem.demands:
        if demand.name == name:
            return demand
    known = ", ".join(sorted(demand.name for demand in problem.demands))
    raise Malformed("demands", f"no demand named {name!r}; known: {known or 'none'}")


def _term(path: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise Malformed(path, f"no such term: {name!r}; known: {', '.join(known)}")


def _by_term(path: str, numbers: object, known: tuple[str, ...]) -> None:
    if not isinstance(numbers, Mapping):
        raise Malformed(path, f"must be a mapping (term: number), not {numbers!r}")
    for name, number in numbers.items():
        _term(f"{path}.{name}", name, known)
        _finite(f"{path}.{name}", number)


def _finite(path: str, number: object) -> None:
    if not _is_number(number) or not 0 <= number < math.inf:
        raise Malformed(path, f"must be a number, at least 0 and finite, not {number!r}")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)


def _unique(path: str, names: Iterable[str | tuple[str, ...]]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            told = name if isinstance(name, str) else " to ".join(name)
            raise Malformed(path, f"the name {told!r} is used {count} times")


# --- numbers ------------------------------------------------------------------------------------


def _numbers(problem: Problem) -> Numbers:
    """Yield every number of a problem with its path."""
    for index, host in enumerate(problem.hosts):
        yield from _host(f"hosts[{index}]", host)
    for index, demand in enumerate(problem.demands):
        yield from _demand_numbers(f"demands[{index}]", demand)
    for population, row in problem.latency_ms.items():
        yield from _mapping(f"latency_ms.{population}", row)
    for index, traffic in enumerate(problem.traffic):
        yield f"traffic[{index}].mbps", traffic.mbps
        yield f"traffic[{index}].latency_bound_ms", traffic.latency_bound_ms
    for index, link in enumerate(problem.links):
        yield f"links[{index}].capacity_mbps", link.capacity_mbps
        yield f"links[{index}].latency_ms", link.latency_ms
        yield f"links[{index}].cost", link.cost
    for index, chain in enumerate(problem.chains):
        yield f"chains[{index}].mbps", chain.mbps
        yield f"chains[{index}].latency_bound_ms", chain.latency_bound_ms
    for index, each in enumerate(problem.slices):
        yield from _mapping(f"slices[{index}].share", each.share)
        yield f"slices[{index}].revenue", each.revenue
    for index, rule in enumerate(problem.rules):
        yield from _rule(f"rules[{index}]", rule)


def _shown(value: object) -> str:
    return (repr(value) if isinstance(value, str) else str(value))[:SHOWN]


def _in_range(number: float) -> bool:
    try:
        return 0 <= number <= LARGEST
    except TypeError:  # a program gave a text, say
        return False


def _mapping(path: str, numbers: Mapping[str, float]) -> Numbers:
    if not isinstance(numbers, Mapping):
        raise Malformed(path, f"must be a mapping (name: number), not {str(numbers)[:SHOWN]}")
    for name, number in numbers.items():
        yield f"{path}.{name}", number


def _host(path: str, host: Host) -> Numbers:
    yield from _mapping(f"{path}.capacity", host.capacity)
    yield from _mapping(f"{path}.overcommit", host.overcommit)
    yield from _mapping(f"{path}.unit_hour", host.unit_hour)
    for name in ("idle_w", "busy_w", "host_hour", "boot_factor"):
        yield f"{path}.{name}", getattr(host, name)


def _demand_numbers(path: str, demand: Demand) -> Numbers:
    yield from _mapping(f"{path}.resources", demand.resources)
    yield from _mapping(f"{path}.rates", demand.rates)
    yield from _mapping(f"{path}.cost_at", demand.cost_at)
    yield f"{path}.replicas", demand.replicas
    yield f"{path}.least", demand.least
    yield f"{path}.weight", demand.weight
    yield f"{path}.copy_rps", demand.copy_rps
    yield f"{path}.latency_bound_ms", demand.latency_bound_ms
    yield f"{path}.boot_ms", demand.boot_ms
    yield f"{path}.idle_s", demand.idle_s
    yield f"{path}.cold", demand.cold
    yield f"{path}.move_cost", demand.move_cost
    for index, flavour in enumerate(demand.flavours):
        inner = f"{path}.flavours[{index}]"
        yield from _mapping(f"{inner}.resources", flavour.resources)
        for host, amounts in flavour.resources_at.items():
            yield from _mapping(f"{inner}.resources_at.{host}", amounts)
        yield f"{inner}.boot_ms", flavour.boot_ms


def _rule(path: str, rule: Rule) -> Numbers:
    yield f"{path}.weight", rule.weight
    match rule:
        case Preserve():
            yield f"{path}.amount", rule.amount
        case Overbook():
            yield f"{path}.factor", rule.factor
        case MaxOnline() | MigrationBudget():
            yield f"{path}.limit", rule.limit
        case MaxSkew():
            yield f"{path}.skew", rule.skew
        case Survive():
            yield f"{path}.keep", rule.keep
        case Occupy():
            yield f"{path}.at_least", rule.at_least
        case ServeAfterFailure() | Percentile():
            yield f"{path}.within_ms", rule.within_ms
        case _:
            pass


# --- names and what belongs together ------------------------------------------------------------


def _demand(path: str, demand: Demand) -> None:
    if demand.flavours:
        _unique(f"{path}.flavours", (flavour.name for flavour in demand.flavours))
    for index, flavour in enumerate(demand.flavours):
        _reasons(f"{path}.flavours[{index}].unfit", flavour.unfit)
    for field in ("replicas", "least"):
        copies = getattr(demand, field)
        if copies is not None and copies != int(copies):
            raise Malformed(f"{path}.{field}", f"must be a whole number, not {copies}")
    if demand.replicas > MOST_COPIES:
        raise Malformed(f"{path}.replicas", f"must be at most {MOST_COPIES}, not {demand.replicas}")
    if demand.least is not None and demand.least > demand.replicas:
        raise Malformed(f"{path}.least", f"{demand.least} of {demand.replicas} replicas")
    if demand.cold is not None and demand.cold > 1:
        raise Malformed(f"{path}.cold", f"a probability is at most 1, not {demand.cold}")
    _one_of(f"{path}.bound_for", demand.bound_for, (EVERY_COPY, NEAREST_COPY))
    _one_of(f"{path}.move", demand.move, (KILL_AND_BOOT, MAKE_BEFORE_BREAK))


def _reasons(path: str, unfit: Mapping[str, str]) -> None:
    for host, why in unfit.items():
        if not why:
            raise Malformed(f"{path}.{host}", "must say why the host cannot run it")


def _one_of(path: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise Malformed(path, f"must be {' or '.join(known)}, not {value!r}")


def _references(problem: Problem, demands: Mapping[str, Demand]) -> None:
    for index, rule in enumerate(problem.rules):
        _sets(f"rules[{index}]", rule)
        _known(f"rules[{index}]", demands_of(rule), demands)
        _sense(f"rules[{index}]", rule)
    for index, each in enumerate(problem.slices):
        _known(f"slices[{index}].demands", each.demands, demands)
    _shares(problem)
    for index, chain in enumerate(problem.chains):
        _known(f"chains[{index}].demands", chain.demands, demands)
        _unique(f"chains[{index}].demands", chain.demands)
        for name in chain.demands:
            if demands[name].replicas != 1:
                raise Malformed(f"chains[{index}].demands", f"{name!r} has not exactly one copy")
        _ends(f"chains[{index}]", problem, [demands[name] for name in chain.demands])
    _unique("links", (tuple(sorted((link.a, link.b))) for link in problem.links))
    for index, link in enumerate(problem.links):
        if link.a == link.b or not link.a or not link.b:
            raise Malformed(f"links[{index}]", "must join two different nodes that have names")
    _unique("traffic", ((each.source, each.target) for each in problem.traffic))
    for index, traffic in enumerate(problem.traffic):
        _known(f"traffic[{index}]", (traffic.source, traffic.target), demands)
        if traffic.source == traffic.target:
            raise Malformed(f"traffic[{index}]", f"{traffic.source!r} to itself")
        _ends(f"traffic[{index}]", problem, [demands[traffic.source], demands[traffic.target]])


def _sets(path: str, rule: Rule) -> None:
    """Check that names are in sets: one text would be taken for the set of its letters."""
    for field in ("demands", "hosts"):
        names: object = getattr(rule, field, frozenset())
        if not isinstance(names, Set):
            raise Malformed(f"{path}.{field}", f"must be a set of names, not {names!r}")
    for field in ("sets", "groups"):
        for index, names in enumerate(getattr(rule, field, ())):
            if not isinstance(names, Set):
                where = f"{path}.{field}[{index}]"
                raise Malformed(where, f"must be a set of names, not {names!r}")


def _sense(path: str, rule: Rule) -> None:
    """Check what only some rules ask of their fields."""
    match rule:
        case Percentile() if rule.share > 1:
            raise Malformed(f"{path}.share", f"is at most 1, not {rule.share}")
        case Split() | SplitAmong():
            _unique(f"{path}.sets", (name for each in rule.sets for name in each))
            if isinstance(rule, SplitAmong):
                _unique(f"{path}.groups", (name for each in rule.groups for name in each))
        case Beside() if rule.demand == rule.of:
            raise Malformed(f"{path}.of", f"{rule.of!r} is the demand itself")
        case _:
            pass


def _known(path: str, names: Iterable[str], demands: Mapping[str, Demand]) -> None:
    for name in sorted(names):
        if name not in demands:
            raise Malformed(path, f"{name!r} is no demand here")


def _shares(problem: Problem) -> None:
    """Check that no demand is in two slices and that shares do not exceed the whole."""
    for name, count in Counter(n for each in problem.slices for n in each.demands).items():
        if count > 1:
            raise Malformed("slices", f"{name!r} is in {count} slices, and can be in one only")
    total: Counter[str] = Counter()
    for each in problem.slices:
        total.update(each.share)
    for resource, share in total.items():
        if share > 1 + 1e-9:
            raise Malformed("slices", f"the shares of {resource} add up to {share:g}, above 1")


def _ends(path: str, problem: Problem, demands: list[Demand]) -> None:
    """Check that demands that talk are placed or left out together."""
    refusable = {
        name: s.name for s in problem.slices if s.revenue is not None for name in s.demands
    }
    if len({refusable.get(demand.name, "") for demand in demands}) > 1:
        raise Malformed(
            path, "all its demands must be in one slice, or in none that can be refused"
        )
    for demand in demands:
        if demand.least is not None and demand.least < demand.replicas:
            raise Malformed(path, f"{demand.name!r} must be hard (least: null)")
        if demand.replicas == 0:
            raise Malformed(path, f"{demand.name!r} has no copies")
