"""Transaction signatures (TSIG, RFC 8945): whether a message is from who shares a secret with us.

For `dns_boot.resolver`, which has queries checked here before it answers them, and replies signed;
and for `dns_boot.notify`. HMAC with SHA-256 and SHA-512, untruncated: a shorter MAC counts as a
wrong one, and all other algorithms are obsolete or weaker (RFC 8945, section 6). Secrets come from
files that only their owner may read.
"""

import base64
import binascii
import hashlib
import hmac
import os
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from dns_boot.names import HEADER_BYTES, TSIG, FormatError, Name, name_of, read_name, wire
from orchestrator.errors import EdgewakeError
from orchestrator.model import TsigKey

BADSIG, BADKEY, BADTIME = 16, 17, 18
CLASS_ANY = 255
FUDGE_S = 300  # RFC 8945, section 10, recommends it; whoever grants more is granted this
LEAST_SECRET_BYTES = 16  # RFC 8945, section 8, wants as many as the hash has; 128 bits is the floor
OPEN_TO_OTHERS = 0o077  # permissions of a file that anybody but its owner has

_HASHES: Mapping[Name, str] = {(b"hmac-sha256",): "sha256", (b"hmac-sha512",): "sha512"}
_RECORD = struct.Struct("!HHIH")
_FIXED = struct.Struct("!HIHH")  # time signed (48 bits), fudge, size of the MAC
_TAIL = struct.Struct("!HHH")  # original id, error, length of other data


@dataclass(frozen=True, slots=True)
class Key:
    """A key that is ready to be used: its name, its algorithm and the secret."""

    name: Name
    algorithm: Name
    secret: bytes

    def mac(self, *parts: bytes) -> bytes:
        """Return the MAC of some bytes."""
        return hmac.digest(self.secret, b"".join(parts), _HASHES[self.algorithm])

    @property
    def mac_bytes(self) -> int:
        """How long its MACs are."""
        return hashlib.new(_HASHES[self.algorithm]).digest_size


@dataclass(frozen=True, slots=True)
class Signature:
    """What a TSIG record says."""

    key: Name
    algorithm: Name
    time_s: int
    fudge_s: int
    mac: bytes
    original_id: int
    error: int = 0
    other: bytes = b""


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs the reply to a checked query. `error` is what was wrong with the query, 0 for nothing.

    Without a `key` (it is not known, or did not sign this) the reply says so unsigned.
    """

    signature: Signature
    key: Key | None
    error: int = 0

    @property
    def size(self) -> int:
        """How many bytes `sign` adds."""
        names = len(wire(self.signature.key)) + len(wire(self.signature.algorithm))
        mac = self.key.mac_bytes if self.key else 0
        return names + _RECORD.size + _FIXED.size + mac + _TAIL.size + 6 * (self.error == BADTIME)

    def sign(self, reply: bytes, now: float | None = None) -> bytes:
        """Return a reply with its signature, which covers that of the query."""
        at = int(time.time() if now is None else now)
        late = self.error == BADTIME
        said = replace(
            self.signature,
            time_s=self.signature.time_s if late else at,
            fudge_s=FUDGE_S,
            error=self.error,
            other=at.to_bytes(6, "big") if late else b"",
            mac=b"",
        )
        before = self.signature.mac
        return _signed(reply, said, self.key, len(before).to_bytes(2, "big") + before)


def load_keys(wanted: Iterable[TsigKey]) -> dict[Name, Key]:
    """Return keys by name, their secrets read. Raises EdgewakeError, which names the file."""
    return {name_of(key.name): _load(key) for key in wanted}


def _load(key: TsigKey) -> Key:
    try:
        with key.file.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(4096)
    except OSError as error:
        raise EdgewakeError(
            f"key {key.name}: {key.file} cannot be read: {error.strerror}",
            hint="make one: (umask 077; head -c 32 /dev/urandom | base64 > FILE)",
        ) from error
    if mode & OPEN_TO_OTHERS:
        raise EdgewakeError(
            f"key {key.name}: others than its owner may read {key.file}", hint="chmod 600 it"
        )
    try:
        secret = base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error as error:
        raise EdgewakeError(f"key {key.name}: {key.file} is not base64: {error}") from error
    if len(secret) < LEAST_SECRET_BYTES:
        raise EdgewakeError(
            f"key {key.name}: the secret in {key.file} has {len(secret)} bytes",
            hint=f"at least {LEAST_SECRET_BYTES} are needed, and 32 are good",
        )
    return Key(name_of(key.name), name_of(key.algorithm), secret)


def check(packet: bytes, at: int, keys: Mapping[Name, Key], now: float | None = None) -> Signer:
    """Check the signature of a query, whose TSIG record begins `at` that byte.

    The signer that is returned has an error unless the query is from who has the key, is whole, and
    was signed within the fudge of now (RFC 8945, section 5.2, in this order). Raises FormatError.
    """
    signature = read(packet, at)
    key = keys.get(signature.key)
    if key is None or key.algorithm != signature.algorithm:
        return Signer(signature, None, BADKEY)
    wanted = key.mac(_stripped(packet, at, signature), _variables(signature))
    if not hmac.compare_digest(signature.mac, wanted):
        return Signer(signature, None, BADSIG)
    seconds = abs((time.time() if now is None else now) - signature.time_s)
    if seconds > min(signature.fudge_s, FUDGE_S):
        return Signer(signature, key, BADTIME)
    return Signer(signature, key)


def read(packet: bytes, at: int) -> Signature:
    """Return what the TSIG record that begins at a byte, and ends the packet, says.

    Names in it are never compressed (RFC 8945, section 4.2). Raises FormatError.
    """
    try:
        name, offset = read_name(packet, at)
        rtype, rclass, ttl, length = _RECORD.unpack_from(packet, offset)
        offset += _RECORD.size
        if (rtype, rclass, ttl) != (TSIG, CLASS_ANY, 0) or offset + length != len(packet):
            raise FormatError("a signature that is no TSIG record, or not at the end")
        algorithm, offset = read_name(packet, offset)
        high, low, fudge_s, size = _FIXED.unpack_from(packet, offset)
        offset += _FIXED.size
        mac = packet[offset : offset + size]
        ident, error, other_size = _TAIL.unpack_from(packet, offset + size)
    except struct.error:
        raise FormatError("a signature that ends too early") from None
    other = packet[offset + size + _TAIL.size :]
    if len(other) != other_size:
        raise FormatError("a signature longer or shorter than it says")
    return Signature(
        key=_lower(name),
        algorithm=_lower(algorithm),
        time_s=high << 32 | low,
        fudge_s=fudge_s,
        mac=mac,
        original_id=ident,
        error=error,
        other=other,
    )


def sign_request(packet: bytes, key: Key, now: float | None = None) -> tuple[bytes, bytes]:
    """Return a request of ours with its signature, and the MAC that the reply's has to cover."""
    at = int(time.time() if now is None else now)
    ident = int.from_bytes(packet[:2], "big")
    said = Signature(key.name, key.algorithm, at, FUDGE_S, b"", ident)
    signed = _signed(packet, said, key, b"")
    return signed, read(signed, len(packet)).mac


