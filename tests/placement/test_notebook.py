"""What `from placement import …` gives, and what it does not load before it is used."""

import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest

import placement

HEAVY = ("numpy", "highspy", "pulp", "networkx", "pandas", "matplotlib", "scipy", "pydantic")
COUNTED = f"import placement, sys; print(*[n for n in {HEAVY} if n in sys.modules])"


def test_importing_the_nouns_loads_nothing_heavy() -> None:
    command = [sys.executable, "-c", COUNTED]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "\n"


@pytest.mark.parametrize("name", placement.__all__)
def test_each_name_is_there(name: str) -> None:
    namespace: dict[str, object] = {}
    exec(f"from placement import {name}", namespace)  # noqa: S102 - names of our own
    assert namespace[name] is not None


@pytest.mark.parametrize("name", placement.LATER)
def test_no_name_is_a_module_once_and_a_function_once(name: str) -> None:
    """Importing a module sets its name in the package; no other thing may have that name."""
    module, _, attribute = placement.LATER[name].partition(":")
    import_module(module)
    found = getattr(placement, name)
    assert isinstance(found, ModuleType) is not bool(attribute)


def test_a_name_that_is_not_there_is_told() -> None:
    with pytest.raises(AttributeError, match="no attribute 'solver'"):
        placement.solver  # noqa: B018 - it is the look-up that is tested
    assert {"climb", "solve", "Problem"} <= set(dir(placement))
