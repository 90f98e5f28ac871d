"""What is told to Xen's tools, and what is made of their answers; the tools are played by scripts.

That real ones do the same is for `test_xen_keys`.
"""

import os
import select
import stat
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import HostUnreachable, StartFailed
from orchestrator.hypervisors import host_command, xenstore
from orchestrator.hypervisors.connection_uri import read_uri
from orchestrator.hypervisors.xenstore import DomainKey, Xenstore, escaped, unescaped
from orchestrator.model import Probe, ProbeKind
from orchestrator.readiness import Target, wait
from tests.waiting import eventually

LOCAL = "xen:///system"
PATIENCE_S = 60.0
HOSTILE = (
    "$(touch bad) `touch bad` ; touch bad",
    "'\"\\ \\x41 %s -s --help",
    "two\nlines\r\n\ttab and \0 NUL",
    "-s",
    "",
    "naïve ☃",
    '{"cmdline":"web -p 80"}',
)
# Keeps its arguments, each ended by NUL, beside itself.
KEEPS = '#!/bin/sh\nprintf "%s\\0" "$@" >"$(dirname "$0")/told"\n'
# A watch that reports once at once, then when the file `changed` appears, and ends with its guest.
WATCHES = """#!/bin/sh
here=$(dirname "$0")
echo $$ >"$here/pid"
echo "$2"
until [ -e "$here/changed" ]; do sleep 0.02; done
echo "$2"
while :; do sleep 1; done
"""
READS = '#!/bin/sh\ncat "$(dirname "$0")/value" 2>/dev/null\n'


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that is looked through first; it is the current one, too."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.write_text(text)
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def write(keys: dict[str, str], uri: str = LOCAL) -> None:
    with Xenstore("pc1", uri).writing(keys) as write_keys:
        write_keys(7)


def news(key: DomainKey) -> bytes | None:
    """Wait for news, and return what the key holds then."""
    assert select.select([key], [], [], PATIENCE_S)[0], "nothing was heard"
    return key.value()


def listen(key: DomainKey) -> NoReturn:
    while True:
        news(key)


def seen(key: DomainKey, value: bytes | None) -> Callable[[], bool]:
    return lambda: news(key) == value


# --- writing --------------------------------------------------------------------------------------


def test_values_reach_the_tool_whole_and_are_never_parsed(tools: Path) -> None:
    put(tools, "xenstore-write", KEEPS)
    keys = {f"data/{number}": value for number, value in enumerate(HOSTILE)}
    write(keys)
    end, *told = (tools / "told").read_bytes().split(b"\0")[:-1]
    assert end == b"--", "what begins with a hyphen is no option"
    expected = {f"/local/domain/7/{key}".encode(): each.encode() for key, each in keys.items()}
    assert dict(zip(told[::2], map(unescaped, told[1::2]), strict=True)) == expected
    assert all(each.isascii() and each.decode().isprintable() for each in told)
    assert not (tools / "bad").exists()


@given(st.binary(max_size=50))
def test_any_value_survives_the_tools_escapes(value: bytes) -> None:
    assert unescaped(escaped(value)) == value


def test_the_escapes_that_the_tool_shows_are_undone() -> None:
    assert unescaped(rb"a\tb\nc\rd\\e\000\x7f\303g") == b"a\tb\nc\rd\\e\0\x7f\xc3g"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("#!/bin/sh\necho 'xenstore-write: xs_open: Permission denied' >&2; exit 1\n", "only root"),
        ("#!/bin/sh\necho 'xenstore-write: could not write path /x' >&2; exit 1\n", "could not"),
        ("#!/bin/sh\nexit 1\n", "no answer"),
    ],
)
def test_a_tool_that_fails_is_told_as_a_sentence(tools: Path, text: str, why: str) -> None:
    put(tools, "xenstore-write", text)
    with pytest.raises(StartFailed, match=rf"Xenstore keys \(data/x\): .*{why}"):
        write({"data/x": "1"})


def test_without_the_tools_it_says_what_to_install(tools: Path) -> None:
    put(tools, "ssh", "#!/bin/sh\necho 'sh: 1: xenstore-write: not found' >&2; exit 127\n")
    with pytest.raises(StartFailed, match=r"xenstore-write: not found.*apt install xenstore-ut"):
        write({"data/x": "1"}, "xen+ssh://pc1/system")


