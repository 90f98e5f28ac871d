"""Wakes: where their time went, and how they went in all."""

from orchestrator.errors import UnknownWake
from orchestrator.trace import KEPT
from orchestrator.wake_summary import summed_up
from web.api.context import Context
from web.api.operation import Api
from web.models.wakes import (
    LastWakes,
    Numbered,
    WakeDocument,
    WakesDocument,
    WakeSummaryDocument,
)


def add(api: Api, context: Context) -> None:
    """Add what is told of wakes."""
    control = context.control

    @api.get("/wakes", WakesDocument, problems=(404,))
    def wakes(query: LastWakes) -> WakesDocument:
        """Return where the time of the last wakes went, oldest first."""
        if query.service:
            control.known(query.service)
        last = control.wakes.last(query.service, query.limit + 1, before=query.before)
        page = last[-query.limit :]
        return WakesDocument(
            wakes=[WakeDocument.of(each) for each in page],
            next=str(page[0].id) if len(last) > query.limit else None,
        )

    @api.get("/wakes/<int:number>", WakeDocument)
    def wake(path: Numbered) -> WakeDocument:
        """Return where the time of one wake went."""
        known = control.wakes.get(path.number)
        if known is None:
            hint = f"the last {KEPT} are kept"
            raise UnknownWake(f"there is no wake {path.number}", hint=hint)
        return WakeDocument.of(known)

    @api.get("/wakes/summary", WakeSummaryDocument)
    def wakes_summary() -> WakeSummaryDocument:
        """Return how wakes went: counts, percentiles by service and host, reasons of failures."""
        return WakeSummaryDocument.of(summed_up(control.wakes.last(limit=KEPT)))
