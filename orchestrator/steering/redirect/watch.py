"""Lets traffic flow on when an instance dies while edgewake is not there: a process of its own.

It watches the redirects of one owner, and takes away those that lead to nobody: the device is gone
(what tc sends there would be dropped), or its other end is in a network namespace in which nothing
runs any more (as when a command has died: its namespace stays until edgewake is back, and so does
its keeper, the first process of its namespace of processes). It begins with the first redirect,
outlives edgewake, and ends after the last one. There is one for each owner.

    python -m orchestrator.steering.redirect.watch OWNER [NAMESPACE]
"""

import logging
import os
import select
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from orchestrator.errors import CannotRedirect
from orchestrator.linux import namespaces
from orchestrator.steering.redirect.backend import BackEnd, Standing, mark_of
from orchestrator.steering.redirect.commands import Commands
from orchestrator.steering.redirect.probe import back_ends

log = logging.getLogger("edgewake.redirects")

_GROUP_LINK = 1  # linux/rtnetlink.h RTMGRP_LINK
_LOOK_S = 0.2  # between two looks at who is in a namespace
_ROOT = Path(__file__).parents[3]  # of our packages


def start(owner: str, namespace: str = "") -> subprocess.Popen[bytes]:
    """Start a watch that outlives us; where there is one already it ends at once."""
    return subprocess.Popen(
        [sys.executable, "-m", __name__, owner, *([namespace] if namespace else [])],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        cwd="/",
    )


class Watch:
    """The redirects of one owner, in a namespace of this machine or in ours."""

    def __init__(self, owner: str, namespace: str = "") -> None:
        self._commands = Commands(namespace)
        self._ends: tuple[BackEnd, ...] = tuple(
            dict.fromkeys(back_ends(owner, self._commands).values())
        )
        self._last: dict[BackEnd, list[Standing]] = {}  # what was there
        self.unsure = False  # whether something could not be looked at, and is there perhaps
        self._behind: dict[str, int] = {}  # the namespaces of other ends, by device
        self._seen: dict[int, Path] = {}  # a process in each, which is looked at first

    def sweep(self) -> bool:
        """Take away redirects that lead to nobody; say whether any are left."""
        left = self.unsure = False
        behind = {}
        for end in self._ends:
            for standing in self._found(end):
                if not standing.whole or self.is_deserted(standing.device):
                    log.warning("%s leads to nobody any more: it is taken away", standing)
                    with suppress(CannotRedirect):
                        end.remove(standing)
                else:
                    left = True
                    behind[standing.device] = self._namespace_behind(standing.device)
        self._behind = {device: inode for device, inode in behind.items() if inode}
        return left

    def deserted(self) -> bool:
        """Say whether one of the namespaces that were seen has lost its last process."""
        return any(not self._lives(inode) for inode in self._behind.values())

    def is_deserted(self, device: str) -> bool:
        """Say whether nobody is behind a device; one whose other end is unknown is not."""
        inode = self._namespace_behind(device)
        return inode != 0 and not self._lives(inode)

    def _lives(self, inode: int) -> bool:
        """Say whether anything runs in a network namespace but keepers."""
        seen = self._seen.get(inode)
        if seen is not None and _runs_in(seen, inode):
            return True
        there = (each for each in Path("/proc").iterdir() if each.name.isdecimal())
        self._seen[inode] = found = next((e for e in there if _runs_in(e, inode)), Path())
        return found != Path()

    def _namespace_behind(self, device: str) -> int:
        try:
            (shown,) = self._commands.ask("ip", "-j", "link", "show", "dev", device)
            known = self._commands.ask("ip", "-j", "netns", "list-id")
            names = {each["nsid"]: each["name"] for each in known if "name" in each}
            name = str(shown.get("link_netns") or names[shown["link_netnsid"]])
            return (namespaces.FOLDER / name).stat().st_ino
        except (CannotRedirect, KeyError, OSError):  # it is gone, no pair, or has no name
            return 0

    def _found(self, end: BackEnd) -> list[Standing]:
        """Return what is there; if that cannot be seen just now, what was there last."""
        try:
            self._last[end] = end.found()
        except CannotRedirect as error:  # without the program, nothing was ever there
            log.info("%s", error)
            self.unsure = self.unsure or bool(self._last.get(end))
        return self._last.get(end, [])


def _runs_in(process: Path, inode: int) -> bool:
    """Say whether a process is in a network namespace, and is no keeper."""
    try:
        return (process / "ns/net").stat().st_ino == inode and not _keeps(process)
    except OSError:  # it has ended meanwhile
        return False


def _keeps(process: Path) -> bool:
    """Say whether a process is the first of a namespace of processes below ours."""
    lines = (process / "status").read_text().splitlines()
    numbers = next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [])
    return len(numbers) > 1 and numbers[-1] == "1"


def run(owner: str, namespace: str = "") -> None:
    """Watch until nothing is left to be watched, unless somebody else does already."""
    with socket.socket(socket.AF_UNIX) as turn, _links(namespace) as links:
        try:
            turn.bind(f"\0edgewake-redirects-{mark_of(owner, 16)}-{namespace}")
        except OSError:
            return
        watch = Watch(owner, namespace)
        while watch.sweep():
            while not _changed(links) and not watch.deserted() and not watch.unsure:
                pass


def _links(namespace: str) -> socket.socket:
    """Return a socket that hears of every device that comes, goes or changes."""

    def listening() -> socket.socket:
        links = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        links.bind((0, _GROUP_LINK))
        return links

    return namespaces.inside(namespace, listening) if namespace else listening()


def _changed(links: socket.socket) -> bool:
    """Wait a moment for a device to change; say whether one did."""
    if not select.select([links], [], [], _LOOK_S)[0]:
        return False
    with suppress(BlockingIOError, OSError):  # too many at once: then some are lost, but not all
        while links.recv(65536, socket.MSG_DONTWAIT):
            pass
    return True


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    run(*sys.argv[1:])
