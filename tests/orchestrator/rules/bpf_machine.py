"""A machine for classic BPF programs, as Documentation/networking/filter.rst describes it."""

from collections.abc import Callable, Sequence

from orchestrator.packet_filter import Instruction

_MASK = 0xFFFFFFFF
_CONDITIONS: dict[int, Callable[[int, int], bool]] = {
    0x15: lambda accumulator, value: accumulator == value,
    0x25: lambda accumulator, value: accumulator > value,
    0x35: lambda accumulator, value: accumulator >= value,
    0x45: lambda accumulator, value: accumulator & value != 0,
}
_SIZES = {0x00: 4, 0x08: 2, 0x10: 1}


class _OutOfPacketError(Exception):
    pass


def run(program: Sequence[Instruction], packet: bytes) -> int:
    """Return what a program returns; how much of the packet is to be passed."""
    try:
        return _run(program, packet)
    except _OutOfPacketError:
        return 0


def _run(program: Sequence[Instruction], packet: bytes) -> int:
    accumulator = index = at = 0
    while True:
        code, yes, no, value = program[at]
        at += 1
        match code:
            case 0x80:
                accumulator = len(packet)
            case 0x20 | 0x28 | 0x30:
                accumulator = _load(packet, value, _SIZES[code & 0x18])
            case 0x48:
                accumulator = _load(packet, index + value, 2)
            case 0xB1:
                index = (_load(packet, value, 1) & 0xF) * 4
            case 0x54:
                accumulator &= value
            case 0x1C:
                accumulator = (accumulator - index) & _MASK
            case 0x05:
                at += value
            case 0x06:
                return value
            case _:
                at += yes if _CONDITIONS[code](accumulator, value) else no


def _load(packet: bytes, offset: int, size: int) -> int:
    if offset + size > len(packet):
        raise _OutOfPacketError
    return int.from_bytes(packet[offset : offset + size])
