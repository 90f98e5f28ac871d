"""Our vif script, on the hosts that are to run it.

libxl runs a script for every network card of every guest, before it runs; Xen's own is some forty
programs long. Ours (`xen/vif-bridge`) is three. It is put into our folder on the host, by libvirt's
storage interface, as a program and named by its content; a host whose libvirt has no storage
driver gets Xen's own.
"""

import hashlib
import threading
from importlib import resources
from typing import Protocol

from orchestrator.hypervisors.depot import Pool


class ProgramPool(Pool, Protocol):
    """A pool that takes programs."""

    def write_program(self, name: str, content: bytes) -> None:
        """Write a whole file that may be run."""
        ...


class VifScript:
    """Where one host has our vif script; `own` is one of its own to be used instead.

    Safe to use from many threads.
    """

    def __init__(self, own: str = "") -> None:
        self._own = own
        self._lock = threading.Lock()  # held while it is sent, so that it is sent once
        self._path = ""

    def path(self, pool: ProgramPool) -> str:
        """Return its path on the host, after putting it there if it is not, or is not whole.

        Raises what the pool raises.
        """
        if known := self._own or self._path:
            return known
        with self._lock:
            content = script()
            name = f"vif-bridge-{hashlib.sha256(content).hexdigest()[:16]}"
            if pool.find(name) is None or b"".join(pool.read(name)) != content:
                pool.remove(name)
                pool.write_program(name, content)
            self._path = path = str(pool.folder / name)
            return path

    def forget(self) -> None:
        """Look again, before the next use, whether it is there. Does not wait."""
        self._path = ""


def script() -> bytes:
    """Return our vif script."""
    return resources.files(__package__).joinpath("xen", "vif-bridge").read_bytes()
