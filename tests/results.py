"""What a command of the CLI printed, once it was seen to have ended as it should."""

import json
from typing import Any

from click.testing import Result

from orchestrator.cli import Exit


def document_of(result: Result) -> Any:
    """Return the JSON that a command printed."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refusal(result: Result, code: Exit) -> str:
    """Return what an error said, once it was seen to be one line of ours and not a stack trace."""
    assert result.exit_code == code, result.output
    assert result.stderr.startswith(("edgewake: ", "Usage: "))
    assert "Traceback" not in result.output
    return result.stderr
