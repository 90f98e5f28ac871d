"""Why a connection to libvirt failed, in a sentence.

libvirt passes on what ssh, GnuTLS and the far side wrote, several layers deep. `explained` says it
plainly, with libvirt's words behind; the ways to fail are in `libvirt_faults`.
"""

import re
import socket
import ssl
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from orchestrator.hypervisors.connection_uri import (
    DRIVERS,
    TRANSPORTS,
    ConnectionUri,
    read_uri,
)
from orchestrator.hypervisors.libvirt_faults import fault_of

LONGEST = 300  # characters of foreign text in a message
TLS_PORT = 16514
TLS_LOOK_S = 5.0
CA_FILES = (Path.home() / ".pki/libvirt/cacert.pem", Path("/etc/pki/CA/cacert.pem"))


def explained(uri: str, text: str) -> str:
    """Return one line on why connecting to `uri` failed: a sentence, then libvirt's own words.

    A certificate that libvirt refused is looked at once more, by a TLS handshake of our own,
    because libvirt keeps the reason to itself; that takes 5 s at most.
    """
    parts = _parts(uri)
    if isinstance(parts, ConnectionUri):
        text = _tls_fault(parts) or text if "verify peer's certificate" in text else text
        text += _meant(parts, text)
    else:
        text = f"Unable to parse URI: {parts}"
    core = _core(text)
    fault = fault_of(text)
    return f"{fault.says} ({core})" if fault else core


def _parts(uri: str) -> ConnectionUri | str:
    try:
        return read_uri(uri)
    except ValueError as error:
        return str(error)


def _core(text: str) -> str:
    """Return foreign text as one short line, without the layers around what ssh said."""
    line = " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f@]{2,}|[\x00-\x1f\x7f-\x9f]", " ", text).split())
    line = re.sub(r"^(Cannot recv data|End of file while reading data): (?=.*: )", "", line)
    line = re.sub(r": (Connection reset by peer|Input/output error)$", "", line).rstrip(" .")
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


def _meant(uri: ConnectionUri, text: str) -> str:
    """Return what a misspelt driver or transport was perhaps meant to be."""
    for words, written, known in (
        ("no connection driver", uri.driver, DRIVERS),
        ("transport in URL not", uri.transport, TRANSPORTS),
    ):
        if words in text and written not in known:
            near = get_close_matches(written, known, n=1)
            return f"; did you mean {near[0]!r}?" if near else ""
    return ""


# --- certificates -----------------------------------------------------------------------------


def _tls_fault(uri: ConnectionUri) -> str:
    """Return what is wrong with the certificate of the host; empty if we cannot see anything."""
    folder = uri.option("pkipath")
    files = [Path(folder) / "cacert.pem"] if folder else CA_FILES
    file = next((each for each in files if each.exists()), None)
    if file is None:
        return ""
    with suppress(OSError):  # the host is gone, or its TLS is not Python's: libvirt's words stand
        context = ssl.create_default_context(cafile=str(file))
        try:
            with (
                socket.create_connection((uri.host, uri.port or TLS_PORT), TLS_LOOK_S) as plain,
                context.wrap_socket(plain, server_hostname=uri.host),
            ):
                return ""
        except ssl.SSLCertVerificationError as error:
            return _told(error.verify_message)
    return ""


def _told(message: str) -> str:
    """Return OpenSSL's finding in the words of `FAULTS`."""
    if "mismatch" in message or "not valid for" in message:
        return f"the certificate is for another name: {message}"
    if "issuer" in message or "self" in message:
        return f"the certificate was signed by another authority: {message}"
    return f"the host's certificate: {message}".replace("certificate: certificate", "certificate")
