"""Connections to libvirt elsewhere, for real: each way they fail, break, and are made again.

"Elsewhere" is this machine behind an sshd of our own, and a second libvirtd of our own behind TLS,
with its own run, state and configuration folders. Nothing leaves loopback.
"""

import datetime as dt
import ipaddress
import os
import pty
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from orchestrator.errors import HostUnreachable
from orchestrator.hypervisors import libvirt_line
from orchestrator.hypervisors.connection import Connections
from orchestrator.hypervisors.connection_uri import guarded
from orchestrator.hypervisors.libvirt_driver import LibvirtHypervisor
from orchestrator.hypervisors.libvirt_line import LibvirtTransport, Line
from orchestrator.hypervisors.libvirt_probe import ask
from orchestrator.model import Host
from tests.orchestrator.hypervisors.sshd import (
    Sshd,
    SshdMaker,
    in_namespace,
    sshd,
    sshds,
)
from tests.ports import free_port
from tests.waiting import eventually
from tests.world import a_host

__all__ = ["sshd", "sshds"]
pytestmark = pytest.mark.real

PATIENCE_S = 100.0
HOSTS = 20
RUN = Path("/run/libvirt")


def _refused(uri: str) -> HostUnreachable:
    with pytest.raises(HostUnreachable) as caught:
        ask("pc1", uri)
    assert caught.value.host == "pc1"
    assert caught.value.hint
    return caught.value


# --- over ssh: how it fails -------------------------------------------------------------------


def test_a_host_behind_ssh_is_reached(sshd: Sshd) -> None:
    assert ask("pc1", sshd.uri()).kind == "QEMU"


def _unknown_key(sshd: Sshd, _tmp: Path) -> str:
    return sshd.uri(command=sshd.wrapper("-oUserKnownHostsFile=/dev/null"))


def _changed_key(sshd: Sshd, tmp: Path) -> str:
    known = tmp / "known"
    client = " ".join((sshd.folder / "client.pub").read_text().split()[:2])
    known.write_text(f"edgewake-test {client}\n")
    return sshd.uri(command=sshd.wrapper(f"-oUserKnownHostsFile={known}"))


def _foreign_key(sshd: Sshd, tmp: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp / "key"], check=True)
    return sshd.uri(keyfile=tmp / "key")


def _no_key(sshd: Sshd, tmp: Path) -> str:
    return sshd.uri(keyfile=tmp / "none")


def _port_of_nobody(sshd: Sshd, _tmp: Path) -> str:
    return sshd.uri(port=free_port())


def _no_ssh(sshd: Sshd, tmp: Path) -> str:
    return sshd.uri(command=tmp / "none")


def _unknown_name(sshd: Sshd, _tmp: Path) -> str:
    return sshd.uri().replace("127.0.0.1", "nosuch.invalid")


def _no_xen(sshd: Sshd, _tmp: Path) -> str:
    return sshd.uri("xen")


def _wrong_end(sshd: Sshd, _tmp: Path) -> str:
    return sshd.uri(path="/sytem")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_unknown_key, "the host's ssh key is not known here"),
        (_changed_key, "the host's ssh key is not the one known here"),
        (_foreign_key, "the host refuses our ssh key"),
        (_no_key, "the ssh key file that the URI names cannot be read"),
        (_port_of_nobody, "nobody listens on that port"),
        (_no_ssh, "is not on this machine"),
        (_unknown_name, "no address is known"),
        (_no_xen, "no driver for that kind of hypervisor"),
        (_wrong_end, "the end of the URI is wrong"),
    ],
)
def test_each_way_that_ssh_fails_is_told_apart(
    sshd: Sshd, tmp_path: Path, make: Callable[[Sshd, Path], str], sentence: str
) -> None:
    assert sentence in _refused(make(sshd, tmp_path)).message


def test_a_host_without_a_helper(sshds: SshdMaker) -> None:
    """Neither libvirt's own helper nor netcat: what a dom0 made by hand often lacks."""
    programs = [Path("/usr/bin") / name for name in ("virt-ssh-helper", "nc", "ncat", "netcat")]
    bare = sshds.make(*(each.resolve() for each in programs if each.exists()))
    assert "neither virt-ssh-helper nor nc" in _refused(bare.uri()).message


