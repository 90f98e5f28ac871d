"""Checks minisign signatures (https://jedisct1.github.io/minisign/): Ed25519 over a file.

Both kinds are read: prehashed (``ED``, over the BLAKE2b-512 of the file) and legacy (``Ed``, over
the file itself). The trusted comment is part of what is checked. The curve is the business of the
`cryptography` package, which only those need who check signatures.
"""

import base64
import binascii
import hashlib
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from images.catalog.files import reading
from images.errors import ImageRefused, ImageUntrusted

SUFFIX = ".minisig"
MOST_BYTES = 16 * 1024  # a signature file; minisign's own comments are at most 8 KiB
MOST_KEYS = 1000

_LEGACY = b"Ed"
_PREHASHED = b"ED"
_UNTRUSTED = "untrusted comment:"
_TRUSTED = "trusted comment: "


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key; `key_id` is written as minisign prints it."""

    key_id: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature file. `comment` is the trusted one: true only once the signature is checked."""

    key_id: str
    prehashed: bool
    raw: bytes
    comment: str
    over_comment: bytes
    text: str


def keys_of(text: str, where: str) -> tuple[PublicKey, ...]:
    """Return the public keys in a text: one in base64 on each line.

    Comments (as in the files minisign writes, or after ``#``) and empty lines do not count.
    Raises `ImageRefused` if a line is anything else, or there is no key.
    """
    lines = [line.strip() for line in text.splitlines()]
    wanted = [line for line in lines if line and not line.startswith((_UNTRUSTED, "#"))]
    if not wanted or len(wanted) > MOST_KEYS:
        raise ImageRefused(f"{where}: no minisign public key; it is a line of base64, RW...")
    return tuple(_key(line, where) for line in wanted)


def signature_of(text: str, where: str) -> Signature:
    """Return the signature in the text of a signature file; ImageRefused if it is none."""
    lines = [line.rstrip("\r") for line in text.split("\n")]
    told = len(lines) >= 4 and lines[0].startswith(_UNTRUSTED) and lines[2].startswith(_TRUSTED)
    if len(text) > MOST_BYTES or not told or any(lines[4:]):
        raise ImageRefused(f"{where}: not a minisign signature file")
    raw, over_comment = _decoded(lines[1], 74, where), _decoded(lines[3], 64, where)
    if raw[:2] not in {_LEGACY, _PREHASHED}:
        raise ImageRefused(f"{where}: signed by an algorithm that minisign does not have")
    return Signature(
        key_id=_key_id(raw[2:10]),
        prehashed=raw[:2] == _PREHASHED,
        raw=raw[10:],
        comment=lines[2].removeprefix(_TRUSTED),
        over_comment=over_comment,
        text=text,
    )


def check(path: Path, what: str, signature: Signature, keys: Iterable[PublicKey]) -> None:
    """Raise `ImageUntrusted` unless a file was signed so by one of the keys.

    `what` is the file's name for people.
    """
    known = {key.key_id: key for key in keys}
    key = known.get(signature.key_id)
    if key is None:
        raise ImageUntrusted(
            f"{what}: signed by key {signature.key_id}, which is not among the trusted keys: "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    comment = signature.raw + signature.comment.encode()
    if not _is_signed(key, signature.over_comment, comment):
        raise ImageUntrusted(f"{what}: the trusted comment is not the one that was signed")
    with reading(path) as file:
        if signature.prehashed:
            message = hashlib.file_digest(file, hashlib.blake2b).digest()
            right = _is_signed(key, signature.raw, message)
        elif os.fstat(file.fileno()).st_size:
            with (
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
                memoryview(mapped) as whole,
            ):
                right = _is_signed(key, signature.raw, whole)
        else:  # which cannot be mapped
            right = _is_signed(key, signature.raw, b"")
    if not right:
        raise ImageUntrusted(
            f"{what}: its bytes are not those that key {signature.key_id} has signed"
        )


def _is_signed(key: PublicKey, signature: bytes, message: bytes | memoryview) -> bool:
    try:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - it is optional
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415
    except ImportError as error:
        raise ImageUntrusted(
            "signatures cannot be checked without the Python package cryptography; "
            "install edgewake[signatures]"
        ) from error
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _key(line: str, where: str) -> PublicKey:
    raw = _decoded(line, 42, where)
    if raw[:2] != _LEGACY:  # what minisign writes, whichever way it signs
        raise ImageRefused(f"{where}: not a minisign public key")
    return PublicKey(_key_id(raw[2:10]), raw[10:])


def _key_id(raw: bytes) -> str:
    return f"{int.from_bytes(raw, 'little'):X}"


def _decoded(line: str, size: int, where: str) -> bytes:
    try:
        raw = base64.b64decode(line.strip(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != size:
        raise ImageRefused(f"{where}: {line[:60]!r} is not base64 of {size} bytes")
    return raw
