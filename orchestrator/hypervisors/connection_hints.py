"""Why a connection to libvirt failed, in a sentence, and what to do about it.

libvirt passes on what ssh, GnuTLS and the far side wrote, several layers deep. `FAULTS` knows the
ways a connection fails by words in that text; `explained` says it plainly, with libvirt's words
behind, and `hint` names the cure. Every entry is in docs/hosts.md, which a test compares.
"""

import re
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from orchestrator.hypervisors.connection_uri import (
    DRIVERS,
    TRANSPORTS,
    ConnectionUri,
    read_uri,
)

LONGEST = 300  # characters of foreign text in a message
TLS_PORT = 16514
TLS_LOOK_S = 5.0
CA_FILES = (Path.home() / ".pki/libvirt/cacert.pem", Path("/etc/pki/CA/cacert.pem"))


@dataclass(frozen=True, slots=True)
class Fault:
    """A way in which a connection fails: how libvirt's text tells, what it means, what to do."""

    words: str  # regular expression, for text in lower case
    says: str
    cure: str


FAULTS: tuple[Fault, ...] = (  # the first that fits counts
    Fault(
        "remote host identification has changed",
        "the host's ssh key is not the one known here",
        "if the host was installed anew: `ssh-keygen -R HOST`, then `ssh USER@HOST` and compare "
        "the fingerprint; if it was not, somebody may be in between",
    ),
    Fault(
        "host key verification failed",
        "the host's ssh key is not known here",
        "run `ssh USER@HOST` once, as the user that runs edgewake, and compare the fingerprint",
    ),
    Fault(
        "identity file .* not accessible",
        "the ssh key file that the URI names cannot be read",
        "correct `keyfile=` in the URI",
    ),
    Fault(
        r"permission denied \(|too many authentication failures",
        "the host refuses our ssh key",
        "run `ssh-copy-id USER@HOST` as the user that runs edgewake; name another key with "
        "`keyfile=FILE`; a key with a passphrase needs ssh-agent",
    ),
    Fault(
        "could not resolve hostname|unable to resolve address",
        "no address is known for the host's name",
        "correct the name in the URI, or add it to DNS or /etc/hosts",
    ),
    Fault(
        "bad port|unable to parse uri",
        "the URI cannot be read",
        "write it as DRIVER+TRANSPORT://USER@HOST:PORT/system; docs/hosts.md has examples",
    ),
    Fault(
        "cannot execute binary",
        "the program that the URI needs for its transport is not on this machine",
        "`apt install openssh-client`, or correct `command=` in the URI",
    ),
    Fault(
        r"(\bnc|netcat|virt-ssh-helper|/nc): (command )?not found|virt-ssh-helper: permission",
        "ssh works, but the host has neither virt-ssh-helper nor nc to reach its libvirt with",
        "`apt install libvirt-daemon-system` there, which has virt-ssh-helper; or netcat-openbsd",
    ),
    Fault(
        "failed to connect socket to .*(no such file|connection refused)",
        "libvirtd does not run there",
        "there: `systemctl enable --now libvirtd`; if it is not installed: `apt install "
        "libvirt-daemon-system`",
    ),
    Fault(
        "failed to connect socket to .*permission denied",
        "this user may not use libvirt there",
        "there: `usermod -aG libvirt USER`, and log in anew; or connect as root",
    ),
    Fault(
        "polkit|authentication unavailable|failed to find user record",
        "libvirt there does not let this user in",
        "there: `usermod -aG libvirt USER`, and log in anew; or connect as root",
    ),
    Fault(
        "connection refused",
        "nobody listens on that port of the host",
        "is the host up, the port right, and sshd (or libvirtd, for +tls) running there?",
    ),
    Fault(
        "timed out|no answer to keepalive",
        "the host does not answer",
        "is it up? does a firewall drop our packets? try `ping HOST`",
    ),
    Fault(
        "no route to host|network is unreachable",
        "there is no way to the host's network",
        "check cables and routes: `ip route get ADDRESS`",
    ),
    Fault(
        "cannot read ca certificate",
        "the certificate of the authority that signs the hosts' is not on this machine",
        "put it at /etc/pki/CA/cacert.pem, or into the folder that `pkipath=` names",
    ),
    Fault(
        "certificate hasn't got a known issuer|signed by another authority",
        "a certificate was signed by another authority than the one in cacert.pem",
        "use certificates of one authority on both sides",
    ),
    Fault(
        "certificate .*has expired",
        "a certificate has expired",
        "make a new one; if it is young, check both clocks: `date`",
    ),
    Fault(
        "certificate .*is not yet (active|valid)",
        "a certificate is not valid yet",
        "check the clocks of both machines: `date`",
    ),
    Fault(
        "certificate is for another name",
        "the host's certificate is for another name",
        "write the name or address that the certificate has into the URI, or make one that has "
        "this one as subjectAltName",
    ),
    Fault(
        "failed to verify peer's certificate",
        "the host's certificate does not pass",
        "see `certtool -i` of its servercert.pem: name, dates, and who signed it",
    ),
    Fault(
        "cannot read (client )?certificate|unable to read tls confirmation",
        "the host lets nobody in without a client certificate that it trusts, and ours is missing",
        "put clientcert.pem into /etc/pki/libvirt and clientkey.pem into its folder private, or "
        "both into the folder that `pkipath=` names",
    ),
    Fault(
        "tls handshake failed",
        "what listens on that port does not speak TLS",
        "+tls goes to libvirtd's port 16514 (`listen_tls`), not to ssh's or another",
    ),
    Fault(
        "missing authentication credentials|authentication (failed|cancelled)",
        "the host asks for a name and password",
        "edgewake has none to give: use +ssh with a key, or +tls with a client certificate",
    ),
    Fault(
        "no connection driver available",
        "libvirt there has no driver for that kind of hypervisor",
        "qemu:// is for QEMU and KVM, xen:// for a dom0 with `apt install "
        "libvirt-daemon-driver-xen` (`virsh -c xen:///system version` there)",
    ),
    Fault(
        "unexpected .* uri path",
        "the end of the URI is wrong",
        "end it with /system, as in qemu:///system or xen+ssh://root@pc1/system",
    ),
    Fault(
        "transport in url not recognised",
        "libvirt knows no such transport",
        f"write one of {', '.join(f'+{each}' for each in TRANSPORTS)}",
    ),
    Fault(
        "end of file while reading data|connection reset by peer|libvirt closed the connection",
        "the other side hung up without a word",
        "does that port belong to libvirtd (or sshd)? its log says why: `journalctl -u libvirtd`",
    ),
)


def fault_of(text: str) -> Fault | None:
    """Return the first fault that fits what libvirt said, or what `explained` made of it."""
    words = " ".join(text.lower().split())
    return next(
        (each for each in FAULTS if each.says in words or re.search(each.words, words)), None
    )


def hint(text: str) -> str:
    """Return what to do about a connection that failed with this text; empty if nobody knows."""
    fault = fault_of(text)
    return fault.cure if fault else ""


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
