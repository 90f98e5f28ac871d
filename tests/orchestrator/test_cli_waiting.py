"""What a terminal shows of work that takes long, and that nobody else is told."""

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import Exit, exit_code
from orchestrator.cli_waiting import asking
from web.client import GoesOn

OPERATION: dict[str, Any] = {
    "id": "a-1",
    "kind": "plan",
    "subject": "lab",
    "state": "running",
    "progress": {"done": 2, "total": 4, "text": "boot web on b"},
}


class Terminal(io.StringIO):
    """Standard error that is a terminal, or is not."""

    def __init__(self, *, is_one: bool) -> None:
        super().__init__()
        self._is_one = is_one

    def isatty(self) -> bool:
        return self._is_one


@pytest.mark.parametrize("is_one", [True, False])
def test_a_terminal_shows_how_far_it_is_and_a_pipe_gets_nothing(
    monkeypatch: pytest.MonkeyPatch, is_one: bool
) -> None:
    terminal = Terminal(is_one=is_one)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with asking(Path("/nowhere"), "planning ...") as client:
        assert terminal.getvalue() == ""
        client.watch(
            {**OPERATION, "state": "queued", "progress": {**OPERATION["progress"], "text": ""}}
        )
        client.watch(OPERATION)
    assert ("planning ..." in terminal.getvalue()) is is_one
    assert ("boot web on b" in terminal.getvalue()) is is_one


def test_who_interrupts_learns_that_it_goes_on_by_the_exit_code_of_shells() -> None:
    error = GoesOn(OPERATION)
    assert exit_code(error) is Exit.INTERRUPTED
    assert "plan lab, operation a-1" in error.message
