"""Where the data of a file are, and copies that keep its holes."""

import errno
import os
from pathlib import Path

import pytest

from orchestrator.hypervisors import sparse
from orchestrator.hypervisors.sparse import copy, extents, file_size

MIB = 2**20


def file_of(path: Path, size: int, *data: tuple[int, int]) -> Path:
    """Make a file of `size` MiB with data at these (offset, length), in MiB, and holes between."""
    with path.open("wb") as file:
        file.truncate(size * MIB)
        for at, length in data:
            file.seek(at * MIB)
            file.write(os.urandom(length * MIB))
    return path


@pytest.mark.parametrize(
    ("size", "data"),
    [
        (0, []),
        (3, []),
        (3, [(0, 3)]),
        (9, [(0, 1), (3, 2)]),
        (9, [(2, 1), (8, 1)]),
    ],
)
def test_data_are_found_and_copied_and_holes_stay(
    tmp_path: Path, size: int, data: list[tuple[int, int]]
) -> None:
    path = file_of(tmp_path / "file", size, *data)
    assert file_size(path) == size * MIB
    assert list(extents(path)) == [(at * MIB, (at + length) * MIB) for at, length in data]
    made = tmp_path / "made"
    copy(path, made)
    assert made.read_bytes() == path.read_bytes()
    assert made.stat().st_blocks <= path.stat().st_blocks
    assert made.stat().st_mode & 0o777 == 0o600


def test_small_holes_count_as_data(tmp_path: Path) -> None:
    path = file_of(tmp_path / "file", 20, (0, 1), (3, 1), (9, 1), (12, 1))
    found = [(at // MIB, end // MIB) for at, end in extents(path, least_hole=3 * MIB)]
    assert found == [(0, 4), (9, 13)]


@pytest.mark.parametrize(("begin", "first"), [(1, (1, 2)), (3, (5, 6)), (6, None), (9, None)])
def test_what_is_before_the_beginning_is_left_out(
    tmp_path: Path, begin: int, first: tuple[int, int] | None
) -> None:
    path = file_of(tmp_path / "file", 8, (0, 2), (5, 1))
    found = next(extents(path, begin * MIB), None)
    assert found == (first and (first[0] * MIB, first[1] * MIB))


def test_where_holes_are_not_known_of_all_is_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file_of(tmp_path / "file", 4, (1, 1))
    seek = os.lseek

    def block_device(file: int, offset: int, whence: int) -> int:
        if whence in {os.SEEK_DATA, os.SEEK_HOLE}:
            raise OSError(errno.EINVAL, "Invalid argument")
        return seek(file, offset, whence)

    monkeypatch.setattr(sparse.os, "lseek", block_device)
    assert list(extents(path)) == [(0, 4 * MIB)]


def test_a_copy_replaces_what_was_there(tmp_path: Path) -> None:
    path, made = file_of(tmp_path / "file", 1, (0, 1)), tmp_path / "made"
    made.write_bytes(bytes(2 * MIB))
    copy(path, made)
    assert made.read_bytes() == path.read_bytes()


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sparse, "_cloned", lambda _source, _target: False)
    monkeypatch.setattr(sparse.os, "sendfile", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/made'"):
        copy(file_of(tmp_path / "file", 1, (0, 1)), tmp_path / "made")
