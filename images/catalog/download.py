"""Fetches a file over HTTP(S) whose digest is known beforehand.

What arrives is kept in a file named by the digest, so that a download that broke goes on where it
stopped: at once, or when it is asked for again. Nothing is believed but the digest.
"""

import fcntl
import hashlib
import http.client
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from images.catalog.blobs import CHUNK, Progress, quiet
from images.catalog.files import DISK_IS_FULL, FILE_MODE, make_folder
from images.catalog.names import Digest, hex_of
from images.errors import DownloadFailed, ImageDamaged, ImageRefused

PART = ".part"
TIMEOUT_S = 30.0  # seconds without one byte
MOST_BYTES = 16 << 30
ATTEMPTS = 4  # in a row, without any progress in between
RETRY_S = 0.2  # after the first failure; longer after each
SCHEMES = ("http", "https")


def is_url(source: str) -> bool:
    """Return whether a source is to be fetched."""
    return source.lower().startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


@contextmanager
def downloaded(
    url: str,
    digest: Digest,
    folder: Path,
    *,
    most: int = MOST_BYTES,
    timeout_s: float = TIMEOUT_S,
    progress: Progress = quiet,
) -> Iterator[Path]:
    """Fetch a file of at most so many bytes into a folder, and yield its path.

    Its digest was checked. It is gone at the end. Raises `DownloadFailed` if it cannot be fetched
    (what has arrived stays), `ImageDamaged` if it is another file, `ImageRefused` if it is larger.
    """
    make_folder(folder)
    path = folder / f"{hex_of(digest)}{PART}"
    with _held(path) as part:
        _Download(url, digest, part, most=most, timeout_s=timeout_s, progress=progress).run(path)
        try:
            yield path
        finally:
            if _is_at(part, path):  # else it was taken away, and another may be there already
                path.unlink()


def is_held(path: Path) -> bool:
    """Return whether somebody is downloading to a file now."""
    with path.open("rb") as part:
        try:
            fcntl.flock(part.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def _held(path: Path) -> Iterator[BinaryIO]:
    """Open a partial file for this process only, waiting for another one that downloads it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        with os.fdopen(descriptor, "r+b") as part:
            fcntl.flock(part.fileno(), fcntl.LOCK_EX)
            if _is_at(part, path):  # else the other one has finished with it, or took it away
                yield part
                return


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Return whether a path still leads to a file that was opened there."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


class _Download:
    def __init__(
        self,
        url: str,
        digest: Digest,
        part: BinaryIO,
        *,
        most: int,
        timeout_s: float,
        progress: Progress,
    ) -> None:
        self._url, self._wanted, self._part = url, digest, part
        self._most, self._timeout_s, self._progress = most, timeout_s, progress
        self._what = shown(url)
        self._found = hashlib.sha256()
        self._done = 0
        self._resumed = False

    def run(self, path: Path) -> None:
        """Download until the digest is right, or it cannot be."""
        self._read_what_is_there()
        if self._resumed and self._digest() == self._wanted:
            return
        failures = 0
        while True:
            before = self._done
            reason = self._try()
            if reason:
                failures = 1 if self._done > before else failures + 1
                self._give_up_after(failures, reason)
                continue
            found = self._digest()
            if found == self._wanted:
                return
            if not self._resumed:
                path.unlink(missing_ok=True)
                raise ImageDamaged(self._what, self._wanted, found)
            self._start_anew()  # what was here before may be what is wrong

    def _read_what_is_there(self) -> None:
        while chunk := self._part.read(CHUNK):
            self._found.update(chunk)
            self._done += len(chunk)
        self._resumed = self._done > 0

    def _try(self) -> str:
        """Fetch what is missing; return nothing when that was all, or why it was not."""
        try:
            return "" if self._fetch() else "the connection ended early"
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in DISK_IS_FULL:
                raise
            return _reason(error)
        except ValueError as error:
            raise DownloadFailed(f"{self._what}: not a URL: {error}") from error

    def _give_up_after(self, failures: int, reason: str) -> None:
        self._part.flush()
        if failures >= ATTEMPTS:
            raise DownloadFailed(
                f"{self._what}: {reason}; {self._done} bytes are here: the same command goes on "
                "from there"
            )
        time.sleep(RETRY_S * failures)

    def _fetch(self) -> bool:
        """Ask for what is missing; return whether the server says that this was all."""
        request = Request(self._url, headers={"Accept-Encoding": "identity"})  # noqa: S310 - is_url
        if self._done:
            request.add_header("Range", f"bytes={self._done}-")
        try:
            response = _OPENER.open(request, timeout=self._timeout_s)
        except HTTPError as error:
            with error:
                return self._told(error)
        with response:
            if response.status == 206 and _start(response) != self._done:
                raise http.client.HTTPException("the server sent another part than was asked for")
            if response.status != 206:
                self._start_anew()
            length = response.headers.get("Content-Length", "")
            total = self._done + int(length) if re.fullmatch(r"[0-9]{1,18}", length) else 0
            self._refuse_large(total)
            while chunk := response.read1(CHUNK):
                self._refuse_large(self._done + len(chunk))
                self._part.write(chunk)
                self._found.update(chunk)
                self._done += len(chunk)
                self._progress(self._what, self._done, total)
            self._part.flush()
            return not total or self._done == total

    def _told(self, error: HTTPError) -> bool:
        if error.code == 416 and self._done:  # nothing is missing, or it is another file by now
            return True
        reason = " ".join(f"HTTP {error.code} {error.reason}".split())  # of loops: several lines
        if error.code in {408, 429} or error.code >= 500:
            raise http.client.HTTPException(reason)
        raise DownloadFailed(f"{self._what}: {reason}")

    def _digest(self) -> Digest:
        return Digest(f"sha256:{self._found.hexdigest()}")

    def _start_anew(self) -> None:
        self._part.seek(0)
        self._part.truncate()
        self._found = hashlib.sha256()
        self._done = 0
        self._resumed = False

    def _refuse_large(self, size: int) -> None:
        if size > self._most:
            self._start_anew()
            raise ImageRefused(f"{self._what}: more than {self._most} bytes, which is the limit")


def shown(url: str) -> str:
    """Return a URL without what may be secret in it: user, password and query."""
    scheme, _, rest = url.partition("://")
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


class _Redirects(HTTPRedirectHandler):
    """Follows redirects to HTTP(S) only: the library's own also goes to FTP."""

    def redirect_request(  # noqa: PLR0917 - the library's own signature
        self,
        req: Request,
        fp: object,
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> Request | None:
        if not is_url(newurl):
            raise DownloadFailed(f"{shown(req.full_url)}: redirects to {newurl[:200]!r}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _opener() -> OpenerDirector:
    """Return what speaks HTTP(S) and nothing else: no file:, ftp: or data: URLs."""
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        HTTPHandler(),
        HTTPSHandler(),
        _Redirects(),
        HTTPDefaultErrorHandler(),
        HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


_OPENER = _opener()


def _start(response: http.client.HTTPResponse) -> int:
    match = re.match(r"bytes ([0-9]{1,18})-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _reason(error: Exception) -> str:
    if isinstance(error, URLError):
        return str(error.reason)
    return str(error) or type(error).__name__
