"""The rows of a scenario that was played, as JSON lines, CSV or a line for people."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields

from orchestrator.scenario.happenings import Event, words
from orchestrator.scenario.play import Row

COLUMNS = tuple(each.name for each in fields(Row))


def json_line(row: Row) -> str:
    """Return a row as JSON; times are seconds."""
    return json.dumps(
        {**asdict(row), "took_s": round(row.took_s, 6), "check_s": round(row.check_s, 6)}
    )


def csv_text(rows: Sequence[Row], *, header: bool = True) -> str:
    """Return rows as CSV (RFC 4180, but lines end in LF); several broken things are parted by |."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if header:
        writer.writerow(COLUMNS)
    for row in rows:
        data = json.loads(json_line(row))
        data["broken"] = " | ".join(row.broken)
        writer.writerow("" if data[name] is None else data[name] for name in COLUMNS)
    return out.getvalue()


def told(row: Row) -> str:
    """Return a row as a line for people."""
    size = f"{row.routers} routers, {row.links} links"
    said = [
        f"{row.at_s:10.3f} s  #{row.number:<5} {row.event:<44} {row.took_s * 1000:8.1f} ms  {size}"
    ]
    if row.answered is not None:
        said.append("answered" if row.answered else "not answered")
    if row.lost is not None:
        said.append(f"{row.lost} lost")
    said += [f"BROKEN: {each}" for each in row.broken]
    return "  ".join(said)


def event_lines(events: Sequence[Event]) -> str:
    """Return a list of events as text: what a seed decides, for comparing."""
    return "".join(f"{each.number} {each.at_s:.6f} {words(each.what)}\n" for each in events)