def check_reply(
    packet: bytes, at: int, key: Key, request_mac: bytes, now: float | None = None
) -> bool:
    """Say whether the reply to a request of ours is signed with the same key, now."""
    signature = read(packet, at)
    before = len(request_mac).to_bytes(2, "big") + request_mac
    wanted = key.mac(before, _stripped(packet, at, signature), _variables(signature))
    seconds = abs((time.time() if now is None else now) - signature.time_s)
    good = signature.key == key.name and signature.algorithm == key.algorithm
    return good and seconds <= FUDGE_S and hmac.compare_digest(signature.mac, wanted)


def _signed(message: bytes, said: Signature, key: Key | None, before: bytes) -> bytes:
    mac = b""
    if key is not None:
        original = said.original_id.to_bytes(2, "big") + message[2:]
        mac = key.mac(before, original, _variables(said))
    rdata = b"".join(
        (
            wire(said.algorithm),
            _FIXED.pack(said.time_s >> 32, said.time_s & 0xFFFFFFFF, said.fudge_s, len(mac)),
            mac,
            _TAIL.pack(said.original_id, said.error, len(said.other)),
            said.other,
        )
    )
    record = wire(said.key) + _RECORD.pack(TSIG, CLASS_ANY, 0, len(rdata)) + rdata
    return _counted(message, 1) + record


def _stripped(packet: bytes, at: int, signature: Signature) -> bytes:
    """Return a message as it was before it was signed: without the record, with its own id."""
    return signature.original_id.to_bytes(2, "big") + _counted(packet[:at], -1)[2:]


def _counted(message: bytes, change: int) -> bytes:
    """Return a message whose header counts more or fewer additional records."""
    count = int.from_bytes(message[10:HEADER_BYTES], "big") + change
    return message[:10] + count.to_bytes(2, "big") + message[HEADER_BYTES:]


def _variables(signature: Signature) -> bytes:
    """Return what is signed beside the message (RFC 8945, section 4.3.3)."""
    return b"".join(
        (
            wire(signature.key),
            struct.pack("!HI", CLASS_ANY, 0),
            wire(signature.algorithm),
            signature.time_s.to_bytes(6, "big"),
            struct.pack("!HHH", signature.fudge_s, signature.error, len(signature.other)),
            signature.other,
        )
    )


def _lower(name: Name) -> Name:
    return tuple(label.lower() for label in name)
