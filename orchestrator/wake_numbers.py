"""Numbers of wakes that no other run of this installation gave: logs and the journal keep them.

A file has the next number that is free. It is written once for `BLOCK` numbers, since a wake must
not wait for a disk each time; a process that is killed leaves a gap of as many at most.
"""

from logging import getLogger
from pathlib import Path

log = getLogger(__name__)

BLOCK = 1000


class WakeNumbers:
    """Gives one number after the other, from 1 on. Call it from one thread at a time."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._next = self._kept()
        self._held_until = self._next

    def __call__(self) -> int:
        """Return the next number."""
        if self._next >= self._held_until:
            self._held_until = self._next + BLOCK
            self._keep(self._held_until)
        self._next += 1
        return self._next - 1

    def close(self) -> None:
        """Let the next run go on without a gap."""
        if self._held_until > self._next:
            self._held_until = self._next
            self._keep(self._next)

    def _kept(self) -> int:
        try:
            return max(1, int(self._file.read_text()))
        except FileNotFoundError:
            return 1
        except (OSError, ValueError) as error:
            log.warning("%s: no number in it (%s); wakes are numbered anew", self._file, error)
            return 1

    def _keep(self, number: int) -> None:
        """Keep a number; a crash leaves the old file or the new one."""
        new = self._file.with_suffix(".new")
        try:
            new.write_text(f"{number}\n")
            new.replace(self._file)
        except OSError as error:
            log.warning("%s: the number of wakes cannot be kept: %s", self._file, error)