def test_a_host_without_libvirtd(sshds: SshdMaker) -> None:
    assert "libvirtd does not run there" in _refused(sshds.make(RUN).uri()).message


@contextmanager
def _black_hole() -> Iterator[int]:
    """Give a port of loopback that drops whoever knocks, as a firewall or a dead host would."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        crowd = [socket.socket() for _ in range(4)]
        for each in crowd:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        yield port
        for each in crowd:
            each.close()


def test_a_host_that_drops_everything(sshd: Sshd) -> None:
    with _black_hole() as port:
        told = _refused(sshd.uri(port=port, command=sshd.wrapper("-oConnectTimeout=2")))
        assert "the host does not answer" in told.message
        with pytest.raises(HostUnreachable, match=r"the host does not answer|no answer within 1 s"):
            ask("pc1", sshd.uri(port=port), 1.0)


def test_ssh_asks_nobody_at_the_terminal(sshd: Sshd) -> None:
    """With a terminal at hand ssh would ask whether to trust the host, and wait for ever."""
    uri = sshd.uri(command=sshd.wrapper("-oUserKnownHostsFile=/dev/null"))
    assert "yes/no" in _said_at_a_terminal(uri)
    said = _said_at_a_terminal(guarded(uri))
    assert "yes/no" not in said
    assert "Host key verification failed" in said


def _said_at_a_terminal(uri: str) -> str:
    """Return what appears on a terminal of its own when libvirt opens a URI, or asks there."""
    code = "import libvirt, sys; libvirt.open(sys.argv[1])"
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-c", code, uri],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said, deadline = b"", time.monotonic() + PATIENCE_S
    try:
        while time.monotonic() < deadline and b"yes/no" not in said:
            if select.select([ours], [], [], 0.5)[0]:
                said += os.read(ours, 4096)
    except OSError:  # the child has ended
        pass
    finally:
        os.close(ours)  # which hangs up on whoever still waits there
        child.kill()
        child.wait(PATIENCE_S)
    return said.decode(errors="replace")


# --- connections that break -------------------------------------------------------------------


class Told:
    """A tenant that remembers what it was told."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[str] = SimpleQueue()

    def ended(self, uuid: str, why: str) -> None:
        pass

    def lost(self, why: str) -> None:
        self.queue.put(f"lost: {why}")

    def back(self) -> None:
        self.queue.put("back")

    def next(self) -> str:
        return self.queue.get(timeout=PATIENCE_S)


@contextmanager
def _tenant(uri: str) -> Iterator[tuple[Callable[[], Line], Told]]:
    connections, told = Connections(LibvirtTransport()), Told()
    connection = connections.join(uri, told)
    try:
        yield connection.get, told
    finally:
        connections.leave(connection, told)


class Proxy:
    """A TCP proxy that can freeze: it goes on accepting and reading nothing, and says nothing."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.thawed = threading.Event()
        self.thawed.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, work: Callable[..., None], *args: socket.socket) -> None:
        self._threads.append(threading.Thread(target=work, args=args, daemon=True))
        self._threads[-1].start()

    def close(self) -> None:
        self.thawed.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.forget()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        for each in self._ends:
            each.close()

    def forget(self) -> None:
        """Drop what went on before, as a network that comes back with other state."""
        for each in self._ends:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._ends += [near, far]
                for pair in ((near, far), (far, near)):
                    self._start(self._pump, *pair)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.thawed.wait()
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(sshd: Sshd) -> Iterator[Proxy]:
    proxy = Proxy(sshd.port)
    yield proxy
    proxy.close()


def test_a_host_that_falls_silent_is_lost_and_found_again(
    sshd: Sshd, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No packet comes any more, and no end either: only keep-alive can tell."""
    monkeypatch.setattr(libvirt_line, "KEEPALIVE_S", 1)
    monkeypatch.setattr(libvirt_line, "KEEPALIVE_COUNT", 2)
    with _tenant(sshd.uri(port=proxy.port)) as (get, told):
        assert get().conn.getType() == "QEMU"
        proxy.thawed.clear()
        assert told.next() == "lost: no answer to keepalive"
        proxy.forget()
        proxy.thawed.set()
        assert told.next() == "back"
        assert get().conn.getType() == "QEMU"


