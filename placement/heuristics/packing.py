"""Packing copies into hosts one by one, as arrays: the state that greedy heuristics share.

`pack` asks a score where each copy goes and never takes one back. It minds what the registry says
of greedy algorithms: capacity in every resource, labels, bounds and filters, must-rules `Split` and
`Spread` on hosts, and `Beside` on hosts. Everything is over `placement.arrays`, so that thousands
of hosts cost microseconds per copy.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from placement.arrays import Arrays, compile_problem
from placement.candidates import apart_from, feasible, hopeless, may_share, summary
from placement.check import violations
from placement.expand import plan_of_counts
from placement.matrix import ROUNDING, Bools, Floats, Ints
from placement.problem import Demand, Infeasible, Plan, Problem
from placement.rules import Beside

Score = Callable[[Ints], tuple[Floats, ...]]


@dataclass(slots=True, eq=False)
class Packing:
    """Copies placed so far.

    | field | shape | meaning |
    |---|---|---|
    | `used` | H x K | what is in use |
    | `counts` | P | copies per pair |
    | `placed` | C x H | copies of a class on a host |
    | `share` | K | 1 / the largest host's room, so that units of different resources compare |
    | `of` | D | the class of each demand |
    | `weigh`, `tally` | T x C, T x H | numbers of one copy of a class; their sums per host |
    """

    arrays: Arrays
    used: Floats
    counts: Ints
    placed: Ints
    share: Floats
    of: Ints
    apart: dict[int, Ints]  # class → classes that may share no host with it
    beside: dict[int, Ints]  # class → classes of which one copy must be there
    limit: Ints  # C: copies of a class that may share a host
    weigh: Floats
    tally: Floats

    @classmethod
    def of_arrays(cls, arrays: Arrays) -> "Packing":
        """Return the empty packing."""
        problem = arrays.problem
        number = arrays.class_of()
        apart = {
            number[demand.name]: _ints(number[other] for other in others)
            for demand in problem.demands
            if problem.rules and (others := apart_from(problem, demand.name))
        }
        beside: dict[int, list[int]] = {}
        for rule in problem.rules:
            if isinstance(rule, Beside) and rule.must:
                beside.setdefault(number[rule.demand], []).append(number[rule.of])
        most = arrays.room.max(axis=0, initial=0.0)
        demands = [arrays.demand(c) for c in range(arrays.classes)]
        alone = np.array([not may_share(problem, demand) for demand in demands], bool)
        limit = np.where(alone, arrays.many, np.iinfo(np.int64).max)
        return cls(
            arrays,
            used=np.zeros_like(arrays.room),
            counts=np.zeros(arrays.pairs, np.int64),
            placed=np.zeros((arrays.classes, len(arrays.hosts)), np.int64),
            share=np.divide(1.0, most, out=np.zeros(len(most)), where=most > 0),
            of=_ints(number[demand.name] for demand in problem.demands),
            apart=apart,
            beside={c: _ints(others) for c, others in beside.items()},
            limit=limit,
            weigh=np.ones((1, arrays.classes)),
            tally=np.zeros((1, len(arrays.hosts))),
        )

    def free(self) -> Floats:
        """Return what is left on each host, H x K."""
        return self.arrays.room - self.used

    def may(self, pairs: Ints) -> Bools:
        """Return which of some pairs of one class can take one more copy now."""
        arrays = self.arrays
        host = arrays.pair_host[pairs]
        fits = (self.used[host] + arrays.need[pairs] <= arrays.room[host] + ROUNDING).all(axis=1)
        if not len(pairs):
            return np.zeros(0, bool)
        c = int(arrays.pair_class[pairs[0]])
        fits &= self.placed[c, host] < self.limit[c]
        if c in self.apart:
            fits &= ~(self.placed[self.apart[c]][:, host] > 0).any(axis=0)
        if c in self.beside:
            fits &= (self.placed[self.beside[c]][:, host] > 0).all(axis=0)
        return np.asarray(fits)

    def open(self, c: int) -> Ints:
        """Return the pairs of a class that can take one more copy now."""
        where = self.arrays.of(c)
        pairs = np.arange(where.start, where.stop)
        return pairs[self.may(pairs)]

    def take(self, pair: int, copies: int = 1) -> None:
        """Add copies at a pair; a negative number takes them away."""
        c, h = int(self.arrays.pair_class[pair]), int(self.arrays.pair_host[pair])
        self.counts[pair] += copies
        self.placed[c, h] += copies
        self.used[h] += copies * self.arrays.need[pair]
        self.tally[:, h] += copies * self.weigh[:, c]

    def watch(self, weigh: Floats) -> None:
        """Sum other numbers per host than copies, from now on."""
        self.weigh = weigh
        self.tally = weigh @ self.placed

    def size(self) -> Floats:
        """Return how large each class is: the mean need of its pairs, as a share, summed up."""
        share = self.arrays.need @ self.share
        many = np.bincount(self.arrays.pair_class, minlength=self.arrays.classes)
        total = np.bincount(self.arrays.pair_class, share, minlength=self.arrays.classes)
        return np.asarray(total / np.maximum(many, 1))

    def plan(self) -> Plan:
        """Return the bare plan."""
        return plan_of_counts(self.arrays, self.counts)


def start(problem: Problem) -> Packing:
    """Return the empty packing of a problem; `Infeasible` if some demand has no place at all."""
    packing = Packing.of_arrays(compile_problem(problem))
    arrays = packing.arrays
    c, h = arrays.pair_class, arrays.pair_host  # sorted: flavours of a place follow each other
    first = np.ones(arrays.pairs, dtype=bool)
    first[1:] = (c[1:] != c[:-1]) | (h[1:] != h[:-1])
    hosts = np.bincount(c[first], minlength=arrays.classes)
    wanted = np.where(packing.limit > arrays.many, arrays.fewest > 0, arrays.fewest)
    hopeful = (hosts * np.maximum(arrays.many, 1) >= wanted).all() and not packing.beside
    if not hopeful and (reasons := hopeless(problem)):
        raise Infeasible(reasons)
    return packing


def pack(
    problem: Problem,
    scored: Callable[[Packing], Score],
    *,
    name: str,
    largest_first: bool = False,
) -> Plan:
    """Place one copy after the other where the score is least; soft ones are left out if need be.

    `scored` makes the score of a packing: for some pairs of a class it gives one or more rows of
    numbers. The first row decides, then the next, then the order of the hosts. Demands come in
    their order or the largest first, but always after those they must be beside.

    Raises:
        Infeasible: with every demand that found no host; no proof that there is no plan.

    """
    packing = start(problem)
    score = scored(packing)
    order = in_order(packing, largest_first=largest_first)
    fill(packing, score, order, name=name)
    return packing.plan()


def fill(packing: Packing, score: Score, order: Iterable[int], *, name: str) -> None:
    """Place all copies of demands that are not placed yet, demand by demand."""
    problem, reasons = packing.arrays.problem, {}
    done = packing.placed.sum(axis=1)
    for i in order:
        demand, c = problem.demands[i], int(packing.of[i])
        for number in range(demand.replicas):
            if done[c]:  # a copy of the class is there already: it is this one
                done[c] -= 1
                continue
            pairs = packing.open(c)
            if not len(pairs):
                least = demand.replicas if demand.least is None else demand.least
                if number < least:
                    why = _why_not(packing, demand, number)
                    reasons[demand.name] = f"{name} found no host: {why}"
                break
            packing.take(best(pairs, score(pairs)))
    settle(packing, reasons, name)


def settle(packing: Packing, reasons: dict[str, str], name: str) -> None:
    """Raise `Infeasible` for what found no host, or where one came that leaves another alone."""
    if not reasons and packing.beside:
        plan = packing.plan()
        wrong = violations(packing.arrays.problem, plan)
        if wrong:
            reasons = {name: f"left this broken: {'; '.join(wrong)}"}
    if reasons:
        raise Infeasible(reasons, proven=False)


def best(pairs: Ints, rows: tuple[Floats, ...]) -> int:
    """Return the pair of least score, by the rows in turn; the first of equal ones."""
    kept = np.arange(len(pairs))
    for every in rows:
        row = every[kept]
        least = row.min()
        near = row <= least + 1e-12 * max(1.0, abs(least))
        kept, pairs = kept[near], pairs[near]
    return int(pairs[0])


def in_order(
    packing: Packing,
    *,
    largest_first: bool = False,
    keys: Floats | None = None,
) -> list[int]:
    """Return the demands by index, those that others must be beside before these.

    Apart from that they come as in the problem, the largest first, or by a key of each.
    """
    order = list(range(len(packing.arrays.problem.demands)))
    if keys is not None:
        order = np.argsort(keys, kind="stable").tolist()
    if largest_first:
        size = packing.size()
        order.sort(key=lambda i: -float(size[packing.of[i]]))
    if not packing.beside:
        return order
    return list(_partners_first(packing, order))


def _partners_first(packing: Packing, order: list[int]) -> Iterator[int]:
    member = {int(packing.of[i]): i for i in order}
    seen: set[int] = set()

    def visit(i: int) -> Iterator[int]:
        if i not in seen:
            seen.add(i)
            for other in sorted(packing.beside.get(int(packing.of[i]), _ints(())).tolist()):
                yield from visit(member[other])
            yield i

    for i in order:
        yield from visit(i)


def _why_not(packing: Packing, demand: Demand, placed: int) -> str:
    """Return why each host cannot take one more copy of a demand beside those placed, in words."""
    arrays = packing.arrays
    used = {
        host: dict(zip(arrays.resources, row, strict=True))
        for host, row in zip(arrays.hosts, packing.used.tolist(), strict=True)
    }
    places = dict(packing.plan().hosts)
    if not placed:  # what is there of its class is the others'
        places[demand.name] = ()
    return summary(feasible(arrays.problem, demand, used, places).reasons)


def _ints(values: Iterable[int]) -> Ints:
    return np.fromiter(values, np.int64)
