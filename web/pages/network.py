"""The virtual network: routers, links between them, programs on them, and ways through it."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from flask import Blueprint, render_template, request

from web.client import ApiError
from web.pages.area import Link, Upstream
from web.pages.network_words import PROGRAMS

LINKS = (Link("/network", "Network"),)

Document = Mapping[str, Any]


def add(pages: Blueprint, upstream: Upstream) -> None:
    """Add the pages of the network."""

    @pages.get("/network")
    def network() -> str:
        """Show the whole network, and the ways between two places if they are asked for."""
        known = upstream.get("/network")
        return render_template(
            "network.html",
            network=known,
            apps=apps_of(known),
            ends=ends_of(known),
            asked=(request.args.get("from", ""), request.args.get("to", "")),
            ways=_ways(upstream),
            programs=PROGRAMS,
        )

    @pages.get("/network/<router>/<app>")
    def app_console(router: str, app: str) -> str:
        """Show a program, and what it printed last."""
        path = f"/routers/{quote(router, safe='')}/apps/{quote(app, safe='')}"
        return render_template(
            "network_app.html", app=upstream.get(path), console=upstream.text(f"{path}/console")
        )


def apps_of(network: Document) -> list[Document]:
    """Return the programs of all routers, those that run first."""
    apps = [app for router in network["routers"] for app in router["apps"]]
    return sorted(apps, key=lambda app: (not app["running"], app["router"], app["name"]))


def ends_of(network: Document) -> list[str]:
    """Return what ways can be asked for between: routers, and what hangs on them."""
    names = {router["name"] for router in network["routers"]}
    for router in network["routers"]:
        names |= {*router["hosts"], *router["populations"]}
    return sorted(names)


def _ways(upstream: Upstream) -> Document | None:
    """Return the ways that are asked for, or as `problem` why there are none."""
    start, end = request.args.get("from", ""), request.args.get("to", "")
    if not start or not end:
        return None
    try:
        ways: Document = upstream.get("/paths?" + urlencode({"from": start, "to": end}))
    except ApiError as error:
        return {"problem": error.message, "hint": error.hint}
    return ways
