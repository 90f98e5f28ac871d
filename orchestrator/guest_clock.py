"""What time a guest believes it is: read from the date in its answer to an HTTP request.

For finding out whether its clock survives a sleep. Servers that know the time send it with every
answer (RFC 9110, section 6.6.1); of guests that are not asked by HTTP, or send no date, nothing is
known.
"""

import contextlib
import http.client
import socket
from email.utils import parsedate_to_datetime

from orchestrator.model import Instance, Probe, ProbeKind

PATIENCE_S = 2.0


def read(instance: Instance, probe: Probe, device: str = "") -> float | None:
    """Return a guest's time in seconds since the epoch, to the second; None if it does not tell.

    `device`, unless empty, is the interface to ask by, whatever the routes say.
    """
    if probe.kind is not ProbeKind.HTTP:
        return None
    to = str(instance.address)
    connection = http.client.HTTPConnection(to, probe.port)
    try:
        connection.sock = _connected((to, probe.port), device)
        connection.request("GET", probe.path)
        date = connection.getresponse().getheader("Date")
        return parsedate_to_datetime(date).timestamp() if date else None
    except (OSError, http.client.HTTPException, ValueError, OverflowError):
        return None
    finally:
        connection.close()


def _connected(to: tuple[str, int], device: str) -> socket.socket:
    with contextlib.ExitStack() as undo:
        sock = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        sock.settimeout(PATIENCE_S)
        if device:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        sock.connect(to)
        undo.pop_all()
        return sock