def _ssh_clients(sshd: Sshd) -> set[int]:
    """Return our children that are ssh to that sshd."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = folder.joinpath("stat").read_text().rpartition(")")[2].split()[1]
            ours = int(parent) == os.getpid()
            if ours and str(sshd.folder).encode() in folder.joinpath("cmdline").read_bytes():
                found.add(int(folder.name))
    return found


def test_a_killed_ssh_is_noticed_at_once_and_replaced(sshd: Sshd) -> None:
    with _tenant(sshd.uri()) as (get, told):
        before = _ssh_clients(sshd)  # of other tests, which may wait for a black hole
        get()
        (client,) = _ssh_clients(sshd) - before
        os.kill(client, signal.SIGKILL)
        assert told.next().startswith("lost: ")
        assert told.next() == "back"
        assert get().conn.isAlive()
        assert client not in _ssh_clients(sshd)
    eventually(lambda: _ssh_clients(sshd) <= before, PATIENCE_S)


def test_twenty_hosts_cost_one_process_and_a_thread_each(sshd: Sshd, tmp_path: Path) -> None:
    """Ssh is a process per host, of its own making; ours stays one, and small."""
    hosts = [_host(f"host{number}", sshd.uri(no_tty=number)) for number in range(1, HOSTS + 1)]
    ask("warm", sshd.uri())  # what the first connection of a process costs is paid
    threads, memory, before = threading.active_count(), _resident_kib(), _ssh_clients(sshd)
    drivers = [LibvirtHypervisor(each, "far20", console_dir=tmp_path) for each in hosts]
    try:
        with ThreadPoolExecutor(HOSTS) as pool:
            list(pool.map(lambda driver: driver.watch(lambda _event: None), drivers))
            assert all(pool.map(lambda driver: driver.running() == (), drivers))
        assert len(_ssh_clients(sshd) - before) == HOSTS
        assert threading.active_count() - threads <= HOSTS
        assert _resident_kib() - memory < HOSTS * 1024
    finally:
        for driver in drivers:
            driver.close()
    eventually(
        lambda: threading.active_count() <= threads and _ssh_clients(sshd) <= before, PATIENCE_S
    )


def _host(name: str, uri: str) -> Host:
    return replace(a_host(name), uri=uri)


def _resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


# --- over TLS ---------------------------------------------------------------------------------

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Authority:
    """An authority that signs certificates, for one day unless told otherwise."""

    name: str
    key: Key
    certificate: x509.Certificate

    @classmethod
    def make(cls, name: str) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(name, key, _signed(name, key, name, key, authority=True))

    def issue(
        self, folder: Path, kind: str, host: str = "", until: dt.datetime = NOW + DAY
    ) -> None:
        """Write the files of a server or client into a folder, with this authority's own."""
        folder.mkdir(exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        signed = _signed(kind, key, self.name, self.key, host=host, until=until)
        pem = serialization.Encoding.PEM
        (folder / "cacert.pem").write_bytes(self.certificate.public_bytes(pem))
        (folder / f"{kind}cert.pem").write_bytes(signed.public_bytes(pem))
        (folder / f"{kind}key.pem").write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )


