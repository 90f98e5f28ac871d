"""The door as a process: ``python -m web.door``, started by the daemon.

Its standard input begins with one line, the settings as JSON; its arguments are the number of the
socket that listens, which the daemon opened, and how it is to log. The end of standard input is the
order to end: so the door is gone when the daemon is, however that ended. What an audit log should
know is written to standard output, a line of JSON each.
"""

import json
import os
import socket
import sys
import threading

from orchestrator import logs
from web.door.access import Access
from web.door.app import create_door
from web.door.rights import give_up
from web.door.server import TcpServer, TlsAdapter
from web.door.settings import DoorSettings
from web.door.tokens import Tokens
from web.door.upstream import Upstream

NICENESS = 19  # DNS answers and guests first


def main() -> None:
    """Serve until standard input ends."""
    _, descriptor, log_format, log_level = sys.argv
    logs.set_up(logs.LogFormat(log_format), logs.LogLevel(log_level))
    settings = DoorSettings.from_json(sys.stdin.readline())
    os.nice(NICENESS)
    tls = None
    if settings.certificate is not None and settings.key is not None:
        tls = TlsAdapter(settings.certificate, settings.key)
    give_up(settings)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    access = Access(Tokens(settings.tokens), note=_note)
    app = create_door(Upstream(settings.socket), access, settings)
    listener = socket.socket(fileno=int(descriptor))
    TcpServer(listener, app, streams=settings.streams, tls=tls).start()


def _end_with_stdin() -> None:
    """End at once when the daemon says so, or is gone: nothing here has to be put in order."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(0)


def _note(kind: str, subject: str, text: str) -> None:
    # In one piece: other threads write here, too.
    sys.stdout.write(json.dumps({"kind": kind, "subject": subject, "text": text}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
