"""Small problems for the tests of this folder."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st

from placement.problem import Demand, Problem, Resources, Site


@pytest.fixture
def site() -> Callable[..., Site]:
    """Return a maker of sites: name, CPU, MiB, and any other field."""

    def make(name: str, cpu: float = 4, memory_mib: float = 1024, **more: Any) -> Site:
        return Site(name, Resources(cpu, memory_mib), **more)

    return make


@pytest.fixture
def demand() -> Callable[..., Demand]:
    """Return a maker of demands: name, CPU, MiB, and any other field."""

    def make(name: str, cpu: float = 1, memory_mib: float = 256, **more: Any) -> Demand:
        return Demand(name, Resources(cpu, memory_mib), **more)

    return make


@pytest.fixture(scope="session")
def tiny_problems() -> st.SearchStrategy[Problem]:
    """Return a strategy for problems small enough to try every plan, with every kind of rule."""
    return _tiny_problems()


@st.composite
def _tiny_problems(draw: st.DrawFn) -> Problem:
    """Draw a problem in which most rules are absent, so that most problems have several plans."""
    sites = ["s1", "s2", "s3"][: draw(st.sampled_from([3, 3, 3, 2, 1]))]
    demands = ["d1", "d2", "d3"][: draw(st.sampled_from([3, 2, 2, 1]))]

    def one_of(*values: float) -> float:
        return draw(st.sampled_from(values))

    def seldom(names: list[str], size: int = 1) -> frozenset[str]:
        if not names or draw(st.integers(0, 4)) != 3:
            return frozenset()
        return draw(st.frozensets(st.sampled_from(names), min_size=1, max_size=size))

    def some_site(name: str) -> Site:
        return Site(
            name,
            Resources(one_of(4, 5, 8, 3, 1), one_of(1024, 1536, 2048, 768, 256)),
            labels=frozenset() if draw(st.integers(0, 4)) == 3 else frozenset([("gpu", "yes")]),
            idle_w=one_of(0, 10, 40),
            busy_w=one_of(40, 0, 90),
            host_hour=one_of(0, 1, 3),
            cpu_hour=one_of(0, 0.5),
            gib_hour=one_of(0, 0.25),
        )

    def some_demand(name: str) -> Demand:
        others = [each for each in demands if each != name]
        return Demand(
            name,
            Resources(one_of(1, 2, 0.5, 3, 0), one_of(256, 512, 128, 640, 0)),
            replicas=draw(st.sampled_from([1, 1, 1, 2, 2, 0])),
            rates={p: one_of(1, 5, 2, 0) for p in ("p1", "p2")},
            latency_bound_ms=draw(st.sampled_from([None] * 6 + [5, 20])),
            only_on=seldom(sites, 2),
            never_on=seldom(sites),
            labels=frozenset([("gpu", "yes")]) if draw(st.integers(0, 3)) == 2 else frozenset(),
            apart_from=seldom(others, 2),
            together_with=seldom(others),
        )

    return Problem(
        sites=tuple(some_site(name) for name in sites),
        demands=tuple(some_demand(name) for name in demands),
        latency_ms={
            p: {s: one_of(1, 4, 7, 12, 30) for s in sites if draw(st.integers(0, 7)) != 5}
            for p in ("p1", "p2")
        },
        current={name: tuple(sorted(seldom(sites, 3))) for name in demands},
        unfit={name: dict.fromkeys(seldom(sites), "wrong kind") for name in demands},
        extra_mib={name: dict.fromkeys(seldom(sites, 2), one_of(16, 256)) for name in demands},
    )
