"""One event on its way to a webhook: the document, its signature, and the request.

A signature is HMAC-SHA256 over the time and the body, so that a receiver can tell who sent it, that
it is whole, and that nobody sends an old one again (`verify`, docs/webhooks.md).
"""

import hashlib
import hmac
import http.client
import json
import os
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.errors import EdgewakeError
from orchestrator.model import Event
from orchestrator.webhook import Secret, Webhook

TIMEOUT_S = 5.0  # to connect, and for each piece of an answer
SIGNATURE = "Edgewake-Signature"
DELIVERY = "Edgewake-Delivery"
REPLAY_S = 300  # how old a signature may be
LEAST_SECRET_BYTES = 16
LARGEST_SECRET_BYTES = 4096
OPEN_TO_OTHERS = 0o077
AGAIN = frozenset({408, 425, 429})  # as with every 5xx, the same may work later


class NotDelivered(Exception):  # noqa: N818 - reads as a sentence where it is raised
    """An event did not arrive; `again` says whether it may the next time."""

    def __init__(self, why: str, *, again: bool) -> None:
        super().__init__(why)
        self.again = again


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event to be sent: the same id and body at each try."""

    id: str
    body: bytes


def delivery(number: str, lab: str, event: Event) -> Delivery:
    """Return an event as what is sent."""
    at = datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds")
    document = {
        "id": number,
        "time": at.replace("+00:00", "Z"),
        "lab": lab,
        "kind": event.kind,
        "subject": event.subject,
        "text": event.text,
        "data": dict(event.data),
    }
    return Delivery(number, json.dumps(document).encode())


# --- signatures -----------------------------------------------------------------------------------


def sign(secret: bytes, body: bytes, now: float) -> str:
    """Return the signature of a body that is sent now (seconds since the epoch)."""
    at = str(int(now))
    digest = hmac.new(secret, at.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def verify(secret: bytes, body: bytes, signature: str, now: float) -> bool:
    """Say whether a body was signed with the secret, and not long ago."""
    said = dict(part.partition("=")[::2] for part in signature.split(","))
    at = said.get("t", "")
    if not at.isascii() or not at.isdecimal() or abs(now - int(at)) > REPLAY_S:
        return False
    return hmac.compare_digest(sign(secret, body, int(at)).encode(), signature.encode())


def read_secret(secret: Secret) -> bytes:
    """Return a secret, without space around it. Raises EdgewakeError, which does not tell it."""
    if secret.file is None:
        where, found = f"variable {secret.variable}", os.environb.get(secret.variable.encode(), b"")
    else:
        where, found = str(secret.file), _of_file(secret.file)
    found = found.strip()
    if len(found) < LEAST_SECRET_BYTES:
        raise EdgewakeError(
            f"{where}: the secret of a webhook has at least {LEAST_SECRET_BYTES} characters",
            hint="make one: (umask 077; openssl rand -hex 32 > FILE)",
        )
    return found


def _of_file(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            found = opened.read(LARGEST_SECRET_BYTES)
    except OSError as error:
        raise EdgewakeError(f"{file}: it cannot be read: {error.strerror}") from error
    if mode & OPEN_TO_OTHERS:
        raise EdgewakeError(f"{file}: others than its owner may read it", hint="chmod 600 it")
    return found


# --- the request ----------------------------------------------------------------------------------


def origin(webhook: Webhook) -> str:
    """Return where a webhook is, without the path: that may be a secret."""
    return urlsplit(webhook.url).netloc


def post(webhook: Webhook, sent: Delivery, agent: str) -> None:
    """Send an event. Redirects are not followed, and no body of an answer is read.

    Raises `NotDelivered`.
    """
    headers = {"Content-Type": "application/json", "User-Agent": agent, DELIVERY: sent.id}
    try:
        if webhook.secret is not None:
            headers[SIGNATURE] = sign(read_secret(webhook.secret), sent.body, time.time())
        status = _status(webhook, sent.body, headers)
    except (OSError, http.client.HTTPException, EdgewakeError) as error:
        raise NotDelivered(f"{origin(webhook)}: {_words(error)}", again=True) from error
    if not 200 <= status < 300:
        again = status in AGAIN or status >= 500
        raise NotDelivered(f"{origin(webhook)} answered with status {status}", again=again)


def _status(webhook: Webhook, body: bytes, headers: dict[str, str]) -> int:
    parts = urlsplit(webhook.url)
    host, target = parts.hostname or "", parts._replace(scheme="", netloc="").geturl() or "/"
    line: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        line = http.client.HTTPSConnection(host, parts.port, timeout=TIMEOUT_S, context=context)
    else:
        line = http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_S)
    try:
        line.request("POST", target, body, headers)
        with line.getresponse() as answer:
            return answer.status
    finally:
        line.close()


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
