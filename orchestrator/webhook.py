"""What a webhook is: where events are sent to, which ones, and signed by what. Nouns only."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Topic(StrEnum):
    """A group of events that a webhook can be for."""

    WAKE = "wake"
    SLEEP = "sleep"
    FAILURE = "failure"
    HOST = "host"
    CHANGE = "change"
    AUDIT = "audit"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Secret:
    """Where the secret is that signs what is sent: a file, else a variable of the environment."""

    file: Path | None = None
    variable: str = ""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver of events; `url` is ``https``, or ``http`` (to elsewhere only if `insecure`)."""

    name: str
    url: str
    topics: frozenset[Topic]
    secret: Secret | None = None
    insecure: bool = False
