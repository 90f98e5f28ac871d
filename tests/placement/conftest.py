"""Small problems for the tests of this folder."""

from collections.abc import Callable
from typing import Any

import pytest

from placement.problem import Demand, Host


@pytest.fixture
def host() -> Callable[..., Host]:
    """Return a maker of hosts: name, CPU, MiB, and any other field."""

    def make(name: str, cpu: float = 4, memory_mib: float = 1024, **more: Any) -> Host:
        return Host(name, {"cpu": cpu, "memory_mib": memory_mib}, **more)

    return make


@pytest.fixture
def demand() -> Callable[..., Demand]:
    """Return a maker of demands: name, CPU, MiB, and any other field."""

    def make(name: str, cpu: float = 1, memory_mib: float = 256, **more: Any) -> Demand:
        return Demand(name, {"cpu": cpu, "memory_mib": memory_mib}, **more)

    return make
