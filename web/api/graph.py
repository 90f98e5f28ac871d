"""The lab as a graph, for whoever draws it."""

from web.api.context import Context
from web.api.operation import Api
from web.models.graph import GraphDocument, GraphOptions


def add(api: Api, context: Context) -> None:
    """Add the graph."""

    @api.get("/graph", GraphDocument, etag=True)
    def graph(query: GraphOptions) -> GraphDocument:
        """Return hosts with their instances, routers, populations and links, to be drawn."""
        control = context.control
        view = context.network_view()
        return GraphDocument.of(control.lab, control.status(), view, load=query.load)
