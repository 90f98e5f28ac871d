"""Wakes as CSV: one line each, columns that are documented, files that end."""

import csv
from pathlib import Path

import pytest

from orchestrator.errors import EdgewakeError
from orchestrator.trace import STAGES, Wake
from orchestrator.trace_csv import COLUMNS, CsvFile, row

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
TWICE = Wake(
    id=4,
    service="web",
    started_at=1_000.5,
    stamps=(
        *(("query", 0.0), ("claimed", 0.001), ("failed", 0.5), ("claimed", 0.6)),
        *(("define", 0.7), ("answer", 0.9), ("reply", 0.95), ("client", 2.0)),
    ),
    outcome="ready",
    host='a "b", c',
    queries=2,
)


def cells(wake: Wake) -> dict[str, str]:
    return dict(zip(COLUMNS, row(wake), strict=True))


def test_a_row_has_seconds_and_the_last_time_of_each_stage() -> None:
    told = cells(TWICE)
    assert (told["id"], told["started_at"], told["queries"]) == ("4", "1000.5", "2")
    assert (told["total_s"], told["claimed_at_s"]) == ("0.950000", "0.600000")
    assert (told["start_at_s"], told["client_at_s"]) == ("", "2.000000")
    parts = [float(told[f"{owner}_s"]) for owner in ("ours", "hypervisor", "guest")]
    assert sum(parts) == pytest.approx(0.95)


def test_the_columns_are_documented() -> None:
    facts = [column for column in COLUMNS if not column.endswith("_at_s")]
    assert all(f"`{column}`" in PAGE for column in facts)
    assert all(f"`{stage}`" in PAGE for stage in STAGES)


def test_a_file_grows_over_restarts_and_is_begun_anew_when_it_is_large(tmp_path: Path) -> None:
    file = tmp_path / "wakes.csv"
    for _ in range(2):
        out = CsvFile(file)
        out(TWICE)
        out.close()
    with file.open(newline="") as lines:
        read = list(csv.DictReader(lines))
    assert [each["host"] for each in read] == ['a "b", c'] * 2
    out = CsvFile(file, largest=file.stat().st_size)
    out(TWICE)
    out.close()
    old = tmp_path / "wakes.csv.1"
    assert len(old.read_text().splitlines()) == 3
    assert file.read_text().splitlines()[0] == ",".join(COLUMNS)
    assert len(file.read_text().splitlines()) == 2


def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "letters.csv"
    for content in (b"to,from\nme,you\n", b"\xff\xfe\x00"):
        file.write_bytes(content)
        with pytest.raises(EdgewakeError, match=str(file)):
            CsvFile(file)
        assert file.read_bytes() == content
    with pytest.raises(EdgewakeError, match="cannot be written there"):
        CsvFile(tmp_path / "gone" / "wakes.csv")


def test_a_file_that_cannot_be_put_aside_goes_on_when_it_can(tmp_path: Path) -> None:
    file, aside = tmp_path / "wakes.csv", tmp_path / "wakes.csv.1"
    out = CsvFile(file)
    out(TWICE)
    out.close()
    aside.mkdir()  # in the way, as a full disk would be
    out = CsvFile(file, largest=file.stat().st_size)
    for _ in range(2):
        with pytest.raises(IsADirectoryError):
            out(TWICE)
    aside.rmdir()
    out(TWICE)
    out.close()
    assert [len(each.read_text().splitlines()) for each in (aside, file)] == [2, 2]
