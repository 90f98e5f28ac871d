"""Programs in the kernel that choose which frames a packet socket sees.

Classic BPF, of which only what our programs need is here; see the kernel's
Documentation/networking/filter.rst. Each user writes its own program as a list of instructions.
"""

import ctypes
import socket
import struct
from collections.abc import Sequence

LOAD_WORD, LOAD_HALF, LOAD_BYTE = 0x20, 0x28, 0x30  # BPF_LD | BPF_ABS: from an offset in the frame
LENGTH = 0x80  # BPF_LD | BPF_LEN
LOAD_HEADER_LENGTH, LOAD_HALF_BEHIND = 0xB1, 0x48  # BPF_LDX | BPF_MSH; BPF_LD | BPF_IND
AND, LESS_HEADER_LENGTH = 0x54, 0x1C  # BPF_ALU, with a value; minus what LOAD_HEADER_LENGTH loaded
IF_EQUAL, IF_GREATER, IF_AT_LEAST, IF_ANY_BIT = 0x15, 0x25, 0x35, 0x45  # linux/bpf_common.h
JUMP, RETURN = 0x05, 0x06

WHOLE = 0xFFFF  # returned: pass a frame, with all its octets

Instruction = tuple[int, int, int, int]  # code, instructions to skip if true, if false, value

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_INSTRUCTION = struct.Struct("@HBBI")  # struct sock_filter, linux/filter.h
_PROGRAM = struct.Struct("@HP")  # struct sock_fprog


def attach(listening: socket.socket, program: Sequence[Instruction]) -> None:
    """Have a socket see only what a program passes, in place of what it saw; raises OSError."""
    array = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*each) for each in program))
    wish = _PROGRAM.pack(len(program), ctypes.addressof(array))
    listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, wish)
