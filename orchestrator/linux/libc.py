"""The C library of this process, for system calls that Python has no function for. Linux."""

import ctypes
import os
from typing import Any

library = ctypes.CDLL(None, use_errno=True)


def call(function: str, name: str, *arguments: Any) -> None:
    """Call a function that returns 0 if all went well; `OSError` says what was done to `name`."""
    if getattr(library, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}", name)
