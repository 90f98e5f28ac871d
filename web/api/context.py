"""What the API is given to work with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.control import Orchestrator
from orchestrator.errors import CannotNetwork, EdgewakeError
from orchestrator.live_network import LiveNetwork
from orchestrator.model import Lab
from orchestrator.network_view import NetworkView, planned
from orchestrator.queries import NO_QUERIES, QueryLog
from web.door.tokens import Tokens
from web.metrics import Told, told_nothing

LoadLab = Callable[[str, Path], Lab]


@dataclass(frozen=True, slots=True)
class Context:
    """The parts that operations call.

    `load` turns the text and path of a lab file into a lab; `metrics` is what Prometheus is told.
    Parts that some programs do without come after these, with a default.
    """

    control: Orchestrator
    load: LoadLab
    metrics: Told = told_nothing
    network: LiveNetwork | None = None
    queries: QueryLog = NO_QUERIES
    tokens: Tokens | None = None

    @property
    def known_tokens(self) -> Tokens:
        """The tokens; EdgewakeError in a process that keeps none."""
        if self.tokens is None:
            raise EdgewakeError("no tokens are kept here", hint="start edgewake with `edgewake up`")
        return self.tokens

    @property
    def live(self) -> LiveNetwork:
        """The network that can be changed; CannotNetwork in a process that makes none."""
        if self.network is None:
            raise CannotNetwork(
                "no networks are made here", hint="start edgewake with `edgewake up`"
            )
        return self.network

    def network_view(self) -> NetworkView:
        """Return the network as it is, or in a process that makes none, as the lab has it."""
        return self.network.view() if self.network is not None else planned(self.control.lab)
