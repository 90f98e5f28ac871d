"""The door as a child process, where the machine has no room for one at first."""

import socket
import threading
from pathlib import Path

import pytest

from orchestrator.model import WebSettings
from web.door import process
from web.door.process import DoorProcess
from web.door.settings import DoorSettings

PATIENCE_S = 20.0


def test_a_door_that_could_not_be_started_is_started_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[str] = []
    tried, started = threading.Event(), threading.Event()
    door = DoorProcess(
        DoorSettings(tmp_path / "control.sock", tmp_path / "tokens.json", lab="t"),
        tmp_path / "door.json",
        lambda kind, _subject, text, **_facts: noted.append(f"{kind}: {text}"),
    )
    spawn = door._spawn

    def spawn_later() -> object:
        if not tried.is_set():
            tried.set()
            raise BlockingIOError(11, "Resource temporarily unavailable")
        child = spawn()
        started.set()
        return child

    monkeypatch.setattr(door, "_spawn", spawn_later)
    monkeypatch.setattr(process, "FIRST_REST_S", 0.01)
    monkeypatch.setattr(process, "_listen", lambda _web: _free_socket())
    door.bind(WebSettings())
    door.start()
    assert started.wait(PATIENCE_S)
    door.stop()
    assert noted == ["web-ended: the door could not be started; it starts again in 0.01 s"]


def _free_socket() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))
