"""Wakes: where their time went."""

from web.api.context import Context
from web.api.operation import Api
from web.models.wakes import LastWakes, WakeDocument, WakesDocument


def add(api: Api, context: Context) -> None:
    """Add what is told of wakes."""
    control = context.control

    @api.get("/wakes", WakesDocument, problems=(404,))
    def wakes(query: LastWakes) -> WakesDocument:
        """Return where the time of the last wakes went, oldest first."""
        if query.service:
            control.known(query.service)
        last = control.wakes.last(query.service, query.limit)
        return WakesDocument(wakes=[WakeDocument.of(each) for each in last])
