"""Guests that sleep as files on their host, and how they are found again after a restart.

A saved guest is two files in our folder there: its memory, written by the hypervisor, and its
description (the domain's XML, with our mark), which we write once the memory is whole. Without the
second, the first is the rest of a failure. What there is is read once per connection.
"""

import re
import threading
from collections.abc import Callable
from pathlib import Path

from orchestrator.hypervisors.depot import Pool

_DESCRIPTION = ".xml"
_OURS = re.compile(r"saved-([0-9a-f-]{36})(\.xml)?")


class SavedGuests:
    """The saved guests of one owner on one host, by domain UUID. Safe to use from many threads.

    Methods raise what the pool raises.
    """

    def __init__(self, pool: Callable[[], Pool]) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._known: dict[str, str] | None = None  # UUID → description; None until it is read
        self._unfinished: set[str] = set()  # UUIDs of memory that was found without description

    def memory_file(self, uuid: str) -> Path:
        """Return where the hypervisor is to write a guest's memory; makes the folder."""
        pool = self._pool()
        pool.free()
        return pool.folder / f"saved-{uuid}"

    def add(self, uuid: str, description: str) -> None:
        """Take note that a guest's memory is written."""
        self._pool().write(f"saved-{uuid}{_DESCRIPTION}", (description.encode(),), writable=True)
        known = self._read()
        with self._lock:
            known[uuid] = description
            self._unfinished.discard(uuid)

    def all(self) -> dict[str, str]:
        """Return the description of each saved guest."""
        known = self._read()
        with self._lock:
            return dict(known)

    def drop(self, uuid: str, *, also_unfinished: bool = False) -> None:
        """Remove a guest's files, if it is saved, or if that was seen to have been cut off.

        With `also_unfinished`, the host is asked whether it was.
        """
        if uuid not in self.all() and uuid not in self._unfinished and not also_unfinished:
            return
        pool = self._pool()
        there = {file.name for file in pool.stored()}
        # The description first: the memory of a guest that has run on must never be taken for it.
        for name in (f"saved-{uuid}{_DESCRIPTION}", f"saved-{uuid}"):
            if name in there:
                pool.remove(name)
        known = self._read()
        with self._lock:
            known.pop(uuid, None)
            self._unfinished.discard(uuid)

    def forget(self) -> None:
        """Read what there is before the next use."""
        with self._lock:
            self._known = None

    def _read(self) -> dict[str, str]:
        with self._lock:
            known = self._known
        if known is not None:
            return known
        pool = self._pool()
        names = [file.name for file in pool.stored()]
        matches = [match for name in names if (match := _OURS.fullmatch(name))]
        whole = {match[1] for match in matches if not match[2]}
        found = {
            match[1]: b"".join(pool.read(match[0])).decode(errors="replace")
            for match in matches
            if match[2] and match[1] in whole
        }
        with self._lock:
            if self._known is None:
                self._known, self._unfinished = found, whole - found.keys()
            return self._known
