"""A bzImage taken apart, for each compression we know, and damaged ones refused."""

import bz2
import gzip
import lzma
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.build.vmlinux import NotUnpacked, unlz4, unpack

KERNEL = b"\x7fELF" + bytes(range(256)) * 40 + b"tail"
SETUP_SECTORS = 3


def lz4_literals(data: bytes) -> bytes:
    """Return an LZ4 legacy frame of one block that is nothing but literals."""
    extra, rest = divmod(len(data) - 15, 255)
    block = b"\xf0" + b"\xff" * extra + bytes([rest]) + data
    return b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block + size_of(data)


def size_of(data: bytes) -> bytes:
    return struct.pack("<I", len(data))


def bzimage(payload: bytes, *, protocol: int = 0x20F) -> bytes:
    head = bytearray((SETUP_SECTORS + 1) * 512)
    head[0x1F1] = SETUP_SECTORS
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, protocol)
    struct.pack_into("<II", head, 0x248, 16, len(payload))
    return bytes(head) + bytes(16) + payload + b"the rest"


PAYLOADS = {
    "gzip": gzip.compress(KERNEL) + size_of(KERNEL),
    "xz": lzma.compress(KERNEL, check=lzma.CHECK_CRC32) + size_of(KERNEL),
    "lzma": lzma.compress(KERNEL, format=lzma.FORMAT_ALONE),
    "bzip2": bz2.compress(KERNEL) + size_of(KERNEL),
    "lz4": lz4_literals(KERNEL),
}


@pytest.mark.parametrize("how", PAYLOADS)
def test_every_compression_we_know(how: str) -> None:
    assert unpack(bzimage(PAYLOADS[how])) == KERNEL


DAMAGED = [
    (b"too short", "not a bzImage"),
    (bytes(4096), "not a bzImage"),
    (bzimage(PAYLOADS["gzip"], protocol=0x207), "boot protocol 0x0207"),
    (bzimage(PAYLOADS["gzip"])[:-40], "shorter than its header says"),
    (bzimage(b"\x28\xb5\x2f\xfd" + bytes(40)), "unknown way"),
    (bzimage(gzip.compress(b"no kernel")), "not an ELF file"),
    (bzimage(PAYLOADS["gzip"][:10] + b"garbage" + PAYLOADS["gzip"][17:]), "damaged"),
    (bzimage(PAYLOADS["lz4"][:-4] + b"\0\0\0\0"), "damaged"),
]


@pytest.mark.parametrize(("image", "why"), DAMAGED)
def test_what_cannot_be_unpacked_says_why(image: bytes, why: str) -> None:
    with pytest.raises(NotUnpacked, match=why):
        unpack(image)


def test_lz4_copies_that_overlap_themselves() -> None:
    # "ab", then 10 bytes from 2 back (a repetition), then the literal "!".
    block = bytes([0x26]) + b"ab" + b"\x02\x00" + b"\x10!"
    frame = b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block
    assert unlz4(frame + struct.pack("<I", 13)) == b"ab" * 6 + b"!"


@given(st.binary(max_size=300))
def test_no_lz4_upsets_it(data: bytes) -> None:
    image = bzimage(b"\x02\x21\x4c\x18" + data)
    with pytest.raises(NotUnpacked):
        unpack(image)


@pytest.mark.skipif(shutil.which("lz4") is None, reason="needs the lz4 program")
def test_what_the_lz4_program_made(tmp_path: Path) -> None:
    data = KERNEL * 2000
    (tmp_path / "k").write_bytes(data)
    subprocess.run(["lz4", "-q", "-l", "-9", tmp_path / "k", tmp_path / "k.lz4"], check=True)
    assert unlz4((tmp_path / "k.lz4").read_bytes() + size_of(data)) == data
