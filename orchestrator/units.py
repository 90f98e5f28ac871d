"""Quantities as people write them: a number and a unit, such as ``96 MiB`` or ``20 ms``.

For the lab file and for messages about it. Each `Dimension` has one base unit, the one our nouns
carry in their names (`_mib`, `_s`, `_ms`, `_mbps`, `_w`); `parse` turns text into that unit and
`write` turns it back into text that parses to the same value. A number without a unit is refused:
a reader of the file should never have to guess. What may be negative, zero or fractional is for
the caller to say.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

NUMBER = r"[0-9]{1,30}(?:\.[0-9]{1,30})?"
_QUANTITY = re.compile(rf"({NUMBER})? ?(\S*)")


@dataclass(frozen=True, slots=True)
class Dimension:
    """What can be measured and in which units.

    `noun` reads after "is" in a message; `units` maps each unit to its size in the base unit,
    smallest first; `example` is a quantity to show to somebody who wrote it wrongly.
    """

    noun: str
    units: Mapping[str, Fraction]
    example: str

    @property
    def pattern(self) -> str:
        """A regular expression (also valid in JSON Schema) for what `parse` accepts."""
        return rf"^{NUMBER} ?({'|'.join(map(re.escape, self.units))})$"

    def parse(self, text: str) -> Fraction:
        """Return the quantity in the base unit, exactly; ValueError says how to write it."""
        matched = _QUANTITY.fullmatch(text.strip())
        number, unit = matched.groups() if matched else (None, "")
        if number is None:
            raise ValueError(f"{_short(text)} is not {self.noun}: {self._how()}")
        if not unit:
            raise ValueError(f"{_short(text)} has no unit: {self._how()}")
        if unit not in self.units:
            raise ValueError(f"unknown unit {_short(unit)}{self._meant(unit)}: {self._how()}")
        return Fraction(number) * self.units[unit]

    def write(self, value: float) -> str:
        """Return text for a value in the base unit: a whole number of the largest unit, if any."""
        exact = Fraction(repr(value))
        base = next(unit for unit, size in self.units.items() if size == 1)
        if not exact:
            return _joined("0", base)
        for unit, size in reversed(list(self.units.items())):
            if (exact / size).denominator == 1:
                return _joined(str(exact / size), unit)
        return _joined(f"{Decimal(repr(value)):f}", base)

    def _how(self) -> str:
        return (
            f"write a number and a unit, such as '{self.example}' (units: {', '.join(self.units)})"
        )

    def _meant(self, unit: str) -> str:
        same = [known for known in self.units if known.casefold() == unit.casefold()]
        return f", did you mean '{same[0]}'?" if same else ""


def _joined(number: str, unit: str) -> str:
    return f"{number}{unit}" if unit.startswith("/") else f"{number} {unit}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


def _times(size: Fraction) -> dict[str, Fraction]:
    """Return the units of time, where one second is `size` base units."""
    return {
        "us": size / 1_000_000,
        "ms": size / 1000,
        "s": size,
        "min": size * 60,
        "h": size * 3600,
    }


MEMORY = Dimension(
    "an amount of memory",
    {"MiB": Fraction(1), "GiB": Fraction(1024), "TiB": Fraction(1024**2)},
    "96 MiB",
)
SECONDS = Dimension("a duration", _times(Fraction(1)), "5 s")
MILLISECONDS = Dimension("a latency", _times(Fraction(1000)), "20 ms")
BANDWIDTH = Dimension(
    "a bandwidth",
    {
        "kbit/s": Fraction(1, 1000),
        "Mbit/s": Fraction(1),
        "Gbit/s": Fraction(1000),
        "Tbit/s": Fraction(1_000_000),
    },
    "1 Gbit/s",
)
RATE = Dimension(
    "a rate",
    {"/h": Fraction(1, 3600), "/min": Fraction(1, 60), "/s": Fraction(1)},
    "0.5/s",
)
PERCENT = Dimension("a share", {"%": Fraction(1)}, "80 %")
POWER = Dimension(
    "a power", {"mW": Fraction(1, 1000), "W": Fraction(1), "kW": Fraction(1000)}, "20 W"
)
