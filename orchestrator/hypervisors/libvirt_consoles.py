"""Reads the consoles of guests over the connection to their host, where no log daemon of ours is.

For hosts with a remote URI, and for Xen, whose libvirt driver writes no console logs. What a guest
prints is appended to its `ConsoleLogs` file here. There is no thread per guest, nor per host:
libvirt's event loop calls when something was printed; it must not wait for the host, so a stream
that is over is put aside, and ended later by a thread that nobody waits for: libvirtd locks up for
good if a console is closed while it takes the guest of that console away (seen with 9.0 and Xen).
Whoever is about to end a guest therefore lets go of its console first (`let_go`).

A console is opened while its guest is still paused, so that its first words are not lost. `keep`,
called whenever the host is asked what runs, opens those of guests that run already: after a restart
of edgewake, a lost connection, or when somebody took a console over with ``virsh console --force``.
What was printed meanwhile is lost, save for what the host's own buffers hold.
"""

import logging
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, cast

import libvirt

from orchestrator.linux.consoles import ConsoleLogs

REOPEN_S = 5.0  # between attempts to open the console of one guest
REST_S = 5.0  # from the end of a console to its being closed: its guest should be gone by then
CLOSE_S = 5.0  # to wait, at the end, for what is closed
_PIECE = 64 * 1024
# Of a domain that has just ended.
_ENDED = frozenset({libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID})
_EVENTS = (
    libvirt.VIR_STREAM_EVENT_READABLE
    | libvirt.VIR_STREAM_EVENT_ERROR
    | libvirt.VIR_STREAM_EVENT_HANGUP
)

log = logging.getLogger(__name__)


class _Reader:
    """One open console. `over` once nothing more is to be read from it."""

    def __init__(self, instance: str, stream: libvirt.virStream) -> None:
        self.instance = instance
        self.stream = stream
        self.over = False

    def end(self) -> None:
        """Let go of the stream; may wait for the host."""
        with suppress(libvirt.libvirtError):
            self.stream.eventRemoveCallback()
        with suppress(libvirt.libvirtError):
            self.stream.abort()


class ConsoleStreams:
    """The consoles of one host's guests. Safe to use from many threads."""

    def __init__(self, host: str, logs: ConsoleLogs) -> None:
        self._host = host
        self._logs = logs
        self._lock = threading.Lock()  # never held during a call to libvirt
        self._readers: dict[str, _Reader] = {}  # by instance
        self._over: list[tuple[float, _Reader]] = []  # to be ended, at (monotonic)
        self._tried_at: dict[str, float] = {}  # by instance, on the monotonic clock

    def begin(self, domain: libvirt.virDomain, instance: str) -> None:
        """Begin a new log for a guest that does not run yet, and read its console into it.

        A console that cannot be opened does not keep a guest from running: it is logged, and
        `keep` tries again. Raises OSError when the log cannot be written.
        """
        with self._lock:
            self._put_aside(instance)
        self._reap()
        self._logs.fresh(instance)
        self._open(domain, instance)

    def keep(self, guests: Iterable[tuple[str, libvirt.virDomain]]) -> None:
        """Open the consoles, of guests that are there, which are not open."""
        self._reap()
        now = time.monotonic()
        for instance, domain in guests:
            with self._lock:
                tried_at = self._tried_at.get(instance)
                due = instance not in self._readers and (
                    tried_at is None or now - tried_at >= REOPEN_S
                )
            if due:
                self._open(domain, instance)

    def let_go(self, instance: str) -> None:
        """Close the console of a guest that runs and is about to be ended; waits for the host."""
        with self._lock:
            reader = self._readers.pop(instance, None)
        if reader is not None:
            reader.over = True
            reader.end()

    def lost(self) -> None:
        """Take note that the connection broke; does not wait."""
        with self._lock:
            for instance in tuple(self._readers):
                self._put_aside(instance)
            self._tried_at.clear()

    def close(self) -> None:
        """Let go of all consoles. Streams keep a connection open."""
        self.lost()
        thread = self._reap(at=float("inf"))
        if thread is not None:
            thread.join(CLOSE_S)

    def _open(self, domain: libvirt.virDomain, instance: str) -> None:
        with self._lock:
            self._tried_at[instance] = time.monotonic()
        try:
            conn: libvirt.virConnect = cast("Any", domain).connect()  # the binding has no type here
            stream = conn.newStream(libvirt.VIR_STREAM_NONBLOCK)
            first_console: Any = None  # the binding's annotation forgets that this is allowed
            domain.openConsole(first_console, stream, 0)
            reader = _Reader(instance, stream)
            with self._lock:
                self._put_aside(instance)
                self._readers[instance] = reader
            stream.eventAddCallback(_EVENTS, self._on_event, reader)
        except libvirt.libvirtError as error:
            if error.get_error_code() not in _ENDED:
                log.warning("host %s: no console of %s: %s", self._host, instance, error)

    def _on_event(self, stream: libvirt.virStream, _events: int, reader: _Reader) -> None:
        """Take what has come; called by libvirt's event loop, again if there is more."""
        try:
            # Also -2, when there is nothing after all, which the binding's annotation forgets.
            data = cast("bytes | int", stream.recv(_PIECE))
        except libvirt.libvirtError:
            data = b""
        if data == b"":
            self._ended(reader)
        elif isinstance(data, bytes) and not reader.over:
            try:
                self._logs.append(reader.instance, data)
            except OSError as error:
                log.warning("host %s: console of %s: %s", self._host, reader.instance, error)
                self._ended(reader)

    def _ended(self, reader: _Reader) -> None:
        with suppress(libvirt.libvirtError):
            reader.stream.eventRemoveCallback()  # or it would be called again at once
        with self._lock:
            if self._readers.get(reader.instance) is reader:
                self._put_aside(reader.instance)

    def _put_aside(self, instance: str) -> None:
        """Hold the lock."""
        reader = self._readers.pop(instance, None)
        if reader is not None:
            reader.over = True
            self._over.append((time.monotonic() + REST_S, reader))

    def _reap(self, *, at: float | None = None) -> threading.Thread | None:
        """Begin to end what has rested by now, or by a given time (monotonic)."""
        at = time.monotonic() if at is None else at
        with self._lock:
            due = [reader for rested, reader in self._over if rested <= at]
            self._over = [each for each in self._over if each[0] > at]
        if not due:
            return None
        name = f"consoles of {self._host}"
        thread = threading.Thread(target=_end_all, args=(due,), name=name, daemon=True)
        thread.start()
        return thread


def _end_all(readers: Iterable[_Reader]) -> None:
    for reader in readers:
        reader.end()
