"""Where a study touches the rest of the library: algorithms, options, plans and the judge.

An algorithm is anything with a `name` and ``solve(problem, options) -> Plan``. It is named as in
the library's registry, as ``module:object``, or as ``file.py:object``; the object is an algorithm,
or a function of problem and options. Its plans are completed (terms, value, bound, gap) as
`placement.solve` does it. Everything else of the study asks only this page.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from hashlib import sha256
from importlib import import_module, util
from inspect import signature
from pathlib import Path
from typing import Any, Protocol

from placement import check, registry
from placement.evaluate import UNITS
from placement.problem import Infeasible, Malformed, Options, Plan, Problem
from placement.solving import answer, check_question
from placement.validate import check_options

NoPlan = Infeasible


class Algorithm(Protocol):
    """What a study runs."""

    @property
    def name(self) -> str:
        """What it is called in the table."""

    def solve(self, problem: Problem, options: Options) -> Plan:
        """Return a plan, or raise `NoPlan`."""


@dataclass(frozen=True, slots=True)
class Named:
    """A function as an algorithm."""

    name: str
    solve: Callable[[Problem, Options], Plan]


def names() -> tuple[str, ...]:
    """Return the names of the registry."""
    return registry.names()


def terms() -> tuple[str, ...]:
    """Return the terms of an objective, which are columns of a study's table."""
    return tuple(UNITS)


def plug_in_file(name: str) -> Path | None:
    """Return the file of ``file.py:object``, and nothing for another kind of name."""
    file = name.rpartition(":")[0]
    return Path(file) if file.endswith(".py") else None


def check_algorithm(name: str, parameters: Mapping[str, Any]) -> None:
    """Refuse what can be told before any run: names, options, and what the library's own take.

    No code of a plug-in is run: that is for its own processes.

    Raises:
        Malformed: there is no such algorithm, file or object in it, or a parameter makes no sense.

    """
    if name in registry.names():
        algorithm(name, parameters, seed=0)
    elif ":" not in name:
        raise _unknown(name)
    elif file := plug_in_file(name):
        _check_file(file, name.rpartition(":")[2])
    check_options(options(parameters, seed=0, deadline_s=1.0), UNITS)


def _check_file(file: Path, attribute: str) -> None:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise Malformed("algorithm", f"there is no file {file}") from error
    if "import *" not in text and not re.search(rf"\b{re.escape(attribute)}\b", text):
        raise Malformed("algorithm", f"{file} has no {attribute!r}")


def _unknown(name: str) -> Malformed:
    known = ", ".join(names())
    return Malformed("algorithm", f"no algorithm named {name!r}; known: {known}, or module:object")


def code_hash(name: str) -> str:
    """Return the SHA-256 of a plug-in's file; empty for what is installed, which has a version."""
    file = plug_in_file(name)
    return sha256(file.read_bytes()).hexdigest() if file else ""


def preload(name: str) -> None:
    """Import what any run needs, so that processes forked later have it."""
    for module in ("placement.exact", "placement.solvers.highs", "placement.pricing", "highspy"):
        if util.find_spec(module.partition(".")[0]):
            import_module(module)
    if name in registry.names():
        registry.algorithm(name).load()


def algorithm(name: str, parameters: Mapping[str, Any], seed: int) -> Algorithm:
    """Return an algorithm that is given parameters, other than options, and a seed if it takes one.

    Raises:
        Malformed: there is no such algorithm, or it takes no such parameter.

    """
    listed = registry.algorithm(name) if name in registry.names() else None
    found: Any = listed.load() if listed else _plug_in(name)
    solve = getattr(found, "solve", found)
    taken = signature(solve).parameters
    anything = any(each.kind is each.VAR_KEYWORD for each in taken.values())
    given = {key: value for key, value in parameters.items() if key not in _option_names()}
    for key in given:
        if key not in taken and not anything:
            allowed = ", ".join((*_option_names(), *list(taken)[2:]))
            raise Malformed(key, f"{name} takes no such parameter; known: {allowed}")
    if "seed" in taken:
        given.setdefault("seed", seed)
    called = getattr(found, "name", name)
    return Named(called, partial(_solved, listed, called, partial(solve, **given)))


def _solved(
    listed: registry.Algorithm | None,
    name: str,
    function: registry.Function,
    problem: Problem,
    options: Options,
) -> Plan:
    check_question(problem, options)
    if listed:
        registry.refuse(listed, problem, options)
    return answer(function, problem, options, name=name)[0]


def options(parameters: Mapping[str, Any], *, seed: int, deadline_s: float) -> Options:
    """Return the options among the parameters, with one thread, a seed and a limit if not given."""
    wanted: dict[str, Any] = {"deadline_s": deadline_s, "threads": 1, "seed": seed}
    for key, value in parameters.items():
        if key in _option_names():
            wanted[key] = tuple(value) if isinstance(value, list) else value
    return Options(**wanted)


def placed(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Return the hosts of each demand, one per copy."""
    return dict(plan.hosts)


def trace(plan: Plan) -> list[list[float]]:
    """Return when a search found what: seconds, value and bound of each moment that it kept."""
    return [[each.seconds, each.value, each.bound] for each in plan.trace]


def violations(problem: Problem, plan: Plan) -> tuple[str, ...]:
    """Return what the independent judge finds wrong with a plan."""
    return check.violations(problem, plan)


def left_out(error: Infeasible) -> frozenset[str]:
    """Return the demands for which there is no place."""
    return frozenset(error.reasons)


def _option_names() -> tuple[str, ...]:
    """Return the options that a study file can give."""
    return tuple(each.name for each in fields(Options) if each.name not in {"algorithm", "start"})


def _plug_in(name: str) -> Any:
    where, _, attribute = name.rpartition(":")
    if not where:
        raise _unknown(name)
    file = plug_in_file(name)
    module = import_module(where) if file is None else _loaded(file)
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise Malformed("algorithm", f"{where} has no {attribute!r}") from None


def _loaded(file: Path) -> Any:
    spec = util.spec_from_file_location(f"study_plug_in_{file.stem}", file)
    if spec is None or spec.loader is None or not file.exists():
        raise Malformed("algorithm", f"there is no file {file}")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
