"""Does KVM really boot a kernel here? A probe, because a /dev/kvm that opens proves nothing.

Nested and restricted hosts exist where KVM accepts a guest and then never runs it properly. So a
stock Linux kernel is booted, without libvirt, until it says "Linux version" on its serial line.
`edgewake doctor` shows the verdict and the wiring picks ``kvm`` or ``qemu`` (TCG) by it; drivers
never decide this themselves. The verdict is for this machine only.
"""

import json
import os
import platform
import selectors
import shutil
import subprocess
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

QEMU = "qemu-system-x86_64"
DEVICE = Path("/dev/kvm")
PROOF = b"Linux version"
MEMORY_MIB = 96  # least that Debian's cloud kernel boots in, with room to spare
_KEPT_BYTES = 64 * 1024
_ENDING_S = 5.0  # a killed QEMU is reaped well within this


@dataclass(frozen=True, slots=True)
class KvmVerdict:
    """Whether KVM boots a guest here, why or why not, and how long finding out took."""

    usable: bool
    why: str
    seconds: float


def probe_kvm(
    kernel: Path, timeout_s: float = 5.0, *, qemu: str = QEMU, device: Path = DEVICE
) -> KvmVerdict:
    """Boot `kernel` (a Linux bzImage) under KVM and return whether it spoke within `timeout_s`.

    Never raises: whatever is missing is the verdict's reason. The QEMU it starts is ended.
    """
    started = time.monotonic()
    why = _missing(kernel, qemu, device)
    usable = False
    if not why:
        usable, why = _boot(kernel, timeout_s, qemu)
    return KvmVerdict(usable=usable, why=why, seconds=round(time.monotonic() - started, 3))


def cached_verdict(
    cache_file: Path,
    kernel: Path,
    timeout_s: float = 5.0,
    *,
    qemu: str = QEMU,
    device: Path = DEVICE,
) -> KvmVerdict:
    """Return the verdict kept in `cache_file`, or probe and keep it.

    A kept verdict counts for the same kernel file, QEMU version, running kernel and access to the
    device; a cache that cannot be read or written is as good as none.
    """
    verdict = kept_verdict(cache_file, kernel, qemu=qemu, device=device)
    if verdict is None:
        verdict = probe_kvm(kernel, timeout_s, qemu=qemu, device=device)
        _save(cache_file, _key(kernel, qemu, device), verdict)
    return verdict


def kept_verdict(
    cache_file: Path, kernel: Path, *, qemu: str = QEMU, device: Path = DEVICE
) -> KvmVerdict | None:
    """Return the verdict kept in `cache_file` if it still counts; None otherwise."""
    return _load(cache_file, _key(kernel, qemu, device))


def _missing(kernel: Path, qemu: str, device: Path) -> str:
    """Return what the probe lacks, or an empty string."""
    if not device.exists():
        return f"{device} does not exist: the processor or the machine offers no virtualisation"
    if not os.access(device, os.R_OK | os.W_OK):
        return f"{device} may not be opened by this user: join the group that owns it (kvm)"
    if shutil.which(qemu) is None:
        return f"{qemu} is not installed: run `make setup`"
    if not os.access(kernel, os.R_OK):
        return f"{kernel} cannot be read: the probe needs a Linux kernel to boot"
    return ""


def _boot(kernel: Path, timeout_s: float, qemu: str) -> tuple[bool, str]:
    argv = [qemu, "-machine", "pc,accel=kvm", "-m", str(MEMORY_MIB), "-nodefaults"]
    argv += ["-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", str(kernel)]
    argv += ["-append", "console=ttyS0 panic=-1"]
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as error:
        return False, f"{qemu} cannot be run: {error.strerror}"
    with process:
        try:
            output, ended = _read_until_proof(process, time.monotonic() + timeout_s)
        finally:
            process.kill()
            process.wait(_ENDING_S)
    if PROOF in output:
        return True, "a Linux kernel booted under KVM"
    lines = output.decode(errors="replace").strip().splitlines()
    said = [line for line in lines if ": warning: " not in line] or lines
    last = f"; last line: {said[-1][:200]}" if said else "; it printed nothing"
    if ended:
        return False, f"QEMU ended before the kernel spoke{last}"
    return False, f"the kernel did not come up under KVM within {timeout_s:g} s{last}"


def _read_until_proof(process: "subprocess.Popen[bytes]", deadline: float) -> tuple[bytes, bool]:
    """Return what was printed until the proof, the end or the deadline, and whether it ended."""
    if process.stdout is None:
        raise AssertionError("started without a pipe")
    output = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while PROOF not in output:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return output, False
            data = os.read(process.stdout.fileno(), 4096)
            if not data:
                return output, True
            output = (output + data)[-_KEPT_BYTES:]
    return output, False


def _key(kernel: Path, qemu: str, device: Path) -> list[str]:
    """Return all that the verdict depends on, as text."""
    try:
        stat = kernel.stat()
        identity = f"{kernel} {stat.st_size} {stat.st_mtime_ns}"
    except OSError:
        identity = f"{kernel} missing"
    access = f"{device} {os.access(device, os.R_OK | os.W_OK)}"
    return [identity, _version(qemu), " ".join(platform.uname()), access]


def _version(qemu: str) -> str:
    try:
        done = subprocess.run(
            [qemu, "--version"], capture_output=True, text=True, timeout=_ENDING_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.partition("\n")[0]


def _load(cache_file: Path, key: list[str]) -> KvmVerdict | None:
    try:
        kept = json.loads(cache_file.read_text())
        if kept["key"] != key:
            return None
        verdict = kept["verdict"]
        return KvmVerdict(bool(verdict["usable"]), str(verdict["why"]), float(verdict["seconds"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _save(cache_file: Path, key: list[str], verdict: KvmVerdict) -> None:
    temporary = cache_file.with_name(f"{cache_file.name}.{os.getpid()}")
    try:
        cache_file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"key": key, "verdict": asdict(verdict)}, indent=1) + "\n")
        temporary.replace(cache_file)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
