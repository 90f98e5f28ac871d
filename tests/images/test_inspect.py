"""What a file is, by its bytes; and no byte may upset it."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.errors import ImageNotFound
from images.inspect import HEAD_BYTES, FileKind, kind_of, kind_of_head, note_types


def elf64(note_type: int, *, note_owner: bytes = b"Xen\0") -> bytes:
    note = struct.pack("<III", len(note_owner), 4, note_type) + note_owner + b"\0\0\0\1"
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQ", 2, 62, 1, 0, 64, 0)
    header += struct.pack("<IHHHHHH", 0, 64, 56, 1, 0, 0, 0)
    program = struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(note), len(note), 4)
    return header + program + note


def elf32(note_type: int) -> bytes:
    note = struct.pack("<III", 4, 4, note_type) + b"Xen\0" + b"\0\0\0\1"
    header = b"\x7fELF\x01\x01\x01" + bytes(9) + struct.pack("<HHIIII", 2, 3, 1, 0, 52, 0)
    header += struct.pack("<IHHHHHH", 0, 52, 32, 1, 0, 0, 0)[:14]
    header = header[:40] + struct.pack("<HHHHHH", 52, 32, 1, 0, 0, 0)
    program = struct.pack("<IIIIIIII", 4, 84, 0, 0, len(note), len(note), 4, 4)
    return header + program + note


BZIMAGE = bytes(0x202) + b"HdrS" + bytes(100)

KINDS = [
    (BZIMAGE, FileKind.BZIMAGE),
    (elf64(18), FileKind.PVH),
    (elf32(18), FileKind.PVH),
    (elf64(1), FileKind.ELF),
    (elf64(18, note_owner=b"GNU\0"), FileKind.ELF),
    (elf64(18)[:100], FileKind.ELF),
    (b"\x7fELF", FileKind.ELF),
    (b"\x1f\x8b\x08", FileKind.GZIP),
    (b"070701" + bytes(104), FileKind.CPIO),
    (b"#!/bin/sh\n", FileKind.UNKNOWN),
    (b"", FileKind.UNKNOWN),
]


@pytest.mark.parametrize(("data", "kind"), KINDS)
def test_kinds(tmp_path: Path, data: bytes, kind: FileKind) -> None:
    path = tmp_path / "image"
    path.write_bytes(data)
    assert kind_of(path) is kind


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageNotFound, match="nowhere: no such file"):
        kind_of(tmp_path / "nowhere")
    with pytest.raises(ImageNotFound, match="cannot be read"):
        kind_of(tmp_path)


@given(st.binary(max_size=HEAD_BYTES))
def test_no_head_upsets_it(data: bytes) -> None:
    assert kind_of_head(data) in FileKind


@given(data=st.binary(max_size=300), wide=st.booleans())
def test_no_elf_upsets_it(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, wide: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(b"\x7fELF" + (b"\x02" if wide else b"\x01") + b"\x01" + data)
    assert kind_of(path) in {FileKind.ELF, FileKind.PVH}


@given(st.binary(max_size=200))
def test_no_notes_upset_it(notes: bytes) -> None:
    assert all(0 <= kind < 2**32 for kind in note_types(notes, b"Xen"))
