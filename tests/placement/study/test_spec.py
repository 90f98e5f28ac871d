"""Study files: what they mean, and how every mistake in them is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from placement.study import Study
from placement.study.errors import StudyFileError
from placement.study.runs import spelled_out
from placement.study.spec import study_schema

FILE = """\
name: small
instances:
  flat:
    generator: uniform
    parameters: {hosts: [5, 10], services: 20, utilisation: [0.3, 0.6]}
    seeds: 3
  busy: {generator: clos, churn: {epochs: 5, moves: [0.1, 0.5]}, seeds: [7]}
algorithms:
  exact: {parameters: {gap: [0.01, 1e-1]}}
  quick: {algorithm: first-fit}
repetitions: 2
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(FILE)
    return path


def test_a_study_is_every_combination(file: Path) -> None:
    runs = list(spelled_out(Study.read(file)))
    cases = {run.columns["case"] for run in runs}
    assert len(cases) == 2 * 2 * 3 + 2
    assert len(runs) == len(cases) * 3 * 2
    assert len({run.id for run in runs}) == len(runs)
    assert {run.columns["algorithm"] for run in runs} == {
        "exact (gap=0.01)",
        "exact (gap=0.1)",
        "quick",
    }


def test_algorithms_share_instances_and_seeds_and_stand_together(file: Path) -> None:
    runs = list(spelled_out(Study.read(file)))
    for first in range(0, len(runs), 3):
        three = runs[first : first + 3]
        assert len({(run.columns["case"], run.task["seed"]) for run in three}) == 1
    assert len({run.task["seed"] for run in runs}) == len(runs) / 3


def test_a_run_is_known_by_what_it_depends_on_and_not_by_names(file: Path) -> None:
    def ids(text: str) -> set[str]:
        file.write_text(text)
        return {run.id for run in spelled_out(Study.read(file))}

    before = ids(FILE)
    assert ids(FILE.replace("flat:", "other:").replace("quick:", "fast:")) == before
    assert ids(FILE.replace("seeds: 3", "seeds: 4")) > before
    assert not ids(FILE + "seed: 5\n") & before
    assert not ids(FILE + "deadline_s: 5\n") & before


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    def ids(folder: Path, text: str) -> set[str]:
        folder.mkdir(exist_ok=True)
        (folder / "a.json").write_text(text)
        (folder / "alg.py").write_text("x = 1\n")
        path = folder / "s.yaml"
        path.write_text(
            "instances: {f: {files: [a.json]}}\nalgorithms: {a: {algorithm: 'alg.py:x'}}\n"
        )
        return {run.id for run in spelled_out(Study.read(path))}

    assert ids(tmp_path / "one", "{}") == ids(tmp_path / "two", "{}")
    assert ids(tmp_path / "one", "{ }") != ids(tmp_path / "two", "{}")


