"""Calls to one host's libvirt: over a connection that is there, with errors made ours."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import libvirt

from orchestrator.errors import DiskFull, HostUnreachable, StartFailed
from orchestrator.hypervisors import libxl_log
from orchestrator.hypervisors.agreement import differences
from orchestrator.hypervisors.connection import OPEN_TIMEOUT_S, Connection, Unopened
from orchestrator.hypervisors.libvirt_errors import is_unreachable
from orchestrator.hypervisors.libvirt_faults import call_hint, connection_hint, is_disk_full
from orchestrator.hypervisors.libvirt_line import Line, error_text
from orchestrator.model import Host


class LibvirtCalls:
    """What a driver of one host needs for each of its calls; the driver extends it.

    The driver sets `_connection` when it is made, and `_closed` when nothing is to be called more.
    """

    host: Host
    _connection: Connection[Line]
    _closed: bool

    def _connect(self) -> Line:
        if self._closed:
            raise HostUnreachable(self.host.name, "the driver was closed")
        where = f"no connection to {self.host.uri}"
        try:
            return self._connection.get()
        except TimeoutError:
            text = f"{where} within {OPEN_TIMEOUT_S:g} s"
            advice = connection_hint("timed out")
            raise HostUnreachable(self.host.name, text, hint=advice) from None
        except Unopened as error:
            advice = connection_hint(str(error))
            raise HostUnreachable(self.host.name, f"{where}: {error}", hint=advice) from error

    def _check(self, line: Line) -> None:
        """Refuse to start anything on a host that is not what the lab file says."""
        for difference in differences(self.host, line.machine, line.cores):
            raise self._refused(difference.what, difference.cure)

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Turn what libvirt and the file system say into our two errors."""
        began = time.monotonic()
        try:
            yield
        except libvirt.libvirtError as error:
            text = error_text(error)
            if libxl_log.OPAQUE in text:
                raise self._by_libxl(what, text, time.monotonic() - began) from error
            kind = HostUnreachable if is_unreachable(error) else _refusal(text)
            raise kind(self.host.name, f"{what}: {text}", hint=call_hint(text)) from error
        except OSError as error:
            message = f"{what}: {error.filename}: {error.strerror}"
            hint = call_hint(message) or "run as the owner of that file, or as root"
            raise _refusal(message)(self.host.name, message, hint=hint) from error

    def _by_libxl(self, what: str, text: str, took_s: float) -> StartFailed:
        """Return libvirt's error with the cause, which only libxl's log there tells."""
        try:
            why, advice = libxl_log.cause(libxl_log.read_tail(self._connect().conn), took_s)
        except HostUnreachable:
            why, advice = "", ""
        advice = advice or f"see {libxl_log.FOLDER}/{libxl_log.FILE} there"
        return _refusal(why or text)(self.host.name, f"{what}: {why or text}", hint=advice)

    def _refused(self, message: str, advice: str) -> StartFailed:
        return StartFailed(self.host.name, message, hint=advice)


def _refusal(text: str) -> type[StartFailed]:
    return DiskFull if is_disk_full(text) else StartFailed
