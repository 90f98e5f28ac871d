"""Looks for bytes that upset `images.inspect`, for as long as asked.

    python -m tests.images.fuzz_inspect [SECONDS] [SEED]

With atheris installed (``pip install atheris``) the search is guided by which code it reaches,
without it by chance alone; both start from the specimens. An input that breaks a promise is written
to the current directory. The promises are those of `check`.
"""

import importlib
import random
import struct
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

from images.facts import ImageFacts
from images.inspect import MOST_UNPACKED_RATIO, inspect_source
from images.report import facts_json, facts_text
from images.source import HEAD_BYTES, Source
from tests.images.specimens import SPECIMENS

# The work for one input: so much, and so much for each of its bytes.
MOST_READS = (600, 1 / 32)  # a read for each section header at most
MOST_BYTES_READ = (4 * HEAD_BYTES, 4)
# Unpacked gzip data count as well, and a byte array grows ahead of what is in it.
MOST_MEMORY = (3 * 1024 * 1024, 1.25 * MOST_UNPACKED_RATIO)

GUIDED = "--guided"  # the process that atheris runs in

# Numbers at which lengths, counts and offsets go wrong.
EDGES = (0, 1, 2, 3, 7, 8, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x10000, 2**31 - 1, 2**31, 2**32 - 1)
WIDE_EDGES = (*EDGES, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


class BrokenPromise(AssertionError):  # noqa: N818 - reads as a sentence where it is raised
    """An input made `images.inspect` do what it never should."""


def check(data: bytes, *, memory: bool = False) -> ImageFacts:
    """Return the facts of any bytes; raises `BrokenPromise` if they cost too much or are unfit.

    Whatever `inspect_source` itself raises is a broken promise as well. With `memory` the memory
    is measured, which is slow.
    """
    if memory:
        tracemalloc.start()
    try:
        source = Source.of_bytes(data)
        facts = inspect_source(source)
        peak = tracemalloc.get_traced_memory()[1] if memory else 0
    finally:
        if memory:
            tracemalloc.stop()
    for what, spent, (fixed, per_byte) in (
        ("reads", source.reads, MOST_READS),
        ("bytes read", source.bytes_read, MOST_BYTES_READ),
        ("bytes of memory", peak, MOST_MEMORY),
    ):
        if spent > fixed + per_byte * len(data):
            raise BrokenPromise(f"{spent} {what} are too many for an input of {len(data)} bytes")
    _must_be_fit_to_print(facts)
    return facts


def _must_be_fit_to_print(facts: ImageFacts) -> None:
    told = facts_text(Path("image"), facts) + str(facts_json(facts))
    if not all(line.isprintable() for line in told.splitlines()):
        raise BrokenPromise(f"what is said of it cannot be printed: {told!r}")
    for each in fields(facts):
        value = getattr(facts, each.name)
        if isinstance(value, int) and value < 0:
            raise BrokenPromise(f"{each.name} is {value}")


# --- by chance ------------------------------------------------------------------------------------


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return a specimen with a few of its numbers, stretches or its end changed."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        chance.choice(_MUTATIONS)(out, chance)
    return bytes(out)


def _set_number(out: bytearray, chance: random.Random) -> None:
    layout = chance.choice(("<H", "<I", "<Q", ">H", ">I", ">Q"))
    size = struct.calcsize(layout)
    number = chance.choice((*WIDE_EDGES, len(out), chance.randrange(2**64))) % 2 ** (8 * size)
    _overwrite(out, struct.pack(layout, number), chance)


def _set_byte(out: bytearray, chance: random.Random) -> None:
    _overwrite(out, bytes([chance.randrange(256)]), chance)


def _overwrite(out: bytearray, new: bytes, chance: random.Random) -> None:
    # Most of a specimen is zeros: change what is not, more often than chance would.
    places = range(max(1, len(out) - len(new) + 1))
    at = chance.choice(places)
    for _ in range(8):
        if any(out[at : at + len(new)]):
            break
        at = chance.choice(places)
    out[at : at + len(new)] = new


def _copy_stretch(out: bytearray, chance: random.Random) -> None:
    start, size = chance.randrange(len(out) + 1), chance.randrange(1, 200)
    _overwrite(out, bytes(out[start : start + size]), chance)


def _cut_off(out: bytearray, chance: random.Random) -> None:
    del out[chance.randrange(len(out) + 1) :]


def _cut_out(out: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(out) + 1)
    del out[start : start + chance.randrange(1, 20)]


_MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _set_number,
    _set_number,
    _set_number,
    _set_byte,
    _copy_stretch,
    _cut_off,
    _cut_out,
)


def run_by_chance(seconds: float, seed: int) -> int:
    """Check mutated specimens for a time; return how many, or raise what the first bad one did."""
    chance, specimens, count = random.Random(seed), list(SPECIMENS.values()), 0  # noqa: S311 - no secret
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutated(chance.choice(specimens), chance)
        try:
            check(data, memory=count % 100 == 0)
        except BaseException:
            Path(f"crash-{seed}-{count}").write_bytes(data)
            raise
        count += 1
    return count


# --- by reach -------------------------------------------------------------------------------------


def run_by_reach(seconds: float, seed: int) -> int:
    """Let atheris look for a time, in a process of its own; return that one's exit code."""
    with tempfile.TemporaryDirectory(prefix="edgewake-fuzz-") as corpus:
        for index, data in enumerate(SPECIMENS.values()):
            Path(corpus, str(index)).write_bytes(data)
        limits = (f"-max_total_time={int(seconds)}", f"-seed={seed}", "-max_len=300000")
        command = [sys.executable, "-m", __spec__.name, GUIDED, *limits, "-timeout=20", corpus]
        return subprocess.run(command, check=False).returncode


def _guided(arguments: list[str]) -> None:
    """Run atheris with libFuzzer's arguments; it ends this process."""
    atheris = importlib.import_module("atheris")
    for name in [name for name in sys.modules if name.startswith("images.")]:
        del sys.modules[name]  # they were loaded without its probes
    with atheris.instrument_imports(include=["images"]):
        inspecting = importlib.import_module("images.inspect")
        sources = importlib.import_module("images.source")
    atheris.Setup(
        [sys.argv[0], *arguments],
        lambda data: inspecting.inspect_source(sources.Source.of_bytes(data)),
    )
    atheris.Fuzz()


def main(arguments: list[str]) -> int:
    """Fuzz for the seconds and with the seed on the command line; return the exit code."""
    if arguments[:1] == [GUIDED]:
        _guided(arguments[1:])
    seconds = float(arguments[0]) if arguments else 30.0
    seed = int(arguments[1]) if len(arguments) > 1 else random.SystemRandom().randrange(1, 2**31)
    if find_spec("atheris"):
        return run_by_reach(seconds, seed)
    sys.stdout.write(f"seed {seed}: {run_by_chance(seconds, seed)} inputs, no promise broken\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
