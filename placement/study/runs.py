"""A study spelled out: one `Run` per instance, algorithm, parameters and repetition.

A run is known by the hash of all that its result depends on, so that a folder of finished runs can
be taken up again, and folders of several machines put together, without a database.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from placement.study import seam
from placement.study.instances import Case, content, files
from placement.study.spec import Study, labelled

ID_DIGITS = 24  # hexadecimal, of a SHA-256: 96 bits


@dataclass(frozen=True, slots=True)
class Run:
    """One row to be.

    `columns` are the row's first columns; `task` is all that a worker process is told, as JSON can
    carry it. Two runs of the same `case` are comparable: a pair.
    """

    id: str
    columns: Mapping[str, Any]
    task: Mapping[str, Any]


def spelled_out(study: Study) -> Iterator[Run]:
    """Yield every run of a study; algorithms of one instance and repetition stand together.

    All algorithms get the same seeds (common random numbers).
    """
    solvers = [(*each, seam.code_hash(each[1])) for each in study.solvers()]
    for case in study.cases():
        facts = content(case)
        known_as = _digest(facts)
        for repetition in range(study.repetitions):
            seed = int(_digest([study.seed, facts, repetition])[:8], 16)
            for label, name, parameters, code in solvers:
                limits = {"deadline_s": study.deadline_s, "memory_mib": study.memory_mib}
                told = [code, name.rpartition(":")[2]] if code else name
                identity = [facts, told, parameters, seed, limits, package_version()]
                yield Run(
                    _digest(identity),
                    {
                        "study": study.name,
                        "instance": case.label,
                        "case": known_as,
                        "seed": case.seed,
                        "repetition": repetition,
                        "algorithm": label,
                        **_prefixed("instance", _told(case)),
                        **_prefixed("algorithm", parameters),
                    },
                    {
                        "case": asdict(case),
                        "algorithm": name,
                        "parameters": parameters,
                        "seed": seed,
                        **limits,
                    },
                )


def instance_label(columns: Mapping[str, Any], varied: list[str]) -> str:
    """Return how an instance is called in tables: its label, and the parameters that vary."""
    there = {key.partition(".")[2]: columns[key] for key in varied if columns.get(key) is not None}
    return labelled(str(columns["instance"]), there)


@cache
def package_version() -> str:
    """Return edgewake's version; empty when this package was copied and not installed."""
    try:
        return version("edgewake")
    except PackageNotFoundError:
        return ""


def _told(case: Case) -> dict[str, Any]:
    """Return what is told of a case; of files only the name, since the path is the machine's."""
    changes = {f"churn.{key}": value for key, value in (case.churn or {}).items()}
    told = {**({"file": case.file} if case.file else {}), **case.parameters, **changes}
    paths = {str(path) for path in files(case)}
    return {k: Path(str(v)).name if str(v) in paths else v for k, v in told.items()}


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{prefix}.{key}": json.dumps(value) if isinstance(value, dict | list) else value
        for key, value in values.items()
    }


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()[:ID_DIGITS]
