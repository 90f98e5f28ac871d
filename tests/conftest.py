"""What holds for all tests: shared contracts explain failures, slowness is none, Ctrl-C works.

Tests with the mark `real`, and those of whole programs, use this machine's libvirt and networks, so
they run one after the other; all others (`BESIDE`) can run beside them, as `scripts/test.sh` does.
"""

import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.xenbed.fixture import pytest_runtest_makereport, xen_bed

__all__ = ["pytest_runtest_makereport", "xen_bed"]  # one bed for all of a session that ask for it

BESIDE = tuple(
    Path(__file__).parent / each
    for each in ("placement", "images", "orchestrator", "dns_boot", "web")
)

pytest.register_assert_rewrite("tests.contracts", "tests.world")

# In the background of a shell Ctrl-C is ignored, and programs that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Real guests boot beside us on few cores: how long an example takes says nothing about our code.
# Everybody's examples are those of continuous integration; others: `--hypothesis-profile explore`.
settings.register_profile(
    "edgewake",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    print_blob=True,
)
settings.register_profile("explore", settings.get_profile("edgewake"), derandomize=False)
settings.load_profile("edgewake")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option by which `scripts/test.sh` runs two parts beside each other."""
    parser.addoption("--part", choices=("machine", "beside"), help="only this part of the tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of the other part, if one was named."""
    part = config.getoption("--part")
    if part is not None:
        parts: dict[str, list[pytest.Item]] = {"machine": [], "beside": []}
        for each in items:
            parts["beside" if _keeps_to_itself(each) else "machine"].append(each)
        items[:] = parts.pop(part)
        config.hook.pytest_deselected(items=[each for left in parts.values() for each in left])


def _keeps_to_itself(item: pytest.Item) -> bool:
    """Return whether a test minds nobody else on this machine, and needs no guest or network."""
    below = any(item.path.is_relative_to(each) for each in BESIDE)
    return below and item.get_closest_marker("real") is None
