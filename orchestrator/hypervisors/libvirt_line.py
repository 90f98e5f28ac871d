"""Connections to libvirt, and the events that come over them, for `connection.Connections`.

libvirt wants one event loop per process; it runs in a daemon thread that must never wait for a
libvirt call, so tenants only sort events into queues of their own.
"""

import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import libvirt

from orchestrator.hypervisors.connection import Connection, Connections, Unopened
from orchestrator.hypervisors.connection_hints import explained
from orchestrator.hypervisors.connection_uri import guarded
from orchestrator.hypervisors.libvirt_pool import qemu_user

# A silent host counts as lost after about 20 s. While one call waits for long, libvirt's client
# (9.0) may overlook the answer to another until the next keepalive: that must not take 5 s.
KEEPALIVE_S, KEEPALIVE_COUNT = 2, 9

CRASHED = "crashed"
_ENDS = {
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: "shut down",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: "destroyed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: CRASHED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED: "migrated",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SAVED: "saved",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: "failed",
}
_LOSSES = {
    libvirt.VIR_CONNECT_CLOSE_REASON_ERROR: "connection error",
    libvirt.VIR_CONNECT_CLOSE_REASON_EOF: "libvirt closed the connection",
    libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE: "no answer to keepalive",
}

_loop_lock = threading.Lock()


@cache
def _event_loop() -> threading.Thread:
    """Start libvirt's event loop for this process; hold `_loop_lock`. Never ends, as libvirt asks.

    Also keeps libvirt from printing errors that we raise anyway.
    """

    def run() -> None:
        while True:
            with suppress(libvirt.libvirtError):
                libvirt.virEventRunDefaultImpl()

    libvirt.registerErrorHandler(f=lambda _context, _error: None, ctx=None)
    libvirt.virEventRegisterDefaultImpl()
    thread = threading.Thread(target=run, name="libvirt-events", daemon=True)
    thread.start()
    return thread


@dataclass(frozen=True, slots=True)
class Line:
    """An open connection, what undoes its registration, and facts about the host behind it.

    `user` is the user and group id that guests run as there, if libvirt gives them another than its
    own, and then also gives them their files unless told not to (its DAC driver); else None.
    `machine` is its architecture as libvirt names it, `cores` its number of processors.
    """

    conn: libvirt.virConnect
    lifecycle: int
    user: tuple[int, int] | None
    machine: str
    cores: int


class LibvirtTransport:
    """Opens libvirt connections and feeds their events to `Connection`."""

    def open(self, uri: str, connection: Connection[Line]) -> Line:
        """Connect and register for events; `Unopened` with libvirt's own words."""

        def on_close(_conn: libvirt.virConnect, reason: int, _opaque: object) -> None:
            connection.lose(line, _LOSSES.get(reason, f"closed ({reason})"))

        def on_lifecycle(
            _conn: libvirt.virConnect,
            domain: libvirt.virDomain,
            event: int,
            detail: int,
            _opaque: object,
        ) -> None:
            if event == libvirt.VIR_DOMAIN_EVENT_SHUTDOWN:
                why = "shut down"  # QEMU's end, which libvirt may see 2 s later, is still to come
            elif event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
                why = _ENDS.get(detail, f"stopped ({detail})")
            else:
                return
            for tenant in connection.tenants:
                tenant.ended(domain.UUIDString(), why)

        with _loop_lock:
            _event_loop()
        try:
            conn = libvirt.open(guarded(uri))
            with suppress(libvirt.libvirtError):  # not every transport has keepalive
                conn.setKeepAlive(KEEPALIVE_S, KEEPALIVE_COUNT)
            event = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
            lifecycle = conn.domainEventRegisterAny(None, event, on_lifecycle, None)
            node: Any = conn.getInfo()  # the binding's annotation is wrong here
            user = qemu_user(conn.getCapabilities())
            line = Line(conn, lifecycle, user, machine=str(node[0]), cores=int(node[2]))
            conn.registerCloseCallback(on_close, None)
        except libvirt.libvirtError as error:
            raise Unopened(explained(uri, error_text(error))) from error
        return line

    def alive(self, line: Line) -> bool:
        """Return whether the socket is open."""
        return line.conn.isAlive() == 1

    def close(self, line: Line) -> None:
        """Close; callbacks go first, because they keep a connection open."""
        with suppress(libvirt.libvirtError):
            line.conn.unregisterCloseCallback()
        with suppress(libvirt.libvirtError):
            line.conn.domainEventDeregisterAny(line.lifecycle)
        with suppress(libvirt.libvirtError):
            line.conn.close()


def error_text(error: libvirt.libvirtError) -> str:
    """Return libvirt's own words."""
    return error.get_error_message() or str(error)


# As process-wide as libvirt's own event loop; tests bring their own.
SHARED: Connections[Line] = Connections(LibvirtTransport())
