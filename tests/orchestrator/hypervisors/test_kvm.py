"""The KVM probe believes a booted kernel and nothing else; QEMU is played by a script."""

import sys
import time
from pathlib import Path

import pytest

from orchestrator.hypervisors.kvm import KvmVerdict, cached_verdict, probe_kvm

VERSION = 'if "--version" in sys.argv: print("QEMU emulator version 7.2"); sys.exit()'
BOOTS = 'print("[    0.0] Linux version 6.1", flush=True); time.sleep(600)'
HANGS = 'print("Physical KASLR disabled", flush=True); time.sleep(600)'
SILENT = "time.sleep(600)"
ENDS = 'print("qemu: failed to initialize kvm: Permission denied"); sys.exit(1)'


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(b"kernel")
    return kernel


@pytest.fixture
def device(tmp_path: Path) -> Path:
    device = tmp_path / "kvm"
    device.touch()
    return device


def qemu(folder: Path, behaviour: str) -> str:
    """Write a program that notes its process and arguments, then behaves."""
    program = folder / "qemu"
    pid = f"open({str(folder / 'pid')!r}, 'a').write(f'{{os.getpid()}} {{sys.argv}}\\n')"
    program.write_text(f"#!{sys.executable}\nimport os, sys, time\n{VERSION}\n{pid}\n{behaviour}\n")
    program.chmod(0o755)
    return str(program)


def boots(folder: Path) -> list[str]:
    """Return one line per boot: the process and its arguments."""
    return (folder / "pid").read_text().splitlines()


def test_a_kernel_that_speaks_makes_kvm_usable(tmp_path: Path, kernel: Path, device: Path) -> None:
    verdict = probe_kvm(kernel, 30, qemu=qemu(tmp_path, BOOTS), device=device)
    assert verdict.usable
    assert verdict.why == "a Linux kernel booted under KVM"
    assert 0 < verdict.seconds < 30
    (line,) = boots(tmp_path)
    assert "pc,accel=kvm" in line
    assert str(kernel) in line


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        (HANGS, "did not come up under KVM within 1 s; last line: Physical KASLR disabled"),
        (SILENT, "did not come up under KVM within 1 s; it printed nothing"),
    ],
)
def test_a_kernel_that_hangs_makes_kvm_unusable(
    tmp_path: Path, kernel: Path, device: Path, behaviour: str, why: str
) -> None:
    verdict = probe_kvm(kernel, 1, qemu=qemu(tmp_path, behaviour), device=device)
    assert not verdict.usable
    assert why in verdict.why


def test_a_qemu_that_ends_is_quoted(tmp_path: Path, kernel: Path, device: Path) -> None:
    before = time.monotonic()
    verdict = probe_kvm(kernel, 60, qemu=qemu(tmp_path, ENDS), device=device)
    assert not verdict.usable
    assert "failed to initialize kvm: Permission denied" in verdict.why
    assert time.monotonic() - before < 60, "it does not wait for what will not come"


@pytest.mark.parametrize("behaviour", [BOOTS, HANGS])
def test_no_qemu_is_left_running(
    tmp_path: Path, kernel: Path, device: Path, behaviour: str
) -> None:
    probe_kvm(kernel, 1, qemu=qemu(tmp_path, behaviour), device=device)
    for line in boots(tmp_path):
        assert not Path("/proc", line.split()[0]).exists()


def test_what_is_missing_is_said(tmp_path: Path, kernel: Path, device: Path) -> None:
    program = qemu(tmp_path, BOOTS)
    nothing = tmp_path / "nothing"
    assert "does not exist" in probe_kvm(kernel, qemu=program, device=nothing).why
    assert "not installed" in probe_kvm(kernel, qemu=str(nothing), device=device).why
    assert "cannot be read" in probe_kvm(nothing, qemu=program, device=device).why
    program_that_is_none = tmp_path / "broken"
    program_that_is_none.write_text("no program")
    program_that_is_none.chmod(0o755)
    why = probe_kvm(kernel, qemu=str(program_that_is_none), device=device).why
    assert "cannot be run" in why


def test_a_verdict_is_kept_until_something_changes(
    tmp_path: Path, kernel: Path, device: Path
) -> None:
    cache = tmp_path / "state" / "kvm.json"
    program = qemu(tmp_path, BOOTS)
    first = cached_verdict(cache, kernel, 30, qemu=program, device=device)
    assert cached_verdict(cache, kernel, 30, qemu=program, device=device) == first
    assert len(boots(tmp_path)) == 1
    kernel.write_bytes(b"another kernel")
    assert cached_verdict(cache, kernel, 30, qemu=program, device=device).usable
    assert len(boots(tmp_path)) == 2
    device.unlink()
    assert not cached_verdict(cache, kernel, 30, qemu=program, device=device).usable


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"key": 1}', "null"])
def test_a_damaged_cache_is_as_good_as_none(
    tmp_path: Path, kernel: Path, device: Path, damage: str
) -> None:
    cache = tmp_path / "kvm.json"
    cache.write_text(damage)
    program = qemu(tmp_path, BOOTS)
    assert cached_verdict(cache, kernel, 30, qemu=program, device=device).usable
    assert cached_verdict(cache, kernel, 30, qemu=program, device=device).usable
    assert len(boots(tmp_path)) == 1


def test_a_cache_that_cannot_be_written_does_no_harm(
    tmp_path: Path, kernel: Path, device: Path
) -> None:
    (tmp_path / "file").touch()
    cache = tmp_path / "file" / "kvm.json"
    verdict = cached_verdict(cache, kernel, 30, qemu=qemu(tmp_path, BOOTS), device=device)
    assert verdict == KvmVerdict(True, "a Linux kernel booted under KVM", verdict.seconds)
