"""What time a guest believes it is: read from the date in its answer to an HTTP request.

For finding out whether its clock survives a sleep. Servers that know the time send it with every
answer (RFC 9110, section 6.6.1); of guests that are not asked by HTTP, or send no date, nothing is
known.
"""

import http.client
from email.utils import parsedate_to_datetime

from orchestrator.model import Instance, Probe, ProbeKind

PATIENCE_S = 2.0


def read(instance: Instance, probe: Probe) -> float | None:
    """Return a guest's time in seconds since the epoch, to the second; None if it does not tell."""
    if probe.kind is not ProbeKind.HTTP:
        return None
    connection = http.client.HTTPConnection(str(instance.address), probe.port, timeout=PATIENCE_S)
    try:
        connection.request("GET", probe.path)
        date = connection.getresponse().getheader("Date")
        return parsedate_to_datetime(date).timestamp() if date else None
    except (OSError, http.client.HTTPException, ValueError, OverflowError):
        return None
    finally:
        connection.close()
