"""Memory of Xen guests that crashed, as files of dom0: where a dump is, and how many are kept.

libvirt's libxl driver writes them when a domain says ``coredump-destroy``, to a folder and by names
of its own (libvirt src/libxl/libxl_domain.c, libxlDomainAutoCoreDump), and never removes one. They
are seen and removed as volumes of a storage pool on that folder. A dump is taken for ours by its
name, which is an instance's and the time; nothing else about it says whose it is.
"""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from logging import getLogger
from pathlib import PurePosixPath
from typing import Any

import libvirt

from orchestrator.errors import HypervisorError
from orchestrator.hypervisors.libvirt_pool import folder_pool

log = getLogger(__name__)

FOLDER = PurePosixPath("/var/lib/libvirt/libxl/dump")
KEPT = 3  # of each service, on each host
_TIME = r"\d{4}-\d\d-\d\d-\d\d:\d\d:\d\d"


@dataclass(frozen=True, slots=True)
class Dump:
    """A dump: its file's name, which instance crashed, when by dom0's clock, and its size."""

    name: str
    instance: str
    time: str
    size: int

    @property
    def path(self) -> str:
        """Where it is on the host."""
        return str(FOLDER / self.name)


class CrashDumps:
    """The dumps on one host. Safe to use from many threads; what fails is logged."""

    def __init__(self, host: str, connect: Callable[[], libvirt.virConnect]) -> None:
        self._host = host
        self._connect = connect
        self._lock = threading.Lock()
        self._known: dict[str, frozenset[str]] = {}  # by service: dumps that are nobody's news

    def of(self, instance: str) -> str:
        """Return where the memory of a guest that just crashed is; empty if that is not known."""
        dump = None
        with self._logged(f"where the memory of {instance} is"):
            dump = self._fresh(instance)
            if dump is None:
                log.warning("host %s: libxl dumped nothing of %s", self._host, instance)
        self.prune(instance)
        return dump.path if dump else ""

    def _fresh(self, instance: str) -> Dump | None:
        """Return the dump of an instance that is new since `prune`; None if libxl made none."""
        service = _service(instance)
        with self._lock:
            known = self._known.get(service, frozenset())
        found = _listed(self._pool(), service)
        new = [dump for dump in found if dump.instance == instance and dump.name not in known]
        latest = max(new, key=lambda dump: dump.time, default=None)
        return latest if latest and latest.size else None  # it leaves an empty file if it fails

    def prune(self, instance: str) -> None:
        """Remove all but the newest few dumps of an instance's service, and empty ones."""
        with self._logged(f"the old dumps of {instance}"):
            pool, service = self._pool(), _service(instance)
            found = _listed(pool, service)
            for dump in surplus(found):
                pool.storageVolLookupByName(dump.name).delete()
            with self._lock:
                self._known[service] = frozenset(dump.name for dump in found)

    @contextmanager
    def _logged(self, what: str) -> Iterator[None]:
        """Go on without dumps where libvirt cannot show them, or cannot be reached."""
        try:
            yield
        except (libvirt.libvirtError, HypervisorError) as error:
            log.warning("host %s: %s: %s", self._host, what, error)

    def _pool(self) -> libvirt.virStoragePool:
        return folder_pool(self._connect(), "edgewake-libxl-dump", str(FOLDER))


def surplus(dumps: list[Dump]) -> list[Dump]:
    """Return the dumps of one service that are not kept."""
    whole = sorted((dump for dump in dumps if dump.size), key=lambda dump: dump.time)
    empty = [dump for dump in dumps if not dump.size]
    return [*empty, *whole[:-KEPT]]


def parse(name: str, size: int, service: str) -> Dump | None:
    """Return the dump that a file is; None if it is none of this service.

    `service` is what its instances' names begin with: all but the number.
    """
    matched = re.fullmatch(rf"({re.escape(service)}-\d+)-({_TIME})", name)
    return Dump(name, matched[1], matched[2], size) if matched else None


def _service(instance: str) -> str:
    """Return what the names of a service's instances begin with: all but the number."""
    return instance.rpartition("-")[0]


def _listed(pool: libvirt.virStoragePool, service: str) -> list[Dump]:
    found = []
    for volume in pool.listAllVolumes():
        info: Any = volume.info()  # the binding's annotation is wrong here
        if dump := parse(volume.name(), int(info[1]), service):
            found.append(dump)
    return found
