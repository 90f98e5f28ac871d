"""Waiting for what happens by itself. How long it may take says nothing about our code."""

import time
from collections.abc import Callable

PATIENCE_S = 30.0  # far more than anything takes, for machines with other work to do


def eventually(
    what: Callable[[], object],
    within_s: float = PATIENCE_S,
    told: str = "it did not happen in time",
) -> None:
    """Wait until something becomes true; fail the test if it does not, with what is told of it."""
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline, f"{told} ({within_s:g} s)"
        time.sleep(0.01)
