"""What a server needs for TLS."""

import ssl
from pathlib import Path


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the context; OSError (of which SSLError is one) if the files are no good."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key, password=_no_password)
    return context


def _no_password() -> str:
    """Refuse to ask at a terminal for the password of a key."""
    raise ValueError("the key has a password; write it without one")
