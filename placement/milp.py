"""Placement as a mixed integer linear program, proven optimal or within a known gap.

`solve` is for planning in the background, never for the path of a query. The model has one small
function per family of constraints, each opening with its formula; `docs/placement.md` shows the
whole. Variables exist for candidate sites only, so latency bounds and bans need no rows, and no
family needs a big constant. This is the only module that imports pulp.

Notation: d demand, s site, p population, r replicas, q need, C capacity, x[d,s] copy runs, y[s]
site is on, a[p,d,s] share of requests.
"""

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import pulp as _pulp

from placement.candidates import candidates, feasible, hopeless, summary
from placement.objectives import On, Runs, Served, Variable, objective, plan_of
from placement.problem import (
    Infeasible,
    Malformed,
    Options,
    Plan,
    Problem,
    Resources,
    SolverFailed,
    validate,
)

pulp: Any = _pulp  # annotated in part only, and not as its own examples use it

RESOURCES = tuple(each.name for each in fields(Resources))
CBC_BOUND_DIGITS = 0.0005  # CBC prints its bound with three decimals

LE, EQ = pulp.LpConstraintLE, pulp.LpConstraintEQ
Row = tuple[str, list[tuple[Any, float]], int, float]  # name, (variable, coefficient), sense, right


@dataclass(frozen=True, slots=True)
class Model:
    """The variables of one model; `sites` are the candidates of each demand.

    `unplaced` is empty but in the search for a reason why there is no plan, where it counts the
    copies of each demand left without a site.
    """

    problem: Problem
    sites: Mapping[str, tuple[str, ...]]
    lp: Any
    x: dict[Runs, Any]
    y: dict[On, Any]
    a: dict[Served, Any]
    unplaced: dict[str, Any]

    def variable(self, key: Variable) -> Any:
        """Return the variable of a key; with one copy, all requests go to it, so a is x."""
        match key:
            case Runs():
                return self.x[key]
            case On():
                return self.y[key]
            case Served(_, demand, site):
                return self.a[key] if key in self.a else self.x[Runs(demand, site)]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a solver said: has it a solution, has it proven that there is none, and its bound."""

    found: bool
    infeasible: bool
    bound: float | None


def solve(problem: Problem, options: Options) -> Plan:
    """Return the plan of least weighted objective.

    `bound` and `gap` come from the solver itself, not from pulp's status, which says "optimal" for
    whatever was found before the time limit. HiGHS always gives a bound; CBC gives one on proven
    optimality and, in its log, when it stops early; if none is found there they are None.

    Raises:
        Infeasible: proven to have no plan, or none was found in time; the reasons say which.
        Malformed: the problem or the options make no sense.
        SolverFailed: the solver is not installed or could not be run.

    """
    started = perf_counter()
    model, constant = _built(problem, options)
    outcome = _run(model, options)
    if outcome.infeasible:
        raise Infeasible(_clash(problem, options))
    if not outcome.found:
        late = f"no plan was found within {options.time_limit_s:g} s"
        raise Infeasible({demand.name: late for demand in problem.demands})
    bound = None if outcome.bound is None else outcome.bound + constant
    return plan_of(problem, _placed(model), options, algorithm="milp", started=started, bound=bound)


def write_lp(problem: Problem, options: Options, path: Path) -> None:
    """Write the model as CPLEX LP text, for reading and for other solvers.

    Sites and demands appear by their index, since their names may hold what LP text cannot.
    """
    model, _ = _built(problem, options)
    model.lp.writeLP(str(path))


# --- the model ----------------------------------------------------------------------------------


def replicas(model: Model) -> Iterator[Row]:
    """Sum over s of x[d,s] = r[d]."""
    for d, demand in enumerate(model.problem.demands):
        terms = [(model.x[Runs(demand.name, s)], 1.0) for s in model.sites[demand.name]]
        if demand.name in model.unplaced:
            terms.append((model.unplaced[demand.name], 1.0))
        yield f"replicas_d{d}", terms, EQ, demand.replicas


def capacity(model: Model) -> Iterator[Row]:
    """Sum over d of q[d,s,k] * x[d,s] <= C[s,k] * y[s], for each resource k."""
    for s, site in enumerate(model.problem.sites):
        here = [d for d in model.problem.demands if Runs(d.name, site.name) in model.x]
        needs = [(d.name, model.problem.need(d, site.name)) for d in here]
        for resource in RESOURCES:
            terms = [
                (model.x[Runs(name, site.name)], getattr(need, resource)) for name, need in needs
            ]
            terms.append((model.y[On(site.name)], -getattr(site.capacity, resource)))
            yield f"capacity_{resource}_s{s}", terms, LE, 0.0


def site_on(model: Model) -> Iterator[Row]:
    """x[d,s] <= y[s]: tight, and it counts demands that need nothing."""
    for number, (key, x) in enumerate(model.x.items()):
        yield f"on_{number}", [(x, 1.0), (model.y[On(key.site)], -1.0)], LE, 0.0


def apart_from(model: Model) -> Iterator[Row]:
    """Sum over d in D of x[d,s] <= 1, for sets D of demands that are all apart from each other."""
    for number, clique in enumerate(_cliques(model.problem)):
        for s, site in enumerate(model.problem.sites):
            terms = [
                (model.x[Runs(name, site.name)], 1.0)
                for name in clique
                if Runs(name, site.name) in model.x
            ]
            if len(terms) > 1:
                yield f"apart_{number}_s{s}", terms, LE, 1.0


def together_with(model: Model) -> Iterator[Row]:
    """x[d,s] <= x[e,s] for each demand e that d must be together with."""
    for d, demand in enumerate(model.problem.demands):
        for e, other in enumerate(sorted(demand.together_with)):
            for s, site in enumerate(model.sites[demand.name]):
                terms = [(model.x[Runs(demand.name, site)], 1.0)]
                if Runs(other, site) in model.x:
                    terms.append((model.x[Runs(other, site)], -1.0))
                yield f"together_d{d}_{e}_{s}", terms, LE, 0.0


def served(model: Model) -> Iterator[Row]:
    """Sum over s of a[p,d,s] = 1."""
    groups: dict[tuple[str, str], list[tuple[Any, float]]] = {}
    for key, a in model.a.items():
        groups.setdefault((key.population, key.demand), []).append((a, 1.0))
    for number, terms in enumerate(groups.values()):
        yield f"served_{number}", terms, EQ, 1.0


def served_by(model: Model) -> Iterator[Row]:
    """a[p,d,s] <= x[d,s]."""
    for number, (key, a) in enumerate(model.a.items()):
        x = model.x[Runs(key.demand, key.site)]
        yield f"served_by_{number}", [(a, 1.0), (x, -1.0)], LE, 0.0


FAMILIES: dict[str, Callable[[Model], Iterator[Row]]] = {
    "replicas": replicas,
    "capacity": capacity,
    "site_on": site_on,
    "apart_from": apart_from,
    "together_with": together_with,
    "served": served,
    "served_by": served_by,
}


def _built(problem: Problem, options: Options) -> tuple[Model, float]:
    """Return the model with rows and objective, and the objective's constant."""
    validate(problem)
    reasons = hopeless(problem)
    if reasons:
        raise Infeasible(reasons)
    model = _variables(problem)
    weighted = objective(problem, model.sites, options.weights)
    costs: dict[Any, float] = {}
    for key, coefficient in weighted.coefficients.items():
        variable = model.variable(key)
        costs[variable] = costs.get(variable, 0.0) + coefficient
    model.lp.setObjective(pulp.LpAffineExpression(list(costs.items())))
    _constrain(model)
    return model, weighted.constant


