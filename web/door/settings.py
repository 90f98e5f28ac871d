"""What a door is told: a line of JSON from the daemon to its child."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

STREAMS = 64  # browsers and programs that may watch events at once


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """Where a door listens, whom it asks and whom it answers.

    `host` and `port` are where it listens. `names` are host names in requests that are ours beside
    ``localhost`` and IP addresses we listen on. With `certificate` and `key` it speaks TLS;
    `behind_proxy` says that somebody in front of it does.
    """

    socket: Path
    tokens: Path
    lab: str = ""
    host: str = "127.0.0.1"
    port: int = 8480
    names: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    behind_proxy: bool = False
    streams: int = STREAMS

    @property
    def secure(self) -> bool:
        """Whether browsers reach us by TLS."""
        return self.certificate is not None or self.behind_proxy

    def to_json(self) -> str:
        """Return the settings as one line."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the settings that a line of `to_json` says."""
        values = json.loads(text)
        for key in ("socket", "tokens", "certificate", "key"):
            values[key] = None if values[key] is None else Path(values[key])
        values["names"] = tuple(values["names"])
        return cls(**values)
