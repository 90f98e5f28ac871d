"""Tokens: who may come in, in one file of the state directory.

The file works without a running edgewake: the command line writes it, the door reads it again when
it has changed. It is replaced whole, under a lock beside it, and only its owner may read it.

A token is 256 random bits, so that what is stored can be a plain SHA-256 of it: slow hashes are for
secrets that people think up, and nobody tries 2**256 of these. What is stored is compared in
constant time. One-time logins (`edgewake dashboard`) are kept in the same file: they are tokens
that live for minutes and are gone when they are used.
"""

import fcntl
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

from orchestrator.errors import EdgewakeError, StoreError
from web.roles import Caller, Role

PREFIX = "ew_"  # by which people and secret scanners know a token
SECRET_BYTES = 32
ONCE_S = 300.0  # how long a one-time login may wait to be used
MARK_USED_S = 60.0  # how old the time of last use may get before it is written again
LONGEST_S = 100 * 365 * 86400.0  # that a token may be valid, unless for ever
KEPT_S = 90 * 86400.0  # how long a token that has ended is still listed
MOST_TOKENS = 1000
MODE = 0o600
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}")

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; its text is not. Times are seconds since the epoch."""

    id: str
    name: str
    role: Role
    digest: str  # SHA-256 of the text, in hexadecimal
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    used_at: float | None = None

    @property
    def caller(self) -> Caller:
        """Who somebody with this token is."""
        return Caller(self.name, self.role)

    def state(self, now: float) -> str:
        """Return ``valid``, ``revoked`` or ``expired``."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and now >= self.expires_at:
            return "expired"
        return "valid"


@dataclass(frozen=True, slots=True)
class _Once:
    """A login that was not used yet."""

    name: str
    role: Role
    digest: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class _Content:
    """The whole file."""

    tokens: tuple[Token, ...] = ()
    logins: tuple[_Once, ...] = ()


