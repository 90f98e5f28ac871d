"""What is written down about a bed: where it is, how it is reached, what it has on this machine.

The file is written before anything is made, so that whatever a killed bed left can be found.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from uuid import UUID

from tests.xenbed import network
from tests.xenbed.errors import BedError

DEFAULT_NAME = "xenbed"
NAME = re.compile(r"[a-z][a-z0-9]{0,9}")  # so that the names of tap and bridge fit (IFNAMSIZ)

_FILE = "bed.json"


@dataclass(frozen=True, slots=True)
class State:
    """One bed. `bridge_owner` is the bed that made the bridge, itself or the one it joined.

    `id` is this start of it, and dom0's machine-id; `address` is dom0's on the guests' network;
    `guests_mib` is what guests have in all, as Xen said when it was ready, and 0 before.
    """

    name: str
    folder: Path
    id: UUID
    ssh_port: int
    libvirt_port: int
    lan: network.Lan
    bridge_owner: str
    address: IPv4Address
    memory_mib: int
    dom0_mib: int
    guests_mib: int = 0

    @property
    def pid_file(self) -> Path:
        return self.folder / "qemu.pid"

    @property
    def serial(self) -> Path:
        return self.folder / "serial.log"

    @property
    def own_disk(self) -> Path:
        return self.folder / "own.raw"

    @property
    def mark(self) -> str:
        """Return the alias of the bed's devices."""
        return network.alias(self.folder)

    def pid(self) -> int | None:
        """Return the process of the bed's QEMU as its pid file says; None if it does not run.

        A pid may have gone to another process since: it counts only with our file on its command
        line, and a zombie does not count.
        """
        try:
            pid = int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None
        return pid if self._is_ours(pid) else None

    def find_process(self) -> int | None:
        """Return the process of the bed's QEMU even if it did not get to write its pid file."""
        pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return self.pid() or next((pid for pid in pids if self._is_ours(pid)), None)

    def _is_ours(self, pid: int) -> bool:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return b"-pidfile" in words and os.fsencode(self.pid_file) in words

    def to_json(self) -> str:
        """Return the contents of the state file."""
        return json.dumps(self.document(), indent=2)

    def document(self) -> dict[str, str | int]:
        """Return what is written, also for people, as JSON has it."""
        return {
            "name": self.name,
            "id": str(self.id),
            "ssh_port": self.ssh_port,
            "libvirt_port": self.libvirt_port,
            "bridge": self.lan.bridge,
            "bridge_owner": self.bridge_owner,
            "subnet": str(self.lan.subnet),
            "address": str(self.address),
            "memory_mib": self.memory_mib,
            "dom0_mib": self.dom0_mib,
            "guests_mib": self.guests_mib,
        }

    @classmethod
    def from_json(cls, folder: Path, text: str) -> "State":
        """Read `to_json` back. Raises ValueError, KeyError or TypeError."""
        said = json.loads(text)
        return cls(
            name=said["name"],
            folder=folder,
            id=UUID(said["id"]),
            ssh_port=said["ssh_port"],
            libvirt_port=said["libvirt_port"],
            lan=network.Lan(said["bridge"], IPv4Network(said["subnet"])),
            bridge_owner=said["bridge_owner"],
            address=IPv4Address(said["address"]),
            memory_mib=said["memory_mib"],
            dom0_mib=said["dom0_mib"],
            guests_mib=said["guests_mib"],
        )

    def write(self) -> None:
        """Write the state file, whole or not at all."""
        new = self.folder / f".{_FILE}"
        new.write_text(self.to_json() + "\n")
        new.rename(self.folder / _FILE)


def folder_of(cache: Path, name: str) -> Path:
    """Return the folder of a bed. Raises `BedError` for what cannot be a bed's name."""
    if not NAME.fullmatch(name):
        raise BedError(f"{name!r} is no name for a bed: up to 10 of a-z and 0-9, a letter first")
    return cache / "beds" / name


def read(cache: Path, name: str) -> State | None:
    """Return what is written about a bed, running or not; None if there is nothing to be found.

    Raises `BedError` if what is written makes no sense.
    """
    folder = folder_of(cache, name)
    try:
        return State.from_json(folder, (folder / _FILE).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BedError(
            f"{folder / _FILE}: not what a bed writes ({error}); end its QEMU if it has one, "
            f"then remove {folder}"
        ) from error


def all_beds(cache: Path) -> Iterator[State]:
    """Yield what is written about every bed of a cache."""
    for folder in sorted((cache / "beds").glob("*")):
        if NAME.fullmatch(folder.name) and (state := read(cache, folder.name)):
            yield state
