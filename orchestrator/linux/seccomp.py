"""A filter that keeps programs from system calls that services have no use for (seccomp(2)).

For programs that run without capabilities already: what is denied is what would give some back
within a user namespace, what looks into other processes, and what has often been a way into the
kernel. Everything else stays allowed, so that programs of any kind run. A denied call returns
EPERM; the reasons are those of Docker's default profile, the choice is ours. Two are
denied in part: sockets of the virtual machines of this host, which no network namespace keeps
apart, and room that is reserved in files (EOPNOTSUPP, as of a file system without it): what a
program may write to is in memory, but for its log, whose disk it could fill in an instant.
"""

import ctypes
import os
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from errno import ENOSYS, EOPNOTSUPP, EPERM

from orchestrator.linux import libc

Instruction = tuple[int, int, int, int]  # code, instructions to skip if true, if false, value

_LOAD, _RETURN = 0x20, 0x06  # linux/bpf_common.h: BPF_LD | BPF_ABS; BPF_RET
_IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT = 0x15, 0x35, 0x45
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # struct seccomp_data, linux/seccomp.h
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_X32 = 0x40000000  # asm/unistd.h __X32_SYSCALL_BIT
_NEW_NAMESPACES = 0x7E020000  # linux/sched.h: every CLONE_NEW flag that clone(2) takes
_CLONE3 = 435
_VSOCK = 40  # linux/socket.h AF_VSOCK
_SET_SECCOMP, _MODE_FILTER = 22, 2  # linux/prctl.h, linux/seccomp.h
_INSTRUCTION = struct.Struct("@HBBI")  # struct sock_filter, linux/filter.h
_PROGRAM = struct.Struct("@HP")  # struct sock_fprog

# Calls that are denied, with their numbers on x86_64 (asm/unistd_64.h) and aarch64
# (asm-generic/unistd.h), None where it has no such call.
DENIED: tuple[tuple[str, int | None, int | None], ...] = (
    ("acct", 163, 89),
    ("add_key", 248, 217),
    ("adjtimex", 159, 171),
    ("bpf", 321, 280),
    ("chroot", 161, 51),
    ("clock_adjtime", 305, 266),
    ("clock_settime", 227, 112),
    ("delete_module", 176, 106),
    ("finit_module", 313, 273),
    ("init_module", 175, 105),
    ("ioperm", 173, None),
    ("iopl", 172, None),
    ("kexec_file_load", 320, 294),
    ("kexec_load", 246, 104),
    ("keyctl", 250, 219),
    ("mount", 165, 40),
    ("open_by_handle_at", 304, 265),
    ("perf_event_open", 298, 241),
    ("pivot_root", 155, 41),
    ("process_vm_readv", 310, 270),
    ("process_vm_writev", 311, 271),
    ("ptrace", 101, 117),
    ("quotactl", 179, 60),
    ("reboot", 169, 142),
    ("request_key", 249, 218),
    ("setns", 308, 268),
    ("settimeofday", 164, 170),
    ("swapoff", 168, 225),
    ("swapon", 167, 224),
    ("syslog", 103, 116),
    ("umount2", 166, 39),
    ("unshare", 272, 97),
    ("userfaultfd", 323, 282),
    ("vhangup", 153, 58),
    ("io_uring_setup", 425, 425),
    ("open_tree", 428, 428),
    ("move_mount", 429, 429),
    ("fsopen", 430, 430),
    ("fsconfig", 431, 431),
    ("fsmount", 432, 432),
    ("fspick", 433, 433),
    ("mount_setattr", 442, 442),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """An architecture: its AUDIT_ARCH (linux/audit.h), and numbers of calls: those denied, too."""

    audit: int
    clone: int
    socket: int
    fallocate: int
    denied: tuple[int, ...]


MACHINES = {
    "x86_64": Machine(
        0xC000003E, 56, 41, 285, tuple(x86 for _, x86, _ in DENIED if x86 is not None)
    ),
    "aarch64": Machine(
        0xC00000B7, 220, 198, 47, tuple(arm for _, _, arm in DENIED if arm is not None)
    ),
}


def program(machine: Machine) -> list[Instruction]:
    """Return the filter for a machine, in classic BPF over `struct seccomp_data`.

    Calls in another machine's convention end the program: their numbers mean something else.
    """
    denied = machine.denied
    left = len(denied) + 10  # instructions between the first check and the last one, "no such call"
    checks: list[Instruction] = [
        (_IF_AT_LEAST, left, 0, _X32),
        (_IF_EQUAL, left - 1, 0, _CLONE3),  # its flags are in memory, where no filter looks
        (_IF_EQUAL, left - 1, 0, machine.fallocate),
        *((_IF_EQUAL, left - 4 - place, 0, call) for place, call in enumerate(denied)),
        (_IF_EQUAL, 0, 2, machine.socket),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_IF_EQUAL, 4, 3, _VSOCK),
        (_IF_EQUAL, 0, 2, machine.clone),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_IF_ANY_BIT, 1, 0, _NEW_NAMESPACES),
    ]
    return [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        *checks,
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | EPERM),
        (_RETURN, 0, 0, _ERRNO | ENOSYS),
        (_RETURN, 0, 0, _ERRNO | EOPNOTSUPP),
    ]


def confine_thread() -> None:
    """Put the filter on this thread, and on what it will start; it stays. Raises OSError.

    Wants the thread to have no new privileges (prctl(2), PR_SET_NO_NEW_PRIVS).
    """
    name = platform.machine()
    machine = MACHINES.get(name)
    if machine is None:
        raise OSError(
            ENOSYS, f"no filter of system calls is known for {name} processors", "seccomp"
        )
    packed = b"".join(_packed(program(machine)))
    array = ctypes.create_string_buffer(packed)
    wish = _PROGRAM.pack(len(packed) // _INSTRUCTION.size, ctypes.addressof(array))
    if libc.library.prctl(_SET_SECCOMP, _MODE_FILTER, wish, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "seccomp")


def _packed(instructions: list[Instruction]) -> Iterator[bytes]:
    return (_INSTRUCTION.pack(*each) for each in instructions)
