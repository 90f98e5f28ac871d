"""The API, version 1: parse, call one verb of the orchestrator, make a document of the answer.

Nothing is decided here. Each module adds the operations of one kind of resource; docs/api.md lists
them, and ``GET /api/v1/openapi.json`` describes them. How an operation is declared, and what all
have in common, is in `web.api.operation`; what goes in and out, in `web.models`; failures, in
`web.problems`.
"""

from web.api import (
    changes,
    events,
    graph,
    hosts,
    images,
    instances,
    lab,
    measured,
    network,
    operations,
    plans,
    populations,
    queries,
    service_changes,
    services,
    status,
    tokens,
    wakes,
)
from web.api.context import Context
from web.api.operation import Api

# Each has an `add`; the order is that of the OpenAPI document.
RESOURCES = (
    status,
    hosts,
    services,
    service_changes,
    instances,
    images,
    measured,
    populations,
    wakes,
    events,
    queries,
    plans,
    operations,
    changes,
    network,
    graph,
    lab,
    tokens,
)


def create_api(context: Context) -> Api:
    """Return all operations."""
    api = Api()
    for resource in RESOURCES:
        resource.add(api, context)
    return api
