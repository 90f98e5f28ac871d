"""`edgewake study`: carry out a study of placement algorithms, and write its report.

Works by itself: no edgewake has to run. docs/study.md has the study file, `placement.study` does
the work; here are options and words.
"""

# ruff: noqa: PLC0415 - as in orchestrator.cli: what a command needs is imported by it

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.errors import EdgewakeError, InstallationError, LabError

if TYPE_CHECKING:
    from placement.study import Study


def study(  # noqa: PLR0917 - typer declares options as arguments
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A study file.")],
    to: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Results folder; default: beside FILE, named like it."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at the same time, instead of the file's.")
    ] = None,
    executor: Annotated[
        str, typer.Option(metavar="WHERE", help="local, or dask://host:port.")
    ] = "",
    retry: Annotated[
        bool, typer.Option("--retry", help="Do runs again that ended without a plan.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check FILE and count its runs.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Compare placement algorithms: run every combination, and write a report.

    A study that was interrupted goes on where it was. The folder gets a table of all runs (CSV and
    Parquet), figures (SVG and PNG) and report.md. Needs the extra edgewake[study].
    """
    from placement.study import Study
    from placement.study.runs import spelled_out

    with in_our_words():
        wanted = Study.read(file)
        folder = to or file.with_suffix("")
        if dry_run:
            runs = Counter(each.columns["algorithm"] for each in spelled_out(wanted))
            answer: dict[str, object] = {"study": wanted.name, "runs": dict(runs)}
            lines = [f"{count:>7} runs of {name}" for name, count in runs.items()]
        else:
            answer = _carried_out(wanted, folder, workers, executor, retry=retry)
            counts = "{runs} runs: {done} done now, {found} found done, {failed} without a plan"
            lines = [f"{wanted.name}: {counts.format_map(answer)}", f"report: {answer['report']}"]
    typer.echo(json.dumps(answer, indent=2) if as_json else "\n".join(lines))


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog="Example: edgewake study examples/studies/heuristics.yaml")(study)


def _carried_out(
    wanted: "Study", folder: Path, workers: int | None, executor: str, *, retry: bool
) -> dict[str, object]:
    from dataclasses import asdict

    from placement.study import report, run
    from placement.study.extras import check
    from placement.study.progress import shown

    check()  # rather before an hour of runs than after it
    with shown(wanted.name) as progress:
        outcome = run(
            wanted, folder, workers=workers, executor_at=executor, retry=retry, progress=progress
        )
    return {"study": wanted.name, **asdict(outcome), "report": str(report(folder))}


@contextmanager
def in_our_words() -> Iterator[None]:
    """Turn the library's errors into those that have an exit code."""
    from placement.study.errors import MissingExtra, StudyError, StudyFileError

    try:
        yield
    except StudyFileError as error:
        raise LabError(str(error)) from error
    except MissingExtra as error:
        raise InstallationError(str(error)) from error
    except StudyError as error:
        raise EdgewakeError(str(error)) from error
