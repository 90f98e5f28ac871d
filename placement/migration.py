"""From where copies run to where a plan wants them: actions in order, each host never too full.

`migration` makes batches of actions. Those of one batch run side by side and may end in any order,
so a host must have room for all that is there before, and for all that comes. What leaves frees its
room for the next batch. A demand that moves ``make-before-break`` runs at the old host until the
copy at the new one is ready; one that is moved ``kill-and-boot`` is down while it boots.

Where moves wait for each other in a cycle, one that may be killed is killed early; else one goes
by way of a spare host; and only where there is none, a copy stops for a while. Each says so.

Only capacity is held on the way, unless the migration is to be gentle. Rules hold at both ends,
since both are plans; a spare host is one that `placement.candidates.feasible` allows.
`placement.migration_check` judges every step, without this module. `worth` says whether a migration
pays.

F. Hermenier et al., "Entropy: a consolidation manager for clusters", VEE 2009, breaks cycles the
same way.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from placement.candidates import feasible
from placement.check import violations
from placement.classes import flavours, need
from placement.evaluate import evaluate, value_of
from placement.problem import (
    MAKE_BEFORE_BREAK,
    MEMORY,
    Amounts,
    Demand,
    Flavour,
    Malformed,
    Plan,
    Problem,
)

MIGRATE, RESTART, BOOT, STOP = "migrate", "restart", "boot", "stop"
MEGABITS_PER_MIB = 8 * 2**20 / 1e6
ROUNDING = 1e-6  # sums of fractions are not exact; the judge's tolerance


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast actions are.

    `mbps` is what each host's network has for moving memory, shared by the moves of a batch.
    `at_once` bounds the actions of a batch that touch one host (None: no bound). A stop takes
    `stop_s`, and a copy that migrates is down for `switch_s` at the end.
    """

    mbps: float = 1000.0
    at_once: int | None = None
    stop_s: float = 0.0
    switch_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do with one copy.

    `migrate` has the copy on both hosts for its `seconds`; `restart` stops it at `source`, then
    boots it at `target`; `boot` has no source, `stop` no target. `down_s` is how long the copy is
    gone in all when the action ends, also since an earlier stop. `why` says what is unusual.
    """

    kind: str
    demand: str
    source: str = ""
    target: str = ""
    was: str = ""  # the flavour at the source
    flavour: str = ""  # the flavour at the target
    seconds: float = 0.0
    down_s: float = 0.0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Migration:
    """Batches of actions, one batch after the other, and where copies run afterwards.

    `left` are the demands whose changes were left out because there may be only so many.
    """

    batches: tuple[tuple[Action, ...], ...]
    reached: Plan
    left: tuple[str, ...] = ()

    @property
    def actions(self) -> tuple[Action, ...]:
        """Return all actions in order."""
        return tuple(action for batch in self.batches for action in batch)

    @property
    def seconds(self) -> float:
        """Return how long it takes: each batch as long as its longest action."""
        return sum(max((action.seconds for action in batch), default=0.0) for batch in self.batches)

    @property
    def down_s(self) -> float:
        """Return the seconds that copies are gone, summed."""
        return sum(action.down_s for action in self.actions)


def running(problem: Problem) -> Plan:
    """Return `problem.current` as a plan: each copy in its first flavour, on hosts that exist."""
    hosts = {host.name for host in problem.hosts}
    now = {
        demand.name: tuple(h for h in problem.current.get(demand.name, ()) if h in hosts)
        for demand in problem.demands
    }
    first = {demand.name: flavours(demand)[0].name for demand in problem.demands}
    return Plan(now, 0.0, flavours={name: (first[name],) * len(now[name]) for name in now})


def migration(
    problem: Problem,
    wanted: Plan,
    *,
    current: Plan | None = None,
    pace: Pace | None = None,
    most_changes: int | None = None,
    gentle: bool = False,
) -> Migration:
    """Return how to come from one plan to another (from `running` if no current one is given).

    With `most_changes`, that many copies change at most: the first ones of the whole migration
    that keep, one after the other, all hosts within capacity and break no rule anew. So a cycle
    that has no room is left as it is.

    With `gentle`, no copy is stopped to end a cycle, and each goes only to a host that the rules
    would let take it at that moment, as for `placement.heuristics.greedy_latency.place_one`. What
    cannot move like that is left, and so is what the wanted plan has no room for.

    Raises:
        Malformed: the wanted plan does not fit, or names a demand, host or flavour that is unknown.

    """
    pace = pace or Pace()
    current = current or running(problem)
    changes = list(_changes(problem, current, wanted))
    for name, plan in (("current", current), ("wanted", wanted)):
        _known(problem, plan, name)
    if not gentle:
        _fitting(problem, wanted, current)
    most = len(changes) if most_changes is None else most_changes
    chosen = changes
    batches = _Schedule.of(problem, current, pace, gentle=gentle).run(chosen)
    while len(chosen) > most or any(math.isinf(change.done) for change in chosen):
        done = [change for change in chosen if math.isfinite(change.done)]
        done.sort(key=lambda change: change.done)
        chosen = [each.fresh() for each in _few(problem, current, done, most)]
        batches = _Schedule.of(problem, current, pace, gentle=gentle).run(chosen)
    left = Counter(each.demand.name for each in changes)
    left -= Counter(each.demand.name for each in chosen)
    return Migration(tuple(batches), _after(problem, current, chosen), tuple(left))


# --- is it worth it -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prices:
    """What a migration costs, in units of the value times hours, and for how long its gain lasts.

    Each copy moved costs its `move_cost` times `per_move`, each second a copy is gone `per_down_s`,
    each GiB sent `per_gib`.
    """

    horizon_s: float = 3600.0
    per_move: float = 0.5
    per_down_s: float = 0.0
    per_gib: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a migration brings until the horizon, what it costs, and whether it pays."""

    gain: float
    cost: float

    @property
    def worth(self) -> bool:
        """Return whether the gain exceeds the cost."""
        return self.gain > self.cost


