"""Log lines for people (``console``) and programs (``json``), each with the wake it belongs to.

Which wake that is, `wake_context` knows; nothing is asked unless a line is written. What the fields
of a JSON line mean is in docs/logs.md. Lines go to standard error.
"""

import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import TextIO

from orchestrator.wake_context import wake_now

OURS = ("edgewake", "orchestrator", "dns_boot", "web", "images", "placement")
LINE = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
# Of what others chose, such as names, nothing may move a terminal's cursor or feign a line.
_CONTROL = {n: f"\\x{n:02x}" for n in (*range(9), *range(11, 32), *range(0x7F, 0xA0))} | {
    0x0A: "\n    ",  # what is said in several lines, such as all that is wrong with a lab
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


class LogFormat(StrEnum):
    """How a line is written."""

    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """The least important lines that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_LEVELS = {each.upper(): logging.getLevelNamesMapping()[each.upper()] for each in LogLevel}


def set_up(
    written: LogFormat = LogFormat.CONSOLE,
    level: LogLevel = LogLevel.INFO,
    stream: TextIO | None = None,
) -> None:
    """Have lines written from now on; of other people's packages only warnings and errors."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if written is LogFormat.JSON else ConsoleLines(LINE))
    least = _LEVELS[level.upper()]
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, least), force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(least)


def chosen() -> tuple[LogFormat, LogLevel]:
    """Return what was set up, for a child process that is to log alike."""
    handlers = logging.getLogger().handlers
    as_json = any(isinstance(handler.formatter, JsonLines) for handler in handlers)
    level = logging.getLogger(OURS[0]).getEffectiveLevel()
    known = {number: LogLevel(name.lower()) for name, number in _LEVELS.items()}
    written = LogFormat.JSON if as_json else LogFormat.CONSOLE
    return written, known.get(level, LogLevel.INFO)


class ConsoleLines(logging.Formatter):
    """Lines for people: time, level, logger, ``[wake 17]``, and the sentence."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - their name
        """Return the line without a traceback."""
        wake = _wake_of(record)
        record.message = record.message.translate(_CONTROL)
        if wake:
            record.message = f"[wake {wake}] {record.message}"
        return super().formatMessage(record)


class JsonLines(logging.Formatter):
    """A JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields: dict[str, str | int] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        known = {key: value for key, value in _known(record) if key not in fields}
        return json.dumps(fields | known, ensure_ascii=False, default=str)


def _known(record: logging.LogRecord) -> Iterator[tuple[str, str | int]]:
    """Yield what is known beside the sentence; facts of the line go before those of its wake."""
    known = getattr(record, "facts", {})
    if wake := _wake_of(record):
        yield "wake", wake
    trace = wake_now()
    if trace is not None:
        now = {"service": trace.service, "host": trace.host, "instance": trace.instance}
        yield from ((key, text) for key, text in now.items() if text)
    yield from ((key, text) for key, text in known.items() if key != "wake")


def _wake_of(record: logging.LogRecord) -> int:
    """Return the number of the wake that a line belongs to; 0 if it belongs to none."""
    said = getattr(record, "facts", {}).get("wake", "")
    if said.isdecimal():
        return int(said)
    trace = wake_now()
    return trace.id if trace is not None else 0


def _time(at: float) -> str:
    """Return a time as RFC 3339 has it, in UTC, to the millisecond."""
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
