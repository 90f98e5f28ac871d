"""Warm pools: what the exact and the greedy way save, how long they take, how far apart they are.

Instances are those of `placement.warm.generate`: hosts with room for 30 % of all services at once,
four rungs on each, services as popular as Zipf's law has it. With recipes, every second service is
of one of them.

    python -m benchmarks.placement_warm                  (some minutes)
    python -m benchmarks.placement_warm --deadline 300
"""

import argparse
from time import perf_counter

from rich.console import Console
from rich.table import Table

from placement.warm import WarmOptions, WarmPlan, WarmProblem, plan_warm
from placement.warm.arrays import compile_warm
from placement.warm.generate import warm_problem
from placement.warm.greedy import greedy

SIZES = ((10, 100, 0), (10, 100, 4), (100, 1_000, 0), (100, 1_000, 10))  # hosts, services, recipes


def timed(problem: WarmProblem, options: WarmOptions) -> tuple[WarmPlan, float]:
    """Return a plan and the seconds it took."""
    since = perf_counter()
    return plan_warm(problem, options), perf_counter() - since


def row(hosts: int, services: int, recipes: int, seed: int, deadline_s: float) -> list[str]:
    """Return the line of one instance."""
    problem = warm_problem(seed, hosts=hosts, services=services, recipes=recipes)
    cold = plan_warm(problem.cold(), WarmOptions(algorithm="greedy")).value
    since = perf_counter()
    arrays = compile_warm(problem)
    built = perf_counter()
    greedy(arrays)
    ended = perf_counter()
    quick, _ = timed(problem, WarmOptions(algorithm="greedy", deadline_s=deadline_s))
    exact, took = timed(problem, WarmOptions(algorithm="exact", deadline_s=deadline_s, gap=0.001))
    return [
        f"{hosts}x{services}, {recipes} recipes",
        f"{arrays.pairs}",
        f"{built - since:.2f}",
        f"{ended - built:.2f}",
        f"{took:.1f}",
        f"{cold:.4f}",
        f"{quick.value:.4f}",
        f"{exact.value:.4f}",
        f"{exact.gap:.2%}",
        f"{quick.value / exact.value - 1:.1%}",
        f"{(cold - quick.value) / (cold - exact.value):.1%}",
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deadline", type=float, default=30.0, help="seconds of the exact way")
    parser.add_argument("--up-to", type=int, default=100, help="hosts of the largest instance")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    heads = ("instance", "pairs", "arrays s", "greedy s", "exact s", "cold", "greedy", "exact")
    table = Table(*heads, "exact gap", "greedy above exact", "saved of what exact saves")
    for hosts, services, recipes in SIZES:
        if hosts <= chosen.up_to:
            table.add_row(*row(hosts, services, recipes, chosen.seed, chosen.deadline))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
