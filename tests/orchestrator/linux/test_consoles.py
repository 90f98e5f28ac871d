"""Console logs: kept, bounded, fresh with each boot."""

import stat
from pathlib import Path

import pytest

from orchestrator.linux.consoles import CONSOLE_BYTES, MOST_BYTES, ConsoleLogs


@pytest.fixture
def logs(tmp_path: Path) -> ConsoleLogs:
    return ConsoleLogs(tmp_path / "console")


def test_an_instance_that_never_ran_has_no_output(logs: ConsoleLogs) -> None:
    assert logs.tail("web") == b""


def test_a_fresh_log_is_empty_and_not_for_everyone(logs: ConsoleLogs) -> None:
    log = logs.fresh("web")
    assert log.is_absolute()
    assert not stat.S_IMODE(log.stat().st_mode) & stat.S_IRWXO
    log.write_bytes(b"first boot")
    log.with_name(f"{log.name}.0").write_bytes(b"moved")
    assert logs.tail("web") == b"movedfirst boot"
    assert logs.fresh("web") == log
    assert logs.tail("web") == b""


def test_only_the_end_is_shown(logs: ConsoleLogs) -> None:
    log = logs.fresh("web")
    log.with_name(f"{log.name}.0").write_bytes(b"a" * 3 * CONSOLE_BYTES)
    log.write_bytes(b"b" * 10)
    assert logs.tail("web") == b"a" * (CONSOLE_BYTES - 10) + b"b" * 10
    log.write_bytes(b"b" * CONSOLE_BYTES + b"end")
    assert logs.tail("web").endswith(b"bend")
    assert len(logs.tail("web")) == CONSOLE_BYTES


def test_names_stay_in_the_directory(logs: ConsoleLogs, tmp_path: Path) -> None:
    assert logs.fresh("../web").parent == tmp_path / "console"


def test_what_is_appended_is_bounded(logs: ConsoleLogs) -> None:
    logs.append("web", b"adopted")
    assert logs.tail("web") == b"adopted"
    log = logs.fresh("web")
    for piece in range(40):
        logs.append("web", bytes([65 + piece]) * (MOST_BYTES // 10))
    kept = sum(file.stat().st_size for file in log.parent.iterdir())
    assert kept <= 2 * MOST_BYTES + MOST_BYTES // 10
    logs.append("web", b"end")
    assert logs.tail("web").endswith(b"hhend")
    assert not stat.S_IMODE(log.stat().st_mode) & stat.S_IRWXO
