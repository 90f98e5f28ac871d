"""The door as seen from the daemon: a child process that listens on a socket of ours.

We open the socket, so a taken address is known at once, callers wait in its backlog while the child
starts, and nothing is refused while it starts again. The child ends when the pipe to it does, so it
is gone when we are, however we ended.
"""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from orchestrator import logs
from orchestrator.errors import EdgewakeError
from orchestrator.model import WebSettings
from web.door.settings import DoorSettings
from web.door.tls import tls_context
from web.door.tokens import Tokens
from web.loopback import reached_at

log = logging.getLogger(__name__)

BACKLOG = 128
END_S = 2.0
FIRST_REST_S = 0.5  # after a child that ended by itself; doubles with each further one
LONGEST_REST_S = 30.0
WELL_S = 60.0  # who ran as long counts as well again
KINDS = {kind: kind for kind in ("login", "login-failed", "refused")}  # of events in the journal
HOW_TO_TOKEN = "make one with 'edgewake token create --role admin'"  # noqa: S105 - no secret

_ROOT = Path(__file__).parents[2]

Note = Callable[..., None]  # as `orchestrator.journal.Journal.record`


class DoorProcess:
    """Keeps a door running. `bind`, `start`, then `want` whatever the lab says; `stop` ends it.

    `base` says whom it asks; where it listens is what `WebSettings` say. `place` is a file that
    tells other programs the address while there is a door.
    """

    def __init__(self, base: DoorSettings, place: Path, note: Note) -> None:
        self._base = base
        self._place = place
        self._note = note
        self._lock = threading.Lock()  # one at a time changes what is wanted
        self._web: WebSettings | None = None
        self._seen: tuple[object, ...] = ()  # what the files of TLS were like
        self._listener: socket.socket | None = None
        self._settings = base
        self._child: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None
        self._over = threading.Event()
        self._starting = threading.Lock()  # no child is started once it is over

    @property
    def url(self) -> str | None:
        """Where browsers reach it from this machine; None if there is no door."""
        return _url(self._settings) if self._listener is not None else None

    def bind(self, web: WebSettings) -> None:
        """Listen as the lab says. Without a door if it says so, or if the default is taken.

        Raises EdgewakeError: an address that somebody wrote cannot be had, the files of TLS cannot
        be used, or other machines could come in and nobody has a token.
        """
        self._place.unlink(missing_ok=True)
        self._web, self._seen = web, _files(web)
        if not web.port:
            return
        self._refuse_unsafe(web)
        listener = _listen(web)
        if listener is None:
            return
        host, port = listener.getsockname()[:2]
        self._listener = listener
        self._settings = replace(
            self._base,
            host=host,
            port=port,
            names=web.names,
            certificate=web.certificate,
            key=web.key,
            behind_proxy=web.behind_proxy,
            streams=web.streams,
        )
        self._place.write_text(json.dumps({"url": self.url}))

    def start(self) -> None:
        """Start the child, if there is a socket; does not wait for it."""
        if self._listener is None:
            return
        self._over.clear()
        with self._starting:
            child = self._try_to_spawn()
        self._keeper = threading.Thread(target=self._keep, args=(child,), name="door", daemon=True)
        self._keeper.start()

    def want(self, web: WebSettings) -> None:
        """Go over to what a lab says now; new files of TLS are read. Logs what cannot be had."""
        with self._lock:
            if self._web is None or (web == self._web and _files(web) == self._seen):
                return
            before = self._web
            self._end()
            try:
                self.bind(web)
            except (EdgewakeError, OSError) as error:
                log.error("the dashboard goes on as before: %s", error)  # noqa: TRY400 - no defect
                self._note("web-refused", self._base.lab, str(error))
                self._as_before(before)
            self.start()

    def stop(self) -> None:
        """End it. May be called twice."""
        with self._lock:
            self._end()
            self._web = None

    # --- inside -------------------------------------------------------------------------------

    def _as_before(self, before: WebSettings) -> None:
        try:
            self.bind(before)
        except (EdgewakeError, OSError) as error:
            log.error("there is no dashboard now: %s", error)  # noqa: TRY400 - no defect of ours

    def _end(self) -> None:
        self._over.set()
        with self._starting:
            child, self._child = self._child, None
        if child is not None:
            _close(child)
        if self._keeper is not None:
            self._keeper.join()
            self._keeper = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            self._place.unlink(missing_ok=True)

    def _refuse_unsafe(self, web: WebSettings) -> None:
        if web.certificate is not None and web.key is not None:
            try:
                tls_context(web.certificate, web.key)
            except (OSError, ValueError) as error:
                raise EdgewakeError(
                    f"web.tls: {web.certificate} and {web.key} cannot be used: {error}",
                    hint="name a certificate and its key, in PEM, that this user may read",
                ) from error
        if ip_address(web.address).is_loopback or Tokens(self._base.tokens).any_valid():
            return
        raise EdgewakeError(
            f"web.listen: other machines reach {web.address}, and nobody has a token to log in",
            hint=HOW_TO_TOKEN,
        )

    def _spawn(self) -> subprocess.Popen[bytes]:
        assert self._listener is not None  # noqa: S101 - for the type checker
        descriptor = self._listener.fileno()
        # Found where we were found, whatever the working directory is.
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "web.door", str(descriptor), *logs.chosen()],
            pass_fds=(descriptor,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for us; we tell it
        )
        assert child.stdin is not None  # noqa: S101 - for the type checker
        with suppress(BrokenPipeError):  # it ended already: whoever waits for it sees that
            child.stdin.write(self._settings.to_json().encode() + b"\n")
            child.stdin.flush()
        self._child = child
        return child

    def _try_to_spawn(self) -> subprocess.Popen[bytes] | None:
        """Start a child; None if the machine has no room for one now, such as for its pipes."""
        try:
            return self._spawn()
        except OSError as error:
            log.warning("the door cannot be started: %s", error)
            return None

    def _keep(self, child: subprocess.Popen[bytes] | None) -> None:
        """Pass on what the child notes, and start it again when it ends by itself."""
        rest_s = FIRST_REST_S
        while True:
            began = time.monotonic()
            ended = "could not be started" if child is None else self._accompany(child)
            if self._over.is_set():
                return
            rest_s = FIRST_REST_S if time.monotonic() - began > WELL_S else rest_s
            self._note(
                "web-ended",
                self._base.lab,
                f"the door {ended}; it starts again in {rest_s:g} s",
            )
            if child is not None:
                _close(child)
            self._over.wait(rest_s)
            rest_s = min(2 * rest_s, LONGEST_REST_S)
            with self._starting:
                if self._over.is_set():
                    return
                child = self._try_to_spawn()

    def _accompany(self, child: subprocess.Popen[bytes]) -> str:
        """Pass on what a child notes until it has ended; return how that was."""
        self._listen_to(child)
        return f"ended by itself, with {child.wait()}"

    def _listen_to(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None  # noqa: S101 - for the type checker
        with suppress(ValueError):  # it was closed while we read
            for line in child.stdout:
                self._pass_on(line)

    def _pass_on(self, line: bytes) -> None:
        try:
            told = json.loads(line)
            self._note(KINDS[told["kind"]], told["subject"], told["text"])
        except (ValueError, KeyError, TypeError):
            log.warning("the door says what makes no sense: %r", line[:200])


def _close(child: subprocess.Popen[bytes]) -> None:
    """End a child, and let go of its pipes; it keeps nothing that would be lost."""
    child.terminate()
    try:
        child.wait(END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()


def _listen(web: WebSettings) -> socket.socket | None:
    """Return a socket that listens; None if the default address is taken."""
    family = socket.AF_INET6 if ":" in web.address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(web.listen)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        where = _shown(web.address, web.port)
        if web.is_default:
            log.warning(
                "there is no dashboard: %s: %s (another place: web.listen in the lab file)",
                where,
                error.strerror,
            )
            return None
        raise EdgewakeError(
            f"web.listen: cannot listen on {where}: {error.strerror}",
            hint="end who listens there, or name another address in the lab file",
        ) from error
    return listener


def _files(web: WebSettings) -> tuple[object, ...]:
    """Return what tells whether the files of TLS are the same as before."""
    found: list[object] = []
    for path in (web.certificate, web.key):
        try:
            stat = path.stat() if path else None
        except OSError:
            stat = None
        found.append(stat and (stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(found)


def _url(settings: DoorSettings) -> str:
    if settings.behind_proxy and settings.certificate is None and settings.names:
        return f"https://{settings.names[0]}"
    host = reached_at(settings.host)
    if settings.certificate is not None and settings.names:
        host = settings.names[0]  # which the certificate names
    scheme = "http" if settings.certificate is None else "https"
    return f"{scheme}://{_shown(host, settings.port)}"


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
