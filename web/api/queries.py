"""The DNS log: what was asked lately, and how much of it."""

from web.api.context import Context
from web.api.operation import Api
from web.models.queries import (
    QueriesDocument,
    QueriesPage,
    QueriesSummaryDocument,
    QueryDocument,
    WindowDocument,
)


def add(api: Api, context: Context) -> None:
    """Add what is told of queries."""
    log = context.queries

    @api.get("/queries", QueriesDocument)
    def queries(query: QueriesPage) -> QueriesDocument:
        """Return the last DNS queries, newest first."""
        found = log.last(query.limit + 1, int(query.after or "0"), query.chosen)
        page = found[: query.limit]
        return QueriesDocument(
            queries=[QueryDocument.of_query(each) for each in page],
            next=str(page[-1].number) if len(found) > query.limit else None,
            log=log.mode,
        )

    @api.get("/queries/summary", QueriesSummaryDocument)
    def queries_summary() -> QueriesSummaryDocument:
        """Return how many DNS queries there were per second, of which kinds, and how they went."""
        windows = [WindowDocument.of(each) for each in log.rates()]
        return QueriesSummaryDocument(log=log.mode, windows=windows)