def test_a_tool_that_hangs_is_ended(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xenstore, "WRITE_S", 0.3)
    put(tools, "xenstore-write", '#!/bin/sh\necho $$ >"$(dirname "$0")/pid"\nsleep 600\n')
    with pytest.raises(StartFailed, match=r"no answer within 0.3 s"):
        write({"data/x": "1"})
    assert_gone(tools)


def assert_gone(tools: Path) -> None:
    """Check that the tool which wrote down its pid runs no more, unless as somebody's zombie."""
    status = Path("/proc") / (tools / "pid").read_text().strip() / "status"
    eventually(
        lambda: not status.exists() or "\nState:\tZ" in status.read_text(), PATIENCE_S, "its end"
    )


def test_a_start_that_fails_before_ends_the_process(tools: Path) -> None:
    put(tools, "xenstore-write", KEEPS)
    with (
        pytest.raises(RuntimeError, match="no domain"),
        Xenstore("pc1", LOCAL).writing({"data/x": "1"}),
    ):
        raise RuntimeError("no domain")
    assert not (tools / "told").exists()


@pytest.mark.parametrize("key", ["", "/data", "data/", "data//x", "data/a b", "../1/x", "d" * 256])
def test_what_is_no_key_is_refused_before_anything_runs(tools: Path, key: str) -> None:
    put(tools, "xenstore-write", KEEPS)
    with pytest.raises(StartFailed, match="is no Xenstore key"):
        write({key: "1"})


