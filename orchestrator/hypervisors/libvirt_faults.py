"""What libvirt's texts mean, and what to do about them, where that is known: one table for all.

libvirt passes on what ssh, GnuTLS, QEMU and the kernel wrote, several layers deep. `FAULTS` knows
the ways things fail by words in that text: connections (every such entry is in docs/hosts.md, which
a test compares), and calls on a connection. Pure: what asks libvirt is elsewhere.
"""

import re
from dataclasses import dataclass

from orchestrator.hypervisors.connection_uri import TRANSPORTS


@dataclass(frozen=True, slots=True)
class Fault:
    """A way in which something fails: how libvirt's text tells, what it means, what to do.

    `words` is a regular expression for text in lower case. `says` is for connections that cannot be
    made; a fault without it is one of calls on a connection, where libvirt's own words stand.
    `calls` says of one with it that calls fail that way, too.
    """

    words: str
    says: str
    cure: str
    calls: bool = False


_FULL = "no space left|disk quota exceeded|disk there is full"

FAULTS: tuple[Fault, ...] = (  # the first that fits counts
    Fault("virtlogd-sock", "", "start virtlogd: run `make setup`"),
    Fault(
        "remotedispatchdomainmigrate",
        "",
        "a migration that was refused or cut off still holds it: restart libvirtd there; its "
        "guests go on",
    ),
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
        calls=True,
    ),
    Fault(
        "failed to connect socket to .*permission denied",
        "this user may not use libvirt there",
        "there: `usermod -aG libvirt USER`, and log in anew; or connect as root",
    ),
    Fault(
        "polkit|system bus|authentication unavailable|failed to find user record",
        "libvirt there does not let this user in",
        "there: `usermod -aG libvirt USER`, and log in anew; or connect as root",
        calls=True,
    ),
    Fault(
        "connection refused",
        "nobody listens on that port of the host",
        "is the host up, the port right, and sshd (or libvirtd, for +tls) running there?",
        calls=True,
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
        calls=True,
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
        calls=True,
    ),
    Fault(
        "cannot allocate memory",
        "",
        "the host has too little free memory; stop a guest or lower memory",
    ),
    Fault("network not found", "", "apply the lab first, or name a network that exists there"),
    Fault("is not active", "", "start it with `virsh net-start`"),
    Fault(
        "permission denied", "", "QEMU's user must be able to read the image and enter its folders"
    ),
    Fault(_FULL, "", "free some there, or remove images that nothing uses"),
    Fault(
        "libvirt/dnsmasq/.*no such file",
        "",
        "libvirt lacks a folder of its own; make it there: `install -d /var/lib/libvirt/dnsmasq`",
    ),
    Fault("no such file", "", "is the image on that host? one that was sent there is sent again"),
    Fault("could not open", "", "is the image on that host, readable by QEMU's user?"),
    Fault(
        "virstorage",
        "",
        "that libvirt has no storage driver, which images and disks need: install it",
    ),
    Fault("state change lock", "", "that guest is busy there; it is tried again by itself"),
    Fault("kvm", "", "KVM does not work there; use virt `qemu` (`edgewake doctor` says more)"),
)


def fault_of(text: str) -> Fault | None:
    """Return why a connection could not be made, by what libvirt said or `explained` made of it."""
    words = _normal(text)
    faults = (each for each in FAULTS if each.says)
    return next(
        (each for each in faults if each.says in words or re.search(each.words, words)), None
    )


def connection_hint(text: str) -> str:
    """Return what to do about a connection that failed with this text; empty if nobody knows."""
    fault = fault_of(text)
    return fault.cure if fault else ""


def call_hint(text: str) -> str:
    """Return what to do about a call that failed with this text; empty if nobody knows."""
    words = _normal(text)
    faults = (each for each in FAULTS if each.calls or not each.says)
    return next((each.cure for each in faults if re.search(each.words, words)), "")


def is_disk_full(text: str) -> bool:
    """Return whether a call failed with this text because a disk there is full."""
    return bool(re.search(_FULL, _normal(text)))


def _normal(text: str) -> str:
    return " ".join(text.lower().split())
