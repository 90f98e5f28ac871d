"""The bed as a fixture: one per test session, started when first asked for, stopped at its end.

A `conftest.py` that wants it says ``from tests.xenbed.fixture import xen_bed``, and names it in
`__all__`. Tests that use it are marked ``real``, and those that may be the first to use it have a
time-out that leaves room for a start (and for a build, unless `make xenbed` was run before).
"""

import os
from collections.abc import Iterator

import pytest

from tests.xenbed.bed import Bed
from tests.xenbed.build import default_cache
from tests.xenbed.plan import Wanted


@pytest.fixture(scope="session")
def xen_bed() -> Iterator[Bed]:
    """Give a bed of this session's own; it ends with the session, even with one that is killed."""
    bed = Bed.start(default_cache(), Wanted(name=f"t{os.getpid()}"), owned=True)
    try:
        yield bed
    finally:
        bed.stop()