def test_a_value_that_xenstore_has_no_room_for_is_refused(tools: Path) -> None:
    put(tools, "xenstore-write", KEEPS)
    room = xenstore.PAYLOAD - 1 - len("/local/domain/32768/data/x")
    write({"data/x": "é" * (room // 2)})
    with pytest.raises(StartFailed, match=rf"would have {room + 1} bytes.*room for {room}"):
        write({"data/x": "x" * (room + 1)})


@pytest.mark.parametrize("uri", ["xen+tls://pc1/system", "xen+tcp://pc1/system", "xen://pc1/"])
def test_other_ways_to_a_host_lead_to_no_xenstore(uri: str) -> None:
    with pytest.raises(StartFailed, match=r"over ssh.*use xen\+ssh.*network or the console"):
        write({"data/x": "1"}, uri)
    with pytest.raises(StartFailed, match=r"use xen\+ssh"):
        Xenstore("pc1", uri).watch(7, "data/x")


def test_ssh_gets_what_the_uri_says() -> None:
    uri = read_uri("xen+ssh://me@pc1:2222/system?keyfile=/k&no_verify=1&command=/my/ssh")
    program, *options, text = host_command.host_command(uri, "echo")
    assert (program, text) == ("/my/ssh", "echo")
    words = " ".join(options)
    assert words.startswith("-T -oBatchMode=yes ")
    assert words.endswith("-oStrictHostKeyChecking=no -i /k -p 2222 -l me -- pc1")


def test_what_ssh_says_is_explained(tools: Path) -> None:
    put(tools, "ssh", "#!/bin/sh\necho 'Host key verification failed.' >&2; exit 255\n")
    with pytest.raises(StartFailed, match=r"Host key verification failed.*run `ssh USER@HOST`"):
        write({"data/x": "1"}, "xen+ssh://pc1/system")


# --- watching -------------------------------------------------------------------------------------


@pytest.fixture
def watched(tools: Path) -> Path:
    put(tools, "xenstore-watch", WATCHES)
    put(tools, "xenstore-read", READS)
    return tools


def test_a_key_is_read_at_once_and_when_it_changes(watched: Path) -> None:
    put(watched, "xenstore-read", READS.replace("2>/dev/null", "|| exit 1"))
    key = Xenstore("pc1", LOCAL).watch(7, "data/ready")
    try:
        assert news(key) is None
        assert news(key) is None, "it was asked for, and is not there"
        (watched / "value").write_text("a\\nb\\x21\n")
        (watched / "changed").touch()
        eventually(seen(key, b"a\nb!"), PATIENCE_S, "the new value")
    finally:
        key.close()
    assert_gone(watched)
    key.close()


def test_when_we_are_gone_the_watch_on_the_host_ends(watched: Path) -> None:
    """Play the host's side of an ssh connection that broke: its input ends, nobody kills it."""
    process = host_command.HostProcess(["sh", "-c", xenstore.WATCH])
    try:
        process.tell(b"/local/domain/7/data/x\n")
        process.read()
        process._input.close()
        while process.read():
            pass
        assert_gone(watched)
    finally:
        process.end()


def test_when_we_go_before_an_answer_comes_the_watch_on_the_host_ends(watched: Path) -> None:
    put(watched, "xenstore-read", "#!/bin/sh\nsleep 0.3\nexit 1\n")
    process = host_command.HostProcess(["sh", "-c", xenstore.WATCH])
    try:
        process.tell(b"/local/domain/7/data/x\n")
        process.read()
        process.tell(b"\n")
        time.sleep(0.1)  # the answer is under way
        process._output.close()
        process._input.close()
        assert_gone(watched)
    finally:
        process.end()


@pytest.mark.parametrize(
    ("ssh", "why"),
    [
        ("echo 'Timeout, server pc1 not responding.' >&2; exit 255", "not responding"),
        ("sleep 0.1", "connection to it was lost"),
        ("echo 'bash: xenstore-watch: command not found'; read -r key", "install xenstore-utils"),
        ("while :; do echo /local/domain/7/data/x; done", "changes all the time"),
    ],
)
def test_a_watch_that_breaks_says_why(tools: Path, ssh: str, why: str) -> None:
    put(tools, "ssh", f"#!/bin/sh\n{ssh}\n")
    key = Xenstore("pc1", "xen+ssh://pc1/system").watch(7, "data/x")
    try:
        with pytest.raises(StartFailed, match=why):
            listen(key)
    finally:
        key.close()


TURNED_AWAY = "kex_exchange_identification: Connection closed by remote host"
# Has no time for the first caller.
BUSY_ONCE = f"""#!/bin/sh
here=$(dirname "$0")
[ -e "$here/called" ] || {{ touch "$here/called"; echo '{TURNED_AWAY}' >&2; exit 255; }}
for text; do :; done
exec sh -c "$text"
"""


def test_keys_are_written_though_sshd_is_too_busy_at_first(tools: Path) -> None:
    put(tools, "ssh", BUSY_ONCE)
    put(tools, "xenstore-write", KEEPS)
    write({"data/x": "1"}, "xen+ssh://pc1/system")
    assert (tools / "told").read_bytes() == b"--\0/local/domain/7/data/x\x001\0"


def test_a_watch_begins_anew_while_sshd_is_too_busy(watched: Path) -> None:
    put(watched, "ssh", BUSY_ONCE)
    (watched / "value").write_text("1\n")
    store = Xenstore("pc1", "xen+ssh://pc1/system")
    with (
        pytest.raises(HostUnreachable, match="Connection closed by remote host"),
        closing(store.watch(7, "data/x")) as key,
    ):
        listen(key)
    (watched / "called").unlink()
    none = IPv4Address("192.0.2.1")
    target = Target(none, None, "", console=bytes, watch_key=partial(store.watch, 7))
    probe = Probe(ProbeKind.XENSTORE, key="data/x", pattern="^1$")
    wait(probe, target, deadline=time.monotonic() + PATIENCE_S, cancelled=lambda: None)
    assert_gone(watched)


def test_watches_are_bounded_and_a_place_comes_free(
    watched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xenstore, "MOST_WATCHES", 1)
    monkeypatch.setattr(xenstore, "PLACE_S", 0.01)
    store = Xenstore("pc1", LOCAL)
    first = store.watch(7, "data/x")
    with pytest.raises(StartFailed, match="1 wakes wait for Xenstore keys there already"):
        store.watch(8, "data/x")
    first.close()
    store.watch(8, "data/x").close()


def test_a_watch_that_cannot_start_takes_no_place(
    watched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xenstore, "MOST_WATCHES", 1)
    store = Xenstore("pc1", "xen+ssh://pc1/system?command=/no/such/ssh")
    for _again in range(2):
        with pytest.raises(StartFailed, match="/no/such/ssh: No such file"):
            store.watch(7, "data/x")


def test_a_host_process_is_ended_with_all_it_started(tools: Path) -> None:
    pid = tools / "pid"
    process = host_command.HostProcess(["sh", "-c", f"sleep 600 & echo $! >{pid}; wait"])
    eventually(lambda: pid.exists() and bool(pid.read_text()), PATIENCE_S, "its child")
    before = time.monotonic()
    process.end()
    process.end()
    assert time.monotonic() - before < PATIENCE_S
    assert_gone(tools)
