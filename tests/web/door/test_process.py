"""The door as a child of `edgewake up`: it comes, goes, and comes again."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from orchestrator.errors import EdgewakeError
from orchestrator.model import WebSettings
from tests.ports import free_port
from tests.waiting import eventually
from tests.web.play import lab_text
from web.door.process import DoorProcess
from web.door.settings import DoorSettings
from web.door.tokens import Tokens
from web.roles import Role

ROOT = Path(__file__).parents[3]


def ask(url: str, path: str, token: str = "") -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=20)
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def gone(url: str) -> bool:
    try:
        ask(url, "/login")
    except OSError:
        return True
    return False


# --- the parent's side ------------------------------------------------------------------------


@pytest.fixture
def noted() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def parent(tmp_path: Path, noted: list[tuple[str, str]]) -> Iterator[DoorProcess]:
    """Return the parent of a door whose daemon does not answer."""
    base = DoorSettings(tmp_path / "control.sock", tmp_path / "tokens.json", lab="t")

    def note(kind: str, _subject: str, text: str, **data: str) -> None:
        noted.append((kind, text))

    door = DoorProcess(base, tmp_path / "door.json", note)
    yield door
    door.stop()


def test_a_door_serves_notes_and_comes_again(
    parent: DoorProcess, noted: list[tuple[str, str]], tmp_path: Path
) -> None:
    parent.bind(WebSettings(("127.0.0.1", free_port()), is_default=False))
    parent.start()
    url = parent.url
    assert url is not None
    assert json.loads((tmp_path / "door.json").read_text()) == {"url": url}
    assert ask(url, "/login")[0] == 200
    assert ask(url, "/api/v1/status", "ew_wrong")[0] == 401
    eventually(lambda: "refused" in [kind for kind, _ in noted])
    token = Tokens(tmp_path / "tokens.json").create("ada", Role.VIEWER)[1]
    status, headers, body = ask(url, "/api/v1/status", token)
    assert (status, headers["Retry-After"]) == (503, "2")
    assert "does not run" in json.loads(body)["detail"]
    child = parent._child
    assert child is not None
    child.kill()
    assert ask(url, "/login")[0] == 200, "who asks meanwhile waits"
    assert "web-ended" in [kind for kind, _ in noted]
    parent.want(WebSettings(("127.0.0.1", free_port()), is_default=False))
    assert gone(url)
    assert parent.url not in {None, url}
    assert ask(str(parent.url), "/login")[0] == 200
    parent.stop()
    parent.stop()
    assert parent.url is None
    assert not (tmp_path / "door.json").exists()


NO_CAPABILITY = "0" * 16
DAC_OVERRIDE, SETPCAP = 1 << 1, 1 << 8


def _rights(pid: int) -> set[tuple[str, str]]:
    """Return what the kernel says of the rights of a process, of all its threads."""
    wanted = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"}
    found: set[tuple[str, str]] = set()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended
            pairs = [line.partition(":") for line in (thread / "status").read_text().splitlines()]
            found |= {(name, value.strip()) for name, _, value in pairs if name in wanted}
    return found


def _may(capability: int) -> bool:
    return bool(int(dict(_rights(os.getpid()))["CapEff"], 16) & capability)


def test_a_door_has_no_rights_that_it_does_not_need(parent: DoorProcess, tmp_path: Path) -> None:
    token = Tokens(tmp_path / "tokens.json").create("ada", Role.VIEWER)[1]
    parent.bind(WebSettings(("127.0.0.1", free_port()), is_default=False))
    parent.start()
    assert ask(str(parent.url), "/api/v1/status", token)[0] == 503, "it knows the token"
    assert parent._child is not None
    rights = _rights(parent._child.pid)
    none = {(name, NO_CAPABILITY) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
    assert rights >= none | {("NoNewPrivs", "1")}
    assert len(rights) == 6, "all threads have the same"
    assert ("CapBnd", NO_CAPABILITY) in rights or not _may(SETPCAP)


def test_a_door_reads_tokens_of_another_user(parent: DoorProcess, tmp_path: Path) -> None:
    if not _may(DAC_OVERRIDE):
        pytest.skip("only root uses files that are another user's")
    token = Tokens(tmp_path / "tokens.json").create("ada", Role.VIEWER)[1]
    for path in (tmp_path, *tmp_path.iterdir()):
        os.chown(path, 65534, 65534)
    parent.bind(WebSettings(("127.0.0.1", free_port()), is_default=False))
    parent.start()
    assert ask(str(parent.url), "/api/v1/status", token)[0] == 503
    assert json.loads((tmp_path / "tokens.json").read_text())["tokens"][0]["used_at"]
    assert parent._child is not None
    rights = _rights(parent._child.pid)
    assert {("CapEff", f"{DAC_OVERRIDE:016x}"), ("NoNewPrivs", "1")} <= rights


def test_a_taken_address_is_an_error_only_if_somebody_wrote_it(parent: DoorProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
        parent.bind(WebSettings(address, is_default=True))
        assert parent.url is None
        parent.start()
        with pytest.raises(EdgewakeError, match="cannot listen"):
            parent.bind(WebSettings(address, is_default=False))
    parent.bind(WebSettings(("127.0.0.1", 0), is_default=False))
    assert parent.url is None, "it is off"


def test_beyond_loopback_somebody_must_have_a_token(parent: DoorProcess, tmp_path: Path) -> None:
    everywhere = WebSettings(("0.0.0.0", free_port()), is_default=False, behind_proxy=True)
    with pytest.raises(EdgewakeError, match="nobody has a token") as caught:
        parent.bind(everywhere)
    assert "edgewake token create --role admin" in caught.value.hint
    Tokens(tmp_path / "tokens.json").create("ada", Role.ADMIN)
    parent.bind(everywhere)
    assert parent.url is not None


def test_files_of_tls_that_are_no_good_are_told(parent: DoorProcess, tmp_path: Path) -> None:
    web = WebSettings(
        ("127.0.0.1", free_port()),
        is_default=False,
        certificate=tmp_path / "no.pem",
        key=tmp_path / "no.key",
    )
    with pytest.raises(EdgewakeError, match=r"no\.pem"):
        parent.bind(web)


# --- the whole process ------------------------------------------------------------------------


@pytest.fixture
def up(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """Return a running `edgewake up` with hosts in memory, and its ready line."""
    lab = tmp_path / "lab.yaml"
    lab.write_text(lab_text(tmp_path) + f"web: {{listen: '127.0.0.1:{free_port()}'}}\n")
    command = [sys.executable, "-m", "orchestrator", "--state", str(tmp_path / "state"), "up"]
    process = subprocess.Popen(
        [*command, str(lab), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_killed_daemon_takes_its_door_along(
    up: tuple[subprocess.Popen[bytes], dict[str, Any]], tmp_path: Path
) -> None:
    process, ready = up
    url = ready["web"]
    token = Tokens(tmp_path / "state" / "tokens.json").create("ada", Role.VIEWER)[1]
    status, _, body = ask(url, "/api/v1/healthz", token)
    assert (status, json.loads(body)["lab"]) == (200, "harbour-town")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    eventually(lambda: gone(url))
