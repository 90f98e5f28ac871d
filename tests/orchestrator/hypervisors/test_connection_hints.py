"""What libvirt says when a connection fails, as it really said it, and what we make of that."""

import re
from pathlib import Path

import pytest

from orchestrator.hypervisors.connection_hints import LONGEST, explained
from orchestrator.hypervisors.connection_uri import guarded, read_uri, weaknesses
from orchestrator.hypervisors.libvirt_faults import FAULTS, call_hint, connection_hint, fault_of

URI = "qemu+ssh://root@pc1/system"
DOCS = Path(__file__).parents[3] / "docs" / "hosts.md"
CHANGED = (
    "Cannot recv data: @@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r\n"
    "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\n"
    "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r\n"
    "IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\r\n"
    "Host key verification failed.: Connection reset by peer"
)

# All but the last four were recorded with libvirt 9.0.0, OpenSSH 9.2 and GnuTLS 3.7.
SAID = [
    (CHANGED, "not the one known here", "ssh-keygen -R"),
    ("Cannot recv data: Host key verification failed.: Connection reset by peer", "not known", ""),
    (
        "Cannot recv data: Warning: Identity file /k not accessible: No such file or directory.\n"
        "root@pc1: Permission denied (publickey).: Connection reset by peer",
        "key file",
        "keyfile=",
    ),
    (
        "Cannot recv data: root@pc1: Permission denied (publickey).: Connection reset by peer",
        "refuses our ssh key",
        "ssh-copy-id",
    ),
    (
        "Cannot recv data: ssh: Could not resolve hostname pc1: Name or service not known: "
        "Connection reset by peer",
        "no address",
        "/etc/hosts",
    ),
    ("Unable to resolve address 'pc1' service '16509': Name or service not known", "no addr", ""),
    (
        "Cannot recv data: ssh: connect to host pc1 port 22: Connection refused: Connection reset "
        "by peer",
        "nobody listens",
        "sshd",
    ),
    ("unable to connect to server at 'pc1:16514': Connection refused", "nobody listens", "port"),
    (
        "Cannot recv data: ssh: connect to host pc1 port 22: Connection timed out: Connection "
        "reset by peer",
        "does not answer",
        "ping",
    ),
    (
        "Cannot recv data: Connection timed out during banner exchange\r\nConnection to pc1 port 22"
        " timed out: Connection reset by peer",
        "does not answer",
        "",
    ),
    (
        "End of file while reading data: sh: 1: nc: not found: Input/output error",
        "neither virt-ssh-helper nor nc",
        "apt install",
    ),
    (
        "End of file while reading data: virt-ssh-helper: cannot connect to "
        "'/var/run/libvirt/libvirt-sock': Failed to connect socket to "
        "'/var/run/libvirt/libvirt-sock': No such file or directory: Input/output error",
        "libvirtd does not run",
        "systemctl",
    ),
    (
        "Failed to connect socket to '/var/run/libvirt/libvirt-sock': Permission denied",
        "may not use libvirt",
        "usermod -aG libvirt",
    ),
    ("Failed to find user record for uid '65532'", "does not let this user in", "usermod"),
    (
        "Cannot recv data: libvirt:  error : cannot execute binary /usr/bin/none: No such file or "
        "directory: Connection reset by peer",
        "not on this machine",
        "openssh-client",
    ),
    ("Cannot recv data: Bad port '1072200': Connection reset by peer", "cannot be read", ""),
    ("no connection driver available for xen:///system", "no driver", "libvirt-daemon-driver-xen"),
    ("internal error: unexpected qemu URI path '/sytem', try qemu:///system", "the end", "/system"),
    (
        "Cannot read CA certificate '/etc/pki/CA/cacert.pem': No such file or directory",
        "not on this machine",
        "cacert.pem",
    ),
    (
        "Our own certificate /p/clientcert.pem failed validation against /p/cacert.pem: The "
        "certificate hasn't got a known issuer.",
        "another authority",
        "one authority",
    ),
    ("The client certificate /p/clientcert.pem has expired", "has expired", "date"),
    ("Unable to read TLS confirmation: Input/output error", "client certificate", "clientkey.pem"),
    (
        "authentication failed: TLS handshake failed An unexpected TLS packet was received.",
        "does not speak TLS",
        "16514",
    ),
    ("Cannot recv data: Connection reset by peer", "hung up", "journalctl"),
    ("invalid argument: Missing authentication credentials", "name and password", "+tls"),
    (
        "authentication unavailable: no polkit agent available to authenticate action "
        "'org.libvirt.unix.manage'",
        "does not let this user in",
        "usermod",
    ),
    ("unable to connect to server at 'pc1:16514': No route to host", "no way", "ip route"),
    ("The server certificate /p/servercert.pem is not yet active", "not valid yet", "clocks"),
    ("authentication failed: Failed to verify peer's certificate", "does not pass", "certtool"),
]