def worth(
    problem: Problem,
    moves: Migration,
    weights: Mapping[str, float],
    *,
    current: Plan | None = None,
    prices: Prices | None = None,
) -> Verdict:
    """Return whether a migration pays: the consolidation trigger.

    The gain is what the weighted value falls by, times the hours until the horizon; the term
    `migrations` is no part of it, since here moves are paid once. The gain is infinite where the
    current plan breaks something that the one reached does not.
    """
    prices = prices or Prices()
    current = current or running(problem)
    state = {name: weight for name, weight in weights.items() if name != "migrations"}
    before = value_of(evaluate(problem, current), state)
    after = value_of(evaluate(problem, moves.reached), state)
    gain = (before - after) * prices.horizon_s / 3600
    if len(violations(problem, moves.reached)) < len(violations(problem, current)):
        gain = math.inf
    demands = {demand.name: demand for demand in problem.demands}
    cost = 0.0
    for action in moves.actions:
        cost += action.down_s * prices.per_down_s
        if action.kind in {MIGRATE, RESTART}:
            cost += demands[action.demand].move_cost * prices.per_move
        if action.kind == MIGRATE:
            sent = _need(demands[action.demand], action.flavour, action.target)
            cost += sent.get(MEMORY, 0.0) / 1024 * prices.per_gib
    return Verdict(gain, cost)


# --- what changes -------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Change:
    """One copy that comes (no source), goes (no target), or changes host or flavour."""

    demand: Demand
    source: str
    was: str
    target: str
    flavour: str
    origin: tuple[str, str]
    detoured: bool = False
    stopped_at: float | None = None
    done: float = math.inf
    why: str = ""

    def fresh(self) -> "_Change":
        """Return the change as it was before any of it was scheduled."""
        source, was = self.origin
        return _Change(self.demand, source, was, self.target, self.flavour, self.origin)

    @property
    def kind(self) -> str:
        """Return what is to be done with the copy as it stands now."""
        if not self.target:
            return STOP
        if not self.source:
            return BOOT
        return MIGRATE if self.demand.move == MAKE_BEFORE_BREAK else RESTART


def _slots(demand: Demand, plan: Plan) -> list[tuple[str, str]]:
    """Return host and flavour of each copy; the first flavour where the plan names none."""
    hosts = plan.hosts.get(demand.name, ())
    names = plan.flavours.get(demand.name) or (flavours(demand)[0].name,) * len(hosts)
    return list(zip(hosts, names, strict=True))


