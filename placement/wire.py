"""Problems and plans as JSON text.

The JSON mirrors the dataclasses of `placement.problem`: same names, sets as sorted lists, labels
as ``[key, value]`` pairs; and those of `placement.warm.problem`. A rule is an object whose ``rule``
names its kind, such as ``"ban"``.
Reading is strict (an unknown or missing field, a wrong type, NaN are errors that say where) and
is driven by the dataclasses themselves, so a field added there is read and written without a line
here.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from placement.problem import Malformed, Plan, Problem
from placement.rules import Rule
from placement.validate import validate
from placement.warm.problem import WarmPlan, WarmProblem
from placement.warm.validate import validate as validate_warm

T = TypeVar("T")

RULES: Mapping[str, Any] = {kind.kind: kind for kind in get_args(Rule)}


def problem_text(problem: Problem) -> str:
    """Return a problem as JSON."""
    return _text(problem)


def plan_text(plan: Plan) -> str:
    """Return a plan as JSON."""
    return _text(plan)


def read_problem(text: str) -> Problem:
    """Return the problem that JSON text holds; `Malformed` names the field that is wrong."""
    problem = _read(Problem, text)
    validate(problem)
    return problem


def read_plan(text: str) -> Plan:
    """Return the plan that JSON text holds; `Malformed` names the field that is wrong."""
    return _read(Plan, text)


def warm_problem_text(problem: WarmProblem) -> str:
    """Return a warm problem as JSON."""
    return _text(problem)


def warm_plan_text(plan: WarmPlan) -> str:
    """Return a warm plan as JSON."""
    return _text(plan)


def read_warm_problem(text: str) -> WarmProblem:
    """Return the warm problem that JSON text holds; `Malformed` names the field that is wrong."""
    problem = _read(WarmProblem, text)
    validate_warm(problem)
    return problem


def read_warm_plan(text: str) -> WarmPlan:
    """Return the warm plan that JSON text holds; `Malformed` names the field that is wrong."""
    return _read(WarmPlan, text)


def _text(value: Problem | Plan | WarmProblem | WarmPlan) -> str:
    return json.dumps(_encoded(value), indent=2, ensure_ascii=False, allow_nan=False)


def _encoded(value: object) -> object:
    if is_dataclass(value):
        kind = getattr(value, "kind", None)
        tag = {"rule": kind} if kind in RULES else {}
        return tag | {each.name: _encoded(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {key: _encoded(value[key]) for key in value}
    if isinstance(value, frozenset):
        return [_encoded(each) for each in sorted(value)]  # of texts, or of pairs of texts
    if isinstance(value, tuple):
        return [_encoded(each) for each in value]
    return value


def _read(kind: type[T], text: str) -> T:
    try:
        value = json.loads(
            text, parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates
        )
    except Malformed:
        raise
    except RecursionError:
        raise Malformed("", "JSON is nested too deeply") from None
    except ValueError as error:  # not JSON, or an integer of thousands of digits
        raise Malformed("", f"not JSON: {error}") from error
    return cast(T, _decoded(kind, value, ""))


def _refuse_constant(name: str) -> float:
    raise Malformed("", f"{name} is not a number in JSON")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Malformed(twice, "is there twice in one object")
    return found


def _decoded(kind: Any, value: Any, path: str) -> object:
    """Return a JSON value as an annotated type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind == Rule:
        return _rule(value, path)
    if isinstance(kind, UnionType):
        chosen = next(each for each in arguments if each is not NoneType)
        return None if value is None else _decoded(chosen, value, path)
    if is_dataclass(kind):
        return _object(kind, value, path)
    if origin is Mapping:
        return {
            _text_of(key, path): _decoded(arguments[1], each, f"{path}.{key}")
            for key, each in _typed(value, dict, path, "an object").items()
        }
    if origin in (tuple, frozenset):
        return _sequence(origin, arguments, value, path)
    return _scalar(kind, value, path)


def _rule(value: Any, path: str) -> object:
    given = dict(_typed(value, dict, path, "an object"))
    name = given.pop("rule", None)
    if not isinstance(name, str) or name not in RULES:
        raise Malformed(f"{path}.rule", f"no rule named {name!r}; known: {', '.join(RULES)}")
    return _object(RULES[name], given, path)


@cache
def _hints(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _object(kind: Any, value: Any, path: str) -> object:
    given = _typed(value, dict, path, "an object")
    known = {each.name: each for each in fields(kind)}
    hints = _hints(kind)
    prefix = f"{path}." if path else ""
    for name in given:
        if name not in known:
            raise Malformed(f"{prefix}{name}", f"unknown field; known: {', '.join(known)}")
    for name, each in known.items():
        if name not in given and each.default is MISSING and each.default_factory is MISSING:
            raise Malformed(f"{prefix}{name}", "missing")
    return kind(**{n: _decoded(hints[n], each, f"{prefix}{n}") for n, each in given.items()})


def _sequence(origin: Any, arguments: tuple[Any, ...], value: Any, path: str) -> object:
    items = _typed(value, list, path, "a list")
    kinds = arguments
    if origin is frozenset or arguments[-1] is Ellipsis:
        kinds = (arguments[0],) * len(items)
    if len(kinds) != len(items):
        raise Malformed(path, f"must have {len(kinds)} items, has {len(items)}")
    return origin(
        _decoded(kind, each, f"{path}[{index}]")
        for index, (kind, each) in enumerate(zip(kinds, items, strict=True))
    )


def _scalar(kind: type, value: Any, path: str) -> object:
    if kind is str:
        return _text_of(value, path)
    if kind is bool:
        return _typed(value, bool, path, "true or false")
    if isinstance(value, bool):
        raise Malformed(path, f"must be a number, not {value}")
    if kind is int:
        return _typed(value, int, path, "a whole number")
    try:
        return float(_typed(value, (int, float), path, "a number"))
    except OverflowError:
        raise Malformed(path, "is too large a number") from None


def _text_of(value: Any, path: str) -> str:
    text = cast(str, _typed(value, str, path, "a text"))
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Malformed(path, f"{text!a} has half a character, which no file can hold") from None
    return text


def _typed(value: Any, kind: type | tuple[type, ...], path: str, what: str) -> Any:
    if not isinstance(value, kind):
        raise Malformed(path, f"must be {what}, not {type(value).__name__}")
    return value
