"""Processes are started apart from us, told apart from others, and heard when they end."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest

from orchestrator.linux.processes import (
    Exit,
    Identity,
    Process,
    Watch,
    launch,
    open_process,
    processes_told,
    seccomp_filters,
)
from tests.waiting import eventually

PATIENCE_S = 60.0


class Started:
    """Starts programs, and ends what is left of them after a test."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "output"
        self._all: list[Identity] = []

    def __call__(self, *argv: str) -> Process:
        process = launch(argv, output=self.output, user=None)
        self._all.append(process.identity)
        return process

    def end_all(self) -> None:
        for process in filter(None, map(open_process, self._all)):
            assert process.end(grace_s=0, patience_s=PATIENCE_S)
            process.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Started]:
    started = Started(tmp_path)
    yield started
    started.end_all()


def told(argument: str) -> bool:
    """Return whether some process has this argument."""
    found = list(processes_told(argument))
    for process in found:
        process.close()
    return bool(found)


class Ends:
    """Remembers what a `Watch` tells."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[tuple[str, Exit]] = SimpleQueue()
        self.ticks = 0

    def ended(self, key: str, how: Exit) -> None:
        self.queue.put((key, how))

    def tick(self) -> None:
        self.ticks += 1

    def next(self) -> tuple[str, Exit]:
        return self.queue.get(timeout=PATIENCE_S)


@pytest.fixture
def ends() -> Ends:
    return Ends()


@pytest.fixture
def watch(ends: Ends) -> Iterator[Watch]:
    watch = Watch("test", ends.ended, ends.tick)
    yield watch
    watch.close()


def test_a_process_is_found_again_by_its_identity(start: Started) -> None:
    process = start("sleep", "1000")
    again = open_process(process.identity)
    assert again is not None
    assert again.identity == process.identity
    assert not again.ended()
    again.close()
    process.close()


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "another"}, {"pid": 2**22 - 1}])
def test_another_process_is_not_taken_for_it(start: Started, change: dict[str, int]) -> None:
    process = start("sleep", "1000")
    process.close()
    assert open_process(replace(process.identity, **change)) is None  # type: ignore[arg-type]


def test_a_name_with_brackets_and_blanks_is_no_obstacle(start: Started, tmp_path: Path) -> None:
    odd = tmp_path / ") R 1 (x"
    odd.symlink_to("/bin/sleep")
    process = start(str(odd), "1000")
    identity = process.identity
    process.close()
    again = open_process(identity)
    assert again is not None
    again.close()


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ("exit 0", Exit(code=0)),
        ("exit 7", Exit(code=7)),
        ("kill -SEGV $$", Exit(signal=signal.SIGSEGV)),
    ],
)
def test_how_a_child_ended_is_known_and_it_is_reaped(
    start: Started, script: str, how: Exit
) -> None:
    process = start("sh", "-c", script)
    assert process.ended(PATIENCE_S)
    assert process.exit() == how
    assert process.exit() == how, "asked again"
    assert open_process(process.identity) is None
    process.close()


def test_how_somebody_elses_child_ended_is_unknown() -> None:
    seconds = f"1000.{os.getpid()}"
    script = f"import subprocess; subprocess.run(['sleep', '{seconds}'])"
    with subprocess.Popen([sys.executable, "-c", script]):
        eventually(lambda: told(seconds), PATIENCE_S, "it is started")
        (process,) = processes_told(seconds)
        assert process.end(grace_s=PATIENCE_S, patience_s=PATIENCE_S)
        assert process.exit() == Exit()
        process.close()


def test_one_that_will_not_listen_is_killed(start: Started) -> None:
    process = start("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    eventually(lambda: start.output.read_bytes() == b"ready\n", PATIENCE_S, "it is ready")
    assert process.end(grace_s=0.2, patience_s=PATIENCE_S)
    assert open_process(process.identity) is None, "reaped"
    assert process.exit() == Exit(signal=signal.SIGKILL)
    process.send(signal.SIGTERM)  # no error
    process.close()


def test_a_launched_process_has_nothing_of_ours(
    start: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "1")
    leak = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(leak, True)
    process = start("sleep", "1000")
    os.close(leak)
    proc = Path("/proc", str(process.identity.pid))
    eventually(lambda: b"sleep" in (proc / "comm").read_bytes(), PATIENCE_S, "it runs")
    assert (proc / "environ").read_bytes() == b""
    assert {fd.name for fd in (proc / "fd").iterdir()} == {"0", "1", "2"}
    assert os.getsid(process.identity.pid) == process.identity.pid
    status = (proc / "status").read_text()
    assert "CapInh:\t0000000000000000\n" in status
    assert "NoNewPrivs:\t1\n" in status
    process.close()


def test_output_is_appended(start: Started) -> None:
    start.output.write_text("before\n")
    process = start("echo", "after")
    assert process.ended(PATIENCE_S)
    process.exit()
    process.close()
    assert start.output.read_text() == "before\nafter\n"


def test_a_missing_tool_is_named(start: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FileNotFoundError, match="package util-linux: 'prlimit'"):
        start("true")


def test_only_exactly_this_argument_counts(start: Started) -> None:
    word = f"ewtest-{os.getpid()}"
    ours, other = (start("tail", "-f", "/dev/null", "--", word) for word in (word, f"x{word}"))
    for process in (ours, other):  # no argument can be read while a process becomes a program
        comm = Path("/proc", str(process.identity.pid), "comm")
        eventually(lambda comm=comm: comm.read_text() == "tail\n", PATIENCE_S, "it runs")
    (found,) = processes_told(word)
    assert found.identity == ours.identity
    for process in (found, ours, other):
        process.close()


def test_a_process_that_is_no_more_has_no_filters(start: Started) -> None:
    process = start("true")
    assert process.ended(PATIENCE_S)
    process.exit()
    assert seccomp_filters(process.identity.pid) == 0
    process.close()


# --- Watch ----------------------------------------------------------------------------------------


def test_each_end_is_told_once(start: Started, watch: Watch, ends: Ends) -> None:
    for code in range(20):
        watch.follow(str(code), start("sh", "-c", f"exit {code}"))
    told = dict(ends.next() for _ in range(20))
    assert told == {str(code): Exit(code=code) for code in range(20)}
    with pytest.raises(Empty):
        ends.queue.get(timeout=0.2)
    assert not watch.follows("0")


def test_one_that_ended_before_is_told_too(start: Started, watch: Watch, ends: Ends) -> None:
    process = start("true")
    assert process.ended(PATIENCE_S)
    watch.follow("early", process)
    assert ends.next() == ("early", Exit(code=0))


def test_one_let_go_is_not_told(start: Started, watch: Watch, ends: Ends) -> None:
    process, other = start("sleep", "1000"), start("sleep", "1000")
    identity, other_identity = process.identity, other.identity
    watch.follow("let go", process)
    watch.follow("kept", other)
    watch.let_go("let go")
    for one in (identity, other_identity):
        again = open_process(one)
        assert again is not None
        again.send(signal.SIGTERM)
        again.close()
    assert ends.next() == ("kept", Exit(signal=signal.SIGTERM))
    assert ends.queue.empty()


def test_following_twice_tells_once(start: Started, watch: Watch, ends: Ends) -> None:
    process = start("sleep", "1000")
    identity = process.identity
    watch.follow("one", process)
    again = open_process(identity)
    assert again is not None
    watch.follow("one", again)
    killer = open_process(identity)
    assert killer is not None
    killer.send(signal.SIGKILL)
    killer.close()
    assert ends.next() == ("one", Exit(signal=signal.SIGKILL))
    with pytest.raises(Empty):
        ends.queue.get(timeout=0.2)


def test_a_callback_that_fails_does_not_silence_the_watch(
    start: Started, ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(key: str, how: Exit) -> None:
        ends.ended(key, how)
        raise RuntimeError(key)

    watch = Watch("failing", fail, ends.tick)
    for key in ("first", "second"):
        watch.follow(key, start("true"))
        assert ends.next()[0] == key
    watch.close()
    assert "RuntimeError: first" in caplog.text


def test_it_ticks_while_something_is_followed(start: Started, watch: Watch, ends: Ends) -> None:
    watch.follow("long", start("sleep", "1000"))
    eventually(lambda: ends.ticks >= 2, PATIENCE_S, "ticks")


def test_a_closed_watch_follows_nothing(start: Started, ends: Ends) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    watch = Watch("closed", ends.ended, ends.tick)
    watch.follow("one", start("sleep", "1000"))
    watch.close()
    watch.close()
    watch.follow("two", start("true"))
    eventually(
        lambda: len(list(Path("/proc/self/fd").iterdir())) == before, PATIENCE_S, "files closed"
    )
    assert ends.queue.empty()
