"""What a host's own commands say about it: clock, addresses, bridges, what is installed.

libvirt does not know these. They are asked on this machine, and where the URI's transport is ssh,
in one command over ssh as the URI would have it; for other URIs they stay unknown, and so does
whatever the host has no command for.
"""

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

from orchestrator.hypervisors.connection_uri import read_uri
from orchestrator.hypervisors.host_command import HostProcess, host_command

COMMAND_S = 15.0
MOST_CLOCK_S = 5.0  # a clock further off spoils certificates and logs
RESOLUTION_S = 2.0  # of the clock's offset: whole seconds, and the way there
DEVICE = re.compile(r"[A-Za-z0-9_.-]{1,15}")  # what else Linux allows is left out: it gets printed
# One fixed text, into which nothing is ever put. A busybox dom0 understands it, too.
QUESTIONS = """\
PATH=$PATH:/usr/sbin:/sbin
echo "clock $(date +%s)"
command -v dnsmasq | sed 's/^/dnsmasq /'
command -v xenstore-write | sed 's/^/xenstore /'
ip -o -4 address show | sed 's/^/address /'
ip -4 route show default | sed 's/^/route /'
ls -d /sys/class/net/*/bridge | sed 's/^/bridge /'
echo end
"""


@dataclass(frozen=True, slots=True)
class Shell:
    """What the commands said; None where nobody could be asked.

    `clock_offset_s` is how far the host's clock is ahead of ours, to a second or two. `addresses`
    and `gateways` are by network device. `xenstore` says whether Xen's tools for it are there.
    """

    clock_offset_s: float | None = None
    dnsmasq: bool | None = None
    bridges: tuple[str, ...] | None = None
    addresses: tuple[tuple[str, IPv4Interface], ...] = ()
    gateways: tuple[tuple[str, IPv4Address], ...] = ()
    xenstore: bool | None = None


def ask_shell(uri: str, timeout_s: float = COMMAND_S) -> Shell:
    """Return what the commands of the host behind `uri` say; an empty answer if they do not run.

    Takes `timeout_s` at most. ValueError if `uri` is none.
    """
    command = host_command(read_uri(uri), QUESTIONS)
    if not command:
        return Shell()
    before = time.time()
    said = _run(command, timeout_s)
    return read_shell(said, (before + time.time()) / 2)


def here() -> Shell:
    """Return what the commands of this machine say."""
    return ask_shell("qemu:///system")


def _run(command: list[str], timeout_s: float) -> str:
    """Return the beginning of what a command says; empty if it does not run. It is ended."""
    try:
        process = HostProcess(command)
    except OSError:
        return ""
    return process.exchange(b"", timeout_s).decode(errors="replace")


def read_shell(said: str, now: float) -> Shell:
    """Return what the answers say; `now` is our clock in the middle of the question."""
    lines = [line.split() for line in said.splitlines()]
    if ["end"] not in lines:
        return Shell()
    of = {
        kind: [line[1:] for line in lines if len(line) > 1 and line[0] == kind]
        for kind in ("clock", "dnsmasq", "xenstore", "address", "route", "bridge")
    }
    return Shell(
        clock_offset_s=_offset(of["clock"], now),
        dnsmasq=bool(of["dnsmasq"]),
        bridges=tuple(
            name
            for (path, *_) in of["bridge"]
            if DEVICE.fullmatch(
                name := path.removeprefix("/sys/class/net/").removesuffix("/bridge")
            )
        ),
        addresses=tuple(_addresses(of["address"])),
        gateways=tuple(_gateways(of["route"])),
        xenstore=bool(of["xenstore"]),
    )


def _offset(clock: list[list[str]], now: float) -> float | None:
    """Return how far ahead their clock is; it shows whole seconds, cut off."""
    if not clock or not re.fullmatch(r"[0-9]{1,12}", clock[0][0]):
        return None
    ahead = int(clock[0][0]) + 0.5 - now
    return 0.0 if abs(ahead) < RESOLUTION_S else round(ahead, 1)


def _addresses(lines: list[list[str]]) -> Iterator[tuple[str, IPv4Interface]]:
    """Yield device and address from lines such as ``2: br0    inet 10.0.0.1/24 brd ...``."""
    for words in lines:
        if len(words) > 3 and words[2] == "inet" and DEVICE.fullmatch(words[1]):
            with suppress(ValueError):
                yield words[1], IPv4Interface(words[3])


def _gateways(lines: list[list[str]]) -> Iterator[tuple[str, IPv4Address]]:
    """Yield device and gateway from lines such as ``default via 10.0.0.1 dev br0``."""
    for words in lines:
        if words[:2] != ["default", "via"] or words[3:4] != ["dev"] or len(words) < 5:
            continue
        if DEVICE.fullmatch(words[4]):
            with suppress(ValueError):
                yield words[4], IPv4Address(words[2])