def _variables(problem: Problem, *, elastic: bool = False) -> Model:
    lp = pulp.LpProblem("placement", pulp.LpMinimize)
    number = {site.name: s for s, site in enumerate(problem.sites)}
    wanted = {d.name: candidates(problem, d).sites if d.replicas else () for d in problem.demands}
    x = {
        Runs(demand.name, site): lp.add_variable(f"x_d{d}_s{number[site]}", cat=pulp.LpBinary)
        for d, demand in enumerate(problem.demands)
        for site in wanted[demand.name]
    }
    y = {On(name): lp.add_variable(f"y_s{s}", cat=pulp.LpBinary) for name, s in number.items()}
    a = {
        Served(population, demand.name, site): lp.add_variable(
            f"a_p{p}_d{d}_s{number[site]}", lowBound=0.0, upBound=1.0
        )
        for d, demand in enumerate(problem.demands)
        if demand.replicas > 1 and not elastic
        for p, (population, rate) in enumerate(demand.rates.items())
        if rate > 0
        for site in wanted[demand.name]
    }
    unplaced = {
        demand.name: lp.add_variable(f"u_d{d}", 0, demand.replicas, pulp.LpInteger)
        for d, demand in enumerate(problem.demands)
        if elastic
    }
    return Model(problem, wanted, lp, x, y, a, unplaced)


def _constrain(model: Model) -> None:
    for family in FAMILIES.values():
        for name, terms, sense, right in family(model):
            expression = pulp.LpAffineExpression(terms)
            model.lp.addConstraint(pulp.LpConstraint(expression, sense, name, right))


def _cliques(problem: Problem) -> Iterator[tuple[str, ...]]:
    """Yield sets of demands that are mutually apart, which cover every pair that is."""
    apart: dict[str, set[str]] = {demand.name: set() for demand in problem.demands}
    for demand in problem.demands:
        for other in demand.apart_from:
            apart[demand.name].add(other)
            apart[other].add(demand.name)
    covered: set[frozenset[str]] = set()
    for first, others in apart.items():
        for second in sorted(others):
            if frozenset((first, second)) in covered:
                continue
            clique = [first, second]
            for third in sorted(others & apart[second]):
                if apart[third].issuperset(clique):
                    clique.append(third)
            covered.update(frozenset((one, two)) for one in clique for two in clique if one != two)
            yield tuple(clique)


