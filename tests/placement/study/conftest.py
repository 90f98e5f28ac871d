"""Small studies for the tests of this folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from placement.study import Study

PLUG_INS = Path(__file__).with_name("plug_ins.py")

MakeStudy = Callable[..., Study]


@pytest.fixture
def study() -> MakeStudy:
    """Return a maker of studies: algorithms, and any other key; a few small instances."""

    def make(algorithms: dict[str, Any], **more: Any) -> Study:
        instances = {
            "small": {
                "generator": "uniform",
                "parameters": {"hosts": [3, 4], "services": 10, "populations": 3},
                "seeds": 2,
            }
        }
        for entry in algorithms.values():
            name = entry.get("algorithm", "")
            if name.startswith("plug_ins.py:"):
                entry["algorithm"] = f"{PLUG_INS}{name.removeprefix('plug_ins.py')}"
        return Study(**{"name": "t", "instances": instances, "algorithms": algorithms, **more})

    return make
