"""The pages of services: how they are and why; and one of them with all that can be done to it."""

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, render_template, request

from orchestrator.model import LADDER
from web.client import ApiError
from web.pages import wake_view
from web.pages.area import Link, Upstream
from web.pages.asking import path
from web.pages.plain_text import tail
from web.pages.service_view import asleep, costs, policies, remark, symbol

LINKS = (Link("/services", "Services"),)
LAST_WAKES = 10
RUNGS = tuple(str(rung) for rung in LADDER[1:])  # to which a service can be sent
STATES = ("awake", "asleep", "waking", "stopping", "trouble")
NO_CONSOLE = "No guest of this service has printed anything that is still kept."
Document = Mapping[str, Any]


def add(pages: Blueprint, upstream: Upstream) -> None:
    """Add the list, the page of one service, and its console as text."""

    @pages.get("/services")
    def services() -> str:
        status = upstream.get("/status")
        text, state = request.args.get("text", ""), request.args.get("state", "")
        every = status["services"]
        return render_template(
            "services.html",
            services=[each for each in every if _fits(each, text, state)],
            found=len(every),
            text=text,
            state=state,
            states=STATES,
            counts={word: sum(_fits(each, "", word) for each in every) for word in STATES},
            remark=remark,
            symbol=symbol,
        )

    @pages.get("/services/<name>")
    def service(name: str) -> str:
        found = upstream.get(path("services", name))
        return render_template(
            "service.html",
            service=found,
            here=set(found["where"]["hosts"]),
            wakes=list(reversed(found["last_wakes"]))[:LAST_WAKES],
            policies=policies(found["policy"]),
            costs=costs(found["cost"]),
            console=_console(upstream, name),
            rungs=RUNGS,
            remark=remark(found),
            symbol=symbol(found),
            asleep=asleep(found),
            view=wake_view,
        )

    @pages.get("/services/<name>/console")
    def console(name: str) -> Response:
        return Response(_console(upstream, name), content_type="text/plain; charset=utf-8")


def _fits(service: Document, text: str, state: str) -> bool:
    said = " ".join((service["name"], *service["names"], *service["images"], *_hosts(service)))
    is_so = service["trouble"] if state == "trouble" else state in {"", service["state"]}
    return bool(is_so) and text.lower() in said.lower()


def _hosts(service: Document) -> list[str]:
    return [instance["host"] for instance in service["instances"]]


def _console(upstream: Upstream, name: str) -> str:
    """Return the last lines that a service's guest printed, or why there are none."""
    try:
        return tail(upstream.text(path("services", name, "console"))) or NO_CONSOLE
    except ApiError as error:
        if error.status == 404:
            raise
        return f"The console cannot be read: {error.message}"
