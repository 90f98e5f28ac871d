"""Wires between two real namespaces: late, lossy, pulled, changed live, and mended after a kill."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import CannotNetwork
from orchestrator.linux import namespaces
from orchestrator.network import Quality
from orchestrator.routers.wire_messages import MESSAGE_BYTES, Add, Change, Remove, request_text
from orchestrator.routers.wires import End, Wire, Wires, WireState
from tests.waiting import eventually

pytestmark = pytest.mark.real

A, B = (End(f"ewtw{os.getpid()}{side}", "tap0") for side in "ab")
WIRE = Wire("a--b", A, B, Quality(latency_ms=5))


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def soon(true: Callable[[], bool]) -> None:
    eventually(true, 10.0, "what was waited for")


def make_end(end: End, number: int) -> None:
    namespaces.make(end.namespace)
    ip("-n", end.namespace, "tuntap", "add", "dev", end.device, "mode", "tap")
    ip("-n", end.namespace, "addr", "add", f"10.219.7.{number}/24", "dev", end.device)
    ip("-n", end.namespace, "link", "set", end.device, "up")


def ping(count: int = 5) -> tuple[int, float]:
    """Return how many of `count` echoes came back, and the quickest round trip in ms."""
    argv = ["ip", "netns", "exec", A.namespace, "ping", "-q", "-W", "1", "-i", "0.01"]
    told = subprocess.run(
        [*argv, "-c", str(count), "10.219.7.2"], capture_output=True, text=True, check=False
    ).stdout
    came = int(told.partition(" received")[0].rpartition(" ")[2])
    return came, float(told.partition("mdev = ")[2].partition("/")[0]) if came else 0.0


def carries() -> bool:
    """Whether packets pass; the kernel needs a moment after a cable was put in."""
    return ping(2)[0] == 2


@pytest.fixture
def wires(tmp_path: Path) -> Iterator[Wires]:
    made = Wires(tmp_path / "wires", "test")
    try:
        for number, end in enumerate((A, B), 1):
            make_end(end, number)
        yield made
    finally:
        made.set(())
        for end in (A, B):
            namespaces.remove(end.namespace)


def only(wires: Wires) -> WireState:
    (state,) = wires.all()
    return state


def test_frames_take_as_long_as_the_wire_is(wires: Wires) -> None:
    wires.set((WIRE,))
    soon(carries)
    came, quickest = ping()
    assert came == 5
    assert quickest >= 10
    state = only(wires)
    assert (state.wire, state.alive) == (WIRE, True)
    assert state.a_to_b.frames >= 5
    assert state.b_to_a.bytes >= 5 * 98


def test_a_quality_changes_while_frames_are_under_way(wires: Wires) -> None:
    wires.set((replace(WIRE, quality=Quality(latency_ms=100)),))
    soon(carries)
    process = wires.process()
    argv = [
        "ip",
        "netns",
        "exec",
        A.namespace,
        "ping",
        "-q",
        "-i",
        "0.01",
        "-c",
        "40",
        "10.219.7.2",
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
        time.sleep(0.25)
        wires.set((replace(WIRE, quality=Quality(latency_ms=1)),))
        told, _ = running.communicate()
    assert " 0% packet loss" in told
    assert wires.process() == process


def test_what_is_lost_is_counted(wires: Wires) -> None:
    wires.set((replace(WIRE, quality=Quality(loss=1.0)),))
    assert ping(2) == (0, 0.0)
    assert only(wires).a_to_b.lost > 0
    assert only(wires).a_to_b.frames == 0


def test_a_wire_that_is_down_has_no_carrier(wires: Wires) -> None:
    def carriers() -> str:
        told = subprocess.run(
            ["ip", "-n", A.namespace, "-o", "link", "show", A.device],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return "off" if "NO-CARRIER" in told else "on"

    wires.set((WIRE,))
    soon(lambda: carriers() == "on")
    wires.set((replace(WIRE, up=False),))
    soon(lambda: carriers() == "off")
    assert ping(2)[0] == 0
    wires.set((WIRE,))
    soon(carries)


def test_after_a_kill_the_next_set_mends_it(wires: Wires) -> None:
    wires.set((WIRE,))
    killed = wires.process()
    os.kill(killed, signal.SIGKILL)
    soon(lambda: wires.process() == 0)
    assert wires.all() == ()
    wires.set((WIRE,))
    assert wires.process() not in {0, killed}
    soon(carries)


def test_the_process_is_found_again_and_has_no_rights(wires: Wires, tmp_path: Path) -> None:
    wires.set((WIRE,))
    again = Wires(tmp_path / "wires", "test")
    assert again.process() == wires.process()
    again.set((WIRE,))
    assert again.process() == wires.process()
    others = Wires(tmp_path / "wires", "somebody else")
    assert (others.process(), others.all()) == (0, ())
    status = Path(f"/proc/{wires.process()}/status").read_text()
    told = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(told["CapEff"], 16) == int(told["CapPrm"], 16) == 0
    assert "0" not in told["Uid"].split()
    assert told["Groups"].strip() == ""
    assert told["NoNewPrivs"] == "1"
    assert stat.S_IMODE((tmp_path / "wires").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "wires" / "test.sock").stat().st_mode) == 0o600


def test_one_that_was_started_just_before_a_crash_is_found(wires: Wires, tmp_path: Path) -> None:
    wires.set((WIRE,))
    (tmp_path / "wires" / "test.json").unlink()
    process = wires.process()
    assert process != 0
    wires.set((WIRE,))
    assert wires.process() == process


def test_one_that_cannot_start_says_why(wires: Wires, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.routers.wires._START", "raise SystemExit('no such luck')")
    with pytest.raises(CannotNetwork, match="ended at once: no such luck"):
        wires.set((WIRE,))
    assert wires.process() == 0


def test_one_that_does_not_answer_is_named(wires: Wires, monkeypatch: pytest.MonkeyPatch) -> None:
    wires.set((WIRE,))
    monkeypatch.setattr("orchestrator.routers.wires._PATIENCE_S", 0.2)
    stopped = wires.process()
    os.kill(stopped, signal.SIGSTOP)
    with pytest.raises(CannotNetwork, match=f"does not answer; end process {stopped}"):
        wires.all()
    os.kill(stopped, signal.SIGCONT)
    monkeypatch.undo()
    assert only(wires).wire == WIRE


def test_one_of_another_protocol_is_replaced(wires: Wires, monkeypatch: pytest.MonkeyPatch) -> None:
    wires.set((WIRE,))
    old = wires.process()
    monkeypatch.setattr("orchestrator.routers.wires.PROTOCOL", 2)
    wires.set((WIRE,))
    assert wires.process() not in {0, old}
    soon(carries)


def test_without_wires_there_is_no_process(wires: Wires, tmp_path: Path) -> None:
    wires.set((WIRE,))
    wires.set(())
    assert wires.process() == 0
    assert [file.suffix for file in (tmp_path / "wires").iterdir()] == [".log"]
    wires.set(())


def test_a_device_that_is_not_there_is_named_and_nothing_is_made(wires: Wires) -> None:
    missing = replace(WIRE, name="a--c", b=End(B.namespace, "tap9"))
    with pytest.raises(CannotNetwork, match=f"a--c: device tap9 in namespace {B.namespace}"):
        wires.set((missing,))
    assert wires.all() == ()
    ip("-n", A.namespace, "link", "show", A.device)
    with pytest.raises(subprocess.CalledProcessError):
        ip("-n", B.namespace, "link", "show", "tap9")


def test_a_namespace_made_anew_under_the_old_name_is_wired_anew(wires: Wires) -> None:
    wires.set((WIRE,))
    namespaces.remove(B.namespace)
    make_end(B, 2)
    wires.set((WIRE,))
    soon(carries)


def test_a_device_that_vanishes_harms_no_other_wire(wires: Wires) -> None:
    ends = [replace(end, device="tap1") for end in (A, B)]
    for end in ends:
        ip("-n", end.namespace, "tuntap", "add", "dev", end.device, "mode", "tap")
    other = Wire("c--d", ends[0], ends[1])
    wires.set((WIRE, other))
    soon(carries)
    ip("-n", B.namespace, "link", "del", "tap1")
    soon(lambda: [state.alive for state in wires.all()] == [True, False])
    assert ping()[0] == 5
    ip("-n", B.namespace, "tuntap", "add", "dev", "tap1", "mode", "tap")
    wires.set((WIRE, other))
    assert [state.alive for state in wires.all()] == [True, True]


def test_a_namespace_that_lost_its_name_is_let_go(wires: Wires) -> None:
    """Open devices alone would keep it, and all that is in it."""
    wires.set((WIRE,))
    namespaces.remove(B.namespace)
    soon(lambda: wires.process() == 0)
    assert ping(1)[0] == 0


def test_it_ends_when_all_devices_are_gone(wires: Wires) -> None:
    wires.set((WIRE,))
    ip("-n", B.namespace, "link", "del", B.device)
    soon(lambda: wires.process() == 0)
    assert wires.all() == ()


# --- those who speak badly ------------------------------------------------------------------------


@pytest.fixture
def raw(wires: Wires, tmp_path: Path) -> Iterator[socket.socket]:
    wires.set((WIRE,))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(10)
        folder = os.open(tmp_path / "wires", os.O_PATH)
        client.connect(f"/proc/self/fd/{folder}/test.sock")
        os.close(folder)
        yield client


def files_of(wires: Wires) -> set[str]:
    return {file.name for file in Path(f"/proc/{wires.process()}/fd").iterdir()}


def test_a_malformed_message_changes_nothing(wires: Wires, raw: socket.socket) -> None:
    before, files = only(wires), files_of(wires)
    other = replace(WIRE, name="c--d")
    change = request_text(Change((("a--b", Quality(latency_ms=99), True),)))
    for message, taken, said in (
        (b"hello", [], "Expecting value"),
        (b"{}", [], "no such thing to do"),
        (change.replace(b"99", b"-99"), [], "from 0 to 60000"),
        (change.replace(b"99", b"9e9"), [], "from 0 to 60000"),
        (change, [0], "needs none"),
        (request_text(Change((("x--y", Quality(), True),))), [], "no such wires: x--y"),
        (request_text(Remove(("a--b", "x--y"))), [], "no such wires: x--y"),
        (request_text(Add(((other, (1, 2)),))), [], "0 files came for 1 wires"),
        (request_text(Add(((other, (1, 2)),))), [0, 0], ""),  # no TAP devices
        (request_text(Add(((WIRE, (1, 2)),))), [0, 0], "there already: a--b"),
        (b"x" * (MESSAGE_BYTES + 1), [], "too long"),
    ):
        socket.send_fds(raw, [message], taken)
        answer = json.loads(raw.recv(MESSAGE_BYTES))
        assert said in answer["error"], message[:80]
    assert only(wires).wire == before.wire
    soon(lambda: files_of(wires) <= files)  # no file of theirs was kept
    soon(carries)


def test_another_user_is_turned_away(wires: Wires, tmp_path: Path) -> None:
    wires.set((WIRE,))
    (tmp_path / "wires" / "test.sock").chmod(0o777)
    script = (
        "import os, socket; os.chdir('%s'); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout(10)\n"
        "s.connect('test.sock'); s.sendall(b'{}'); print(repr(s.recv(9)))"
    )
    (tmp_path / "wires").chmod(0o755)
    argv = [sys.executable, "-c", script % (tmp_path / "wires")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout.strip() in {"b''", ""}, "nothing is answered"
    assert done.stdout or "BrokenPipeError" in done.stderr or "ConnectionReset" in done.stderr
    assert only(wires).wire == WIRE


def test_a_client_that_does_not_listen_holds_nobody_up(wires: Wires, raw: socket.socket) -> None:
    raw.setblocking(False)
    try:
        for _ in range(10_000):
            raw.sendall(b"{}")
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        pass
    assert only(wires).wire == WIRE
    soon(carries)
