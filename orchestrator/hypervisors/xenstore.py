"""Keys of Xen guests in Xenstore: written before a guest runs, and watched while it boots.

libvirt has no way to Xenstore, so Xen's own tools do it (Debian: xenstore-utils), on this machine
or over the URI's ssh: one process for a start that has keys, and one for each wake that waits for
one. Paths and values travel on standard input, a line each, and never through a shell's parser.
Values are written and shown by the tools with escapes (xen tools/xs_lib.c, `unsanitise_value`), so
a line can hold any bytes. The process that writes may be started before the domain is there, so
that ssh shakes hands while Xen builds it.

A key takes the permissions of what it is made in (xen docs/misc/xenstore.txt, "WRITE"): a guest may
read all below its own path, and write below what libxl gives it, ``data`` above all.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import BoundedSemaphore

from orchestrator.errors import HostUnreachable, StartFailed
from orchestrator.hypervisors.connection_hints import LONGEST
from orchestrator.hypervisors.connection_uri import read_uri
from orchestrator.hypervisors.host_command import HostProcess, host_command
from orchestrator.hypervisors.libvirt_faults import connection_hint

WRITE_S = 15.0  # once the domain is there; most of it is for ssh
AGAIN_S = 0.2  # after a connection that sshd had no time for
PLACE_S = 2.0  # how long a wake waits for a place among `MOST_WATCHES`
MOST_WATCHES = 32  # for one host at once; control boots no more in parallel
MOST_NEWS = 2**20  # bytes said about one key: who changes it so often does not get ready
PAYLOAD = 4096  # XENSTORE_PAYLOAD_MAX, xen/include/public/io/xs_wire.h: path, NUL and value
LONGEST_KEY = 255
KEY = re.compile(r"[A-Za-z0-9_@:-]+(/[A-Za-z0-9_@:-]+)*")  # what xenstored takes, relative
WRITTEN = b"written"
INSTALL = "there: apt install xenstore-utils"
NO_WAY = "Xenstore is reached on this machine (xen:///system) and over ssh (xen+ssh://) only"

_BEGIN = """\
exec 2>&1
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin
"""
# Fixed texts, into which nothing is ever put. A busybox dom0 understands them, too.
WRITE = f"""\
{_BEGIN}set --
while IFS= read -r word; do set -- "$@" "$word"; done
xenstore-write -- "$@" && echo {WRITTEN.decode()}
"""
# Says the key's path at each change, and its value each time it is asked by an empty line. When
# nobody is there to ask, the watch ends; an answer that nobody wants any more must not kill the
# shell before.
WATCH = f"""\
{_BEGIN}IFS= read -r key
xenstore-watch -- "$key" &
watch=$!
trap "" PIPE
while read -r again; do
    if value=$(xenstore-read -- "$key" 2>/dev/null); then
        printf '= %s\\n' "$value"
    else
        echo none
    fi
