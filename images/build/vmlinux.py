"""Takes the kernel proper (an ELF file with a PVH entry) out of a Linux bzImage.

A bzImage unpacks itself when it boots, which under emulation costs a quarter of a second of every
wake. Unpacked here once, the kernel is loaded by the hypervisor straight to where it runs. The
layout read is the setup header of Linux Documentation/arch/x86/boot.rst.
"""

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable

_SECTOR = 512
_LEAST_PROTOCOL = 0x0208  # the first with payload_offset and payload_length
_LZ4_LEGACY_MAGIC = b"\x02\x21\x4c\x18"


class NotUnpacked(Exception):  # noqa: N818 - reads as a sentence where it is raised
    """A bzImage cannot be taken apart here; it still boots as it is."""


def unpack(bzimage: bytes) -> bytes:
    """Return the ELF inside a bzImage; raises `NotUnpacked` if it is not known how."""
    payload = _payload(bzimage)
    for magic, decompress in _DECOMPRESSORS.items():
        if payload.startswith(magic):
            try:
                kernel = decompress(payload)
            except (ValueError, IndexError, OSError, EOFError, lzma.LZMAError, zlib.error) as error:
                raise NotUnpacked(f"its payload is damaged: {error}") from error
            break
    else:
        raise NotUnpacked(f"its payload is compressed in an unknown way ({payload[:4].hex()})")
    if not kernel.startswith(b"\x7fELF"):
        raise NotUnpacked("its payload is not an ELF file")
    return kernel


def _payload(bzimage: bytes) -> bytes:
    if len(bzimage) < 0x250 or bzimage[0x202:0x206] != b"HdrS":
        raise NotUnpacked("it is not a bzImage")
    (protocol,) = struct.unpack_from("<H", bzimage, 0x206)
    if protocol < _LEAST_PROTOCOL:
        raise NotUnpacked(f"its boot protocol {protocol:#06x} does not say where the payload is")
    setup_sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (setup_sectors + 1) * _SECTOR + offset
    payload = bzimage[start : start + length]
    if len(payload) != length or length < 8:
        raise NotUnpacked("it is shorter than its header says")
    return payload


def _gunzip(data: bytes) -> bytes:
    return zlib.decompressobj(wbits=31).decompress(data)


def _unxz(data: bytes) -> bytes:
    return lzma.LZMADecompressor().decompress(data)


def _bunzip2(data: bytes) -> bytes:
    return bz2.BZ2Decompressor().decompress(data)


def unlz4(data: bytes) -> bytes:
    """Decompress the legacy LZ4 frame that kernels use (lz4_Frame_format.md, "Legacy frame").

    The build appends the 4-byte size of the result, which is not part of the frame. Raises
    ValueError or IndexError if the data are damaged.
    """
    (size,) = struct.unpack_from("<I", data, len(data) - 4)
    out, at, end = bytearray(), 4, len(data) - 4
    while at + 4 <= end:
        (block,) = struct.unpack_from("<I", data, at)
        at += 4
        if block > end - at:
            raise ValueError("an LZ4 block is longer than the file")
        out += _lz4_block(data[at : at + block])
        at += block
    if len(out) != size:
        raise ValueError(f"{len(out)} bytes instead of {size}")
    return bytes(out)


def _lz4_block(block: bytes) -> bytearray:
    """Decompress one LZ4 block (lz4_Block_format.md): literals, then a copy from what came out.

    One loop without calls, because 14 MB pass through it.
    """
    out, at, end = bytearray(), 0, len(block)
    while at < end:
        token = block[at]
        at += 1
        literals = token >> 4
        if literals == 15:
            more = 255
            while more == 255:
                more = block[at]
                at += 1
                literals += more
        out += block[at : at + literals]
        at += literals
        if at >= end:
            break  # the last sequence of a block has literals only
        distance = block[at] | block[at + 1] << 8
        at += 2
        length = token & 15
        if length == 15:
            more = 255
            while more == 255:
                more = block[at]
                at += 1
                length += more
        length += 4
        start = len(out) - distance
        if distance == 0 or start < 0:
            raise ValueError("an LZ4 match reaches before the start of its block")
        if distance >= length:
            out += out[start : start + length]
        else:
            out += (out[start:] * (length // distance + 1))[:length]
    return out


_DECOMPRESSORS: dict[bytes, Callable[[bytes], bytes]] = {
    _LZ4_LEGACY_MAGIC: unlz4,
    b"\x1f\x8b": _gunzip,
    b"\xfd7zXZ\0": _unxz,
    b"]\0\0": _unxz,
    b"BZh": _bunzip2,
}
