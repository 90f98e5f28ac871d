"""Operations: how far long work is."""

from web.api.context import Context
from web.api.operation import Api
from web.models.base import Page
from web.models.operations import (
    OperationDocument,
    OperationNamed,
    OperationsDocument,
    Preferred,
)


def add(api: Api, context: Context) -> None:
    """Add what is told of long work."""
    operations = context.control.operations

    @api.get("/operations", OperationsDocument, problems=(404,))
    def last_operations(query: Page) -> OperationsDocument:
        """Return the last operations, oldest first."""
        found = operations.last(query.limit + 1, query.after)
        page = [OperationDocument.of(each) for each in found[-query.limit :]]
        more = len(found) > len(page)
        return OperationsDocument(operations=page, next=page[0].id if more else None)

    @api.get("/operations/<id>", OperationDocument)
    def operation(path: OperationNamed, header: Preferred) -> OperationDocument:
        """Return how far an operation is.

        With `Prefer: wait=N`, when there is news of it, or after N seconds. It is known as long as
        edgewake runs, and not for ever.
        """
        now = operations.get(path.id)
        if header.wait_s is not None and not now.ended:
            now = operations.wait(path.id, header.wait_s, news_of=now)
        return OperationDocument.of(now)
