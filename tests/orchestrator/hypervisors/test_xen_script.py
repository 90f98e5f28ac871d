"""Our vif script: what it does, with stand-ins for the programs of dom0; and how it gets there."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.hypervisors.depot import Stored
from orchestrator.hypervisors.xen_script import VifScript, script

XENBUS_PATH = "backend/vif/7/0"


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Return what runs the script, and gives its exit code and the programs it called."""
    calls = tmp_path / "calls"
    for name in ("ip", "xenstore-read", "xenstore-write"):
        program = tmp_path / name
        program.write_text(
            f'#!/bin/sh\necho "{name} $*" >>{calls}\n'
            f'[ {name} = xenstore-read ] && echo "$BRIDGE"\n'
            f'[ "$BREAKS" != {name} ]\n'
        )
        program.chmod(0o755)
    ours = tmp_path / "vif-bridge"
    ours.write_bytes(script())

    def run(*words: str, **environment: str) -> tuple[int, list[str]]:
        calls.write_text("")
        env = {"vif": "vif7.0", "XENBUS_PATH": XENBUS_PATH, "BRIDGE": "lo"} | environment
        env["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
        done = subprocess.run(["sh", ours, *words], env=env, capture_output=True, check=False)
        return done.returncode, calls.read_text().splitlines()

    return run


def test_a_card_that_comes_is_plugged_in_and_said_to_be(run: Any) -> None:
    code, calls = run("online", "type_if=vif")
    mtu = Path("/sys/class/net/lo/mtu").read_text().strip()
    assert code == 0
    assert calls == [
        f"xenstore-read {XENBUS_PATH}/bridge",
        f"ip link set dev vif7.0 mtu {mtu} master lo up",
        f"xenstore-write {XENBUS_PATH}/hotplug-status connected",
    ]


def test_a_card_that_goes_costs_nothing(run: Any) -> None:
    assert run("offline", "type_if=vif") == (0, [])


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"BRIDGE": "none0"}, "there is no bridge none0"),
        ({"BREAKS": "ip"}, "vif7.0 cannot be a port of lo"),
        ({"BREAKS": "xenstore-read"}, "xenstore-read failed"),
    ],
)
def test_what_fails_is_told_where_libxl_looks(
    run: Any, environment: dict[str, str], told: str
) -> None:
    code, calls = run("online", **environment)
    assert code == 1
    where = XENBUS_PATH
    assert calls[-1] == (
        f"xenstore-write {where}/hotplug-error {told} {where}/hotplug-status error"
    )


class Folder:
    """As much of a pool as the script needs."""

    folder = Path("/depot/owner")

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.written: list[str] = []

    def find(self, name: str) -> Stored | None:
        return Stored(name, len(self.files[name]), 0.0) if name in self.files else None

    def read(self, name: str) -> Iterator[bytes]:
        yield self.files[name]

    def remove(self, name: str) -> None:
        self.files.pop(name, None)

    def write_program(self, name: str, content: bytes) -> None:
        self.files[name] = content
        self.written.append(name)


def test_it_is_sent_once_and_again_only_if_it_is_damaged() -> None:
    pool: Any = Folder()
    ours = VifScript()
    path = ours.path(pool)
    assert pool.files[Path(path).name] == script()
    assert ours.path(pool) == path
    ours.forget()
    assert ours.path(pool) == path
    assert len(pool.written) == 1
    for damaged in (script()[:-1], script().replace(b"online", b"onlinf")):
        pool.files[Path(path).name] = damaged
        ours.forget()
        assert ours.path(pool) == path
        assert pool.files[Path(path).name] == script()


def test_a_script_of_the_hosts_own_is_left_where_it_is() -> None:
    pool: Any = Folder()
    assert VifScript("vif-bridge").path(pool) == "vif-bridge"
    assert pool.files == {}
