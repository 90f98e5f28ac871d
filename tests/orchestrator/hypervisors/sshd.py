"""A private sshd on loopback, for tests of libvirt over ssh: own port, own keys, nothing installed.

It runs in a mount namespace of its own, where the account that sshd wants exists and where parts of
the machine can be hidden, as if it were another one. Its client is a wrapper for `command=` in
URIs that knows the host key, so that nothing in anybody's ~/.ssh is read for it or changed.

    from tests.orchestrator.hypervisors.sshd import sshd  # in a conftest.py or a test

Needs root, `unshare` and `ssh`; sshd is this machine's or, without one, Debian's unpacked.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.ports import free_port

PACKAGES = ("openssh-server", "libwrap0")
ALIAS = "edgewake-test"  # what the host is called in known_hosts, whatever its port
START_S = 10.0
CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/client.pub
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
MaxStartups 200
"""


@dataclass
class Sshd:
    """One sshd. `hidden` are files and folders that are empty for whoever logs in."""

    binary: Path
    libraries: Path
    folder: Path
    hidden: tuple[Path, ...] = ()
    port: int = 0
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    def start(self) -> None:
        """Start, on the port of the last time if there was one, and wait until it listens."""
        self.port = self.port or free_port()
        for name in ("host", "client"):
            if not (self.folder / name).exists():
                _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name])
        (self.folder / "config").write_text(CONFIG.format(port=self.port, folder=self.folder))
        (self.folder / "passwd").write_text(
            Path("/etc/passwd").read_text() + "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n"
        )
        (self.folder / "empty").mkdir(exist_ok=True)
        (self.folder / "namespace").write_text("\n".join([*self._mounts(), self._command()]))
        self.known(self.host_key())
        self.wrapper()
        self._process = in_namespace(self.folder / "namespace", self.folder / "log")
        self._wait()

    def stop(self) -> None:
        """End it; sessions go on."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_S)
            self._process = None

    def host_key(self) -> str:
        """Return the public host key, as known_hosts has it."""
        return " ".join((self.folder / "host.pub").read_text().split()[:2])

    def known(self, key: str) -> None:
        """Make `key` the one that clients know; empty for none."""
        (self.folder / "known_hosts").write_text(f"{ALIAS} {key}\n" if key else "")

    def wrapper(self, *options: str) -> Path:
        """Return an ssh that knows the host key, with more options if wanted."""
        known = f"-oUserKnownHostsFile={self.folder / 'known_hosts'}"
        # ssh takes the first of two values, so what is asked for comes before what we would have.
        words = [
            "ssh",
            "-F/dev/null",
            *options,
            known,
            "-oGlobalKnownHostsFile=none",
            "-oLogLevel=ERROR",
        ]
        words += [f"-oHostKeyAlias={ALIAS}", "-oIdentitiesOnly=yes", "-oIdentityAgent=none"]
        name = sha256("".join(options).encode()).hexdigest()[:12]
        file = self.folder / (f"ssh-{name}" if options else "ssh")
        file.write_text(f'#!/bin/sh\nexec {" ".join(words)} "$@"\n')
        file.chmod(0o755)
        return file

    def uri(
        self,
        driver: str = "qemu",
        user: str = "root",
        path: str = "/system",
        port: int = 0,
        **options: object,
    ) -> str:
        """Return a URI of libvirt behind this sshd; `options` are added or replace ours."""
        query = {"command": self.folder / "ssh", "keyfile": self.folder / "client", **options}
        where = f"{user}@127.0.0.1:{port or self.port}"
        return f"{driver}+ssh://{where}{path}?{urlencode(query, safe='/')}"

    def _mounts(self) -> list[str]:
        bind = [f"mount --bind {self.folder}/passwd /etc/passwd"]
        for each in self.hidden:
            empty = self.folder / "empty" if each.is_dir() else Path("/dev/null")
            bind.append(f"mount --bind {empty} {each}")
        return bind

    def _command(self) -> str:
        path = f"LD_LIBRARY_PATH={self.libraries} " if self.libraries.is_dir() else ""
        return f"{path}exec {self.binary} -D -e -f {self.folder}/config"

    def _wait(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with suppress(OSError), closing(socket.create_connection(("127.0.0.1", self.port), 1)):
                return
            time.sleep(0.05)
        pytest.fail(f"sshd did not start: {(self.folder / 'log').read_text()}")


@dataclass
class SshdMaker:
    """Makes sshds of one unpacked package; `close` ends all of them."""

    folder: Path
    made: list[Sshd] = field(default_factory=list)

    def make(self, *hidden: Path) -> Sshd:
        """Return a running sshd, for whose users `hidden` is empty."""
        binary, libraries = self._binary()
        folder = self.folder / f"sshd{len(self.made)}"
        folder.mkdir()
        sshd = Sshd(binary, libraries, folder, hidden)
        self.made.append(sshd)
        sshd.start()
        return sshd

    def close(self) -> None:
        """End every sshd."""
        for sshd in self.made:
            sshd.stop()

    def _binary(self) -> tuple[Path, Path]:
        installed, root = Path("/usr/sbin/sshd"), self.folder / "root"
        if installed.exists():
            return installed, root / "none"
        if not root.exists():
            _run(["apt-get", "-q", "download", *PACKAGES], cwd=self.folder)
            for package in self.folder.glob("*.deb"):
                _run(["dpkg-deb", "-x", package, root])
        (libraries,) = {each.parent for each in root.rglob("libwrap.so.0")}
        return root / "usr/sbin/sshd", libraries


@pytest.fixture(scope="session")
def sshds() -> Iterator[SshdMaker]:
    """Give a maker of sshds for this session."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ssh", "ssh-keygen"))):
        pytest.fail("an sshd for tests needs root, unshare and openssh-client")
    # Not below pytest's own folder: other users' keys and wrappers must be readable there.
    folder, privilege = Path(tempfile.mkdtemp(prefix="ewsshd-")), Path("/run/sshd")
    folder.chmod(0o755)
    ours = not privilege.exists()
    privilege.mkdir(mode=0o755, exist_ok=True)  # sshd will not start without it
    maker = SshdMaker(folder)
    try:
        yield maker
    finally:
        maker.close()
        shutil.rmtree(folder)
        if ours:
            privilege.rmdir()


@pytest.fixture(scope="session")
def sshd(sshds: SshdMaker) -> Sshd:
    """Give an sshd that leads to this machine's libvirt."""
    return sshds.make()


def in_namespace(script: Path, log: Path) -> "subprocess.Popen[bytes]":
    """Start a script that mounts things and then becomes a daemon; only it sees those mounts."""
    with log.open("wb") as errors:
        return subprocess.Popen(
            ["unshare", "--mount", "sh", "-e", str(script)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )


def _run(command: list[object], cwd: Path | None = None) -> None:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.fail(f"{command[0]} failed: {done.stderr[-2000:]}")
