"""Wakes as CSV: one line per wake, for spreadsheets and data frames; and a file that grows.

`COLUMNS` is what docs/operations.md describes. For `edgewake trace --csv` and `edgewake up
--trace-csv`.
"""

import csv
from pathlib import Path

from orchestrator.errors import EdgewakeError
from orchestrator.trace import STAGES, Owner, Wake

FACTS = (
    "id",
    "service",
    "started_at",
    "outcome",
    "rung",
    "host",
    "instance",
    "decided_by",
    "queries",
)
OWNERS = (Owner.OURS, Owner.HYPERVISOR, Owner.GUEST)
STAMPED = tuple(stage for stage in STAGES if stage != "query")
COLUMNS = (
    *FACTS,
    "total_s",
    *(f"{owner}_s" for owner in OWNERS),
    *(f"{stage}_at_s" for stage in STAMPED),
)
LONGEST_HEAD = 4096  # characters of a first line that are looked at
LARGEST = 64 << 20  # bytes of a file before the next one is begun


def row(wake: Wake) -> list[str]:
    """Return the cells of a wake, in the order of `COLUMNS`.

    A stage that was not reached is empty; of one that was reached on several hosts in turn, the
    last time counts.
    """
    reached = dict(wake.stamps)
    times = [wake.total_s, *(wake.spent_s(owner) for owner in OWNERS)]
    return [
        *(str(getattr(wake, fact)) for fact in FACTS),
        *(f"{seconds:.6f}" for seconds in times),
        *(f"{reached[stage]:.6f}" if stage in reached else "" for stage in STAMPED),
    ]


class CsvFile:
    """Appends wakes to a file. At `largest` bytes it is renamed to ``NAME.1``, and begun anew.

    So two files are kept at most. Call it from one thread at a time.
    """

    def __init__(self, path: Path, *, largest: int = LARGEST) -> None:
        """Open the file. Raises EdgewakeError if it cannot be written, or is not one of ours."""
        self._path = path
        self._largest = largest
        try:
            first = _first_line(path)
            self._file = path.open("a", newline="", encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EdgewakeError(
                f"{path}: the traces cannot be written there: {error}",
                hint="name a new file in a folder that this user may write to",
            ) from error
        if not first:
            self._begin()

    def __call__(self, wake: Wake) -> None:
        """Append a wake. Raises OSError if that cannot be done."""
        if self._file.closed or self._file.tell() >= self._largest:
            self._turn()
        csv.writer(self._file, lineterminator="\n").writerow(row(wake))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _turn(self) -> None:
        """Put the file aside and begin the next one; where that fails, the next wake tries it."""
        self._file.close()
        if self._path.exists() and self._path.stat().st_size >= self._largest:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        self._file = self._path.open("a", newline="", encoding="utf-8")
        if not self._file.tell():
            self._begin()

    def _begin(self) -> None:
        csv.writer(self._file, lineterminator="\n").writerow(COLUMNS)
        self._file.flush()


def _first_line(path: Path) -> str:
    """Return the first line of a file of ours; empty if there is none yet."""
    if not path.exists() or not path.stat().st_size:
        return ""
    with path.open(encoding="utf-8", newline="") as file:
        first = file.readline(LONGEST_HEAD).rstrip("\r\n")
    if first != ",".join(COLUMNS):
        raise EdgewakeError(
            f"{path}: the file has other columns than the traces of this edgewake",
            hint="name another file, or move this one away",
        )
    return first
