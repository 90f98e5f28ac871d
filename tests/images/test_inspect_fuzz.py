"""No bytes upset `images.inspect`: it answers, and for little work and memory."""

import gzip
import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images import elf
from images.inspect import inspect, inspect_bytes
from images.source import Source
from tests.images.fuzz_inspect import WIDE_EDGES, BrokenPromise, check, mutated, run_by_chance
from tests.images.specimens import (
    LOAD,
    NOTE,
    PVH32,
    SPECIMENS,
    ElfFile,
    boot_disk,
    note,
    pe,
    qcow2,
    solo5_abi,
)

ROOT = Path(__file__).parents[2]
FUZZ = settings(max_examples=400)

# Where headers and tables of the specimens are, so that a change hits something.
OFFSETS = (0, 2, 4, 16, 18, 20, 24, 28, 32, 40, 42, 44, 48, 54, 56, 58, 60, 62, 64, 72, 80, 96, 104)
LAYOUTS = ("<B", "<H", "<I", "<Q", ">I", ">Q")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Return a specimen with some numbers at which things go wrong, perhaps cut off."""
    data = bytearray(SPECIMENS[draw(st.sampled_from(sorted(SPECIMENS)))])
    used = [at for at in range(0, len(data), 2) if any(data[at : at + 2])]
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.sampled_from([*OFFSETS, *used]))
        layout = draw(st.sampled_from(LAYOUTS))
        size = struct.calcsize(layout)
        edge = draw(st.one_of(st.sampled_from(WIDE_EDGES), st.just(len(data)), st.integers(0)))
        data[at : at + size] = struct.pack(layout, edge % 2 ** (8 * size))
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data))) :]
    return bytes(data)


@FUZZ
@given(damaged())
def test_no_damaged_image_upsets_it(data: bytes) -> None:
    check(data)


@FUZZ
@given(st.sampled_from([b"", b"\x7fELF", b"\x1f\x8b\x08", b"QFI\xfb", b"MZ"]), st.binary())
def test_no_bytes_upset_it(start: bytes, rest: bytes) -> None:
    check(start + rest)


@settings(max_examples=100)
@given(damaged())
def test_a_damaged_file_is_what_its_bytes_are(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data)
    assert inspect(path) == inspect_bytes(data) == inspect_bytes(memoryview(data))


@pytest.mark.parametrize("name", SPECIMENS)
def test_an_image_may_end_anywhere(name: str) -> None:
    data = SPECIMENS[name]
    step = max(1, len(data) // 200)
    for end in {*range(min(len(data), 200)), *range(0, len(data), step)}:
        check(data[:end])


@pytest.mark.parametrize("name", SPECIMENS)
def test_no_image_takes_more_memory_than_its_size_explains(name: str) -> None:
    check(SPECIMENS[name], memory=True)


BIG = bytes(300_000)


def sections(count: int, size: int) -> bytes:
    """Return an ELF file whose sections all are notes, on the same bytes."""
    image = bytearray(ElfFile(sections=[("n", bytes(8))] * count).build())
    (table,) = struct.unpack_from("<Q", image, 40)
    for index in range(count):
        struct.pack_into("<I", image, table + 64 * index + 4, 7)
        struct.pack_into("<QQ", image, table + 64 * index + 24, 0x1000, size)
    return bytes(image)


# What a hostile maker would do: many headers for the same bytes, chains, and much from little.
HOSTILE: dict[str, Callable[[], bytes]] = {
    "segments on one another": lambda: ElfFile(
        notes=solo5_abi(3), code=BIG, extra_segments=[(LOAD, 0, 400_000)] * 250
    ).build(),
    "note segments on one another": lambda: ElfFile(
        code=BIG, extra_segments=[(NOTE, 0x1000, 300_000)] * 250
    ).build(),
    "note sections on one another": lambda: sections(5000, 100_000),
    "tiny note sections": lambda: sections(5000, 8),
    "many notes": lambda: ElfFile(notes=note(b"A", 1, b"") * 20_000).build(),
    "many sections": lambda: ElfFile(sections=[(f"s{n}", b"") for n in range(6000)]).build(),
    "many multiboot magic numbers": lambda: bytes(64) + b"\x02\xb0\xad\x1b" * 30_000,
    "many PE sections": lambda: pe(*[b".text"] * 5000),
    "small clusters": lambda: qcow2(boot_disk(size=32768), cluster_bits=9),
    "a gzip bomb": lambda: gzip.compress(ElfFile(notes=PVH32, code=bytes(60_000_000)).build()),
    "a large gzip bomb": lambda: gzip.compress(
        ElfFile(code=os.urandom(1_000_000) + bytes(70_000_000)).build(),
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_image_costs_no_more(name: str) -> None:
    check(HOSTILE[name](), memory=True)


def test_a_note_is_found_behind_others_up_to_a_limit() -> None:
    for count, found in ((elf.MOST_NOTES - 1, True), (elf.MOST_NOTES, False)):
        image = ElfFile(notes=note(b"A", 1, b"") * count + PVH32).build()
        assert bool(inspect_bytes(image).entries) == found


@given(st.binary(max_size=300), st.sampled_from(["little", "big"]))
def test_notes_are_whole_or_not_there(area: bytes, order: str) -> None:
    notes = list(elf.notes_in(area, order))  # type: ignore[arg-type]
    assert sum(12 + len(each.owner) + len(each.contents) for each in notes) <= len(area)


@given(st.binary(max_size=50), st.integers(-(2**70), 2**70), st.integers(-(2**70), 2**70))
def test_a_source_gives_what_is_there_and_no_more(data: bytes, offset: int, length: int) -> None:
    expected = data[offset : offset + length] if offset >= 0 and length > 0 else b""
    assert Source.of_bytes(data).read(offset, length) == expected


@given(st.binary(max_size=40), st.integers(0, 60), st.integers(0, 60))
def test_finding_is_pythons_own(data: bytes, offset: int, length: int) -> None:
    found = Source.of_bytes(data).find((b"\0", b"\1\1"), offset, length)
    stretch = data[offset : offset + length]
    assert (found is not None) == (b"\0" in stretch or b"\1\1" in stretch)


def test_a_mark_across_two_pieces_is_found() -> None:
    data = bytes(256 * 1024 - 3) + b"MirageOS" + bytes(100)
    assert Source.of_bytes(data).find((b"MirageOS",), 0, len(data)) == b"MirageOS"
    assert Source.of_bytes(data).find((b"MirageOS",), 0, 256 * 1024) is None


# --- the fuzzer itself ----------------------------------------------------------------------------


def test_chance_breaks_no_promise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_by_chance(2.0, seed=20) > 0
    assert list(tmp_path.iterdir()) == []


def test_chance_reaches_most_kinds() -> None:
    chance = random.Random(5)  # noqa: S311 - no secret
    seen = {
        inspect_bytes(mutated(data, chance)).unusable.partition(":")[0][:20]
        for data in list(SPECIMENS.values()) * 5
    }
    assert len(seen) > 25, seen


def test_the_fuzzer_notices_what_costs_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elf, "MOST_NOTE_BYTES", 2**40)
    greedy = HOSTILE["note segments on one another"]()
    check(greedy)  # the size of the file is a limit as well
    monkeypatch.setattr("tests.images.fuzz_inspect.MOST_BYTES_READ", (0, 1))
    with pytest.raises(BrokenPromise, match="bytes read are too many"):
        check(greedy)


def test_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.images.fuzz_inspect", "1", "7"]
    environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no promise broken" in done.stdout or "Done" in done.stderr
    assert list(tmp_path.iterdir()) == []
