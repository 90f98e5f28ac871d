"""The zone's serial number: it grows with each change of what secondaries copy, and no other.

For `dns_boot.zone`. It is kept in a file, so that a restart with the same zone has the same number;
should the file be lost, the clock gives a greater one than before. Serials are compared as RFC 1982
says: of two, the greater is the one that is less than half of the circle ahead.
"""

import json
import logging
import time
from pathlib import Path

logger = logging.getLogger(__name__)

BITS = 32
HALF = 1 << (BITS - 1)


def is_after(a: int, b: int) -> bool:
    """Say whether serial `a` is greater than `b` (RFC 1982, section 3.2)."""
    return 0 < (a - b) % (1 << BITS) < HALF


def after(serial: int, now_s: float) -> int:
    """Return a greater serial: the time in seconds if that is greater, else the next number."""
    clock = int(now_s) % (1 << BITS)
    return clock if is_after(clock, serial) else (serial + 1) % (1 << BITS)


class Serials:
    """Gives each content of the zone its serial. `file` keeps the last one; None: memory does."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._digest, self.last = self._read()

    def of(self, digest: str) -> int:
        """Return the serial of a content: the last one if it is the same, else a greater one."""
        if digest != self._digest:
            self._digest, self.last = digest, after(self.last, time.time())
            self._write()
        return self.last

    def _read(self) -> tuple[str, int]:
        start = "", (int(time.time()) - 1) % (1 << BITS)
        if self._file is None or not self._file.exists():
            return start
        try:
            kept = json.loads(self._file.read_text())
            return str(kept["digest"]), int(kept["serial"]) % (1 << BITS)
        except (OSError, ValueError, TypeError, KeyError) as error:
            logger.warning("%s: no serial in it (%s); the clock gives one", self._file, error)
            return start

    def _write(self) -> None:
        """Keep the serial. A crash leaves the old file or the new one."""
        if self._file is None:
            return
        new = self._file.with_suffix(".new")
        try:
            new.write_text(json.dumps({"digest": self._digest, "serial": self.last}))
            new.replace(self._file)
        except OSError as error:
            logger.warning("%s: the zone's serial cannot be kept: %s", self._file, error)
