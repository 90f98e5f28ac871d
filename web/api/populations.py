"""Client populations."""

from web.api.context import Context
from web.api.operation import Api
from web.models.populations import PopulationDocument, PopulationsDocument


def add(api: Api, context: Context) -> None:
    """Add what is told of those who ask."""

    @api.get("/populations", PopulationsDocument, etag=True)
    def populations() -> PopulationsDocument:
        """Return who asks, from where, and how often."""
        known = context.control.lab.populations
        return PopulationsDocument(populations=[PopulationDocument.of(each) for each in known])
