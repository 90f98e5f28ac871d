"""Numbers of wakes, over restarts."""

from pathlib import Path

import pytest

from orchestrator.wake_numbers import BLOCK, WakeNumbers


def test_numbers_go_on_after_a_restart_and_jump_after_a_crash(tmp_path: Path) -> None:
    first = WakeNumbers(tmp_path / "n")
    assert [first(), first()] == [1, 2]
    first.close()
    second = WakeNumbers(tmp_path / "n")
    assert second() == 3
    after_a_crash = WakeNumbers(tmp_path / "n")
    assert after_a_crash() == 3 + BLOCK


def test_no_number_is_given_twice_when_a_block_is_used_up(tmp_path: Path) -> None:
    numbers = WakeNumbers(tmp_path / "n")
    assert [numbers() for _ in range(BLOCK + 1)] == [*range(1, BLOCK + 2)]
    assert WakeNumbers(tmp_path / "n")() > BLOCK + 1


@pytest.mark.parametrize("content", ["", "web", "-5"])
def test_a_broken_file_begins_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "n").write_text(content)
    assert WakeNumbers(tmp_path / "n")() == 1


def test_without_a_disk_wakes_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    numbers = WakeNumbers(tmp_path / "gone" / "n")
    assert [numbers(), numbers()] == [1, 2]
    assert "cannot be kept" in caplog.text