def test_no_path_of_this_machine_is_in_the_columns(tmp_path: Path) -> None:
    graph = tmp_path / "g.graphml"
    graph.write_text("")
    path = tmp_path / "s.yaml"
    path.write_text(
        "instances: {z: {generator: topology-zoo, parameters: {graph: g.graphml}}}\n"
        "algorithms: {first-fit: {}}\n"
    )
    (run,) = spelled_out(Study.read(path))
    assert str(tmp_path) not in json.dumps(dict(run.columns))
    assert run.columns["instance.graph"] == "g.graphml"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("generator: uniform", "generator: unifrom", "4: instances.flat.generator: no generator"),
        ("hosts: [5, 10]", "hosts: [5, ten]", "5: instances.flat.parameters.hosts: must be a who"),
        ("hosts: [5, 10]", "host: 5", "5: instances.flat.parameters.host: unknown parameter"),
        ("hosts: [5, 10]", "hosts: []", "5: instances.flat.parameters: hosts has no value"),
        ("seeds: 3", "seeds: 0", "6: instances.flat.seeds: must be 1 to 100000 seeds"),
        ("seeds: 3", "seeds: many", "6: instances.flat.seeds: must be a list"),
        ("seeds: 3", "seed: 3", "6: instances.flat.seed: unknown key; known: generator, "),
        ("seeds: 3", "files: [a.json]", "3: instances.flat: needs a generator or files"),
        ("epochs: 5", "epoch: 5", "7: instances.busy.churn.epoch: unknown parameter"),
        ("epochs: 5", "epochs: 1.5", "7: instances.busy.churn.epochs: must be a whole number"),
        ("first-fit", "fist-fit", "10: algorithms.quick.algorithm: no algorithm named 'fist-fit'"),
        ("first-fit", "'alg.py:fits'", "10: algorithms.quick.algorithm: "),
        (
            "gap:",
            "gapp:",
            "9: algorithms.exact.parameters.gapp: exact takes no such parameter; kno",
        ),
        ("[0.01, 1e-1]", "[0.01, -1]", "9: algorithms.exact.parameters.gap: must be a number, at"),
        ("gap: [0.01, 1e-1]", "solver: cplex", "9: algorithms.exact.parameters.solver: no solver"),
        (
            "gap: [0.01, 1e-1]",
            "weights: {joy: 1}",
            "9: algorithms.exact.parameters.weights.joy: no such term: 'joy'",
        ),
        ("quick:", "quick one:", "10: algorithms.quick one: must be 1 to 60 of letters"),
        ("first-fit", "'gone.py:f'", "10: algorithms.quick.algorithm: there is no file"),
        ("repetitions: 2", "repetitions: 2.5", "11: repetitions: must be a whole number"),
        ("repetitions: 2", "baseline: exact", "11: baseline: no algorithm 'exact'; there are: ex"),
        ("repetitions: 2", "metrics: [coffee]", "11: metrics[0]: no metric named 'coffee'"),
        ("repetitions: 2", "pareto: [value]", "11: pareto: must name two metrics"),
        ("repetitions: 2", "scale_by: nodes", "11: scale_by: no instance has the parameter"),
        ("repetitions: 2", "executor: moon", "11: executor: must be local or dask://host:port"),
        ("repetitions: 2", "deadline_s: -1", "11: deadline_s: "),
        ("repetitions: 2", "memory_mib: 1", "11: memory_mib: "),
        ("repetitions: 2", "repetition: 2", "11: repetition: unknown key; known: name, instances"),
        ("repetitions: 2", "name: again", "11: name: is written twice; the first is in line 1"),
        ("repetitions: 2", "metrics: &a [value]", "11: not valid YAML: anchors are not supported"),
        ("repetitions: 2", "metrics: !a [value]", "11: not valid YAML: tags are not supported"),
        ("repetitions: 2", "\tx: 1", "11: not valid YAML"),
        ("repetitions: 2", "? [a]\n: b", "11: a key must be a plain word"),
    ],
)
def test_a_mistake_is_told_with_line_and_field(file: Path, old: str, new: str, told: str) -> None:
    assert old in FILE
    file.with_name("alg.py").write_text("def fit(problem, options): ...\n")
    file.write_text(FILE.replace(old, new))
    with pytest.raises(StudyFileError) as caught:
        Study.read(file)
    assert str(caught.value).startswith(f"{file}:{told}")
    assert len(caught.value.mistakes) == 1


def test_all_mistakes_are_told_at_once(file: Path) -> None:
    file.write_text(FILE.replace("seeds: 3", "seed: 3").replace("repetitions: 2", "coffee: 1"))
    with pytest.raises(StudyFileError) as caught:
        Study.read(file)
    assert [mistake.line for mistake in caught.value.mistakes] == [6, 11]


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", ":1: is empty"),
        (b"- a\n", ":1: must be a mapping"),
        (b"a: \xff\n", ":1: is not UTF-8 text"),
        (b"x" * (1 << 21), ": is larger than 1 MiB"),
        (b"[" * 100, ":1: not valid YAML: nested more than 12 levels deep"),
        (b"name: a\n", ":1: instances: is missing, and required"),
    ],
)
def test_a_file_that_is_no_study(tmp_path: Path, raw: bytes, told: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(raw)
    with pytest.raises(StudyFileError) as caught:
        Study.read(path)
    assert f"{path}{told}" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="cannot be read: No such file"):
        Study.read(tmp_path / "gone.yaml")


def test_numbers_are_those_of_yaml_1_2_and_no_is_a_word(file: Path) -> None:
    file.write_text(FILE.replace("name: small", "name: no").replace("1e-1", "1e-3"))
    read = Study.read(file)
    assert read.name == "no"
    assert read.algorithms["exact"].parameters["gap"] == [0.01, 0.001]


def test_a_study_made_in_python_is_checked_when_it_is_run(study: Any) -> None:
    wrong = study({"first-fit": {}}, baseline="best-fit")
    with pytest.raises(StudyFileError, match=r"^baseline: no algorithm 'best-fit'"):
        wrong.check()


def test_the_schema_has_every_key_with_what_it_is_for() -> None:
    schema: Any = study_schema()
    assert set(schema["properties"]) == set(Study.model_fields)
    assert schema["required"] == ["instances", "algorithms"]
    entries = schema["$defs"]["Instances"]["properties"]
    assert all(each["description"] for each in entries.values())
    assert {"type": "array", "items": {"type": "integer"}} in entries["seeds"]["anyOf"]