@pytest.mark.parametrize(("said", "sentence", "cure"), SAID)
def test_each_way_to_fail_has_a_sentence_and_a_cure(said: str, sentence: str, cure: str) -> None:
    told = explained(URI, said)
    assert sentence in told
    assert "\n" not in told
    assert connection_hint(told)
    assert connection_hint(told) == connection_hint(said)
    assert cure in connection_hint(told)


def test_every_fault_is_met_by_a_text_or_by_a_real_failure() -> None:
    elsewhere = {"the certificate is for another name: x", "transport in URL not recognised"}
    met = {fault_of(said) for said, _, _ in SAID} | {fault_of(each) for each in elsewhere}
    assert met == {each for each in FAULTS if each.says}


def test_what_nobody_foresaw_is_passed_on() -> None:
    assert explained(URI, "the moon is in the way") == "the moon is in the way"
    assert connection_hint("the moon is in the way") == ""


def test_what_the_far_side_wrote_is_one_short_line_without_control_characters() -> None:
    told = explained(URI, f"\x1b[31mred\n{'x' * 9000}\x00")
    assert "\x1b" not in told
    assert len(told) <= LONGEST
    assert told.startswith("[31mred xxx")


@pytest.mark.parametrize(
    ("uri", "said", "meant"),
    [
        ("qmeu:///system", "no connection driver available for qmeu:///system", "'qemu'"),
        (
            "xen+shh://pc1/system",
            "invalid argument: remote_open: transport in URL not recognised (should be tls|unix)",
            "'ssh'",
        ),
        ("qemu+ssh://pc1:x/system", "internal error: Unable to parse URI", "port is no number"),
        ("root@pc1", "no connection driver available", "begins with no driver"),
    ],
)
def test_a_misspelt_uri_is_put_right(uri: str, said: str, meant: str) -> None:
    assert meant in explained(uri, said)
    assert connection_hint(explained(uri, said))


def test_every_fault_is_in_the_documentation() -> None:
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", DOCS.read_text(), re.MULTILINE)
    assert [row for row in rows if row[0] in {each.says for each in FAULTS}] == [
        (each.says, each.cure) for each in FAULTS if each.says
    ]


# Words of libvirt 9.0.0, shortened, as calls on a connection fail with them.
CALLS = [
    ("Failed to connect socket to '/var/run/libvirt/virtlogd-sock': No such file", "virtlogd"),
    ("internal error: qemu: cannot set up guest memory: Cannot allocate memory", "stop a guest"),
    (
        "Timed out during operation: cannot acquire state change lock (held by "
        "monitor=remoteDispatchDomainMigratePerform3Params)",
        "restart libvirtd there",
    ),
    ("Network not found: no network with matching name 'lab0'", "apply the lab"),
    ("network 'lab0' is not active", "net-start"),
    ("qemu: could not load kernel '/i/k': Permission denied", "QEMU's user"),
    ("cannot write data to file '/i/sha256': No space left on device", "free some"),
    (
        "Failed to create file '/var/lib/libvirt/dnsmasq/b.macs.new': No such file or directory",
        "install -d /var/lib/libvirt/dnsmasq",
    ),
    ("qemu: could not open kernel file '/i/k': No such file or directory", "sent again"),
    ("qemu: could not open kernel file '/i/k'", "readable by QEMU's user"),
    ("this function is not supported by the connection driver: virStoragePoolX", "storage driver"),
    ("Timed out during operation: cannot acquire state change lock (held by x)", "busy"),
    ("failed to initialize kvm: Function not implemented", "doctor"),
    ("authentication unavailable: no polkit agent available", "usermod"),
    ("Unable to get system bus connection: Could not connect", "connect as root"),
    ("authentication failed: access denied", "client certificate"),
    ("Cannot recv data: Connection reset by peer", "journalctl"),
    ("unable to connect to server at 'pc1:16514': Connection refused", "libvirtd"),
    ("Failed to connect socket to '/var/run/libvirt/libvirt-sock': No such file", "systemctl"),
]


