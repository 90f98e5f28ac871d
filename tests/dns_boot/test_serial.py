"""Serials grow with each change, over restarts, around the circle, and whatever the file holds."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dns_boot.serial import Serials, after, is_after

SERIAL = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [(1, 0, True), (0, 1, False), (5, 5, False), (0, 2**32 - 1, True), (2**31, 0, False)],
)
def test_which_of_two_is_greater(a: int, b: int, said: bool) -> None:
    assert is_after(a, b) is said


@given(SERIAL, st.floats(0, 2**40))
def test_the_next_is_greater_whatever_the_clock_says(serial: int, now_s: float) -> None:
    assert is_after(after(serial, now_s), serial)


def test_the_same_content_has_the_same_serial_also_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "serial.json"
    serials = Serials(file)
    first, second = serials.of("one"), serials.of("two")
    assert is_after(second, first)
    assert abs(first - time.time()) < 60
    again = Serials(file)
    assert (again.last, again.of("two")) == (second, second)
    assert is_after(again.of("one"), second)


def test_a_clock_that_was_set_back_does_not_set_the_serial_back(tmp_path: Path) -> None:
    file = tmp_path / "serial.json"
    ahead = int(time.time()) + 10_000
    file.write_text(json.dumps({"digest": "old", "serial": ahead}))
    assert Serials(file).of("new") == ahead + 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"serial": 5}', '{"digest": 1, "serial": "x"}'])
def test_a_file_that_makes_no_sense_is_told_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    file = tmp_path / "serial.json"
    file.write_text(text)
    serial = Serials(file).of("one")
    assert "no serial in it" in caplog.text
    assert Serials(file).of("one") == serial


def test_a_folder_that_cannot_be_written_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    serials = Serials(tmp_path / "gone" / "serial.json")
    first = serials.of("one")
    assert is_after(serials.of("two"), first)
    assert "cannot be kept" in caplog.text
