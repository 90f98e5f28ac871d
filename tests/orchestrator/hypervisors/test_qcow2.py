"""The qcow2 that overlays are made of. QEMU's own verdict is in `test_libvirt_depot`."""

import struct
from pathlib import Path

import pytest

from images.qcow2_header import NotQcow2
from orchestrator.hypervisors.qcow2 import disk_size, empty_overlay, leans_on


def overlay(folder: Path, size: int, backing: str = "/images/base") -> Path:
    path = folder / "overlay.qcow2"
    path.write_bytes(b"".join(empty_overlay(backing, "raw", size)))
    return path


@pytest.mark.parametrize(
    ("size", "shown", "length"),
    [
        (2**20, 2**20, 4 * 2**16),
        (2**20 + 1, 2**20 + 512, 4 * 2**16),
        (0, 0, 4 * 2**16),
        (4 * 2**40, 4 * 2**40, 4 * 2**16),  # the most that one cluster of L1 entries maps
        (4 * 2**40 + 512, 4 * 2**40 + 512, 5 * 2**16),
        (2**51, 2**51, 515 * 2**16),  # the most that QEMU opens
    ],
)
def test_an_overlay_is_as_large_as_its_backing_and_small_on_disk(
    tmp_path: Path, size: int, shown: int, length: int
) -> None:
    path = overlay(tmp_path, size)
    assert disk_size(path, "qcow2") == shown
    assert path.stat().st_size == length


def test_an_overlay_names_its_backing_file_and_that_ones_format(tmp_path: Path) -> None:
    path = overlay(tmp_path, 2**20, "/images/bäse")
    assert leans_on(path) == "backing file /images/bäse"
    kind, length = struct.unpack_from(">II", path.read_bytes(), 104)
    assert (kind, path.read_bytes()[112 : 112 + length]) == (0xE2792ACA, b"raw")


def test_a_path_too_long_for_the_format_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than the 1023 bytes"):
        empty_overlay("/" + "x" * 1023, "raw", 512)


def test_a_disk_too_large_for_an_overlay_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a disk of .* an overlay has 2251799813685248 at most"):
        empty_overlay("/images/base", "raw", 2**51 + 1)


def test_the_empty_table_of_a_large_overlay_takes_no_memory() -> None:
    pieces = empty_overlay("/images/base", "raw", 2**51)
    assert len({id(piece) for piece in pieces}) == 4


@pytest.mark.parametrize(
    ("at", "layout", "value", "why"),
    [
        (24, ">Q", 2**60, "a disk too large for QEMU: 1152921504606846976 bytes"),
        (36, ">I", 2**22 + 1, "a disk too large for QEMU"),
        (36, ">I", 0, "its L1 table is too small"),
        (20, ">I", 8, "a damaged qcow2 header"),
        (20, ">I", 2**31, "a damaged qcow2 header"),
        (4, ">I", 9, "version 9, which is not known"),
    ],
)
def test_what_qemu_would_not_open_is_refused(
    tmp_path: Path, at: int, layout: str, value: int, why: str
) -> None:
    path = overlay(tmp_path, 2**20)
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, at, value)
    for ask in (leans_on, lambda path: disk_size(path, "qcow2")):
        with pytest.raises(NotQcow2, match=f"overlay.qcow2 has .*{why}"):
            ask(_with(path, data))


def test_a_raw_disk_is_as_large_as_its_file(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(b"QFI\xfb" + bytes(1020))
    assert disk_size(path, "raw") == 1024


def test_an_external_data_file_is_seen(tmp_path: Path) -> None:
    path = overlay(tmp_path, 2**20)
    data = bytearray(path.read_bytes())
    struct.pack_into(">QI", data, 8, 0, 0)  # no backing file
    assert leans_on(_with(path, data)) == ""
    struct.pack_into(">Q", data, 72, 1 << 2)
    assert leans_on(_with(path, data)) == "an external data file"
    struct.pack_into(">I", data, 4, 2)  # version 2 has no such field
    assert leans_on(_with(path, data)) == ""


@pytest.mark.parametrize("data", [b"", b"QFI\xfb", b"x" * 200, bytes(200)])
def test_what_is_not_qcow2_is_said_to_be_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    for ask in (leans_on, lambda path: disk_size(path, "qcow2")):
        with pytest.raises(NotQcow2, match="is not a qcow2 file"):
            ask(path)


def _with(path: Path, data: bytes | bytearray) -> Path:
    path.write_bytes(data)
    return path