done
kill "$watch"
"""
# An sshd has ten logins under way at once by default, and then drops some (sshd_config(5),
# MaxStartups). Twenty wakes are more than that.
_TURNED_AWAY = re.compile(r"kex_exchange_identification|Connection (closed|reset) by ")
_ESCAPE = re.compile(rb"\\(?:x([0-9a-f]{2})|([0-7]{3})|(.))")
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}

WriteKeys = Callable[[int], None]


class Xenstore:
    """The Xenstore of one host. Safe to use from many threads.

    Every error is `StartFailed`, but for `HostUnreachable` where a watch found sshd too busy, and
    may be tried again.
    """

    def __init__(self, host: str, uri: str) -> None:
        self._host = host
        self._uri = uri
        self._places = BoundedSemaphore(MOST_WATCHES)

    @contextmanager
    def writing(self, keys: Mapping[str, str]) -> Iterator[WriteKeys]:
        """Give what writes these keys below a domain's own path, all or none, given its number.

        Starts the process that will do it; raises before that if they cannot be written.
        """
        for key, value in keys.items():
            self._check(key, value)
        process = self._start(WRITE)
        try:
            yield lambda domain: self._write(process, domain, keys)
        finally:
            process.end()

    def watch(self, domain: int, key: str) -> "DomainKey":
        """Return a key of a domain, seen anew at each change; close it."""
        self._check(key, "")
        if not self._places.acquire(timeout=PLACE_S):
            raise self._failed(
                f"{MOST_WATCHES} wakes wait for Xenstore keys there already",
                "use another probe for some of them",
            )
        try:
            return DomainKey(self._start(WATCH), _path(domain, key), self._broke, self._leave)
        except BaseException:
            self._places.release()
            raise

    def _leave(self) -> None:
        self._places.release()

    def _write(self, process: HostProcess, domain: int, keys: Mapping[str, str]) -> None:
        lines = (
            line
            for key, value in keys.items()
            for line in (_path(domain, key).encode(), escaped(value.encode()))
        )
        told = b"".join(line + b"\n" for line in lines)
        ends_at = time.monotonic() + WRITE_S
        said = process.exchange(told, WRITE_S)
        while _TURNED_AWAY.search(_text(said)) and time.monotonic() < ends_at:
            time.sleep(AGAIN_S)
            said = self._start(WRITE).exchange(told, WRITE_S)
        if said.splitlines()[-1:] != [WRITTEN]:
            text = _text(said) or f"no answer within {WRITE_S:g} s"
            raise self._failed(f"Xenstore keys ({', '.join(keys)}): {text}", _hint(text))

    def _start(self, text: str) -> HostProcess:
        command = host_command(read_uri(self._uri), text)
        if not command:
            raise self._failed(
                f"{NO_WAY}, and its URI is {self._uri}",
                "use xen+ssh; or, for readiness, a probe of the network or the console",
            )
        try:
            return HostProcess(command, with_errors=True)
        except OSError as error:
            raise self._failed(f"{command[0]}: {error.strerror}", f"install {command[0]}") from (
                error
            )

    def _check(self, key: str, value: str) -> None:
        if len(key) > LONGEST_KEY or not KEY.fullmatch(key):
            raise self._failed(
                f"{key!r} is no Xenstore key",
                f"write words of letters, digits, -, _, @ and :, apart by /, {LONGEST_KEY} "
                "characters at most",
            )
        size, room = len(value.encode()), PAYLOAD - 1 - len(_path(2**15, key))
        if size > room:
            raise self._failed(
                f"the Xenstore key {key} would have {size} bytes, and there is room for {room}",
                "make it shorter",
            )

    def _failed(self, message: str, advice: str) -> StartFailed:
        return StartFailed(self._host, message, hint=advice)

    def _broke(self, text: str) -> StartFailed | HostUnreachable:
        """Return the error for what the tools, or ssh, said of a watch."""
        kind = HostUnreachable if _TURNED_AWAY.search(text) else StartFailed
        return kind(self._host, f"its Xenstore: {text}", hint=_hint(text))


class DomainKey:
    """A key that is watched: a `base.KeyWatch`."""

    def __init__(
        self,
        process: HostProcess,
        path: str,
        broke: Callable[[str], StartFailed | HostUnreachable],
        leave: Callable[[], None],
    ) -> None:
        self._process = process
        self._path = path.encode()
        self._broke = broke
        self._leave: Callable[[], None] | None = leave
        self._value: bytes | None = None
        self._rest = b""
        self._size = 0
        self._asked = self._stale = False
        process.tell(self._path + b"\n")

    def fileno(self) -> int:
        """Return the file that is readable when there is news of the key."""
        return self._process.fileno()

    def value(self) -> bytes | None:
        """Take the news; return what the key holds as last seen, None if it is not there."""
        said = self._process.read()
        self._size += len(said)
        *lines, self._rest = (self._rest + said).split(b"\n")
        for line in lines:
            self._take(line)
        if not said:
            raise self._broke(_text(self._rest) or "the connection to it was lost")
        if self._size > MOST_NEWS:
            raise self._broke(f"{self._path.decode()} changes all the time: let it be written once")
        if self._stale and not self._asked:
            self._asked, self._stale = True, False
            self._process.tell(b"\n")
        return self._value

    def close(self) -> None:
        """Let go of the key: the process ends, here and there. May be called twice."""
        leave, self._leave = self._leave, None
        if leave:
            self._process.end()
            leave()

    def _take(self, line: bytes) -> None:
        if line.startswith(b"= ") or line == b"none":
            self._asked = False
            self._value = None if line == b"none" else unescaped(line[2:])
        elif line.startswith(self._path):
            self._stale = True
        elif line.strip():
            raise self._broke(_text(line))


def escaped(value: bytes) -> bytes:
    r"""Return a value as ``xenstore-write`` takes it: printable ASCII, a byte else as ``\xHH``."""
    plain = frozenset(range(0x20, 0x7F)) - {ord("\\")}
    return b"".join(bytes((each,)) if each in plain else b"\\x%02x" % each for each in value)


def unescaped(text: bytes) -> bytes:
    """Return the value that ``xenstore-read`` shows so."""

    def byte(found: re.Match[bytes]) -> bytes:
        hexadecimal, octal, letter = found.groups()
        if letter is not None:
            return _LETTERS.get(letter, letter)
        return bytes((int(hexadecimal, 16) if hexadecimal else int(octal, 8) & 0xFF,))

    return _ESCAPE.sub(byte, text)


def _path(domain: int, key: str) -> str:
    return f"/local/domain/{domain}/{key}"


def _text(said: bytes) -> str:
    """Return the last line of foreign text, fit to be shown."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    shown = "".join(each if each.isprintable() else "?" for each in lines[-1]) if lines else ""
    return shown[:LONGEST]


def _hint(text: str) -> str:
    """Return what to do about what the tools, or ssh, said."""
    if "not found" in text and "xenstore-" in text:
        return INSTALL
    if "xs_open" in text or "xenstore-" in text:
        return "let the user that the URI names use Xenstore there: only root may"
    return connection_hint(text)
