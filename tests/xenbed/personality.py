"""What makes one bed differ from another that boots the same build: keys, name, addresses.

It is a cpio archive on a disk of its own, which dom0 unpacks over its root when all that beds have
in common is done. Keys are made for each bed, used by nobody else, and removed with it.
"""

import secrets
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path

from images.build import cpio
from tests.xenbed import qemu, rootfs
from tests.xenbed.errors import BedError
from tests.xenbed.state import State

DISK_BYTES = 64 << 10
SSH_COMMAND = "ssh"  # of the bed's folder: ssh with the bed's key and its known host


def make_keys(state: State) -> None:
    """Write a key pair for root and one for the host, and a command `ssh` that knows both."""
    folder = state.folder
    for name in ("id", "host"):
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"xenbed {state.name}"]
        try:
            subprocess.run([*key, "-f", str(folder / name)], check=True, capture_output=True)
        except FileNotFoundError as error:
            raise BedError("ssh is not here; install the Debian package openssh-client") from error
        except subprocess.CalledProcessError as error:
            raise BedError(f"ssh-keygen failed: {error.stderr.decode()}") from error
    (folder / "known_hosts").write_text(f"dom0 {(folder / 'host.pub').read_text()}")
    (folder / "ssh_config").write_text(ssh_config(state))
    command = folder / SSH_COMMAND
    command.write_text(f"#!/bin/sh\nexec ssh -F '{folder}/ssh_config' \"$@\"\n")
    command.chmod(0o755)


def ssh_config(state: State) -> str:
    """Return a configuration in which any host name, such as ``dom0``, means the bed's dom0."""
    settings = {
        "HostName": "127.0.0.1",
        "Port": state.ssh_port,
        "User": "root",
        "HostKeyAlias": "dom0",
        "IdentityFile": f'"{state.folder}/id"',
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": f'"{state.folder}/known_hosts"',
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "ConnectTimeout": 30,
        "LogLevel": "ERROR",
    }
    return "Host *\n" + "".join(f"    {key} {value}\n" for key, value in settings.items())


def archive(state: State) -> bytes:
    """Return the archive with the bed's own files."""
    return cpio.archive(rootfs.with_folders(_entries(state)))


def write_disk(state: State, data: bytes) -> None:
    """Write the disk that dom0 reads the archive from; without one, dom0 waits for it."""
    state.own_disk.touch(mode=0o600)
    with state.own_disk.open("r+b") as disk:
        disk.write(data)
        disk.truncate(DISK_BYTES)


def _entries(state: State) -> Iterable[cpio.Entry]:
    prefix = state.lan.subnet.prefixlen
    settings = (
        f"BED_NAME={state.name}\n"
        f"BED_ADDRESS={state.address}/{prefix}\n"
        f"BED_GATEWAY={state.lan.gateway}\n"
        f"BED_MANAGEMENT_MAC={qemu.mac(state, qemu.MANAGEMENT)}\n"
        f"BED_GUESTS_MAC={qemu.mac(state, qemu.GUESTS)}\n"
    )
    # libvirt asks for the host's name when guests migrate: it must lead to the guests' network.
    hosts = f"127.0.0.1 localhost\n{state.address} {state.name}\n"
    yield cpio.Entry("root", stat.S_IFDIR | 0o700)
    yield cpio.Entry("root/.ssh", stat.S_IFDIR | 0o700)
    yield cpio.file("etc/xenbed", settings.encode())
    yield cpio.file("etc/hostname", f"{state.name}\n".encode())
    yield cpio.file("etc/hosts", hosts.encode())
    yield cpio.file("etc/machine-id", f"{state.id.hex}\n".encode())
    # A snapshot's random numbers would be the same for all that are started from it.
    yield cpio.Entry("etc/xenbed-seed", stat.S_IFREG | 0o600, secrets.token_bytes(64))
    yield _secret("root/.ssh/authorized_keys", state.folder / "id.pub")
    yield _secret("etc/ssh/ssh_host_ed25519_key", state.folder / "host")


def _secret(path: str, source: Path) -> cpio.Entry:
    return cpio.Entry(path, stat.S_IFREG | 0o600, source.read_bytes())
