"""What the spt tender is told, letter by letter, and how its words are understood."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from images.bootspec import BootSpec, Disk, Nic
from images.facts import Entry
from orchestrator.hypervisors.solo5 import complaint, exit_words, hint, objections, tender_argv
from orchestrator.linux.processes import Exit

MIRAGE = BootSpec(
    kernel=Path("/images/www.spt"),
    memory_mib=32,
    cmdline='--ipv4=10.0.0.2/24 --hello="a b"',
    nics=(
        Nic("lab0", "02:ed:0a:00:00:02", name="service"),
        Nic("lab1", "02:ed:0a:00:01:02", name="management"),
    ),
    disks=(Disk(Path("/d"), name="storage"),),
    entry=Entry.SPT,
)


def test_the_command_line() -> None:
    assert tender_argv("/bin/solo5-spt", MIRAGE, ("ewt0", "ewt1"), [Path("/copy")]) == [
        "/bin/solo5-spt",
        "--mem=32",
        "--net:service=ewt0",
        "--net-mac:service=02:ed:0a:00:00:02",
        "--net:management=ewt1",
        "--net-mac:management=02:ed:0a:00:01:02",
        "--block:storage=/copy",
        "--",
        "/images/www.spt",
        '--ipv4=10.0.0.2/24 --hello="a b"',
    ]
    assert list(objections(MIRAGE)) == []


def test_more_cpu_is_still_one_processor() -> None:
    plenty = replace(MIRAGE, vcpus=8)
    assert list(objections(plenty)) == []
    argv = [tender_argv("/t", boot, ("ewt0", "ewt1"), [Path("/c")]) for boot in (MIRAGE, plenty)]
    assert argv[0] == argv[1]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (Exit(code=0), "exited"),
        (Exit(code=1), "failed (exit status 1)"),
        (Exit(code=255), "aborted (exit status 255)"),
        (Exit(code=83), "exit status 83"),
        (Exit(signal=signal.SIGSEGV), "killed by SIGSEGV"),
        (
            Exit(signal=signal.SIGSYS),
            "killed by SIGSYS: it made a system call that the tender forbids",
        ),
        (Exit(), "ended"),
    ],
)
def test_an_end_in_words(how: Exit, words: str) -> None:
    assert exit_words(how) == words


@pytest.mark.parametrize(
    ("printed", "said", "advice"),
    [
        (
            b"solo5-spt: Resource not declared in manifest: 'x'\n"
            b"solo5-spt: Invalid option: `--net:x=ewt0'\nusage: solo5-spt [ CORE OPTIONS ]\n",
            "solo5-spt: Resource not declared in manifest: 'x'",
            "cards and disks must have the names that `solo5-elftool query-manifest` prints",
        ),
        (
            b"setpriv: setresuid failed: Invalid argument\n",
            "setpriv: setresuid failed: Invalid argument",
            "this container maps no uid for guests: run edgewake outside it",
        ),
        (b"the guest's\nlast words\n\n", "last words", ""),
        (b"\xff\n", "\ufffd", ""),
        (b"", "", ""),
    ],
)
def test_what_was_said_about_a_failed_start(printed: bytes, said: str, advice: str) -> None:
    assert complaint(printed, "solo5-spt") == said
    assert hint(said) == advice
