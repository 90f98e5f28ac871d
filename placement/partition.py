"""Geographic partition: the way to models whose LP no longer fits, and onto many machines.

Hosts are cut into parts by where they are (a kd tree over their latencies), demands are shared out
by a transport LP that minds distance and room, and the parts are solved apart, as many at once as
there are workers. A second pass cuts elsewhere, so that what a cut line spoiled is mended. The
idea is POP's (D. Narayanan and others, Solving large-scale granular resource allocation problems
efficiently with POP, SOSP 2021); the cuts follow the map because latency does.

The bound is that of the whole problem: the prices of all parts together prove one (see
`placement.ladder.prices`), so no LP of the whole is ever solved. Where the LP of the whole fits,
the ladder is as good in a fraction of the time.

Workers are a `concurrent.futures.Executor`: processes here, or with the extra ``dask`` a cluster::

    from dask.distributed import Client

    with Client("scheduler:8786") as client:
        plan = partitioned(problem, options, executor=client.get_executor())
"""

import math
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np

from placement.arrays import Arrays, compile_problem
from placement.check import violations
from placement.exact import Clock, NoPlan, exact
from placement.ladder.climb import Climber
from placement.ladder.pool import pool
from placement.ladder.prices import Prices, left_out, priced
from placement.ladder.simple import Simple
from placement.latencies import latency_table
from placement.matrix import Bools, Builder, Entries, Floats, Ints, Linear
from placement.pricing import pair_costs
from placement.problem import Options, Plan, Problem
from placement.rules import Ban, Fence
from placement.solvers import Limits
from placement.solvers import highs as direct

PART_HOSTS = 100  # hosts in a part
PASSES = 2
NEAREST = 20  # candidate hosts of a demand that say which parts are near
FILL = 0.95  # of a part's room that the transport may use: whole copies never fill it
VIEWS = 32  # populations that say where hosts are, at most
PER_REQUEST = frozenset({"latency_ms", "wake_ms"})  # terms that are means over all requests


@dataclass(frozen=True, slots=True)
class Answer:
    """What a part answers: hosts and flavours by demand, and its prices by name."""

    hosts: Mapping[str, tuple[str, ...]]
    flavours: Mapping[str, tuple[str, ...]]
    copy: Mapping[str, float]
    room: Mapping[str, Mapping[str, float]]


def partition(problem: Problem, options: Options) -> Plan:
    """Return the plan of a partition; see `partitioned`."""
    return partitioned(problem, options)


def partitioned(
    problem: Problem,
    options: Options,
    executor: Executor | None = None,
    *,
    part_hosts: int = PART_HOSTS,
    passes: int = PASSES,
) -> Plan:
    """Return a plan made part by part, with a bound on the plans of the whole problem.

    `options.threads` processes solve parts at once, or the workers of `executor`. The deadline is
    shared out among parts and passes.

    Raises:
        NoPlan: some copies found no room; never proven.

    """
    clock = Clock.of(options.deadline_s)
    if not problem.hosts:
        return exact(problem, options)
    arrays = compile_problem(problem, nearest=NEAREST)
    count = max(1, math.ceil(len(problem.hosts) / part_hosts))
    plan = options.start or Plan({}, 0.0)
    prices: list[Answer] = []
    with pool(executor, options.threads) as workers:
        for turn in range(passes):
            part_of = cut(problem, count, turn)
            if turn or options.start:
                names = _settled(problem, plan, part_of)
            else:
                names = _shared_out(arrays, options, part_of, count)
            parts = [_part(problem, plan, part_of == g, names[g]) for g in range(count)]
            waves = math.ceil(count / max(1, options.threads))
            seconds = 0.8 * clock.left() / (passes - turn) / waves
            asked = [_options(problem, each, options, plan, seconds) for each in parts]
            run = map if workers is None else workers.map
            answers = [each for each in run(answer, parts, asked) if each is not None]
            plan = _merged(plan, answers)
            prices = prices or answers
            if count == 1:
                break
    whole, simple = _whole(problem, options, plan)
    bound = 0.0 if simple is None else _bound(simple, options, prices)
    return replace(whole, bound=bound, solver="highs-direct")


# --- where the cuts are -------------------------------------------------------------------------


