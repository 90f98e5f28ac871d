"""The bed as a fixture: one per test session, started when first asked for, stopped at its end.

A `conftest.py` that wants it says ``from tests.xenbed.fixture import xen_bed``, and names it in
`__all__`, as well as the hook: what dom0 did when a test failed is then told with the failure.
Tests that use the bed are marked ``real``, and those that may be the first to use it have a
time-out that leaves room for a start (and for a build, unless `make xenbed` was run before).
"""

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest

from tests.xenbed.bed import Bed
from tests.xenbed.build import default_cache
from tests.xenbed.plan import Wanted


@contextmanager
def own_bed(wanted: Wanted) -> Iterator[Bed]:
    """Give a bed that ends with the block, even with a process that is killed."""
    bed = Bed.start(default_cache(), wanted, owned=True)
    try:
        yield bed
    finally:
        bed.stop()


@pytest.fixture(scope="session")
def xen_bed() -> Iterator[Bed]:
    """Give a bed of this session's own."""
    with own_bed(Wanted(name=f"t{os.getpid()}")) as bed:
        yield bed


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the condition of the bed to the report of a test that failed with one."""
    report = yield
    if report.failed:
        for bed in getattr(item, "funcargs", {}).values():
            if isinstance(bed, Bed):
                name = f"Xen bed {bed.state.name} at {report.when}"
                report.sections.append((name, bed.condition()))
    return report
