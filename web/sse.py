"""Server-sent events as text: written by `web.event_stream`, read by whoever follows it.

The format is that of the HTML standard ("Server-sent events"): lines of fields, and an empty line
after each event. `web` writes data as one line of JSON.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

CONTENT_TYPE = "text/event-stream"
MAX_LINE = 1 << 20  # characters; a longer one is no event of ours


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event; `id` is what to resume with (``Last-Event-ID``), `data` a JSON document."""

    name: str
    data: Any
    id: str = ""


def written(name: str, data: Any, sequence: int) -> str:
    """Return an event as text."""
    return f"id: {sequence}\nevent: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"


def position(sequence: int) -> str:
    """Return what is no event, but says where the stream is, and that it lives."""
    return f": \nid: {sequence}\n\n"


def read(lines: Iterable[str]) -> Iterator[ServerEvent]:
    """Yield the events in lines, each without its end. Raises ValueError for data of no sense."""
    fields: dict[str, str] = {}
    data: list[str] = []
    last = ""
    for line in lines:
        if len(line) > MAX_LINE:
            raise ValueError("a line of an event stream is too long")
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            last = fields.get("id", last)
            if data:
                yield ServerEvent(fields.get("event", "message"), json.loads("\n".join(data)), last)
            fields, data = {}, []
        elif name == "data":
            data.append(value)
        elif name:
            fields[name] = value
