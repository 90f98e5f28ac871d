"""The state folder: what it creates, and that one process has it at a time."""

import os
import stat
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from orchestrator.errors import StoreError
from orchestrator.state_dir import StateDir

HOLDER = """
import sys
from pathlib import Path
from orchestrator.state_dir import StateDir

StateDir.open(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_open_makes_the_folders_with_their_modes_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        state = StateDir.open(tmp_path / "state")
    finally:
        os.umask(before)
    with state:
        assert _mode(state.path) == 0o711
        assert _mode(state.images) == 0o755
        assert _mode(state.consoles) == 0o711
        assert _mode(state.path / "owner") == 0o600
        assert _mode(state.path / "lock") == 0o600
        assert {state.database.parent, state.socket.parent} == {state.path}


def test_an_existing_folder_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o750)
    with StateDir.open(tmp_path / "state") as state:
        assert _mode(state.path) == 0o750


def test_the_owner_is_a_uuid_made_once(tmp_path: Path) -> None:
    with StateDir.open(tmp_path / "a") as state:
        owner = state.owner
    with StateDir.open(tmp_path / "a") as again:
        assert again.owner == owner == str(UUID(owner))
    with StateDir.open(tmp_path / "b") as other:
        assert other.owner != owner
    assert StateDir(tmp_path / "a").owner == owner  # anybody may look without opening


def test_paths_can_be_named_without_touching_anything(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "none")
    assert state.socket == tmp_path / "none" / "control.sock"
    with pytest.raises(StoreError, match="owner"):
        _ = state.owner
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("damage", ["", "not a uuid"])
def test_a_damaged_owner_stops_us_and_is_not_overwritten(tmp_path: Path, damage: str) -> None:
    StateDir.open(tmp_path).close()
    (tmp_path / "owner").write_text(damage)
    with pytest.raises(StoreError, match="cannot be recognised"):
        StateDir.open(tmp_path)
    assert (tmp_path / "owner").read_text() == damage
    (tmp_path / "owner").unlink()
    StateDir.open(tmp_path).close()  # the failed try let go of the lock


def test_a_second_open_in_this_process_is_refused_too(tmp_path: Path) -> None:
    with StateDir.open(tmp_path), pytest.raises(StoreError, match=f"process {os.getpid()}"):
        StateDir.open(tmp_path)
    StateDir.open(tmp_path).close()


def test_another_process_that_holds_it_is_named_and_kill_9_frees_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "state")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(StoreError, match=f"in use by another edgewake, process {holder.pid};"):
            StateDir.open(tmp_path / "state")
        holder.kill()
        holder.wait()
    StateDir.open(tmp_path / "state").close()


def test_close_may_be_called_twice(tmp_path: Path) -> None:
    state = StateDir.open(tmp_path)
    state.close()
    state.close()


def test_a_path_too_long_for_a_socket_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 120)
    with pytest.raises(StoreError, match="shorter path"):
        StateDir.open(path)
    assert not path.exists()


def test_a_file_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StoreError, match="File exists"):
        StateDir.open(tmp_path / "state")