def _signed(
    name: str,
    key: Key,
    issuer: str,
    issuer_key: Key,
    *,
    host: str = "",
    until: dt.datetime = NOW + DAY,
    authority: bool = False,
) -> x509.Certificate:
    usage = dict.fromkeys(("content_commitment", "data_encipherment", "key_agreement"), False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - 2 * DAY)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not authority,
                key_encipherment=not authority,
                key_cert_sign=authority,
                crl_sign=authority,
                encipher_only=False,
                decipher_only=False,
                **usage,
            ),
            critical=True,
        )
    )
    if not authority:
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    if host:
        names = [x509.IPAddress(ipaddress.ip_address(host))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


class Libvirtd:
    """A libvirtd of our own that listens for TLS on loopback, with all its folders its own."""

    FOLDERS = ("/run/libvirt", "/var/lib/libvirt", "/etc/libvirt", "/var/cache/libvirt")

    def __init__(self, folder: Path, certificates: Path) -> None:
        folder.mkdir()
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "libvirtd.conf").write_text(
            "listen_tls = 1\nlisten_tcp = 0\ntls_no_sanity_certificate = 1\n"
            'listen_addr = "127.0.0.1"\nauth_tls = "none"\nauth_unix_rw = "none"\n'
            f'tls_port = "{self.port}"\nca_file = "{certificates}/cacert.pem"\n'
            f'cert_file = "{certificates}/servercert.pem"\n'
            f'key_file = "{certificates}/serverkey.pem"\n'
        )

    def start(self) -> None:
        lines = []
        for number, each in enumerate([*self.FOLDERS, "/var/log/libvirt"]):
            own = self._folder / str(number)
            own.mkdir(exist_ok=True)
            lines.append(f"[ ! -d {each} ] || mount --bind {own} {each}")
        config, pid = self._folder / "libvirtd.conf", self._folder / "pid"
        lines.append(f"exec libvirtd --listen --config {config} --pid-file {pid}")
        (self._folder / "namespace").write_text("\n".join(lines))
        self._process = in_namespace(self._folder / "namespace", self._folder / "log")
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            time.sleep(0.1)
        pytest.fail(f"libvirtd did not start: {(self._folder / 'log').read_text()}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE_S)
            self._process = None

    def uri(self, pki: Path, host: str = "127.0.0.1", driver: str = "qemu") -> str:
        return f"{driver}+tls://{host}:{self.port}/system?pkipath={pki}"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an authority, and certificates in every state."""
    root, past = tmp_path_factory.mktemp("pki"), NOW - DAY
    ours, theirs = Authority.make("ours"), Authority.make("theirs")
    ours.issue(root / "server", "server", "127.0.0.1")
    ours.issue(root / "server-old", "server", "127.0.0.1", past)
    ours.issue(root / "client", "client")
    ours.issue(root / "client-old", "client", until=past)
    ours.issue(root / "client-none", "client")
    for name in ("clientcert.pem", "clientkey.pem"):
        (root / "client-none" / name).unlink()
    theirs.issue(root / "client-theirs", "client")
    (root / "nothing").mkdir()
    return root


@pytest.fixture(scope="module")
def libvirtd(tmp_path_factory: pytest.TempPathFactory, pki: Path) -> Iterator[Libvirtd]:
    daemon = Libvirtd(tmp_path_factory.mktemp("libvirtd") / "good", pki / "server")
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.mark.parametrize(
    ("folder", "changes", "sentence"),
    [
        ("nothing", {}, "the authority that signs the hosts'"),
        ("client-none", {}, "lets nobody in without a client certificate"),
        ("client-old", {}, "a certificate has expired"),
        ("client-theirs", {}, "signed by another authority"),
        ("client", {"host": "localhost"}, "certificate is for another name"),
        ("client", {"driver": "xen"}, "no driver for that kind of hypervisor"),
    ],
)
def test_each_way_that_tls_fails_is_told_apart(
    libvirtd: Libvirtd, pki: Path, folder: str, changes: dict[str, str], sentence: str
) -> None:
    assert sentence in _refused(libvirtd.uri(pki / folder, **changes)).message


def test_a_host_whose_certificate_has_expired(pki: Path, tmp_path: Path) -> None:
    daemon = Libvirtd(tmp_path / "old", pki / "server-old")
    daemon.start()
    try:
        assert "a certificate has expired" in _refused(daemon.uri(pki / "client")).message
    finally:
        daemon.stop()


def test_tls_to_what_is_no_libvirt(sshd: Sshd, pki: Path) -> None:
    uri = f"qemu+tls://127.0.0.1:{sshd.port}/system?pkipath={pki / 'client'}"
    assert "does not speak TLS" in _refused(uri).message


def test_a_restarted_libvirtd_is_found_again_over_tls(libvirtd: Libvirtd, pki: Path) -> None:
    with _tenant(libvirtd.uri(pki / "client")) as (get, told):
        assert get().conn.getType() == "QEMU"
        libvirtd.stop()
        assert told.next().startswith("lost: ")
        libvirtd.start()
        assert told.next() == "back"
        assert get().conn.getType() == "QEMU"
