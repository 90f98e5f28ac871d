"""Seeded problems to experiment with: the registry of generators, and how they are called.

A generator is a function of a random source and of parameters that returns an `Instance`: a
problem, and where its nodes lie for drawing. The same name, seed and parameters give the same
instance on every machine. Generators are named here by ``"module:object"`` and loaded when asked
for; `placement.study` and notebooks call `generate`.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import signature
from pathlib import Path
from random import Random
from typing import cast, get_type_hints

from placement.generate.instance import Instance
from placement.problem import Malformed

Value = str | int | float | bool
Generator = Callable[..., Instance]

GENERATORS: dict[str, str] = {
    "uniform": "placement.generate.uniform:uniform",
    "hierarchical": "placement.generate.networks:hierarchical",
    "clos": "placement.generate.networks:clos",
    "waxman": "placement.generate.networks:waxman",
    "topology-zoo": "placement.generate.zoo:topology_zoo",
}

_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def generate(name: str, seed: int, **parameters: Value | Path) -> Instance:
    """Return the instance that a generator makes of a seed; `Malformed` if a parameter is wrong."""
    maker = generator(name)
    return maker(Random(seed), **checked(maker, parameters))  # noqa: S311 - no secret is made of it


def generator(name: str) -> Generator:
    """Return a generator by name; `Malformed` lists the known ones."""
    if name not in GENERATORS:
        known = ", ".join(sorted(GENERATORS))
        raise Malformed("generator", f"no generator named {name!r}; known: {known}")
    module, _, attribute = GENERATORS[name].partition(":")
    return cast(Generator, getattr(import_module(module), attribute))


def checked(function: Callable[..., object], given: Mapping[str, object]) -> dict[str, object]:
    """Return keyword arguments in the types that a function declares.

    Only keyword-only parameters of `function` count. A whole number passes for a number, and a text
    for a path.

    Raises:
        Malformed: a parameter is unknown, missing or of another type.

    """
    hints = get_type_hints(function)
    known = {
        name: each
        for name, each in signature(function).parameters.items()
        if each.kind is each.KEYWORD_ONLY
    }
    for name in given:
        if name not in known:
            raise Malformed(name, f"unknown parameter; known: {', '.join(known) or 'none'}")
    for name, each in known.items():
        if each.default is each.empty and name not in given:
            raise Malformed(name, "missing")
    return {name: _typed(name, value, hints[name]) for name, value in given.items()}


def path_parameters(function: Callable[..., object]) -> frozenset[str]:
    """Return the parameters of a function that name a file."""
    hints = get_type_hints(function)
    return frozenset(name for name in signature(function).parameters if hints.get(name) is Path)


def _typed(name: str, value: object, kind: type) -> object:
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in _WORDS and type(value) is not kind:
        raise Malformed(name, f"must be {_WORDS[kind]}, not {value!r}")
    return value
