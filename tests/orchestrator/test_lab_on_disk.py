"""Whether a lab file that is read again is wanted, or the lab in use, as a table of cases."""

import os
from pathlib import Path

import pytest

from orchestrator.lab_on_disk import Known, is_on_disk, kept_instead, known
from orchestrator.store.base import LabVersion, Stored

HERE, THERE = "/etc/lab.yaml", "/home/ann/lab.yaml"


def _known(on_disk: int, *versions: tuple[str, str, str]) -> Known | None:
    """Return what is known after versions: who applied each, from which path, with what text."""
    kept = [LabVersion(n, 1.0, *version) for n, version in enumerate(versions, 1)]
    return known(Stored(lab_on_disk=on_disk), kept)


BY_FILE, BY_API = ("", HERE, "a"), ("ann", HERE, "b")

CASES: dict[str, tuple[Known | None, str, bool | None]] = {
    "the first one": (_known(0), "a", None),
    "no change": (_known(1, BY_FILE), "a", None),
    "a change of the file": (_known(1, BY_FILE), "c", None),
    "a change over the API": (_known(1, BY_FILE, BY_API), "a", False),
    "two, the second from elsewhere": (
        _known(1, BY_FILE, BY_API, ("ann", THERE, "d")),
        "a",
        False,
    ),
    "a change of both": (_known(1, BY_FILE, BY_API), "c", True),
    "the same change of both": (_known(1, BY_FILE, BY_API), "b", None),
    "the same but for the ends of lines": (
        _known(1, BY_FILE, ("ann", HERE, "b\n")),
        "b\r\n",
        None,
    ),
    "another file was applied": (_known(1, ("", THERE, "a"), ("ann", THERE, "b")), "a", None),
    "going from file to file": (_known(2, BY_FILE, ("", THERE, "b")), "a", None),
    "put from here, never as the file": (_known(1, ("", THERE, "x"), BY_API), "a", True),
    "only over the API": (_known(0, BY_API), "a", True),
    "from an older edgewake, by file": (_known(0, BY_FILE), "c", None),
    "from an older edgewake, by API": (_known(0, BY_FILE, BY_API), "a", True),
    "applied too long ago to be kept": (_known(77, BY_API), "a", True),
}


@pytest.mark.parametrize(("before", "text", "conflict"), CASES.values(), ids=CASES)
def test_what_stays(before: Known | None, text: str, conflict: bool | None) -> None:
    kept = kept_instead(text, Path(HERE), before)
    assert (kept and kept.conflict) == conflict
    if kept and before:
        assert kept.version == before.in_use
        assert ", by ann: " in kept.why or ", by ann, " in kept.why


def test_the_file_is_where_the_lab_came_from() -> None:
    elsewhere = ("ann", THERE, "d")
    found = _known(1, BY_FILE, elsewhere), _known(0, elsewhere)
    assert [str(each.file) for each in found if each] == [HERE, THERE]


def test_only_a_file_is_read(tmp_path: Path) -> None:
    file, pipe = tmp_path / "lab.yaml", tmp_path / "pipe"
    file.write_bytes(b"a: 1\r\n")
    os.mkfifo(pipe)
    assert is_on_disk("a: 1\n", file)
    assert not is_on_disk("a: 2\n", file)
    assert not is_on_disk("", pipe)
    assert not is_on_disk("", tmp_path / "none")
    assert not is_on_disk("", Path("x" * 5000))
