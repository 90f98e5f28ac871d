"""What holds for all tests: shared contracts explain failures, slowness is none, Ctrl-C works."""

import signal

import pytest
from hypothesis import HealthCheck, settings

from tests.xenbed.fixture import pytest_runtest_makereport, xen_bed

__all__ = ["pytest_runtest_makereport", "xen_bed"]  # one bed for all of a session that ask for it

pytest.register_assert_rewrite("tests.contracts", "tests.world")

# In the background of a shell Ctrl-C is ignored, and programs that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Real guests boot beside us on few cores: how long an example takes says nothing about our code.
settings.register_profile(
    "edgewake", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("edgewake")