@pytest.mark.parametrize(("said", "cure"), CALLS)
def test_a_call_that_fails_has_a_cure_too(said: str, cure: str) -> None:
    assert cure in call_hint(said)


def test_every_fault_of_calls_is_met() -> None:
    cures = {call_hint(said) for said, _ in CALLS}
    assert cures == {each.cure for each in FAULTS if each.calls or not each.says}


def test_what_only_connections_fail_with_is_no_cause_of_a_call() -> None:
    missing = "cannot execute binary /usr/sbin/dnsmasq: No such file or directory"
    assert "openssh" in connection_hint(missing)
    assert "openssh" not in call_hint(missing)


# --- URIs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "safe"),
    [
        ("qemu+ssh://root@pc1/system", "qemu+ssh://root@pc1/system?no_tty=1"),
        ("xen+ssh://pc1/system?keyfile=/k", "xen+ssh://pc1/system?keyfile=/k&no_tty=1"),
        ("xen+ssh://pc1/?no_tty=0", "xen+ssh://pc1/?no_tty=0&no_tty=1"),
        ("xen+ssh://pc1/?no_tty=1", "xen+ssh://pc1/?no_tty=1"),
        ("qemu:///system", "qemu:///system"),
        ("qemu+tls://pc1/system", "qemu+tls://pc1/system"),
        ("xen+libssh2://pc1/system", "xen+libssh2://pc1/system"),
        ("qemu+ssh://pc1:port/system", "qemu+ssh://pc1:port/system"),
    ],
)
def test_ssh_is_never_given_a_terminal_and_nothing_else_is_changed(uri: str, safe: str) -> None:
    assert guarded(uri) == safe
    assert guarded(safe) == safe


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("qemu+ssh://pc1/system", []),
        ("qemu+tls://pc1/system?pkipath=/p", []),
        ("xen+tcp://127.0.0.1:1/system", []),
        ("qemu+ssh://pc1/system?no_verify=0", []),
        ("qemu+ssh://pc1/system?no_verify=1", ["key is not checked"]),
        ("qemu+tls://pc1/system?no_verify=1", ["certificate is not checked"]),
        ("qemu+libssh2://pc1/system?known_hosts_verify=auto", ["unknown host keys"]),
        ("qemu+ssh://pc1/system?known_hosts=/k", ["no effect with [+]ssh"]),
        ("qemu+ssh://pc1/system?no_tty=0", ["never lets ssh ask"]),
        ("xen+tcp://pc1/system", ["nothing is encrypted"]),
        ("qemu+ssh://root:secret@pc1/system", ["password"]),
        ("qemu+ssh://pc1/system?no_vrify=1&keyfle=/k", ["no_vrify", "keyfle"]),
        ("nonsense", []),
    ],
)
def test_what_weakens_a_uri_is_said(uri: str, words: list[str]) -> None:
    found = weaknesses(uri)
    assert len(found) == len(words)
    assert all(re.search(word, each) for word, each in zip(words, found, strict=True))
    assert not any("secret" in each for each in found)


def test_the_parts_of_a_uri() -> None:
    uri = read_uri("xen+ssh://root@pc1:2222/system?keyfile=/k&keyfile=/l")
    assert (uri.driver, uri.transport, uri.at, uri.port) == ("xen", "ssh", "root@pc1", 2222)
    assert uri.option("keyfile") == "/l"
    assert uri.far
    assert read_uri("qemu://pc1/system").transport == "tls"
    assert read_uri("qemu:///system").transport == "unix"
    assert not read_uri("qemu:///system").far
