"""From what a study file says of an instance to the problem itself.

A `Case` is one instance as plain values, the same in every process; `build` makes the problem of
it. Files are known by their content: a file that has changed is another instance.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any, cast

from placement.generate import generate, generator, path_parameters
from placement.generate.churn import Epoch, churn
from placement.generate.instance import Instance
from placement.problem import Malformed, Problem
from placement.wire import read_problem

Reader = Callable[[Path], Problem | Instance]


def read_json(path: Path) -> Problem:
    """Return the problem of a file that `placement.wire` wrote."""
    return read_problem(path.read_text(encoding="utf-8"))


READERS: dict[str, str] = {"json": "placement.study.instances:read_json"}


@dataclass(frozen=True, slots=True)
class Case:
    """One instance: a generator with parameters and a seed, or a reader with a file.

    `churn` is None without churn, else its parameters.
    """

    label: str
    generator: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    reader: str = ""
    file: str = ""
    churn: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """A case as problems: `epochs` is empty without churn."""

    instance: Instance
    epochs: tuple[Epoch, ...] = ()


def build(case: Case) -> Built:
    """Return the problem of a case.

    Raises:
        Malformed: a parameter or the file makes no sense.
        OSError: the file cannot be read.

    """
    if case.generator:
        instance = generate(case.generator, case.seed, **case.parameters)
    else:
        read = reader(case.reader)(Path(case.file))
        instance = read if isinstance(read, Instance) else Instance(read)
    if case.churn is None:
        return Built(instance)
    rng = Random(f"churn {case.seed}")  # noqa: S311 - no secret is made of it
    return Built(instance, churn(rng, instance, **case.churn))


def reader(name: str) -> Reader:
    """Return a reader by name or by ``module:object``; `Malformed` lists the known ones."""
    target = READERS.get(name, name)
    module, _, attribute = target.partition(":")
    if not attribute:
        known = ", ".join(sorted(READERS))
        raise Malformed("reader", f"no reader named {name!r}; known: {known}, or module:object")
    return cast(Reader, getattr(import_module(module), attribute))


def files(case: Case) -> list[Path]:
    """Return the files a case depends on."""
    if not case.generator:
        return [Path(case.file)]
    named = path_parameters(generator(case.generator))
    return [Path(value) for key, value in sorted(case.parameters.items()) if key in named]


def content(case: Case) -> dict[str, Any]:
    """Return what makes a case itself, wherever its files lie: the same in every folder."""
    hidden = {str(path) for path in files(case)}
    parameters = {key: value for key, value in case.parameters.items() if str(value) not in hidden}
    return {
        "generator": case.generator,
        "parameters": parameters,
        "seed": case.seed,
        "reader": case.reader,
        "churn": case.churn,
        "files": [sha256(path.read_bytes()).hexdigest() for path in files(case)],
    }
