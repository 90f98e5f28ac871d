"""Reads which shared libraries an ELF64 file names (System V ABI, chapter 5: DT_NEEDED)."""

import struct

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB = 1, 5


def needed_libraries(data: bytes) -> tuple[str, ...]:
    """Return the names of the libraries a program or library needs; none if it is something else.

    Raises ValueError if the file is damaged.
    """
    if data[:5] != b"\x7fELF\x02":
        return ()
    try:
        return _needed(data)
    except (struct.error, StopIteration) as error:
        raise ValueError("a damaged ELF file") from error


def _needed(data: bytes) -> tuple[str, ...]:
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    headers = [struct.unpack_from("<IIQQQQQQ", data, table + n * size) for n in range(count)]
    loads = [
        (address, offset, room) for t, _, offset, address, _, room, *_ in headers if t == _PT_LOAD
    ]
    dynamic = next(((h[2], h[5]) for h in headers if h[0] == _PT_DYNAMIC), None)
    if dynamic is None:
        return ()
    start, length = dynamic
    tags = [struct.unpack_from("<qQ", data, at) for at in range(start, start + length, 16)]
    names = [value for tag, value in tags if tag == _DT_NEEDED]
    if not names:
        return ()
    strings = next(value for tag, value in tags if tag == _DT_STRTAB)
    at = next(strings - address + offset for address, offset, room in loads
              if address <= strings < address + room)  # fmt: skip
    return tuple(data[at + n : data.index(b"\0", at + n)].decode() for n in names)