def _placed(model: Model) -> dict[str, list[str]]:
    placed: dict[str, list[str]] = {demand.name: [] for demand in model.problem.demands}
    for key, x in model.x.items():
        if x.value() > 0.5:
            placed[key.demand].append(key.site)
    return placed


def _clash(problem: Problem, options: Options) -> dict[str, str]:
    """Return the demands left over when as many copies as possible are placed, and why."""
    model = _variables(problem, elastic=True)
    model.lp.setObjective(pulp.LpAffineExpression([(u, 1.0) for u in model.unplaced.values()]))
    _constrain(model)
    if not _run(model, options).found:
        return {demand.name: "proven to have no plan" for demand in problem.demands}
    placed = _placed(model)
    used: dict[str, Resources] = {}
    for demand in problem.demands:
        for site in placed[demand.name]:
            used[site] = used.get(site, Resources(0.0, 0.0)) + problem.need(demand, site)
    reasons: dict[str, str] = {}
    for demand in problem.demands:
        missing = demand.replicas - len(placed[demand.name])
        if missing:
            left = feasible(problem, demand, used, placed)
            closed = summary(left.reasons) if left.reasons else "its constraints clash"
            clause = f"{missing} of {demand.replicas} copies find no site beside the others"
            reasons[demand.name] = f"{clause} ({_totals(problem)}{closed})"
    return reasons


def _totals(problem: Problem) -> str:
    """Return a clause for each resource that is short in all, or nothing."""
    clauses = []
    for resource, unit in (("memory_mib", "MiB of memory"), ("cpu", "CPU")):
        need = sum(getattr(d.resources, resource) * d.replicas for d in problem.demands)
        have = sum(getattr(site.capacity, resource) for site in problem.sites)
        if need > have:
            clauses.append(f"{need:g} {unit} demanded in all, {have:g} there; ")
    return "".join(clauses)


# --- the solvers --------------------------------------------------------------------------------


def _run(model: Model, options: Options) -> Outcome:
    """Solve with the wanted solver; a model without variables has nothing to solve."""
    name = options.solver
    if name == "auto":
        name = "highs" if _highs_installed() else "cbc"
    if name not in SOLVERS:
        raise Malformed("solver", f"no solver named {name!r}; known: auto, {', '.join(SOLVERS)}")
    if not options.time_limit_s > 0 or not 0 <= options.gap < math.inf:
        raise Malformed("options", "time_limit_s must be above 0 and gap finite and at least 0")
    if not model.x:
        return Outcome(found=True, infeasible=False, bound=0.0)
    try:
        return SOLVERS[name](model.lp, options)
    except (pulp.PulpSolverError, OSError) as error:
        raise SolverFailed(f"solver {name} could not be run: {error}") from error


def _highs_installed() -> bool:
    return bool(pulp.HiGHS().available())


def _run_highs(lp: Any, options: Options) -> Outcome:
    if not _highs_installed():
        raise SolverFailed("solver highs is not installed: pip install highspy, or use cbc")
    lp.solve(pulp.HiGHS(msg=False, timeLimit=options.time_limit_s, gapRel=options.gap, gapAbs=0.0))
    info = lp.solverModel.getInfo()
    bound = info.mip_dual_bound
    return Outcome(
        found=info.primal_solution_status == 2,  # kSolutionStatusFeasible
        infeasible=lp.status == pulp.LpStatusInfeasible,
        bound=bound if math.isfinite(bound) else None,
    )


def _run_cbc(lp: Any, options: Options) -> Outcome:
    with TemporaryDirectory(prefix="placement-cbc-") as folder:
        log = Path(folder) / "log"
        lp.solve(
            pulp.COIN_CMD(
                path=_cbc_path(),
                msg=False,
                timeLimit=options.time_limit_s,
                gapRel=options.gap,
                logPath=str(log),
            )
        )
        text = log.read_text(errors="replace")
    found = lp.sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)
    bound = None
    if printed := re.search(r"^Lower bound:\s+(\S+)$", text, re.MULTILINE):
        bound = float(printed[1]) - CBC_BOUND_DIGITS
    elif lp.sol_status == pulp.LpSolutionOptimal and "(within gap tolerance)" not in text:
        bound = float(pulp.value(lp.objective))
    return Outcome(found, lp.status == pulp.LpStatusInfeasible, bound)


def _cbc_path() -> str:
    """Return the CBC that pulp brings, or the name of the one on PATH."""
    bundled = str(pulp.PULP_CBC_CMD.pulp_cbc_path)
    return bundled if os.access(bundled, os.X_OK) else "cbc"


SOLVERS: dict[str, Callable[[Any, Options], Outcome]] = {"highs": _run_highs, "cbc": _run_cbc}