def _changes(problem: Problem, current: Plan, wanted: Plan) -> Iterator[_Change]:
    """Yield what differs; a copy stays where it is if it may, on its host if only that may be."""
    for demand in problem.demands:
        now, then = Counter(_slots(demand, current)), Counter(_slots(demand, wanted))
        sources = sorted((now - then).elements())
        targets = sorted((then - now).elements())
        same = Counter(h for h, _ in sources) & Counter(h for h, _ in targets)
        old = _first(sources, same)
        new = _first(targets, same)
        none = ("", "")
        longest = max(len(old), len(new))
        old += [none] * (longest - len(old))
        new += [none] * (longest - len(new))
        for (source, was), (target, flavour) in zip(old, new, strict=True):
            yield _Change(demand, source, was, target, flavour, (source, was))


def _first(slots: list[tuple[str, str]], same: Counter[str]) -> list[tuple[str, str]]:
    """Return slots with those on some hosts first, so that they are matched with each other."""
    left, front, back = Counter(same), [], []
    for slot in slots:
        if left[slot[0]]:
            left[slot[0]] -= 1
            front.append(slot)
        else:
            back.append(slot)
    return front + back


def _known(problem: Problem, plan: Plan, name: str) -> None:
    hosts = {host.name for host in problem.hosts}
    demands = {demand.name: demand for demand in problem.demands}
    for demand, chosen in plan.hosts.items():
        if demand not in demands:
            raise Malformed(f"{name}.hosts", f"no demand named {demand!r}")
        for host in chosen:
            if host not in hosts:
                raise Malformed(f"{name}.hosts.{demand}", f"no host named {host!r}")
    for demand, names in plan.flavours.items():
        for each in names:
            if demand in demands and each not in {f.name for f in flavours(demands[demand])}:
                raise Malformed(f"{name}.flavours.{demand}", f"no flavour named {each!r}")


def _fitting(problem: Problem, wanted: Plan, current: Plan) -> None:
    before, after = _loads(problem, current), _loads(problem, wanted)
    for host in problem.hosts:
        for resource, used in after[host.name].items():
            there = max(host.room(resource), before[host.name].get(resource, 0.0))
            if used > there + ROUNDING:
                raise Malformed("wanted", f"{host.name} has {there:g} {resource}, not {used:g}")


def _need(demand: Demand, flavour: str, host: str) -> Amounts:
    known = {each.name: each for each in flavours(demand)}
    return need(demand, known.get(flavour, Flavour("")), host)


def _loads(problem: Problem, plan: Plan) -> dict[str, dict[str, float]]:
    loads: dict[str, dict[str, float]] = {host.name: {} for host in problem.hosts}
    for demand in problem.demands:
        for host, flavour in _slots(demand, plan):
            _add(loads[host], _need(demand, flavour, host), 1)
    return loads


def _add(load: dict[str, float], amounts: Amounts, times: int) -> None:
    for resource, units in amounts.items():
        load[resource] = load.get(resource, 0.0) + times * units


def _after(problem: Problem, current: Plan, changes: Iterable[_Change]) -> Plan:
    """Return where copies run once some changes are made."""
    slots = {demand.name: Counter(_slots(demand, current)) for demand in problem.demands}
    for change in changes:
        if change.origin[0]:
            slots[change.demand.name][change.origin] -= 1
        if change.target:
            slots[change.demand.name][change.target, change.flavour] += 1
    each = {name: sorted(found.elements()) for name, found in slots.items()}
    return Plan(
        {name: tuple(host for host, _ in found) for name, found in each.items()},
        0.0,
        flavours={name: tuple(flavour for _, flavour in found) for name, found in each.items()},
    )


def _few(problem: Problem, current: Plan, changes: list[_Change], most: int) -> list[_Change]:
    """Return the first changes that can be made without the others."""
    chosen: list[_Change] = []
    wrong = len(violations(problem, current))
    for change in changes:
        if len(chosen) == most:
            break
        now = len(violations(problem, _after(problem, current, [*chosen, change])))
        if now <= wrong:
            chosen.append(change)
            wrong = now
    return chosen


# --- in which order -----------------------------------------------------------------------------


