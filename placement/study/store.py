"""A results folder: one small file per finished run, and the list of all runs.

``runs/ID.json`` is written whole under another name and then renamed, so that a kill at any instant
leaves a run either finished or not begun. ``study.json`` lists the runs of the study in their order
with their first columns. Folders of one study from several machines are put together by copying
their ``runs``.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from placement.study.errors import FolderInUse, StudyError
from placement.study.runs import Run

MANIFEST = "study.json"


@dataclass(frozen=True, slots=True)
class Store:
    """The results in a folder."""

    folder: Path

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder, which a second process then may not use; FolderInUse if one does."""
        try:
            (self.folder / "runs").mkdir(parents=True, exist_ok=True)
            lock = (self.folder / ".lock").open("w")
        except OSError as error:
            raise StudyError(f"{self.folder} cannot be written: {error.strerror}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FolderInUse(f"another study writes to {self.folder}") from None
            yield

    def plan(self, study: Mapping[str, Any], runs: Sequence[Run], here: Mapping[str, Any]) -> None:
        """Write which runs there are to be, of which instances, and where they are carried out."""
        document = {
            "study": study,
            "cases": {run.columns["case"]: run.task["case"] for run in runs},
            "runs": [{"id": run.id, **run.columns} for run in runs],
            "environment": here,
        }
        _write(self.folder / MANIFEST, document)

    def write(self, run: str, result: Mapping[str, Any]) -> None:
        """Write a finished run."""
        _write(self._part(run), result)

    def result(self, run: str) -> dict[str, Any] | None:
        """Return what a run gave; None if it is not finished."""
        try:
            found: dict[str, Any] = json.loads(self._part(run).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:  # the disk was full, or the machine lost power
            return None
        return found

    def manifest(self) -> dict[str, Any]:
        """Return the study and the list of its runs; StudyError if the folder has none."""
        path = self.folder / MANIFEST
        try:
            read: dict[str, Any] = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise StudyError(f"{path} is not the list of a study's runs: {error}") from error
        return read

    def rows(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield the first columns and the result of every finished run, in the study's order."""
        for columns in self.manifest()["runs"]:
            if (result := self.result(columns["id"])) is not None:
                yield columns, result

    def _part(self, run: str) -> Path:
        return self.folder / "runs" / f"{run}.json"


def _write(path: Path, document: Mapping[str, Any]) -> None:
    new = path.with_suffix(f".{os.getpid()}.new")
    new.write_text(json.dumps(document, separators=(",", ":")) + "\n")
    new.replace(path)
