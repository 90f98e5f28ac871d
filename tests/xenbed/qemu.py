"""QEMU for a bed: its command line, its monitor, its end."""

import contextlib
import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import time
import zlib
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, BinaryIO

from tests.xenbed.build import Built
from tests.xenbed.errors import BedError
from tests.xenbed.state import State

DOM0_ADDRESS = IPv4Address("10.0.2.15")  # on the management card, as dom0/init has it
SSH, LIBVIRT = 22, 16509
MANAGEMENT, GUESTS = "management", "guests"  # QEMU's names of the two networks

# Found by trial: what is slow under emulation (xsave and what builds on it above all), or hangs.
_CPU = "max,-smap,-rdtscp,-xsave,-avx,-avx2,-fma,-f16c,-vaes"
_XEN = "com1=115200,8n1 console=com1 bootscrub=0 loglvl=warning guest_loglvl=warning"
_LINUX = "console=hvc0 loglevel=4 mitigations=off"
_END_S = 10.0
_ANSWER_S = 10.0
_SAVE_S = 60.0
_POLL_S = 0.05


class NotStarted(BedError):  # noqa: N818 - reads as a sentence where it is raised
    """QEMU ended, or said nothing, before it ran."""


def key() -> str:
    """Return what a snapshot depends on beside what was booted: QEMU and how we call it."""
    try:
        version = subprocess.run(
            ["qemu-system-x86_64", "--version"], capture_output=True, check=True
        )
    except FileNotFoundError as error:
        raise BedError("QEMU is not here; install qemu-system-x86") from error
    digest = hashlib.sha256(version.stdout + Path(__file__).read_bytes())
    return digest.hexdigest()[:16]


def argv(
    state: State, built: Built, *, tap: int | None = None, snapshot: int | None = None
) -> list[str]:
    """Return the command that runs a bed in its folder.

    `tap` is the descriptor of the guests' network, None for a network inside QEMU; such networks
    lead nowhere but to the forwarded ports. `snapshot` is that of an open snapshot to go on from.
    """
    forwards = ",".join(
        f"hostfwd=tcp:127.0.0.1:{here}-{DOM0_ADDRESS}:{there}"
        for here, there in ((state.libvirt_port, LIBVIRT), (state.ssh_port, SSH))
    )
    guests = (
        f"user,id={GUESTS},restrict=on,ipv6=off,net={state.lan.subnet},host={state.lan.gateway}"
        if tap is None
        else f"tap,id={GUESTS},fd={tap}"
    )
    dom0 = f"dom0_mem={state.dom0_mib}M,max:{state.dom0_mib}M dom0_vcpus_pin dom0_max_vcpus=1"
    words = [
        *("qemu-system-x86_64", "-name", f"xenbed-{state.name}", "-pidfile", str(state.pid_file)),
        *("-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", _CPU),
        *("-smp", "2", "-m", str(state.memory_mib)),
        *("-nodefaults", "-display", "none", "-no-reboot", "-sandbox", "on"),
        *("-serial", f"file:{state.serial.name}", "-qmp", "unix:monitor,server=on,wait=off"),
        *("-netdev", f"user,id={MANAGEMENT},restrict=on,ipv6=off,{forwards}"),
        *("-device", f"virtio-net-pci,netdev={MANAGEMENT},romfile=,mac={mac(state, MANAGEMENT)}"),
        *("-netdev", guests),
        *("-device", f"virtio-net-pci,netdev={GUESTS},romfile=,mac={mac(state, GUESTS)}"),
        *("-drive", f"file={built.disk},if=none,id=disk,format=raw,cache=unsafe,snapshot=on"),
        *("-device", "virtio-blk-pci,drive=disk"),
        *("-drive", f"file={state.own_disk},if=none,id=own,format=raw,readonly=on"),
        *("-device", "virtio-blk-pci,drive=own"),
        *("-kernel", str(built.xen), "-append", f"{_XEN} {dom0}"),
        *("-initrd", f"{built.kernel} {_LINUX},{built.root}"),
    ]
    if snapshot is not None:
        words += ["-incoming", f"fd:{snapshot}"]
    return [*words, "-runas", "nobody"] if os.geteuid() == 0 else words


def mac(state: State, card: str) -> str:
    """Return the address of a bed's card: QEMU's prefix, then what differs between two beds."""
    digest = zlib.crc32(f"{state.id} {card}".encode()).to_bytes(4, "big")
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def ask(
    state: State,
    command: str,
    arguments: dict[str, object] | None = None,
    *,
    file: BinaryIO | None = None,
) -> Any:
    """Run a command of QEMU's monitor and return what it answers.

    `file` is handed to QEMU, for ``getfd``. Raises `BedError` if the monitor refuses the command,
    OSError if there is no monitor.
    """
    with socket.socket(socket.AF_UNIX) as line, _short_path(state.folder) as folder:
        line.settimeout(_ANSWER_S)
        line.connect(f"{folder}/monitor")
        with line.makefile("rb") as answers:
            answers.readline()  # its greeting
            _send(line, "qmp_capabilities", {}, None)
            _answer(answers)
            _send(line, command, arguments or {}, file)
            answer = _answer(answers)
    if "error" in answer:
        raise BedError(f"QEMU's monitor refuses {command}: {answer['error'].get('desc')}")
    return answer["return"]


def save(state: State, path: Path) -> None:
    """Halt a bed and write its memory and devices to a file. Raises `BedError`, OSError."""
    ask(state, "stop")
    ask(state, "migrate-set-parameters", {"max-bandwidth": 1 << 40})
    with path.open("wb") as file:
        ask(state, "getfd", {"fdname": "snapshot"}, file=file)
        ask(state, "migrate", {"uri": "fd:snapshot"})
        deadline = time.monotonic() + _SAVE_S
        while (status := ask(state, "query-migrate")["status"]) != "completed":
            if status in ("failed", "cancelled") or time.monotonic() > deadline:
                raise BedError(f"QEMU cannot write the snapshot {path}: {status}")
            time.sleep(_POLL_S)


def go_on(state: State) -> None:
    """Let a bed run that was started from a snapshot. Raises `BedError`, OSError."""
    deadline = time.monotonic() + _SAVE_S
    try:
        while ask(state, "query-status")["status"] == "inmigrate":
            if time.monotonic() > deadline:
                raise NotStarted(f"QEMU does not finish reading its snapshot in {_SAVE_S:g} s")
            time.sleep(_POLL_S)
        ask(state, "cont")
    except OSError as error:
        raise NotStarted(f"QEMU cannot read its snapshot: {error}") from error


def end(pid: int) -> None:
    """End a process and wait until it has ended; a zombie of ours is not reaped."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, number)
            if select.select([process], [], [], _END_S)[0]:
                return
    finally:
        os.close(process)
    raise BedError(f"process {pid} does not end, not even by SIGKILL")


def _send(
    line: socket.socket, command: str, arguments: dict[str, object], file: BinaryIO | None
) -> None:
    words = json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"
    socket.send_fds(line, [words], [file.fileno()] if file else [])


def _answer(answers: BinaryIO) -> dict[str, Any]:
    for line in answers:
        answer: dict[str, Any] = json.loads(line)
        if "event" not in answer:
            return answer
    raise ConnectionResetError("QEMU hung up")


@contextlib.contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """Give a path to a folder that is short enough for a UNIX socket (unix(7): 108 bytes)."""
    descriptor = os.open(folder, os.O_PATH)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
