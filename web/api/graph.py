"""The lab as a graph, for whoever draws it."""

from flask import Response

from orchestrator.network_view import topology_of
from web.api.context import Context
from web.api.operation import Api, Media
from web.models.graph import GraphDocument, GraphOptions

DOT, GRAPHML = "text/vnd.graphviz", "application/xml"


def add(api: Api, context: Context) -> None:
    """Add the graph."""
    control = context.control

    @api.get("/graph", GraphDocument, etag=True)
    def graph(query: GraphOptions) -> GraphDocument:
        """Return hosts with their instances, routers, populations and links, to be drawn."""
        view = context.network_view()
        return GraphDocument.of(control.lab, control.status(), view, load=query.load)

    @api.get("/graph/dot", Media(DOT), etag=True)
    def graph_dot() -> Response:
        """Return hosts, routers, populations and links as DOT, for Graphviz."""
        return Response(topology_of(control.lab, context.network_view()).dot(), mimetype=DOT)

    @api.get("/graph/graphml", Media(GRAPHML), etag=True)
    def graph_graphml() -> Response:
        """Return them as GraphML, as NetworkX and other programs read it."""
        text = topology_of(control.lab, context.network_view()).graphml()
        return Response(text, mimetype=GRAPHML)
