"""The archive writer against a reader that is not ours."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.build import cpio

TREE = (
    cpio.directory("a"),
    cpio.file("a/text", b"hello\n"),
    cpio.file("a/run", b"#!/bin/sh\n", executable=True),
    cpio.Entry("a/link", stat.S_IFLNK | 0o777, b"text"),
    cpio.character_device("a/null", 1, 3),
    cpio.file("empty", b""),
)


def a_cpio_program() -> list[str]:
    if shutil.which("cpio"):
        return ["cpio"]
    if shutil.which("busybox"):
        return ["busybox", "cpio"]
    pytest.fail("neither cpio nor busybox is installed; run `make setup`")


def test_a_cpio_program_lists_every_entry() -> None:
    listed = subprocess.run(
        [*a_cpio_program(), "-t"], input=cpio.archive(TREE), capture_output=True, check=True
    )
    assert listed.stdout.decode().split() == [entry.path for entry in TREE]


def test_a_cpio_program_extracts_what_was_put_in(tmp_path: Path) -> None:
    tree = [entry for entry in TREE if not stat.S_ISCHR(entry.mode)]  # nodes would need root
    subprocess.run(
        [*a_cpio_program(), "-i", "-d"],
        input=cpio.archive(tree),
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert (tmp_path / "a/text").read_bytes() == b"hello\n"
    assert (tmp_path / "a/link").readlink().name == "text"
    assert (tmp_path / "a/run").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "empty").read_bytes() == b""


def test_same_entries_same_bytes() -> None:
    assert cpio.archive(TREE) == cpio.archive(list(TREE))


def read_back(packed: bytes) -> list[tuple[str, bytes]]:
    """Walk an archive as the kernel does: each header says how long name and data are."""
    found: list[tuple[str, bytes]] = []
    at = 0
    while True:
        assert packed[at : at + 6] == b"070701"
        fields = [int(packed[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        size, name_size = fields[6], fields[11]
        name = packed[at + 110 : at + 110 + name_size - 1].decode()
        data_at = (at + 110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found.append((name, packed[data_at : data_at + size]))
        at = (data_at + size + 3) // 4 * 4


@given(st.dictionaries(st.text("abc\u03b1", min_size=1), st.binary(max_size=9), max_size=5))
def test_any_files_are_read_back(files: dict[str, bytes]) -> None:
    packed = cpio.archive(cpio.file(name, data) for name, data in files.items())
    assert read_back(packed) == list(files.items())
    assert len(packed) % 4 == 0


@pytest.mark.parametrize("path", ["", "/etc/passwd", "a"])
def test_absolute_empty_and_repeated_paths_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="absolute, empty or repeated"):
        cpio.archive([cpio.directory("a"), cpio.file(path, b"")])
