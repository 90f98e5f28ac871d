"""Churn: what happens is drawn from the seed alone, and is what is counted."""

from itertools import pairwise
from random import Random
from typing import Any

import pytest

from placement.generate import generate
from placement.generate._make import fingerprint
from placement.generate.churn import Epoch, churn
from placement.problem import Malformed
from placement.validate import validate

INSTANCE = generate("waxman", 1)


def _epochs(seed: int = 0, **parameters: Any) -> tuple[Epoch, ...]:
    return churn(Random(seed), INSTANCE, **parameters)  # noqa: S311 - nothing is secret


def _names(epoch: Epoch) -> set[str]:
    return {each.name for each in epoch.problem.demands}


def _hosts(epoch: Epoch) -> set[str]:
    return {each.name for each in epoch.problem.hosts}


def test_a_seed_gives_the_same_events() -> None:
    def prints(seed: int) -> list[str]:
        return [fingerprint(epoch.problem) for epoch in _epochs(seed)]

    assert prints(3) == prints(3)
    assert prints(3) != prints(4)


def test_the_counts_are_what_has_changed() -> None:
    for before, after in pairwise(_epochs(5, epochs=30, failures=0.1)):
        assert after.arrived == len(_names(after) - _names(before))
        assert after.departed == len(_names(before) - _names(after))
        assert len(_hosts(before) - _hosts(after)) == after.failed
        validate(after.problem)


def test_a_host_that_failed_is_back_after_its_repair() -> None:
    epochs = _epochs(2, epochs=60, failures=0.1, repair_epochs=3)
    for name in _hosts(Epoch(INSTANCE.problem)):
        down = "".join("-" if name in _hosts(epoch) else "x" for epoch in epochs).strip("-")
        gaps = [len(gap) for gap in down.split("-") if gap]
        assert set(gaps[:-1]) <= {3}


def test_moved_clients_ask_from_elsewhere_and_as_often() -> None:
    first, second = _epochs(1, epochs=2, arrivals=0.0, departures=0.0, moves=1.0, failures=0.0)
    for before, after in zip(first.problem.demands, second.problem.demands, strict=True):
        assert sorted(before.rates.values()) == sorted(after.rates.values())
        assert before.rates != after.rates
    assert second.moved == len(first.problem.demands)


def test_without_chances_nothing_happens() -> None:
    epochs = _epochs(0, arrivals=0.0, departures=0.0, moves=0.0, failures=0.0)
    assert len({fingerprint(epoch.problem) for epoch in epochs}) == 1


def test_never_is_nobody_there() -> None:
    for epoch in _epochs(0, active=0.0, arrivals=0.0, departures=1.0, failures=1.0):
        assert epoch.problem.demands
        assert epoch.problem.hosts


@pytest.mark.parametrize("name", ["active", "arrivals", "departures", "moves", "failures"])
def test_a_chance_is_at_most_one(name: str) -> None:
    wrong: dict[str, Any] = {name: 1.5}
    with pytest.raises(Malformed, match=f"{name}: must be at most 1"):
        _epochs(**wrong)
