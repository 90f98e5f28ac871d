"""The virtual network of the running lab: routers, links, programs on routers, ways.

What is changed here lasts until the lab is applied again (`orchestrator.live_network`).
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, TypeVar

from flask import Response

from orchestrator.network_view import NetworkView, link_version, router_version
from orchestrator.routers.base import Done
from web.api.caller import demand
from web.api.context import Context
from web.api.editing import Editing, Tagged
from web.api.operation import Api, Media
from web.api.working import ACCEPTED, Begun
from web.models.network import (
    AppDocument,
    AppRemoved,
    AppsDocument,
    LinkChanged,
    LinkDocument,
    LinksDocument,
    NetworkChangesDocument,
    NetworkDocument,
    NetworkSummary,
    RouterChanged,
    RouterDocument,
    RoutersDocument,
    WaysDocument,
)
from web.models.network_requests import (
    AppBody,
    Ends,
    HowBusy,
    LinkBody,
    NamedApp,
    NamedLink,
    NamedNode,
    NamedRouter,
    ProgramBody,
    RouterBody,
    WholePage,
)
from web.models.operations import Conditions
from web.roles import Role

UNTIL = "the lab is applied again"
RUNS_ANYTHING = frozenset(
    {"command", "python"}
)  # ready-made programs that do whatever they are told

Named = TypeVar("Named", RouterDocument, LinkDocument)


def add(api: Api, context: Context) -> None:
    """Add what is asked of the network."""
    _add_views(api, context)
    _add_routers(api, context)
    _add_links(api, context)
    _add_apps(api, context)


def _add_views(api: Api, context: Context) -> None:
    @api.get("/network", NetworkDocument)
    def network() -> NetworkDocument:
        """Return routers, links and what hangs on them, with what went through them."""
        return NetworkDocument.of(context.network_view())

    @api.get("/paths", WaysDocument, problems=(404, 409))
    def paths(query: Ends) -> WaysDocument:
        """Return the best ways between two routers, populations or hosts."""
        return WaysDocument.of(context.live.ways(query.start, query.end))


def _add_routers(api: Api, context: Context) -> None:
    def now(view: NetworkView, name: str) -> RouterDocument:
        return RouterDocument.of(view.router(name))

    def changed(name: str, done: Done) -> RouterChanged:
        view = context.network_view()
        there = any(each.name == name for each in view.routers)
        return RouterChanged(router=now(view, name) if there else None, **_changed(view, done))

    editing = Editing(context, now, router_version, changed)

    @api.get("/routers", RoutersDocument, etag=True)
    def routers(query: WholePage) -> RoutersDocument:
        """Return the routers, by name."""
        view = _seen(context, query)
        known = [RouterDocument.of(each) for each in view.routers]
        page, after = _page(known, query)
        return RoutersDocument(**NetworkSummary.facts(view), routers=page, next=after)

    @api.get("/routers/<name>", RouterDocument, etag=True)
    def router(path: NamedRouter, query: HowBusy) -> Tagged:
        """Return a router."""
        view = _seen(context, query)
        return editing.shown(view, view.router(path.name).name)

    @api.put(
        "/routers/<name>",
        RouterChanged,
        role=Role.OPERATOR,
        problems=(409, 412),
        others=ACCEPTED,
    )
    def put_router(path: NamedRouter, body: RouterBody, header: Conditions) -> Begun:
        """Have a router, until the lab is applied again; it has no links yet."""
        edit = context.live.router_edit(path.name, body.address, body.address6, body.machine)
        return editing.begin("change", edit, header)

    @api.delete(
        "/routers/<name>",
        RouterChanged,
        role=Role.OPERATOR,
        problems=(409, 412),
        others=ACCEPTED,
    )
    def delete_router(path: NamedRouter, header: Conditions) -> Begun:
        """Remove a router with its links and programs, until the lab is applied again."""
        return editing.begin("remove", context.live.router_removal(path.name), header)


def _add_links(api: Api, context: Context) -> None:
    def now(view: NetworkView, name: str) -> LinkDocument:
        return LinkDocument.of(view.link(name))

    def changed(name: str, done: Done) -> LinkChanged:
        view = context.network_view()
        there = any(each.name == name for each in view.links)
        return LinkChanged(link=now(view, name) if there else None, **_changed(view, done))

    editing = Editing(context, now, link_version, changed)

    @api.get("/links", LinksDocument, etag=True)
    def links(query: WholePage) -> LinksDocument:
        """Return the links, by name."""
        view = _seen(context, query)
        page, after = _page([LinkDocument.of(each) for each in view.links], query)
        return LinksDocument(**NetworkSummary.facts(view), links=page, next=after)

    @api.get("/links/<name>", LinkDocument, etag=True)
    def link(path: NamedLink, query: HowBusy) -> Tagged:
        """Return a link, whose name is that of its routers: ``r1--r2``."""
        view = _seen(context, query)
        return editing.shown(view, view.link(path.name).name)

    @api.put(
        "/links/<name>",
        LinkChanged,
        role=Role.OPERATOR,
        problems=(409, 412),
        others=ACCEPTED,
    )
    def put_link(path: NamedLink, body: LinkBody, header: Conditions) -> Begun:
        """Have a link like this, until the lab is applied again; what is left out stays."""
        return editing.begin("change", context.live.link_edit(path.name, body.wish()), header)

    @api.delete(
        "/links/<name>",
        LinkChanged,
        role=Role.OPERATOR,
        problems=(409, 412),
        others=ACCEPTED,
    )
    def delete_link(path: NamedLink, header: Conditions) -> Begun:
        """Remove a link, until the lab is applied again."""
        return editing.begin("remove", context.live.link_removal(path.name), header)

    @api.post(
        "/links/<name>/up",
        LinkChanged,
        role=Role.OPERATOR,
        problems=(409, 412),
        others=ACCEPTED,
    )
    def link_up(path: NamedLink, header: Conditions) -> Begun:
        """Let a link carry packets."""
        return editing.begin("up", context.live.link_switch(path.name, up=True), header)

    @api.post(
        "/links/<name>/down",
        LinkChanged,
        role=Role.OPERATOR,
        problems=(409, 412),
        others=ACCEPTED,
    )
    def link_down(path: NamedLink, header: Conditions) -> Begun:
        """Let a link carry nothing; packets take another way first, if there is one."""
        return editing.begin("down", context.live.link_switch(path.name, up=False), header)


def _add_apps(api: Api, context: Context) -> None:
    @api.get("/routers/<name>/apps", AppsDocument, problems=(409,))
    def apps(path: NamedNode) -> AppsDocument:
        """Return the programs on a router, or among clients."""
        return AppsDocument(apps=[AppDocument.of(each) for each in context.live.apps(path.name)])

    @api.post(
        "/routers/<name>/apps",
        AppDocument,
        role=Role.OPERATOR,
        problems=(409,),
        others={201: AppDocument},
    )
    def start_app(path: NamedNode, body: AppBody) -> tuple[AppDocument, int]:
        """Start a program on a router, or among clients, and return when it runs."""
        wish = body.root
        if isinstance(wish, ProgramBody) or wish.run in RUNS_ANYTHING:
            demand(Role.ADMIN)
        if isinstance(wish, ProgramBody):
            argv, rights = tuple(wish.argv), tuple(wish.rights)
            state = context.live.execute(path.name, wish.name, argv, rights)
        else:
            name = wish.name or wish.run
            state = context.live.start(path.name, name, wish.run, wish.parameters)
        return AppDocument.of(state), HTTPStatus.CREATED

    @api.get("/routers/<name>/apps/<app>", AppDocument, problems=(409,))
    def app(path: NamedApp) -> AppDocument:
        """Return a program."""
        return AppDocument.of(context.live.app(path.name, path.app))

    @api.delete("/routers/<name>/apps/<app>", AppRemoved, role=Role.OPERATOR, problems=(409,))
    def remove_app(path: NamedApp) -> AppRemoved:
        """End a program and forget it."""
        context.live.remove(path.name, path.app)
        return AppRemoved(removed=f"{path.name}/{path.app}")

    @api.post("/routers/<name>/apps/<app>/stop", AppDocument, role=Role.OPERATOR, problems=(409,))
    def stop_app(path: NamedApp) -> AppDocument:
        """End a program; its console and how it ended stay known."""
        return AppDocument.of(context.live.stop(path.name, path.app))

    @api.get("/routers/<name>/apps/<app>/console", Media("text/plain"), problems=(409,))
    def app_console(path: NamedApp) -> Response:
        """Return the last 64 KiB of what a program printed, as text."""
        text = context.live.console(path.name, path.app).decode(errors="replace")
        return Response(text, mimetype="text/plain")


def _seen(context: Context, asked: HowBusy) -> NetworkView:
    view = context.network_view()
    return view if asked.load else view.at_rest()


def _changed(view: NetworkView, done: Done) -> dict[str, Any]:
    """Return what is told of every change, given the network after it."""
    changes = NetworkChangesDocument.of(done)
    return {"changes": changes, "differs_from_lab": view.differs, "until": UNTIL}


def _page(known: Sequence[Named], page: WholePage) -> tuple[list[Named], str | None]:
    """Return a page of a list by name, and what to ask for the next one with."""
    rest = sorted((each for each in known if each.name > page.after), key=lambda each: each.name)
    more = len(rest) > page.limit
    return rest[: page.limit], rest[page.limit - 1].name if more else None
