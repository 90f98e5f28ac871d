"""Serves a WSGI application on a UNIX socket that only its owner may open.

There is no TCP listener: whoever may open the socket file may do everything, nobody else anything.
"""

import os
import socket
import threading
from contextlib import ExitStack
from logging import getLogger
from pathlib import Path
from typing import Any

from werkzeug.serving import WSGIRequestHandler, make_server

from orchestrator.errors import EdgewakeError

log = getLogger(__name__)

MODE = 0o600
BACKLOG = 128
CONNECT_S = 1.0  # to find out whether somebody answers on a socket file that is there
SILENT_CLIENT_S = 30.0  # for a request to come in whole
STOP_POLL_S = 0.05  # how soon `stop` is noticed


class Server:
    """One thread that accepts, and one per request. `stop` does not wait for requests."""

    def __init__(self, app: Any, path: Path) -> None:
        self.path = path
        self._app = app
        self._parts = ExitStack()

    def start(self) -> None:
        """Listen and serve. Raises EdgewakeError if the socket cannot be made."""
        with ExitStack() as parts:
            listener = parts.enter_context(_listen(self.path))
            parts.callback(self.path.unlink, missing_ok=True)
            server = make_server(
                f"unix://{self.path}",
                0,
                self._app,
                threaded=True,
                request_handler=_Handler,
                fd=listener.fileno(),
            )
            parts.callback(server.server_close)
            thread = threading.Thread(
                target=server.serve_forever, args=(STOP_POLL_S,), name="api", daemon=True
            )
            thread.start()
            parts.callback(thread.join)
            parts.callback(server.shutdown)
            self._parts = parts.pop_all()

    def stop(self) -> None:
        """Take no more requests and remove the socket file. May be called twice."""
        self._parts.close()


class _Handler(WSGIRequestHandler):
    """Logs through our own logger, and gives up on clients that send nothing."""

    timeout = SILENT_CLIENT_S

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002, ARG002 - theirs
        log.debug(message, *args)


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        # On Linux the file gets the mode of its socket; a umask would be for the whole process.
        os.fchmod(listener.fileno(), MODE)
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise EdgewakeError(
            f"cannot listen on {path}: {error.strerror or error}",
            hint="name a state directory that this user may write to, with a short path",
        ) from error
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    """Remove a socket file that a process left which is gone; refuse to take a living one's."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise EdgewakeError(
        f"{path}: another edgewake answers there", hint="end it, or name another state directory"
    )
