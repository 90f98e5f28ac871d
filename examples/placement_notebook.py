"""A tour of the placement library, cell by cell, as in a notebook.

Editors that know ``# %%`` run it cell by cell; ``python examples/placement_notebook.py`` runs it
all in some seconds. It needs the extra ``edgewake[study]``, and writes to the folder ``notebook``
where it is run.
"""

# ruff: noqa: T201 - a notebook prints

# %% A problem: here of a generator; also by hand, from JSON (`wire`), files (`instances`), a graph
from dataclasses import replace

from placement import (
    Online,
    Options,
    Study,
    climb,
    exact_front,
    explain,
    generate,
    migration,
    repair,
    rules,
    solve,
    study,
    violations,
    weighted,
)

problem = generate.generate("waxman", seed=7, nodes=14, services=12, utilisation=0.4).problem
print(f"{len(problem.hosts)} hosts, {len(problem.demands)} demands")

# %% The best plan, with what is proven of it; and why a service is where it is
best = solve(problem, Options(deadline_s=20, gap=0.01))
print(f"value {best.value:.3f}, none is below {best.bound:.3f}, gap {best.gap:.2%}")
service = problem.demands[0].name
for copy in explain.explain(problem, best, service):
    print(copy)

# %% Rules: a must excludes, a wish costs
ban = rules.Ban(frozenset({service}), frozenset({best.hosts[service][0]}))
ruled = replace(problem, rules=(ban,))
elsewhere = solve(ruled, Options(deadline_s=20, gap=0.01))
print(f"{service} moves from {best.hosts[service]} to {elsewhere.hosts[service]}")

# %% Every algorithm takes the same problem, and an independent judge looks at every plan
for name in ("first-fit", "greedy-latency", "simulated-annealing", "ladder"):
    plan = solve(problem, Options(algorithm=name, deadline_s=3))
    assert not violations(problem, plan)  # noqa: S101 - the point of the cell
    print(f"{name:20} {plan.value:8.3f}  {plan.value / best.value - 1:6.1%} above the best")

# %% The ladder, step by step: what is drawn as a gap over time
for step in climb(problem, Options(deadline_s=5)):
    print(f"{step.seconds:6.3f} s  {step.rung:15} value {step.value:.3f}  bound {step.bound:.3f}")

# %% Two objectives: the exact front, its knee, and one weighted sum on a common scale
front = exact_front(problem, ("latency_ms", "energy_w"), Options(deadline_s=20))
print(f"{len(front.plans)} points, proven: {front.proven}, hypervolume {front.hypervolume():.3f}")
knee = front.knee()
print(f"knee: {knee.terms['latency_ms']:.2f} ms, {knee.terms['energy_w']:.1f} W")
even = weighted(problem, {"latency_ms": 0.5, "energy_w": 0.5}, Options(deadline_s=20))
print(f"even: {even.terms['latency_ms']:.2f} ms, {even.terms['energy_w']:.1f} W")

# %% One copy more, now
online = Online(problem, best)
print(f"one copy more of {service} goes to {online.place_one(service)}")

# %% A host fails: repair moves as little as it can, and the moves are put in an order that fits
lost = best.hosts[service][0]
after = replace(
    problem,
    hosts=tuple(host for host in problem.hosts if host.name != lost),
    current={name: tuple(h for h in hosts if h != lost) for name, hosts in best.hosts.items()},
)
mended = repair.repair(after, Options(deadline_s=10))
moves = migration.migration(after, mended)
print(f"{lost} fails: {len(moves.actions)} actions in {len(moves.batches)} batches")

# %% An experiment: every combination is run, again and again until all is done
network = {
    "generator": "waxman",
    "parameters": {"nodes": [8, 12], "services": 8},
    "seeds": 2,
}
small = Study.model_validate(
    {
        "name": "notebook",
        "instances": {"network": network},
        "algorithms": {
            "greedy-latency": {},
            "nearest": {},
            "ladder": {"parameters": {"gap": 0.01}},
        },
        "baseline": "greedy-latency",
        "deadline_s": 30,
    }
)
outcome = study.run(small, "notebook")
table = study.load("notebook")
print(table.groupby("algorithm")[["value", "gap"]].mean().round(3))
print(f"{outcome.runs} runs, {outcome.failed} without a plan; {study.report('notebook')}")
