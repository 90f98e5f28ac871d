"""The door as a process: ``python -m web.door``, started by the daemon.

Its standard input begins with one line, the settings as JSON; the number of the socket that listens
is its argument, since the daemon opened it. The end of standard input is the order to end: so the
door is gone when the daemon is, however that ended. What an audit log should know is written to
standard output, a line of JSON each.
"""

import json
import logging
import os
import socket
import sys
import threading

from web.door.access import Access
from web.door.app import create_door
from web.door.server import TcpServer, TlsAdapter
from web.door.settings import DoorSettings
from web.door.tokens import Tokens
from web.door.upstream import Upstream

NICENESS = 5  # DNS answers first
LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def main() -> None:
    """Serve until standard input ends."""
    logging.basicConfig(format=LOG_FORMAT, level=logging.INFO, stream=sys.stderr)
    settings = DoorSettings.from_json(sys.stdin.readline())
    os.nice(NICENESS)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    access = Access(Tokens(settings.tokens), note=_note)
    app = create_door(Upstream(settings.socket), access, settings)
    tls = None
    if settings.certificate is not None and settings.key is not None:
        tls = TlsAdapter(settings.certificate, settings.key)
    listener = socket.socket(fileno=int(sys.argv[1]))
    TcpServer(listener, app, streams=settings.streams, tls=tls).start()


def _end_with_stdin() -> None:
    """End at once when the daemon says so, or is gone: nothing here has to be put in order."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(0)


def _note(kind: str, subject: str, text: str) -> None:
    print(json.dumps({"kind": kind, "subject": subject, "text": text}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
