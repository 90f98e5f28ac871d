"""What a study is: instances, algorithms, metrics, limits; read from YAML or made in Python.

`Study.read` is strict: it reports every mistake with file, line and field, before anything runs.
A list of values for a parameter is a grid: each value is tried with each value of the others. A
list as one value is written as a list in a list.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import ErrorDetails

from placement.generate import checked, generator, path_parameters
from placement.generate.churn import churn
from placement.problem import Malformed
from placement.study import seam
from placement.study.errors import Mistake, StudyFileError
from placement.study.instances import READERS, Case
from placement.study.text import Where, dotted, read

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,59}")
MOST_SEEDS = 100_000
COLUMNS = (
    "value",
    "bound",
    "gap",
    "above_best",
    "seconds",
    "build_s",
    "wall_s",
    "cpu_s",
    "max_rss_mib",
    "hosts_on",
    "migrations",
    "restarts",
    "unserved",
)

_VALUE = {"type": ["string", "number", "boolean", "object"]}
_GRID = {"type": "object", "additionalProperties": {"anyOf": [_VALUE, {"type": "array"}]}}


def _grid(value: object) -> object:
    """Make every parameter a list of the values to try."""
    if not isinstance(value, dict):
        raise ValueError("must be a mapping (parameter: value, or a list of values)")  # noqa: TRY004
    empty = [name for name, each in value.items() if each in ([], None, "")]
    if empty:
        raise ValueError(f"{empty[0]} has no value: give one, or remove the key")
    return {name: each if isinstance(each, list) else [each] for name, each in value.items()}


def _seeds(value: object) -> object:
    """Make a count of seeds, which means those from 0 on, a list."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MOST_SEEDS:
            raise ValueError(f"must be 1 to {MOST_SEEDS} seeds, or a list of them")
        return list(range(value))
    return value


def _label(value: object) -> object:
    if not isinstance(value, str) or not LABEL.fullmatch(value):
        raise ValueError("must be 1 to 60 of letters, digits and _.+-, and start with no mark")
    return value


