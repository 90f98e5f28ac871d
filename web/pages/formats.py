"""Amounts and times as people read them: the filters of our templates.

`static/js/format.js` says the same things in the same words. All of them show None as a dash.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from web.pages.placement_words import ALGORITHMS

NOTHING = "\N{EN DASH}"
KIB = 1024.0
_CLOCK = ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s"))
NIL = 5e-5  # what is less is shown as 0: a rounding error of a solver, mostly


def size(value: float | None) -> str:
    """Return an amount of bytes: 7.2 MiB."""
    if value is None:
        return NOTHING
    amount, units = float(value), ["B", "KiB", "MiB", "GiB", "TiB"]
    while abs(amount) >= KIB and len(units) > 1:
        amount /= KIB
        units.pop(0)
    return f"{_short(amount)} {units[0]}"


def mib(value: float | None) -> str:
    """Return an amount given in MiB: 512 MiB, 3.2 GiB."""
    return NOTHING if value is None else size(value * KIB * KIB)


def seconds(value: float | None) -> str:
    """Return a time given in seconds: 0.42 ms, 23 ms, 4.2 s, 3 min 20 s, 5 h 12 min, 3 d 4 h."""
    if value is None:
        return NOTHING
    if abs(value) < 0.9995:
        return f"{_short(value * 1000)} ms"
    if abs(value) < 59.95:
        return f"{_short(value)} s"
    whole = round(value)
    for unit, part, name, below in _CLOCK:
        if whole >= unit:
            rest = whole % unit // part
            return f"{whole // unit} {name}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"


def milliseconds(value: float | None) -> str:
    """Return a time given in milliseconds, as `seconds` does."""
    return NOTHING if value is None else seconds(value / 1000)


def count(value: float | None) -> str:
    """Return a number, with narrow spaces between thousands: 12 345."""
    if value is None:
        return NOTHING
    written = f"{value:,}" if isinstance(value, int) else _short(value)
    return written.replace(",", "\N{NARROW NO-BREAK SPACE}")


def percent(value: float | None) -> str:
    """Return a share (0 to 1): 2 %, 0.4 %."""
    return NOTHING if value is None else f"{_short(value * 100)} %"


def when(value: float | None) -> str:
    """Return a time (seconds since the epoch) as an element that browsers show in local time."""
    if value is None:
        return NOTHING
    at = datetime.fromtimestamp(value, UTC)
    iso = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}" data-at="{}">{:%Y-%m-%d %H:%M:%S} UTC</time>').format(
        iso, f"{value:.3f}", at
    )


def since(value: float | None) -> str:
    """Return a time as `when` does, beside which browsers write how long ago that is."""
    if value is None:
        return NOTHING
    ago = Markup('<span class="muted" data-ago="{}"></span>').format(f"{value:.3f}")
    return Markup("{} {}").format(when(value), ago)


def _short(value: float) -> str:
    """Return a number with two digits that tell something, at most one behind the point from 10."""
    if abs(value) < NIL:
        return "0"
    if abs(value) >= 99.95:
        return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    if abs(value) >= 9.995:
        return f"{value:.1f}".removesuffix(".0")
    return f"{value:.2g}" if abs(value) < 0.0995 else f"{value:.2f}".rstrip("0").rstrip(".")


def chooser(decided_by: str) -> str:
    """Return who chose a host, with what an algorithm's name means."""
    name, comma, more = decided_by.partition(",")
    meant = ALGORITHMS.get(name)
    return f"{meant} ({name}){comma}{more}" if meant else decided_by


FILTERS: dict[str, Callable[[Any], str]] = {
    "size": size,
    "mib": mib,
    "seconds": seconds,
    "milliseconds": milliseconds,
    "count": count,
    "percent": percent,
    "when": when,
    "since": since,
    "chooser": chooser,
}
