"""Gives up what root may, for a process of ours that needs none of it. Linux.

All here is about the calling thread and the threads and programs that it starts from then on, so it
is for the beginning of a process: capabilities(7).
"""

import ctypes
from errno import EINVAL, EPERM

from orchestrator.linux import libc

DAC_OVERRIDE = 1 << 1  # linux/capability.h: may do with files what their modes forbid

_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: two halves of 32 bits for each set
_DROP_BOUND, _NO_NEW_PRIVILEGES = 24, 38  # linux/prctl.h
_MOST = 64  # they are bits of such a number
_HALF = 0xFFFF_FFFF

_Header = ctypes.c_uint32 * 2
_Sets = ctypes.c_uint32 * 6  # effective, permitted and inheritable: the low halves, then the high


def gain_none() -> None:
    """Let nothing that is started from here gain rights by the file that it is."""
    libc.call("prctl", "no new privileges", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def bound_none() -> None:
    """Let no program that is started from here have any, of root either; we keep those we have."""
    for capability in range(_MOST):
        if libc.library.prctl(_DROP_BOUND, capability, 0, 0, 0) != 0:
            if ctypes.get_errno() not in {EINVAL, EPERM}:
                raise OSError(ctypes.get_errno(), "the bounding set cannot be emptied")
            break  # there are no more; or we are not root, and have none to let anybody gain


def keep(*, effective: int, permitted: int) -> None:
    """Keep of our capabilities these, as bits; what is only permitted may be used again later."""
    header, now = _Header(_VERSION, 0), _Sets()
    libc.call("capget", "capabilities", header, now)
    ours = now[1] | now[4] << 32
    effective, permitted = effective & ours, permitted & ours
    low = effective & _HALF, permitted & _HALF, 0
    high = effective >> 32, permitted >> 32, 0
    libc.call("capset", "capabilities", header, _Sets(*low, *high))
