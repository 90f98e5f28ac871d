"""Which idle instances rest where, and how warm? A `WarmProblem` in, a `WarmPlan` out.

A service that nobody asks for may rest on a host cold, saved, paused or ready; each rung holds more
and wakes faster. Beside that, a host may keep anonymous instances of a *boot recipe* (same image,
arguments and size), from which whatever service of that recipe wakes first is made. `plan_warm`
chooses, for each service, one host and rung, and for each recipe and host how many, such that as
few clients as possible wait (`placement.warm.formulas` has the model and its sources). Who builds
the pool, and evicts under pressure by `value`, is the program that asks.
"""

from placement.warm.formulas import value
from placement.warm.problem import (
    COLD,
    PAUSED,
    POOLED,
    READY,
    SAVED,
    Place,
    Recipe,
    Rest,
    Sleeper,
    Spare,
    WarmHost,
    WarmOptions,
    WarmPlan,
    WarmProblem,
    WarmTarget,
)


def plan_warm(problem: WarmProblem, options: WarmOptions | None = None) -> WarmPlan:
    """Return the best warm plan found; see `placement.warm.solving.plan_warm`."""
    from placement.warm import solving  # noqa: PLC0415 - numpy and a solver, only for who solves

    return solving.plan_warm(problem, options)


__all__ = [
    "COLD",
    "PAUSED",
    "POOLED",
    "READY",
    "SAVED",
    "Place",
    "Recipe",
    "Rest",
    "Sleeper",
    "Spare",
    "WarmHost",
    "WarmOptions",
    "WarmPlan",
    "WarmProblem",
    "WarmTarget",
    "plan_warm",
    "value",
]