class Tokens:
    """The tokens of a state directory. Safe to call from threads and processes.

    All calls raise `StoreError` when the file cannot be read or written.
    """

    def __init__(self, path: Path, clock: Clock = time.time) -> None:
        self.path = path
        self._clock = clock
        self._lock = Lock()
        self._seen: tuple[int, int, int] | None = None
        self._content = _Content()

    # --- tokens -------------------------------------------------------------------------------

    def create(self, name: str, role: Role, *, lasts_s: float | None = None) -> tuple[Token, str]:
        """Add a token; return it and its text, which cannot be had again.

        Raises EdgewakeError if the name is none, or there are too many tokens.
        """
        _check_name(name)
        text = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        now = self._clock()
        token = Token(
            id=secrets.token_hex(4),
            name=name,
            role=role,
            digest=_digest(text),
            created_at=now,
            expires_at=None if lasts_s is None else now + lasts_s,
        )
        with self._changing() as content:
            kept = tuple(each for each in content.tokens if not _forgotten(each, now))
            if len(kept) >= MOST_TOKENS:
                raise EdgewakeError(
                    f"there are {len(kept)} tokens", hint="revoke some, and wait until they go"
                )
            self._write(replace(content, tokens=(*kept, token)))
        return token, text

    def list(self) -> tuple[Token, ...]:
        """Return all tokens, also those that ended in the last months, oldest first."""
        return self._read().tokens

    def get(self, token_id: str) -> Token | None:
        """Return the token with an id, or None."""
        return next((each for each in self._read().tokens if each.id == token_id), None)

    def valid(self, token_id: str) -> bool:
        """Return whether a token still lets somebody in."""
        token = self.get(token_id)
        return token is not None and token.state(self._clock()) == "valid"

    def any_valid(self) -> bool:
        """Return whether anybody at all has a token that lets them in."""
        now = self._clock()
        return any(each.state(now) == "valid" for each in self._read().tokens)

    def revoke(self, token_id: str) -> Token | None:
        """End a token; return it, or None if there is none with that id. May be repeated."""
        now = self._clock()
        with self._changing() as content:
            found = next((each for each in content.tokens if each.id == token_id), None)
            if found is None or found.revoked_at is not None:
                return found
            ended = replace(found, revoked_at=now)
            self._write(replace(content, tokens=_with(content.tokens, ended)))
        return ended

    def find(self, text: str) -> Token | None:
        """Return the valid token that has this text, or None; notes that it was used."""
        if not text.startswith(PREFIX):
            return None
        digest, now = _digest(text), self._clock()
        matches = [t for t in self._read().tokens if hmac.compare_digest(t.digest, digest)]
        if not matches or matches[0].state(now) != "valid":
            return None
        if now - (matches[0].used_at or 0.0) >= MARK_USED_S:
            with suppress(StoreError):  # a full disk keeps nobody out
                self._mark_used(matches[0].id, now)
        return matches[0]

    # --- one-time logins ----------------------------------------------------------------------

    def once(self, name: str, role: Role) -> str:
        """Return a text with which somebody may log in once, within five minutes.

        Raises EdgewakeError if the name is none.
        """
        _check_name(name)
        text, now = secrets.token_urlsafe(SECRET_BYTES), self._clock()
        login = _Once(name, role, _digest(text), now + ONCE_S)
        with self._changing() as content:
            waiting = tuple(each for each in content.logins if each.expires_at > now)
            self._write(replace(content, logins=(*waiting, login)))
        return text

    def redeem(self, text: str) -> Caller | None:
        """Return who a one-time login is for, and forget it; None if there is none such."""
        digest, now = _digest(text), self._clock()
        if not any(hmac.compare_digest(each.digest, digest) for each in self._read().logins):
            return None  # nothing is locked or written for those who guess
        with self._changing() as content:
            found = [each for each in content.logins if each.digest == digest]
            left = tuple(each for each in content.logins if each.digest != digest)
            self._write(replace(content, logins=left))
        if not found or found[0].expires_at <= now:
            return None
        return Caller(found[0].name, found[0].role)

    # --- the file -----------------------------------------------------------------------------

    def _mark_used(self, token_id: str, now: float) -> None:
        with self._changing() as content:
            token = next((each for each in content.tokens if each.id == token_id), None)
            if token is not None:
                used = replace(token, used_at=now)
                self._write(replace(content, tokens=_with(content.tokens, used)))

    def _read(self) -> _Content:
        """Return what the file says now; it is only read when it has changed."""
        with self._lock:
            try:
                found = self.path.stat()
            except FileNotFoundError:
                self._seen, self._content = None, _Content()
                return self._content
            except OSError as error:
                raise self._unreadable(error) from error
            seen = (found.st_mtime_ns, found.st_ino, found.st_size)
            if seen != self._seen:
                try:
                    self._content = _content(json.loads(self.path.read_text()))
                except (OSError, ValueError, KeyError, TypeError) as error:
                    raise self._unreadable(error) from error
                self._seen = seen
            return self._content

    def _unreadable(self, error: Exception) -> StoreError:
        return StoreError(
            f"{self.path}: the tokens cannot be read: {error}",
            hint="run as its owner; if it is damaged, remove it and create tokens anew",
        )

    @contextmanager
    def _changing(self) -> Iterator[_Content]:
        """Hold the lock that all processes share, and give what the file says."""
        try:
            lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, MODE)
        except OSError as error:
            raise StoreError(
                f"{self.path}: the tokens cannot be changed: {error.strerror}",
                hint="run as the owner of the state directory, such as with sudo",
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._read()
        finally:
            os.close(lock)

    def _write(self, content: _Content) -> None:
        """Replace the file; a crash leaves the old one or the new one."""
        draft = self.path.with_suffix(".new")
        try:
            draft.unlink(missing_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
            with os.fdopen(descriptor, "w") as file:
                json.dump(asdict(content), file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
        except OSError as error:
            raise StoreError(
                f"{self.path}: the tokens cannot be written: {error.strerror}",
                hint="run as the owner of the state directory, and look at its disk",
            ) from error


def _check_name(name: str) -> None:
    """Refuse what is no name: it goes into headers and the audit log as it is."""
    if not NAME.fullmatch(name):
        raise EdgewakeError(
            f"{name!r} is no name for who has a token",
            hint="use up to 64 letters, digits, spaces and . _ @ -, a letter or digit first",
        )


def _digest(text: str) -> str:
    return sha256(text.encode(errors="surrogateescape")).hexdigest()


def _with(tokens: tuple[Token, ...], changed: Token) -> tuple[Token, ...]:
    return tuple(changed if each.id == changed.id else each for each in tokens)


def _forgotten(token: Token, now: float) -> bool:
    ends = [each for each in (token.revoked_at, token.expires_at) if each is not None]
    return bool(ends) and min(ends) + KEPT_S < now


def _content(document: Any) -> _Content:
    return _Content(
        tokens=tuple(Token(**{**each, "role": Role(each["role"])}) for each in document["tokens"]),
        logins=tuple(_Once(**{**each, "role": Role(each["role"])}) for each in document["logins"]),
    )
