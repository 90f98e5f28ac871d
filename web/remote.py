"""An edgewake on another machine, as programs reach it: through its door, with a token."""

import ssl
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPSConnection
from ipaddress import ip_address
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from orchestrator.errors import EdgewakeError

PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Remote:
    """Where a door is, and how to get in. `ca` is what its certificate is checked against."""

    secure: bool
    host: str
    port: int
    token: str = field(repr=False)
    ca: Path | None = None

    @classmethod
    def parse(cls, url: str, token: str, ca: Path | None = None) -> Self:
        """Return the door at a URL. EdgewakeError says what is wrong with it."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise EdgewakeError(f"{url}: {error}", hint=_SUCH_AS) from error
        if parts.scheme not in PORTS or not host or parts.path not in {"", "/"} or parts.query:
            raise EdgewakeError(f"{url!r} is no address of an edgewake", hint=_SUCH_AS)
        if parts.scheme == "http" and not _is_here(host):
            raise EdgewakeError(
                f"{url}: without TLS, everybody on the way to {host} could read the token",
                hint="write https://, and give that edgewake a certificate (docs/security.md)",
            )
        if not token or not token.isascii() or not token.isprintable():
            raise EdgewakeError(
                f"{url}: no token to get in with",
                hint="give --token-file, or EDGEWAKE_TOKEN; 'edgewake token create' makes one",
            )
        return cls(parts.scheme == "https", host, port or PORTS[parts.scheme], token, ca)

    def __str__(self) -> str:
        """Return the URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}"

    def connection(self, timeout_s: float) -> HTTPConnection:
        """Return a connection that is not open yet. EdgewakeError if `ca` cannot be read."""
        if not self.secure:
            return HTTPConnection(self.host, self.port, timeout=timeout_s)
        try:
            context = ssl.create_default_context(cafile=self.ca and str(self.ca))
        except OSError as error:
            raise EdgewakeError(
                f"{self.ca}: no certificates can be read there: {error.strerror}",
                hint="--ca names a file in PEM, such as the server's own certificate",
            ) from error
        return HTTPSConnection(self.host, self.port, timeout=timeout_s, context=context)


_SUCH_AS = "write it like https://box.example.org:8480"


def _is_here(host: str) -> bool:
    """Return whether a host is this machine for sure."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
