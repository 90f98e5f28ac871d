"""Where should each service run? A pure library: a `Problem` in, a `Plan` out.

``from placement import Problem, Host, Demand, Options, solve, rules`` is all a notebook needs to
begin. Everything else that this page names is loaded when it is first used, so that importing the
nouns costs neither numpy nor a solver. What has the name of its module is taken from there, as
``from placement import generate, migration, repair, study``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from placement import rules
from placement.problem import (
    Chain,
    Demand,
    Flavour,
    Host,
    Infeasible,
    Link,
    Malformed,
    Options,
    Plan,
    Problem,
    Slice,
    SolverFailed,
    Traffic,
)

if TYPE_CHECKING:
    from placement import (
        explain,
        fronts,
        generate,
        instances,
        migration,
        partition,
        repair,
        study,
        warm,
        wire,
    )
    from placement.check import violations
    from placement.evaluate import UNITS
    from placement.front import ParetoFront
    from placement.fronts import (
        Payoff,
        augmecon,
        exact_front,
        nsga2_front,
        payoff,
        weighted,
    )
    from placement.ladder.climb import Step, climb
    from placement.online import Online
    from placement.registry import Algorithm
    from placement.registry import names as algorithms
    from placement.study import Study

LATER: dict[str, str] = {  # name: where it is; what is a module stands for itself
    "Algorithm": "placement.registry:Algorithm",
    "Online": "placement.online:Online",
    "ParetoFront": "placement.front:ParetoFront",
    "Payoff": "placement.fronts:Payoff",
    "Step": "placement.ladder.climb:Step",
    "Study": "placement.study:Study",
    "UNITS": "placement.evaluate:UNITS",
    "algorithms": "placement.registry:names",
    "augmecon": "placement.fronts:augmecon",
    "climb": "placement.ladder.climb:climb",
    "exact_front": "placement.fronts:exact_front",
    "explain": "placement.explain",
    "fronts": "placement.fronts",
    "generate": "placement.generate",
    "instances": "placement.instances",
    "migration": "placement.migration",
    "nsga2_front": "placement.fronts:nsga2_front",
    "partition": "placement.partition",
    "payoff": "placement.fronts:payoff",
    "repair": "placement.repair",
    "study": "placement.study",
    "violations": "placement.check:violations",
    "warm": "placement.warm",
    "weighted": "placement.fronts:weighted",
    "wire": "placement.wire",
}


def solve(problem: Problem, options: Options | None = None) -> Plan:
    """Return the best plan found; see `placement.solving.solve`."""
    from placement import solving  # noqa: PLC0415 - numpy and a solver, only for who solves

    return solving.solve(problem, options)


def __getattr__(name: str) -> Any:
    """Load what is asked for by name (PEP 562)."""
    if name not in LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = LATER[name].partition(":")
    found = import_module(module)
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted({*globals(), *LATER})


__all__ = [
    "UNITS",
    "Algorithm",
    "Chain",
    "Demand",
    "Flavour",
    "Host",
    "Infeasible",
    "Link",
    "Malformed",
    "Online",
    "Options",
    "ParetoFront",
    "Payoff",
    "Plan",
    "Problem",
    "Slice",
    "SolverFailed",
    "Step",
    "Study",
    "Traffic",
    "algorithms",
    "augmecon",
    "climb",
    "exact_front",
    "explain",
    "fronts",
    "generate",
    "instances",
    "migration",
    "nsga2_front",
    "partition",
    "payoff",
    "repair",
    "rules",
    "solve",
    "study",
    "violations",
    "warm",
    "weighted",
    "wire",
]
