"""Quantities with units: what is accepted, what is refused and why, and the way back."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.units import (
    BANDWIDTH,
    MEMORY,
    MILLISECONDS,
    POWER,
    RATE,
    SECONDS,
    Dimension,
)

ALL = (BANDWIDTH, MEMORY, MILLISECONDS, POWER, RATE, SECONDS)


@pytest.mark.parametrize(
    ("dimension", "text", "value"),
    [
        (MEMORY, "96 MiB", 96),
        (MEMORY, "2GiB", 2048),
        (MEMORY, "0.5 TiB", 524288),
        (SECONDS, "20 ms", Fraction(1, 50)),
        (SECONDS, "1.5 min", 90),
        (SECONDS, "0 s", 0),
        (MILLISECONDS, "250 us", Fraction(1, 4)),
        (MILLISECONDS, "1 h", 3_600_000),
        (BANDWIDTH, "1 Gbit/s", 1000),
        (BANDWIDTH, "250 kbit/s", Fraction(1, 4)),
        (RATE, "0.5/s", Fraction(1, 2)),
        (RATE, "30 /min", Fraction(1, 2)),
        (RATE, "36/h", Fraction(1, 100)),
        (POWER, "500 mW", Fraction(1, 2)),
        (POWER, "1.2 kW", 1200),
    ],
)
def test_parse_is_exact(dimension: Dimension, text: str, value: Fraction) -> None:
    assert dimension.parse(text) == value


@pytest.mark.parametrize("dimension", ALL, ids=lambda dimension: dimension.noun)
def test_a_number_alone_is_refused_with_the_units_that_exist(dimension: Dimension) -> None:
    with pytest.raises(ValueError, match="'5' has no unit") as caught:
        dimension.parse("5")
    assert all(unit in str(caught.value) for unit in dimension.units)
    assert dimension.example in str(caught.value)


@pytest.mark.parametrize("text", ["", "fast", "-5 s", "5 m s", "1e3 s", "5,5 s", ".5 s", "5. s"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write a number and a unit"):
        SECONDS.parse(text)


def test_a_unit_in_the_wrong_case_is_recognised_in_the_message() -> None:
    with pytest.raises(ValueError, match="unknown unit 'mib', did you mean 'MiB'"):
        MEMORY.parse("96 mib")


def test_a_long_number_is_refused_without_being_computed() -> None:
    with pytest.raises(ValueError, match="is not a duration") as caught:
        SECONDS.parse("9" * 100_000 + " s")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("dimension", "value", "text"),
    [
        (MEMORY, 96, "96 MiB"),
        (MEMORY, 2048, "2 GiB"),
        (MEMORY, 0, "0 MiB"),
        (SECONDS, 60.0, "1 min"),
        (SECONDS, 0.02, "20 ms"),
        (SECONDS, 0.0, "0 s"),
        (MILLISECONDS, 6.0, "6 ms"),
        (BANDWIDTH, 0.25, "250 kbit/s"),
        (RATE, 0.5, "30/min"),
        (POWER, 25.0, "25 W"),
    ],
)
def test_write_chooses_the_largest_unit_that_needs_no_fraction(
    dimension: Dimension, value: float, text: str
) -> None:
    assert dimension.write(value) == text


@settings(deadline=None)
@given(
    st.sampled_from(ALL),
    st.floats(min_value=1e-9, max_value=1e15) | st.integers(min_value=0, max_value=10**15),
)
def test_what_is_written_parses_to_the_same_value(dimension: Dimension, value: float) -> None:
    assert float(dimension.parse(dimension.write(value))) == float(value)
