"""Which domains of a host are our guests, whose end is news, and who leaves a dump: in memory.

Events of libvirt say a UUID and no more, so what runs is remembered by it. Nothing here waits for
libvirt but `mark_of`, which asks a domain for its mark once.
"""

import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

import libvirt

from orchestrator.hypervisors import libvirt_domains as domains
from orchestrator.model import Mark, guest_uuid


class OurGuests:
    """The guests of one owner on one host. Safe to use from many threads."""

    def __init__(self, host: str, owner: str) -> None:
        self._host = host
        self._owner = owner
        self._lock = threading.Lock()  # never held during a libvirt call
        self._guests: dict[str, str] = {}  # domain UUID → instance, of ours that run
        self._ending: Counter[str] = Counter()  # by UUID: ends that we caused and will hear of
        self._dumping: set[str] = set()  # instances that leave a dump when they crash
        self._marks: dict[tuple[str, int], Mark] = {}  # by domain UUID and run; `claim` changes one

    def runs(self, uuid: str, mark: Mark) -> None:
        """Take note of a guest that runs, or is about to."""
        with self._lock:
            self._note(uuid, mark)

    def seen(
        self, running: Iterable[tuple[str, Mark]], present: Collection[tuple[str, int]]
    ) -> None:
        """Take note of all guests that run, by UUID, and of all domains there, by UUID and run."""
        with self._lock:
            self._marks = {key: mark for key, mark in self._marks.items() if key in present}
            for uuid, mark in running:
                self._note(uuid, mark)

    def ended(self, uuid: str) -> str:
        """Return which guest of ours a domain that ended was; empty if its end is no news."""
        with self._lock:
            if self._ending[uuid]:
                self._ending[uuid] -= 1
                return ""
            return self._guests.pop(uuid, "")

    def hear_nothing(self) -> None:
        """Forget the ends that we caused: the connection broke, so we never hear of them."""
        with self._lock:
            self._ending.clear()

    def dumps(self, instance: str) -> bool:
        """Return whether a guest leaves a dump when it crashes."""
        with self._lock:
            return instance in self._dumping

    def _note(self, uuid: str, mark: Mark) -> None:
        self._guests[uuid] = mark.instance
        if mark.dumps_core:
            self._dumping.add(mark.instance)
        else:
            self._dumping.discard(mark.instance)

    @contextmanager
    def ending_by_us(self, uuid: str) -> Iterator[None]:
        """Let the end of a domain that is caused in here be no news."""
        with self._lock:
            instance = self._guests.pop(uuid, None)
            self._ending[uuid] += 1
        try:
            yield
        except libvirt.libvirtError:
            with self._lock:
                self._ending[uuid] = max(0, self._ending[uuid] - 1)
                if instance is not None:
                    self._guests.setdefault(uuid, instance)
            raise

    def mark_of(self, domain: libvirt.virDomain) -> Mark | None:
        """Return a domain's mark if the domain is ours: owner, host, name and UUID all agree."""
        name, uuid = domain.name(), domain.UUIDString()
        if uuid != guest_uuid(self._owner, name):
            return None
        key = (uuid, domain.ID())
        with self._lock:
            if key in self._marks:
                return self._marks[key]
        mark = domains.read_mark(domain)
        if mark is None or mark.instance != name or not self.is_ours(mark):
            return None
        with self._lock:
            self._marks[key] = mark
        return mark

    def marked(self, domain: libvirt.virDomain, mark: Mark) -> None:
        """Take note of another mark that was put on a domain of ours."""
        key = (domain.UUIDString(), domain.ID())
        with self._lock:
            self._marks[key] = mark
            self._note(key[0], mark)

    def is_ours(self, mark: Mark) -> bool:
        """Return whether a mark says that a guest is of this owner, on this host."""
        return (mark.owner, mark.host) == (self._owner, self._host)
