"""Control groups of both versions, as files in a folder; for real in test_netns.py."""

from pathlib import Path

import pytest

from orchestrator.linux import cgroups as module
from orchestrator.linux.cgroups import Cgroups, Limits

LIMITS = Limits(memory_bytes=2**25, processes=100, cpu=0.5, cpu_cap=1.5)


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    root = tmp_path / "a root"
    root.mkdir()
    (root / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (root / "cgroup.subtree_control").write_text("memory pids cpu\n")
    return root


@pytest.fixture
def v1(tmp_path: Path) -> dict[str, Path]:
    folders = {}
    for name in ("cpu,cpuacct", "memory", "freezer", "devices"):
        folder = tmp_path / name
        folder.mkdir()
        folders |= dict.fromkeys(name.split(","), folder)
    return folders


def mounts(folder: Path, lines: list[str]) -> Path:
    file = folder / "mounts"
    file.write_text("proc /proc proc rw 0 0\n" + "\n".join(lines) + "\n")
    return file


def texts(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_version_2_is_found_and_limits_what_has_a_controller(tmp_path: Path, v2: Path) -> None:
    path = str(v2).replace(" ", "\\040")
    cgroups = Cgroups.found(mounts(tmp_path, [f"cgroup2 {path} cgroup2 rw,nosuid 0 0"]))
    assert (cgroups.v2, cgroups.limits, cgroups.freezes) == (v2, {"cpu", "memory", "pids"}, True)
    cgroups.make("ew-x", LIMITS)
    assert texts(v2 / "ew-x") == {
        "memory.max": "33554432",
        "memory.oom.group": "1",
        "pids.max": "100",
        "cpu.weight": "50",
        "cpu.max": "150000 100000",
    }


def test_swap_is_limited_where_there_is_any(v2: Path, v1: dict[str, Path]) -> None:
    for root, file in ((v2, "memory.swap.max"), (v1["memory"], "memory.memsw.limit_in_bytes")):
        (root / "ew-x").mkdir()
        (root / "ew-x" / file).write_text("max")
    Cgroups(v2, frozenset({"memory"})).make("ew-x", LIMITS)
    Cgroups(v1={"memory": v1["memory"]}).make("ew-x", LIMITS)
    assert texts(v2 / "ew-x")["memory.swap.max"] == str(2**25)
    assert texts(v1["memory"] / "ew-x")["memory.memsw.limit_in_bytes"] == str(2**26)


def test_what_a_container_may_not_give_away_is_not_limited(tmp_path: Path, v2: Path) -> None:
    (v2 / "cgroup.subtree_control").write_text("pids\n")
    (v2 / "cgroup.controllers").write_text("pids\n")
    cgroups = Cgroups.found(
        mounts(tmp_path, [f"c {str(v2).replace(' ', chr(92) + '040')} cgroup2 rw"])
    )
    assert cgroups.limits == {"pids"}
    assert not (v2 / "cgroup.subtree_control").read_text().startswith("+")
    cgroups.make("ew-x", LIMITS)
    assert texts(v2 / "ew-x") == {"pids.max": "100"}


def test_version_1_is_found_and_limits_what_is_mounted(tmp_path: Path, v1: dict[str, Path]) -> None:
    lines = [f"c {folder} cgroup rw,{folder.name} 0 0" for folder in sorted(set(v1.values()))]
    cgroups = Cgroups.found(mounts(tmp_path, lines))
    assert (cgroups.v2, cgroups.limits, cgroups.freezes) == (None, {"cpu", "memory"}, True)
    cgroups.make("ew-x", LIMITS)
    assert texts(v1["memory"] / "ew-x") == {"memory.limit_in_bytes": "33554432"}
    assert texts(v1["cpu"] / "ew-x") == {
        "cpu.shares": "512",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "150000",
    }
    assert not (v1["devices"] / "ew-x").exists()


def test_what_groups_tell_is_read(v2: Path, v1: dict[str, Path]) -> None:
    second = Cgroups(v2, frozenset({"memory"}))
    first = Cgroups(v1={"cpuacct": v1["cpu"], "memory": v1["memory"], "freezer": v1["freezer"]})
    for cgroups in (first, second):
        cgroups.make("ew-x", Limits(2**20, 10))
        assert (cgroups.cpu_s("ew-x"), cgroups.killed_for_memory("ew-x")) == (None, 0)
    (v2 / "ew-x/cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    (v2 / "ew-x/memory.events").write_text("low 0\noom 1\noom_kill 2\n")
    (v2 / "ew-x/cgroup.freeze").write_text("1\n")
    (v1["cpu"] / "ew-x/cpuacct.usage").write_text("2500000000\n")
    (v1["memory"] / "ew-x/memory.oom_control").write_text("under_oom 0\noom_kill 3\n")
    (v1["freezer"] / "ew-x/freezer.state").write_text("FREEZING\n")
    assert (second.cpu_s("ew-x"), second.killed_for_memory("ew-x")) == (1.5, 2)
    assert (first.cpu_s("ew-x"), first.killed_for_memory("ew-x")) == (2.5, 3)
    assert second.frozen("ew-x")
    assert first.frozen("ew-x")
    second.thaw("ew-x")
    assert not second.frozen("ew-x")


def test_where_there_are_none_nothing_is_limited_and_nothing_fails(tmp_path: Path) -> None:
    cgroups = Cgroups.found(mounts(tmp_path, ["tmpfs /run tmpfs rw 0 0"]))
    assert (cgroups.limits, cgroups.freezes) == (frozenset(), False)
    cgroups.make("ew-x", LIMITS)
    cgroups.add("ew-x", [1])
    cgroups.thaw("ew-x")
    cgroups.remove("ew-x")
    assert (cgroups.frozen("ew-x"), cgroups.cpu_s("ew-x")) == (False, None)


def test_who_starts_processes_faster_than_they_are_moved_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ew-x").mkdir()
    monkeypatch.setattr(module, "_PATIENCE_S", 0.01)
    monkeypatch.setattr(module, "_children", lambda pid: {pid + 1})
    with pytest.raises(OSError, match="starts processes faster"):
        Cgroups(tmp_path).add("ew-x", [1])


def test_a_group_that_is_gone_is_no_error_and_one_that_cannot_go_is_named(v2: Path) -> None:
    cgroups = Cgroups(v2)
    cgroups.make("ew-x", LIMITS)
    cgroups.remove("ew-x")
    cgroups.remove("ew-x")
    cgroups.thaw("ew-x")
    (v2 / "ew-y").mkdir()
    (v2 / "ew-y/inner").mkdir()
    with pytest.raises(OSError, match="ew-y"):
        cgroups.remove("ew-y")


def test_missing_controllers_are_asked_for_unless_one_only_looks(tmp_path: Path, v2: Path) -> None:
    table = mounts(tmp_path, [f"c {str(v2).replace(' ', chr(92) + '040')} cgroup2 rw"])
    (v2 / "cgroup.subtree_control").write_text("pids\n")
    assert Cgroups.found(table, ask=False).limits == {"cpu", "memory", "pids"}
    assert (v2 / "cgroup.subtree_control").read_text() == "pids\n"
    Cgroups.found(table)
    assert (v2 / "cgroup.subtree_control").read_text() == "+memory"