Grid = Annotated[dict[str, list[Any]], BeforeValidator(_grid), WithJsonSchema(_GRID)]
Seeds = Annotated[
    list[int],
    BeforeValidator(_seeds),
    Field(min_length=1),
    WithJsonSchema(
        {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]}
    ),
]
Label = Annotated[str, BeforeValidator(_label)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Instances(_Strict):
    """Instances of one kind: a generator over a grid and seeds, or files and how to read them."""

    generator: str = Field("", description="A generator: uniform, hierarchical, clos, ...")
    parameters: Grid = Field({}, description="The generator's parameters; a list is a grid.")
    seeds: Seeds = Field([0], description="How many seeds (from 0 on), or a list of them.")
    files: list[str] = Field([], description="Files of instances, relative to the study file.")
    reader: str = Field("json", description="How files are read: json, or module:object.")
    churn: Grid | None = Field(None, description="Replay arrivals, departures, moves, failures.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.generator) == bool(self.files):
            raise ValueError("needs a generator or files, and not both")
        if self.files and self.parameters:
            raise ValueError("parameters are for a generator, and files have none")
        return self


class Algorithm(_Strict):
    """An algorithm and the grid of its parameters."""

    algorithm: str = Field("", description="Name, module:object or file.py:object; default: label.")
    parameters: Grid = Field({}, description="Options and keyword arguments; a list is a grid.")


class Study(_Strict):
    """A whole study; see docs/study.md for what each key means."""

    name: Label
    instances: dict[Label, Instances] = Field(min_length=1)
    algorithms: dict[Label, Algorithm] = Field(min_length=1)
    metrics: list[str] = Field(["value", "gap", "seconds"], min_length=1)
    repetitions: int = Field(1, ge=1, description="Runs with another seed of the algorithm.")
    seed: int = Field(0, description="Where the algorithms' seeds come from.")
    deadline_s: float = Field(60.0, gt=0, description="A run is ended after so many seconds.")
    memory_mib: int = Field(4096, ge=64, description="What one run may allocate.")
    workers: int = Field(1, ge=1, description="Runs at the same time.")
    executor: str = Field("local", description="local, or dask://host:port.")
    baseline: str = Field("", description="The algorithm that the others are tested against.")
    scale_by: str = Field("", description="The instance parameter of the scaling curve.")
    pareto: list[str] = Field([], description="Two metrics: the axes of the Pareto front.")
    _folder: Path = PrivateAttr(default=Path())

    @classmethod
    def read(cls, path: Path | str) -> "Study":
        """Return the study of a YAML file; StudyFileError has all its mistakes."""
        path = Path(path)
        data, lines = read(path)
        if not isinstance(data, dict):
            raise StudyFileError([Mistake(1, "", "must be a mapping (key: value)")], path)
        try:
            study = cls.model_validate({"name": path.stem, **data})
        except ValidationError as error:
            found = [_mistake(each, lines) for each in error.errors(include_url=False)]
            raise StudyFileError(found, path) from error
        study._folder = path.parent
        study.check(path, lines)
        return study

    def check(self, path: Path | None = None, lines: Mapping[Where, int] | None = None) -> None:
        """Raise StudyFileError if names or parameters make no sense."""
        found = [
            Mistake(_line(where, lines or {}), dotted(where), message)
            for where, message in _senseless(self)
        ]
        if found:
            raise StudyFileError(found, path)

    def cases(self) -> Iterator[Case]:
        """Yield every instance, in the order of the file."""
        for label, entry in self.instances.items():
            for changes in combinations(entry.churn or {}):
                churned = changes if entry.churn is not None else None
                for file in entry.files:
                    for seed in entry.seeds if churned is not None else [0]:
                        yield Case(
                            label,
                            seed=seed,
                            reader=entry.reader,
                            file=str(self.located(file)),
                            churn=churned,
                        )
                if entry.generator:
                    named = path_parameters(generator(entry.generator))
                    for parameters in combinations(entry.parameters):
                        for key in named & parameters.keys():
                            parameters[key] = str(self.located(parameters[key]))
                        for seed in entry.seeds:
                            yield Case(label, entry.generator, parameters, seed, churn=churned)

    def solvers(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield label, name and parameters of every variant of every algorithm."""
        for label, entry in self.algorithms.items():
            name = self.plug_in(entry.algorithm or label)
            for parameters in combinations(entry.parameters):
                varied = {k: v for k, v in parameters.items() if len(entry.parameters[k]) > 1}
                yield labelled(label, varied), name, parameters

    def located(self, file: str) -> Path:
        """Return a file that is named relative to the study file."""
        return (self._folder / file).absolute()

    def plug_in(self, name: str) -> str:
        """Return an algorithm's name with the file of a plug-in where it lies."""
        file = seam.plug_in_file(name)
        return f"{self.located(str(file))}:{name.rpartition(':')[2]}" if file else name


def study_schema() -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of a study file, for editors."""
    schema = Study.model_json_schema()
    schema["required"] = ["instances", "algorithms"]
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, **schema, "title": "edgewake study file"}


def combinations(grid: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Yield every choice of one value per parameter; one empty choice of an empty grid."""
    for values in product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def labelled(label: str, varied: Mapping[str, Any]) -> str:
    """Return a label with the parameters that distinguish a variant."""
    told = ", ".join(f"{key}={shown(value)}" for key, value in varied.items())
    return f"{label} ({told})" if told else label


def shown(value: object) -> str:
    """Return a parameter's value as a short text."""
    if isinstance(value, dict):
        return "+".join(f"{each:g} {key}" for key, each in value.items() if each)
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- what is wrong --------------------------------------------------------------------------------

_MESSAGES = {
    "missing": "is missing, and required",
    "extra_forbidden": "unknown key",
    "value_error": "{error}",
    "list_type": "must be a list, such as [a, b]",
    "dict_type": "must be a mapping (key: value)",
    "model_type": "must be a mapping (key: value)",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "too_short": "must not be empty",
}


def _mistake(details: ErrorDetails, lines: Mapping[Where, int]) -> Mistake:
    where = tuple(part for part in details["loc"] if part != "[key]")
    message = _MESSAGES.get(details["type"], details["msg"]).format_map(details.get("ctx", {}))
    if details["type"] == "extra_forbidden":
        message += f"; known: {', '.join(_keys_at(where[:-1]))}"
    return Mistake(_line(where, lines), dotted(where), message)


def _keys_at(where: Where) -> Iterable[str]:
    kinds: dict[str, type[BaseModel]] = {"instances": Instances, "algorithms": Algorithm}
    return (kinds[str(where[0])] if where else Study).model_fields


def _line(where: Where, lines: Mapping[Where, int]) -> int:
    while where and where not in lines:
        where = where[:-1]
    return lines.get(where, 0)


def _senseless(study: Study) -> Iterator[tuple[Where, str]]:
    for label, entry in study.instances.items():
        for key, message in _of_instances(study, entry):
            yield ("instances", label, *key), message
    for label, algorithm in study.algorithms.items():
        for key, message in _of_algorithm(study, label, algorithm):
            yield ("algorithms", label, *key), message
    metrics = tuple(dict.fromkeys((*COLUMNS, *seam.terms())))
    for field, chosen in (("metrics", study.metrics), ("pareto", study.pareto)):
        for index, name in enumerate(chosen):
            if name not in metrics:
                yield (field, index), f"no metric named {name!r}; known: {', '.join(metrics)}"
    yield from _of_names(study)


def _of_names(study: Study) -> Iterator[tuple[Where, str]]:
    variants = [label for label, _, _ in study.solvers()]
    if study.baseline and study.baseline not in variants:
        yield ("baseline",), f"no algorithm {study.baseline!r}; there are: {', '.join(variants)}"
    varied = {key for entry in study.instances.values() for key in entry.parameters}
    if study.scale_by and study.scale_by not in varied:
        there = ", ".join(sorted(varied)) or "none"
        yield ("scale_by",), f"no instance has the parameter {study.scale_by!r}; there are: {there}"
    if len(study.pareto) not in {0, 2}:
        yield ("pareto",), "must name two metrics"
    if study.executor != "local" and not re.fullmatch(r"dask://[^/\s]+:\d+", study.executor):
        yield ("executor",), f"must be local or dask://host:port, not {study.executor!r}"


def _of_algorithm(study: Study, label: str, entry: Algorithm) -> Iterator[tuple[Where, str]]:
    name = study.plug_in(entry.algorithm or label)
    try:
        for parameters in combinations(entry.parameters):
            seam.check_algorithm(name, parameters)
    except Malformed as error:
        where: Where = ("parameters", *error.field.split("."))
        if error.field == "algorithm":
            where = ("algorithm",) if entry.algorithm else ()
        yield where, str(error).removeprefix(f"{error.field}: ")


def _of_instances(study: Study, entry: Instances) -> Iterator[tuple[Where, str]]:
    try:
        if entry.generator:
            maker = generator(entry.generator)
            for parameters in combinations(entry.parameters):
                checked(maker, parameters)
    except Malformed as error:
        where = ("generator",) if error.field == "generator" else ("parameters", error.field)
        yield where, str(error).removeprefix(f"{error.field}: ")
    try:
        for changes in combinations(entry.churn or {}):
            checked(churn, changes)
    except Malformed as error:
        yield ("churn", error.field), str(error).removeprefix(f"{error.field}: ")
    if entry.files and entry.reader not in READERS and ":" not in entry.reader:
        known = ", ".join(READERS)
        yield ("reader",), f"no reader named {entry.reader!r}; known: {known}, or module:object"
    for index, file in enumerate(entry.files):
        if not study.located(file).is_file():
            yield ("files", index), f"there is no file {study.located(file)}"
