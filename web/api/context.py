"""What the API is given to work with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.control import Orchestrator
from orchestrator.model import Lab
from orchestrator.queries import NO_QUERIES, QueryLog

LoadLab = Callable[[str, Path], Lab]


@dataclass(frozen=True, slots=True)
class Context:
    """The parts that operations call.

    `load` turns the text and path of a lab file into a lab; `metrics` is what Prometheus is told.
    Parts that some programs do without come after these, with a default.
    """

    control: Orchestrator
    load: LoadLab
    metrics: Callable[[], str] = str
    queries: QueryLog = NO_QUERIES