@dataclass(slots=True)
class _Schedule:
    """Starts what fits, batch by batch, and breaks cycles; keeps what each host holds."""

    problem: Problem
    pace: Pace
    room: Mapping[str, Mapping[str, float]]
    load: dict[str, dict[str, float]]
    placed: dict[str, list[str]]  # where copies run, for the search of spare hosts
    gentle: bool = False
    clock: float = 0.0
    freed: list[tuple[str, Amounts]] = field(default_factory=list)
    leaving: list[tuple[str, str]] = field(default_factory=list)
    busy: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, problem: Problem, current: Plan, pace: Pace, *, gentle: bool) -> "_Schedule":
        load = _loads(problem, current)
        resources = {k for host in problem.hosts for k in host.capacity}
        resources |= {k for amounts in load.values() for k in amounts}
        for demand in problem.demands:
            resources |= {k for f in flavours(demand) for k in need(demand, f, "")}
        room = {
            host.name: {
                k: max(host.room(k), load[host.name].get(k, 0.0)) + ROUNDING for k in resources
            }
            for host in problem.hosts
        }
        placed = {
            demand.name: list(current.hosts.get(demand.name, ())) for demand in problem.demands
        }
        return cls(problem, pace, room, load, placed, gentle)

    def run(self, changes: list[_Change]) -> list[tuple[Action, ...]]:
        """Return the batches; each change learns when it is done, if it can be."""
        pending, batches = list(changes), []
        while pending:
            started = [change for change in pending if self._start(change)]
            if started:
                actions = [self._action(change) for change in started]
                over = {id(change) for change in started}
                pending = [change for change in pending if id(change) not in over]
            elif action := self._unblock(pending):
                actions = [action]
            else:
                break
            batches.append(self._end(actions, started))
        return batches

    def _end(self, actions: list[Action], started: list[_Change]) -> tuple[Action, ...]:
        """Return a batch with its times; what it leaves is free from now on."""
        sending = Counter(
            host for each in actions if each.kind == MIGRATE for host in {each.source, each.target}
        )
        timed = [
            replace(each, seconds=each.seconds * max(sending[each.source], sending[each.target]))
            if each.kind == MIGRATE
            else each
            for each in actions
        ]
        begun = self.clock
        self.clock += max((each.seconds for each in timed), default=0.0)
        for host, amounts in self.freed:
            _add(self.load[host], amounts, -1)
        for demand, host in self.leaving:
            self.placed[demand].remove(host)
        self.freed.clear()
        self.leaving.clear()
        self.busy.clear()
        for number, change in enumerate(started):
            change.done = self.clock
            if change.stopped_at is not None:
                gone = begun + timed[number].seconds - change.stopped_at
                timed[number] = replace(timed[number], down_s=gone)
        return tuple(timed)

    def _start(self, change: _Change) -> bool:
        """Take what a change needs, if all of it is there now; note what it frees in the end."""
        demand, source, target = change.demand, change.source, change.target
        touched = {host for host in (source, target) if host}
        if self.pace.at_once and any(self.busy[host] >= self.pace.at_once for host in touched):
            return False
        old = _need(demand, change.was, source) if source else {}
        new = dict(_need(demand, change.flavour, target)) if target else {}
        if change.kind == RESTART and source == target:  # the old one is gone before the new comes
            new = {k: max(0.0, units - old.get(k, 0.0)) for k, units in new.items()}
            full = _need(demand, change.flavour, target)
            old = {k: old.get(k, 0.0) + new.get(k, 0.0) - full.get(k, 0.0) for k in {**old, **full}}
        if target and not (self._fits(target, new) and self._allowed(change)):
            return False
        if target:
            _add(self.load[target], new, 1)
            self.placed[demand.name].append(target)
        if source:
            self.freed.append((source, old))
            self.leaving.append((demand.name, source))
        self.busy.update(touched)
        return True

    def _allowed(self, change: _Change) -> bool:
        """Return whether the rules let the target take one copy more, if that matters."""
        if not self.gentle or change.target == change.source:
            return True
        ranking = feasible(self.problem, change.demand, self.load, self.placed)
        return change.target in ranking.hosts

    def _fits(self, host: str, amounts: Amounts) -> bool:
        room, load = self.room[host], self.load[host]
        return all(load.get(k, 0.0) + units <= room[k] for k, units in amounts.items())

    def _action(self, change: _Change) -> Action:
        """Return the action of a change; a migration's time is for one that has the network."""
        demand, kind = change.demand, change.kind
        boot_s = self._boot_s(change)
        seconds, down_s = {
            STOP: (self.pace.stop_s, 0.0),
            BOOT: (boot_s, 0.0),
            RESTART: (self.pace.stop_s + boot_s, self.pace.stop_s + boot_s),
            MIGRATE: (self._send_s(demand, change.flavour, change.target), self.pace.switch_s),
        }[kind]
        return Action(
            kind,
            demand.name,
            change.source,
            change.target,
            change.was if change.source else "",
            change.flavour if change.target else "",
            seconds,
            down_s,
            change.why,
        )

    def _send_s(self, demand: Demand, flavour: str, target: str) -> float:
        mib = _need(demand, flavour, target).get(MEMORY, 0.0)
        return mib * MEGABITS_PER_MIB / self.pace.mbps + self.pace.switch_s

    def _boot_s(self, change: _Change) -> float:
        if not change.target:
            return 0.0
        host = next(host for host in self.problem.hosts if host.name == change.target)
        known = {each.name: each for each in flavours(change.demand)}
        own = known[change.flavour].boot_ms
        return (change.demand.boot_ms if own is None else own) * host.boot_factor / 1000

    # --- cycles ---

    def _unblock(self, pending: list[_Change]) -> Action | None:
        """Return the one action that ends a wait of all for all; None if none may be taken."""
        inside = [change for change in pending if change.source and self._awaited(change, pending)]
        if not inside and not self.gentle:
            raise Malformed("wanted", "no order of moves fits, and nothing can be stopped")
        inside.sort(key=lambda change: self._preference(change, pending))
        for change in inside:
            if change.kind == RESTART and not self.gentle:
                return self._stop(change, "killed early to end a cycle")
        for change in inside:
            detours = change.kind == MIGRATE and not change.detoured
            if detours and (spare := self._spare(change, pending)):
                return self._detour(change, spare)
        if self.gentle:
            return None
        return self._stop(inside[0], "stopped for a while to end a cycle: no spare host has room")

    def _awaited(self, change: _Change, pending: list[_Change]) -> bool:
        return any(other.target == change.source for other in pending)

    def _preference(self, change: _Change, pending: list[_Change]) -> tuple[bool, float, str]:
        """Return what makes a change a good one to break a cycle: it helps at once, it is small."""
        old = _need(change.demand, change.was, change.source)
        load = dict(self.load[change.source])
        _add(load, old, -1)
        room = self.room[change.source]
        helps = any(
            all(
                load.get(k, 0.0) + units <= room[k]
                for k, units in _need(other.demand, other.flavour, other.target).items()
            )
            for other in pending
            if other.target == change.source and (other is not change or other.source)
        )
        return not helps, old.get(MEMORY, 0.0), change.demand.name

    def _spare(self, change: _Change, pending: list[_Change]) -> str:
        """Return a host that can take a copy for a while, best one where nobody wants to go."""
        demand = change.demand
        ranking = feasible(self.problem, demand, self.load, self.placed)
        aims = {other.target for other in pending if other.demand is demand}
        awaited = Counter(other.target for other in pending)
        found = [
            host
            for host in ranking.hosts
            if host != change.source
            and host not in aims
            and self._runs(change, host)
            and self._fits(host, _need(demand, change.flavour, host))
        ]
        return min(found, key=lambda host: awaited[host], default="")

    def _runs(self, change: _Change, host: str) -> bool:
        known = {each.name: each for each in flavours(change.demand)}
        return host not in known[change.flavour].unfit

    def _detour(self, change: _Change, spare: str) -> Action:
        demand = change.demand
        action = Action(
            MIGRATE,
            demand.name,
            change.source,
            spare,
            change.was,
            change.flavour,
            self._send_s(demand, change.flavour, spare),
            self.pace.switch_s,
            f"by way of {spare} to end a cycle",
        )
        _add(self.load[spare], _need(demand, change.flavour, spare), 1)
        self._leave(change)
        self.placed[demand.name].append(spare)
        change.source, change.was, change.detoured = spare, change.flavour, True
        change.why = f"from the spare host {spare} on"
        return action

    def _leave(self, change: _Change) -> None:
        """Take a copy from where it runs; what it holds there is free when the step ends."""
        need = _need(change.demand, change.was, change.source)
        self.freed.append((change.source, need))
        self.placed[change.demand.name].remove(change.source)

    def _stop(self, change: _Change, why: str) -> Action:
        demand = change.demand
        action = Action(
            STOP,
            demand.name,
            change.source,
            was=change.was,
            seconds=self.pace.stop_s,
            why=f"{why}; boots at {change.target} later",
        )
        self._leave(change)
        change.source, change.was, change.stopped_at = "", "", self.clock
        change.why = "was stopped to end a cycle"
        return action
