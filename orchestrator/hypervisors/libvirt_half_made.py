"""Domains that libvirt's QEMU driver began to start, or to restore, and never brought to the end.

A libvirtd that dies in such a start leaves a domain half made. The next one ends it, with one
exception (libvirt 9.0): if the old one died before it had written down QEMU's process id, the new
one takes over the domain and the lock of that start, which nobody will ever release. No process is
behind it: QEMU's waits for a sign of the libvirtd that made it, and ends with that. But each call
that needs the lock waits 30 s for it in vain, also `virDomainDestroy`, also after another restart.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

import libvirt

from orchestrator.errors import NameHeld, StartFailed
from orchestrator.hypervisors import libvirt_census as census
from orchestrator.hypervisors import libvirt_domains as domains
from orchestrator.hypervisors.connection_uri import guarded
from orchestrator.hypervisors.libvirt_errors import lookup

PATIENCE_S = 3.0  # with a start that is under way, and with the end of one; both take far less
_POLL_S = 0.05

Run = tuple[str, int]  # a domain's UUID, and its number in this run of it


class HalfMade:
    """The half-made domains of one host. Safe to use from many threads."""

    def __init__(self, host: str, uri: str) -> None:
        self._host = host
        self._uri = uri
        self._stuck: set[Run] = set()

    def forget(self) -> None:
        """Try again with all: libvirtd there may be another one now."""
        self._stuck.clear()

    def remove(self, domain: libvirt.virDomain) -> None:
        """End a half-made domain; raises `NameHeld` if libvirt does not let go of it.

        Of one that has been stuck before, libvirt is not asked again. Raises libvirt's errors.
        """
        run = _run(domain)
        if run not in self._stuck:
            ended = _in_thread(partial(_destroyed, self._uri, *run))
            try:
                ended.result(PATIENCE_S)
            except TimeoutError:
                self._stuck.add(run)
                ended.add_done_callback(lambda end: self._note_end(run, end))
            else:
                return
        name = domain.name()
        raise NameHeld(
            self._host,
            f"libvirt there keeps {name} locked, whose start a crash of libvirtd cut off; "
            "nothing of it runs",
            hint=f"there: `rm /run/libvirt/qemu/{name}.xml`, then `systemctl restart libvirtd`; "
            "its guests go on",
        )

    def _note_end(self, run: Run, end: "Future[None]") -> None:
        if end.exception() is None:
            self._stuck.discard(run)

    def wait_for(self, domain: libvirt.virDomain) -> None:
        """Wait until a half-made domain is made; raises `StartFailed` if that does not come."""
        deadline = time.monotonic() + PATIENCE_S
        while domains.standing(domain) == census.HALF_MADE:
            if _run(domain) in self._stuck or time.monotonic() > deadline:
                text = f"{domain.name()} was being brought back when libvirtd there died"
                raise StartFailed(self._host, text, hint="start it anew")
            time.sleep(_POLL_S)


def _run(domain: libvirt.virDomain) -> Run:
    return domain.UUIDString(), domain.ID()


def _destroyed(uri: str, uuid: str, number: int) -> None:
    """Destroy a domain if it is half made still, over a connection of its own.

    A call that waits for long can hold up all others of its connection for 5 s (libvirt 9.0).
    """
    conn = libvirt.open(guarded(uri))
    try:
        domain = lookup(conn.lookupByUUIDString, uuid)
        if domain is None or domain.ID() != number:
            return
        if domains.standing(domain) == census.HALF_MADE:
            domain.destroy()
    finally:
        conn.close()


def _in_thread(work: Callable[[], None]) -> "Future[None]":
    ended: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except libvirt.libvirtError as error:
            ended.set_exception(error)
        else:
            ended.set_result(None)

    threading.Thread(target=run, name="end a half-made domain", daemon=True).start()
    return ended