def cut(problem: Problem, count: int, turn: int) -> Ints:
    """Return the part of each host: so many parts of about equal room, other cuts in each turn."""
    rates = {p for d in problem.demands for p, rate in d.rates.items() if rate > 0}
    populations = [p for p in problem.latency_ms if p in rates]
    views = populations[:: max(1, len(populations) // VIEWS)][:VIEWS]
    table = latency_table(problem, tuple(views)).T
    where = np.nan_to_num(table, posinf=1e6)
    if not views:
        where = np.arange(len(problem.hosts), dtype=float)[:, None]
    room = np.array([[host.room(k) for k in ("cpu", "memory_mib")] for host in problem.hosts])
    size = (room / np.maximum(room.sum(axis=0), 1e-9)).sum(axis=1) + 1e-12
    part = np.zeros(len(problem.hosts), dtype=np.int64)
    waiting = [(np.arange(len(problem.hosts)), count, 0, turn)]
    while waiting:
        some, parts, first, axis = waiting.pop()
        if parts < 2 or len(some) < 2:
            part[some] = first
            continue
        low = parts // 2 if axis % 2 == 0 else (parts + 1) // 2
        one, other = _halves(where[some], size[some], low / parts, axis)
        waiting.append((some[one], low, first, axis // 2))
        waiting.append((some[other], parts - low, first + low, axis // 2))
    return part


def _halves(where: Floats, size: Floats, share: float, axis: int) -> tuple[Ints, Ints]:
    """Return two sets of hosts, the first with that share of the size, cut across an axis.

    Axes are numbered by how far hosts are spread along them, the farthest first.
    """
    spread = np.argsort(-np.var(where, axis=0), kind="stable")
    order = np.argsort(where[:, spread[axis % len(spread)]], kind="stable")
    below = np.cumsum(size[order]) / size.sum()
    at = int(np.clip(np.searchsorted(below, share), 1, len(order) - 1))
    return order[:at], order[at:]


# --- who belongs to which part ------------------------------------------------------------------


def _shared_out(arrays: Arrays, options: Options, part_of: Ints, count: int) -> list[set[str]]:
    """Return the demands of each part: near it, and no more than it has room for."""
    share = _transported(arrays, options, part_of, count)
    names: list[set[str]] = [set() for _ in range(count)]
    demands = arrays.problem.demands
    for c, members in enumerate(arrays.members):
        exact = share[c] / max(share[c].sum(), 1e-9) * len(members)
        most = np.floor(exact + 1e-9).astype(int)
        rest = len(members) - int(most.sum())
        most[np.argsort(-(exact - most), kind="stable")[:rest]] += 1
        for index, g in zip(members, np.repeat(np.arange(count), most).tolist(), strict=True):
            names[g].add(demands[index].name)
    return names


def _transported(arrays: Arrays, options: Options, part_of: Ints, count: int) -> Floats:
    """Return how many copies of each class (C) go to each part (G), by the transport LP.

    Minimise sum of cost[c,g] x[c,g], where sum over g of x[c,g] = copies[c] and
    sum over c of need[c,g,k] x[c,g] <= FILL * room[g,k], with v where that cannot be.
    """
    cost = pair_costs(arrays, options.weights)
    key = arrays.pair_class * count + part_of[arrays.pair_host]
    order = np.lexsort((cost, key))
    arcs, first = np.unique(key[order], return_index=True)
    best = order[first]
    c, g = np.divmod(arcs, count)
    builder = Builder()
    x = builder.add_columns("x", len(arcs), math.inf, c=c, g=g)
    resources = len(arrays.resources)
    v = builder.add_columns("v", count * resources, math.inf)
    entries = Entries()
    entries.add(c, x, 1.0)
    copies = arrays.copies.astype(float)
    served = np.bincount(c, minlength=arrays.classes) > 0
    copies[~served] = 0.0
    builder.add_rows("copies", arrays.classes, entries, lower=copies, upper=copies)
    room = np.zeros((count, resources))
    np.add.at(room, part_of, arrays.room)
    entries = Entries()
    scale = np.maximum(room, 1e-9)
    for k in range(resources):
        entries.add(g * resources + k, x, arrays.need[best, k] / scale[g, k])
    entries.add(np.arange(count * resources), v, -1.0)
    builder.add_rows("room", count * resources, entries, upper=FILL)
    objective = Linear()
    objective.add(x, cost[best])
    objective.add(v, 10 * (np.abs(cost).max(initial=0.0) + 1) * max(1, arrays.copies.sum()))
    found = direct.relax(builder.matrix(objective), Limits(options.deadline_s, seed=options.seed))
    share = np.zeros((arrays.classes, count))
    if found is None:
        raise NoPlan(proven=False)
    share[c, g] = found.x[x]
    return share


def _settled(problem: Problem, plan: Plan, part_of: Ints) -> list[set[str]]:
    """Return the demands that a plan has in one part only; what is in none goes to the first."""
    number = {host.name: h for h, host in enumerate(problem.hosts)}
    names: list[set[str]] = [set() for _ in range(int(part_of.max(initial=0)) + 1)]
    for demand in problem.demands:
        parts = {int(part_of[number[host]]) for host in plan.hosts.get(demand.name, ())}
        if len(parts) == 1:
            names[parts.pop()].add(demand.name)
    return names


# --- one part -----------------------------------------------------------------------------------


def _part(problem: Problem, plan: Plan, mine: Bools, names: set[str]) -> Problem:
    """Return the problem of some hosts and demands; hosts that others use are left to those."""
    hosts = [host for host, inside in zip(problem.hosts, mine.tolist(), strict=True) if inside]
    used = {h for name, chosen in plan.hosts.items() if name not in names for h in chosen}
    kept = tuple(host for host in hosts if host.name not in used)
    there = {host.name for host in kept}
    inside = tuple(
        d
        for d in problem.demands
        if d.name in names and there.issuperset(plan.hosts.get(d.name, ()))
    )
    inner = {demand.name for demand in inside}
    places = there | {host.site for host in kept if host.site}
    populations = {p for demand in inside for p in demand.rates}
    rules = [
        replace(rule, demands=rule.demands & inner)
        for rule in problem.rules
        if isinstance(rule, Ban | Fence) and rule.demands & inner
    ]
    return Problem(
        kept,
        inside,
        {
            p: {name: row[name] for name in places if name in row}
            for p, row in problem.latency_ms.items()
            if p in populations
        },
        {name: hosts for name, hosts in problem.current.items() if name in inner},
        {name: reasons for name, reasons in problem.unfit.items() if name in inner},
        tuple(rules),
    )


def _options(
    whole: Problem, part: Problem, options: Options, plan: Plan, seconds: float
) -> Options:
    """Return the options of a part: terms that are means over requests weigh as in the whole."""
    total, mine = (
        sum(sum(demand.rates.values()) for demand in each.demands) for each in (whole, part)
    )
    share = mine / total if total else 1.0
    weights = {
        name: weight * share if name in PER_REQUEST else weight
        for name, weight in options.weights.items()
    }
    start = None
    if plan.hosts:
        names = [demand.name for demand in part.demands]
        start = Plan(
            {name: plan.hosts.get(name, ()) for name in names},
            0.0,
            flavours={name: plan.flavours.get(name, ()) for name in names},
        )
    return replace(options, weights=weights, deadline_s=max(seconds, 0.05), start=start, threads=1)


def answer(problem: Problem, options: Options) -> Answer | None:
    """Solve one part by the ladder; None if it found nothing. Runs in other processes, too."""
    if not problem.demands or not problem.hosts:
        return None
    climber = Climber(problem, options)
    last = None
    try:
        for step in climber.climb(None):
            last = step
    except NoPlan:
        return None
    if last is None or last.x is None:
        return None
    if climber.prices is None and climber.simple is not None:
        climber.clock = Clock.of(options.deadline_s)  # small parts are solved without an LP
        for _ in climber.rounding():
            pass
    plan, prices, arrays = last.plan(), climber.prices, climber.arrays
    if prices is None:
        return Answer(plan.hosts, plan.flavours, {}, {})
    return Answer(
        plan.hosts,
        plan.flavours,
        {name: float(prices.copy[c]) for name, c in arrays.class_of().items()},
        {
            name: dict(zip(arrays.resources, prices.room[h].tolist(), strict=True))
            for h, name in enumerate(arrays.hosts)
        },
    )


# --- the whole again ----------------------------------------------------------------------------


def _merged(plan: Plan, answers: list[Answer]) -> Plan:
    hosts, flavours = dict(plan.hosts), dict(plan.flavours)
    for each in answers:
        hosts.update(each.hosts)
        flavours.update(each.flavours)
    return Plan(hosts, 0.0, flavours=flavours)


def _whole(problem: Problem, options: Options, plan: Plan) -> tuple[Plan, Simple | None]:
    """Return the whole plan; copies that no part had room for are placed where there is some.

    A model that is not simple has only what its parts found, and no prices.
    """
    extra = frozenset((name, host) for name, hosts in plan.hosts.items() for host in hosts)
    climber = Climber(problem, replace(options, start=plan, nearest=NEAREST), extra=extra)
    if climber.simple is None:
        if violations(problem, plan):
            raise NoPlan(proven=False)
        return plan, None
    step = next(climber.boards(("bind",)), None)
    if step is None:
        raise NoPlan(proven=False)
    return step.plan(), climber.simple


def _bound(simple: Simple, options: Options, answers: list[Answer]) -> float:
    """Return the bound that the prices of all parts prove together."""
    arrays = simple.arrays
    copy, room = np.zeros(arrays.classes), np.zeros_like(arrays.room)
    of, number = arrays.class_of(), {name: h for h, name in enumerate(arrays.hosts)}
    seen = np.zeros(arrays.classes)
    for each in answers:
        for name, price in each.copy.items():
            copy[of[name]] += price
            seen[of[name]] += 1
        for name, by_resource in each.room.items():
            room[number[name]] = [by_resource.get(k, 0.0) for k in arrays.resources]
    prices = Prices(copy / np.maximum(seen, 1), room)
    weights = {name: weight for name, weight in options.weights.items() if weight}
    now = replace(options, weights=weights)
    bounds = [0.0]
    for some in (prices, _no_dearer(simple, prices)):
        rest = left_out(arrays, now, some, NEAREST)
        bounds.append(priced(simple, some, rest.pull).bound)
    return max(bounds)


def _no_dearer(simple: Simple, prices: Prices) -> Prices:
    """Return prices of copies that are nowhere above what one costs at its cheapest host.

    The price that a full part gives a copy proves nothing where another part has room for it.
    """
    arrays = simple.arrays
    spare = np.full(arrays.classes, np.inf)
    np.minimum.at(spare, arrays.pair_class, priced(simple, prices).pair)
    return Prices(prices.copy + np.minimum(spare, 0.0), prices.room)
