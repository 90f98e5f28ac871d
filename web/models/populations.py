"""Client populations: who asks, and from where."""

from typing import Self

from orchestrator.model import Population
from web.models.base import Document


class PopulationDocument(Document):
    """Clients that share subnets and a router; `requests_s` is their usual rate."""

    name: str
    subnets: list[str]
    router: str
    requests_s: float

    @classmethod
    def of(cls, value: Population) -> Self:
        """Return a population."""
        return cls(
            name=value.name,
            subnets=[str(each) for each in value.subnets],
            router=value.router,
            requests_s=value.requests_s,
        )


class PopulationsDocument(Document):
    """All populations of the lab."""

    populations: list[PopulationDocument]
