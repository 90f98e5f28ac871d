"""What a check of the doctor comes to: a finding, a verdict, and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a check went; WARN means that edgewake works without it."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: `what` was found, and what to do about it (empty if nothing is to be done)."""

    name: str
    verdict: Verdict
    what: str
    to_do: str = ""
