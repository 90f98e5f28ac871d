"""Problems small enough to try every plan, drawn from a seed, one kind of constraint at a time.

`draw(seed, family)` gives a problem with that family in it; `every_plan` all its plans that the
judge accepts. Most other constraints are absent, so that most problems have several plans.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain, combinations, combinations_with_replacement, product
from random import Random

from placement import rules
from placement.check import violations
from placement.problem import (
    MAKE_BEFORE_BREAK,
    NEAREST_COPY,
    Chain,
    Demand,
    Flavour,
    Host,
    Link,
    Plan,
    Problem,
    Slice,
    Traffic,
)

POPULATIONS = ("p1", "p2")


def draw(seed: int, family: str) -> Problem:
    """Return a problem with one kind of constraint in it."""
    random = Random(f"{family} {seed}")  # noqa: S311 - not for secrets
    return FAMILIES[family](random, _base(random))


def _base(random: Random) -> Problem:
    names = ["s1", "s2", "s3"][: random.choice([3, 3, 2])]
    demands = ["d1", "d2", "d3"][: random.choice([3, 2, 2])]
    by_site = random.random() < 0.3
    places = ["east", "west"] if by_site else names
    return Problem(
        hosts=tuple(_host(random, name) for name in names),
        demands=tuple(_demand(random, name) for name in demands),
        latency_ms={
            p: {
                place: random.choice([1, 4, 7, 12, 30]) for place in places if random.random() < 0.9
            }
            for p in POPULATIONS
        },
        current={
            name: tuple(sorted(random.sample(names, random.choice([1, 1, 2]))))
            for name in demands
            if random.random() < 0.4
        },
    )


def _host(random: Random, name: str) -> Host:
    return Host(
        name,
        {"cpu": random.choice([4, 5, 8, 3, 2]), "memory_mib": random.choice([1024, 1536, 768])},
        site=random.choice(["east", "west"]),
        domains={"rack": random.choice(["r1", "r2"])},
        idle_w=random.choice([0, 10, 40]),
        busy_w=random.choice([40, 0, 90]),
        host_hour=random.choice([0, 1, 3]),
        unit_hour={"cpu": random.choice([0, 0.5]), "memory_mib": random.choice([0, 0.25]) / 1024},
        boot_factor=random.choice([1, 2.5]),
    )


def _demand(random: Random, name: str) -> Demand:
    return Demand(
        name,
        {"cpu": random.choice([1, 2, 0.5, 3, 0]), "memory_mib": random.choice([256, 512, 128, 0])},
        replicas=random.choice([1, 1, 2, 2, 0]),
        rates={p: random.choice([1, 5, 2, 0]) for p in POPULATIONS},
        boot_ms=random.choice([0, 5, 80]),
        idle_s=random.choice([None, 0.1, 1]),
        move_cost=random.choice([1, 3]),
    )


def twins(problem: Problem) -> Problem:
    """Return a problem whose first demand is there twice, alone in what names its first name."""
    first, *others = problem.demands
    return replace(problem, demands=(first, *others[:1], replace(first, name="twin")))


# --- one kind of constraint at a time -------------------------------------------------------------

Change = Callable[[Random, Problem], Problem]


def _each(change: Callable[[Random, Demand], Demand]) -> Change:
    def apply(random: Random, problem: Problem) -> Problem:
        demands = tuple(
            change(random, each) if random.random() < 0.8 else each for each in problem.demands
        )
        return replace(problem, demands=demands)

    return apply


def _ruled(make: Callable[[Random, Problem], rules.Rule]) -> Change:
    def apply(random: Random, problem: Problem) -> Problem:
        made = []
        for _ in range(random.choice([1, 1, 2])):
            rule = make(random, problem)
            if random.random() < 0.4:
                rule = replace(rule, must=False, weight=random.choice([0.5, 3.0]))
            made.append(rule)
        if random.random() < 0.3:
            problem = FAMILIES["soft"](random, problem)
        return replace(problem, rules=tuple(made))

    return apply


def _some(random: Random, problem: Problem, least: int = 1) -> frozenset[str]:
    names = [demand.name for demand in problem.demands]
    return frozenset(random.sample(names, random.randint(min(least, len(names)), len(names))))


def _hosts(random: Random, problem: Problem) -> frozenset[str]:
    names = [host.name for host in problem.hosts]
    return frozenset(random.sample([*names, "gone"], random.randint(1, 2)))


def _kind(random: Random) -> str:
    return random.choice(["host", "site", "rack"])


def _two_sets(random: Random, problem: Problem) -> tuple[frozenset[str], ...]:
    names = [demand.name for demand in problem.demands]
    random.shuffle(names)
    cut = random.randint(1, len(names) - 1)
    return (frozenset(names[:cut]), frozenset(names[cut:]))


def _two_groups(problem: Problem) -> tuple[frozenset[str], ...]:
    names = [host.name for host in problem.hosts]
    return (frozenset(names[:1]), frozenset(names[1:]))


def _flavoured(random: Random, demand: Demand) -> Demand:
    return replace(
        demand,
        flavours=(
            Flavour("small", {"cpu": 0.5}, boot_ms=3, unfit={"s1": "wrong kind"}),
            Flavour("large", {"cpu": 2}, resources_at={"s2": {"cpu": random.choice([1, 3])}}),
        ),
    )


def _overhead(random: Random, demand: Demand) -> Demand:
    """Return a demand whose copies take more memory on some hosts, as guests of Xen do."""
    more = demand.resources["memory_mib"] * 9 / 8 + 128
    hosts = random.sample(["s1", "s2", "s3"], random.choice([1, 2]))
    at = {host: {"memory_mib": more} for host in hosts}
    return replace(demand, flavours=(Flavour("", resources_at=at),))


def _sliced(random: Random, problem: Problem, **more: object) -> Problem:
    names = frozenset({problem.demands[0].name})
    others = frozenset({problem.demands[1].name})
    one = Slice("one", names, **more)  # type: ignore[arg-type]
    two = Slice("two", others, {"cpu": 0.25} if random.random() < 0.5 else {})
    return replace(problem, slices=(one, two))


def _talking(random: Random, problem: Problem) -> Problem:
    """Return a problem with traffic over three sites, some links narrow."""
    sites = ["east", "west", "north"]
    hosts = tuple(replace(h, site=sites[i]) for i, h in enumerate(problem.hosts))
    demands = tuple(replace(d, replicas=max(1, d.replicas)) for d in problem.demands)
    links = tuple(
        Link(a, b, random.choice([None, 3.0, 8.0]), random.choice([1, 5]), random.choice([1, 2]))
        for a, b in [("east", "west"), ("west", "mid"), ("mid", "north"), ("east", "mid")]
    )
    return replace(
        problem,
        hosts=hosts,
        demands=demands,
        links=links,
        latency_ms={p: {h.name: random.choice([1, 4, 9]) for h in hosts} for p in POPULATIONS},
    )


def _traffic(random: Random, problem: Problem) -> Problem:
    problem = _talking(random, problem)
    one, two = (demand.name for demand in problem.demands[:2])
    bound = random.choice([None, 2.0, 6.0])
    return replace(problem, traffic=(Traffic(one, two, random.choice([2.0, 5.0]), bound),))


def _chained(random: Random, problem: Problem) -> Problem:
    problem = _talking(random, problem)
    demands = tuple(replace(d, replicas=1) for d in problem.demands)
    names = tuple(demand.name for demand in demands)
    chain = Chain("c", names, random.choice([None, 3.0, 9.0]), random.choice(["", "p1"]), 1.0)
    return replace(problem, demands=demands, chains=(chain,))


FAMILIES: Mapping[str, Change] = {
    "plain": lambda _, problem: problem,
    "labels": lambda r, p: replace(
        p,
        hosts=tuple(
            replace(h, labels=frozenset({("gpu", "yes")} if r.random() < 0.6 else ()))
            for h in p.hosts
        ),
        demands=tuple(
            replace(d, labels=frozenset({("gpu", "yes")} if r.random() < 0.5 else ()))
            for d in p.demands
        ),
    ),
    "unfit": lambda r, p: replace(
        p, unfit={d.name: {r.choice(p.hosts).name: "wrong kind"} for d in p.demands}
    ),
    "overcommit": lambda r, p: replace(
        p, hosts=tuple(replace(h, overcommit={"cpu": r.choice([0.5, 2, 4])}) for h in p.hosts)
    ),
    "latency bound": _each(lambda r, d: replace(d, latency_bound_ms=r.choice([5, 12]))),
    "nearest copy": _each(
        lambda r, d: replace(
            d,
            latency_bound_ms=r.choice([1, 5, 12]),
            bound_for=NEAREST_COPY,
            least=r.choice([None, 0]),
        )
    ),
    "soft": _each(lambda r, d: replace(d, least=r.randint(0, d.replicas), weight=r.choice([1, 4]))),
    "share host": _each(lambda _, d: replace(d, share_host=True)),
    "flavours": _each(_flavoured),
    "one flavour": _each(lambda r, d: replace(_flavoured(r, d), one_flavour=True)),
    "overhead": _each(_overhead),
    "cost at": _each(lambda r, d: replace(d, cost_at={"s1": r.choice([1, 5]), "gone": 3})),
    "both sides": _each(lambda _, d: replace(d, move=MAKE_BEFORE_BREAK)),
    "share": lambda r, p: _sliced(r, p, share={"cpu": r.choice([0.25, 0.5])}),
    "isolated": lambda r, p: _sliced(r, p, isolated=True),
    "revenue": lambda r, p: _sliced(r, p, revenue=r.choice([1.0, 9.0]), share={"cpu": 0.25}),
    "traffic": _traffic,
    "chain": _chained,
    "ban": _ruled(lambda r, p: rules.Ban(_some(r, p), _hosts(r, p))),
    "fence": _ruled(lambda r, p: rules.Fence(_some(r, p), _hosts(r, p))),
    "spread": _ruled(lambda r, p: rules.Spread(_some(r, p), _kind(r))),
    "gather": _ruled(lambda r, p: rules.Gather(_some(r, p), _kind(r))),
    "among": _ruled(lambda r, p: rules.Among(_some(r, p), (_hosts(r, p), _hosts(r, p)))),
    "split": _ruled(lambda r, p: rules.Split(_two_sets(r, p), _kind(r))),
    "split-among": _ruled(lambda r, p: rules.SplitAmong(_two_sets(r, p), _two_groups(p))),
    "lonely": _ruled(lambda r, p: rules.Lonely(_some(r, p))),
    "beside": _ruled(lambda r, p: rules.Beside(p.demands[0].name, p.demands[1].name, _kind(r))),
    "occupy": _ruled(lambda r, p: rules.Occupy(_some(r, p), _kind(r), 2)),
    "root": _ruled(lambda r, p: rules.Root(_some(r, p))),
    "quarantine": _ruled(lambda r, p: rules.Quarantine(_hosts(r, p))),
    "preserve": _ruled(lambda r, p: rules.Preserve(_some(r, p), "cpu", r.choice([2, 3]))),
    "overbook": _ruled(lambda r, p: rules.Overbook(_hosts(r, p), "cpu", r.choice([0.25, 0.5]))),
    "max-online": _ruled(lambda r, p: rules.MaxOnline(_hosts(r, p), r.choice([0, 1]))),
    "max-skew": _ruled(lambda r, p: rules.MaxSkew(_some(r, p), _kind(r), r.choice([0, 1]))),
    "survive": _ruled(lambda r, p: rules.Survive(_some(r, p), _kind(r), r.choice([1, 1, 2]))),
    "serve-after-failure": _ruled(
        lambda r, p: rules.ServeAfterFailure(_some(r, p), r.choice([None, 7.0]))
    ),
    "percentile": _ruled(
        lambda r, p: rules.Percentile(_some(r, p), r.choice([0.5, 0.9]), r.choice([4.0, 7.0]))
    ),
    "migration-budget": _ruled(lambda r, _: rules.MigrationBudget(r.choice([0, 1]))),
}


# --- every plan -----------------------------------------------------------------------------------


def every_plan(problem: Problem) -> Iterator[Plan]:
    """Yield all plans of a problem that the judge accepts, without shares or flows."""
    refusable = [each for each in problem.slices if each.revenue is not None]
    some = chain.from_iterable(combinations(refusable, n) for n in range(len(refusable) + 1))
    for admitted in some:
        out = {n for each in refusable if each not in admitted for n in each.demands}
        choices = [list(_choices(problem, d, out=d.name in out)) for d in problem.demands]
        for chosen in product(*choices):
            names = [demand.name for demand in problem.demands]
            plan = Plan(
                {n: tuple(h for h, _ in each) for n, each in zip(names, chosen, strict=True)},
                value=0.0,
                flavours={
                    n: tuple(f for _, f in each) for n, each in zip(names, chosen, strict=True)
                },
                admitted=frozenset(each.name for each in admitted),
            )
            if not violations(problem, plan):
                yield plan


def _choices(
    problem: Problem, demand: Demand, *, out: bool
) -> Iterator[tuple[tuple[str, str], ...]]:
    names = [flavour.name for flavour in demand.flavours] or [""]
    slots = [(host.name, name) for host in problem.hosts for name in names]
    most = 0 if out else demand.replicas
    least = most if demand.least is None or out else demand.least
    for count in range(least, most + 1):
        yield from combinations_with_replacement(slots, count)
