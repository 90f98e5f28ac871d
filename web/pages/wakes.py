"""The pages of wakes: which there were, how long they took and why some failed; and each of them.

`wake_view` says how a wake is drawn; `static/js/wakes.js` adds to the list as wakes happen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, render_template, request

from orchestrator.journal import TROUBLE
from web.pages import wake_view
from web.pages.area import Link, Upstream
from web.pages.asking import path

LINKS = (Link("/wakes", "Wakes"),)
LISTED = 100  # rows on the page
READ = 1000  # wakes among which is chosen: all that the daemon keeps
READ_EVENTS = 200
AROUND_S = 5.0  # events so long before and after a wake are shown beside it
COUNTS = ("cold", "saved", "paused", "pooled", "warm", "failed", "under_way")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which wakes are listed; empty means all."""

    service: str = ""
    host: str = ""
    outcome: str = ""

    @property
    def any(self) -> bool:
        """Whether anything is chosen at all."""
        return bool(self.service or self.host or self.outcome)

    def has(self, wake: Mapping[str, Any]) -> bool:
        """Say whether a wake is one of them."""
        return (
            self.service in {"", wake["service"]}
            and self.host in {"", wake["host"]}
            and self.outcome in {"", wake_view.kind_of(wake)}
        )


def add(pages: Blueprint, upstream: Upstream) -> None:
    """Add the list and the page of one wake."""

    @pages.get("/wakes")
    def wakes() -> str:
        chosen = Chosen(**{key: request.args.get(key, "") for key in Chosen.__slots__})
        last = upstream.get(path("wakes", limit=READ if chosen.any else LISTED))["wakes"]
        summary = upstream.get("/wakes/summary")
        status = upstream.get("/status")
        fitting = [wake for wake in reversed(last) if chosen.has(wake)]
        return render_template(
            "wakes.html",
            chosen=chosen,
            wakes=fitting[:LISTED],
            found=len(fitting) if chosen.any else summary["all"]["wakes"],
            listed=LISTED,
            summary=summary,
            counts={kind: summary["all"]["counts"][kind] for kind in COUNTS},
            services=[service["name"] for service in status["services"]],
            hosts=[host["name"] for host in status["hosts"]],
            view=wake_view,
        )

    @pages.get("/wakes/<int:number>")
    def wake(number: int) -> str:
        document = upstream.get(path("wakes", str(number)))
        events = upstream.get(path("events", limit=READ_EVENTS))["events"]
        return render_template(
            "wake.html",
            wake=document,
            steps=wake_view.steps(document),
            shares=wake_view.shares(document),
            events=[event for event in events if _about(document, event)],
            view=wake_view,
            trouble=TROUBLE,
        )


def _about(wake: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    """Say whether an event belongs to a wake: by its number, or by subject and time."""
    if number := event["data"].get("wake"):
        return bool(number == str(wake["id"]))
    begun = wake["started_at"] - AROUND_S
    return event["subject"] in {wake["service"], wake["instance"]} and (
        begun <= event["at"] <= wake["started_at"] + wake["total_s"] + AROUND_S
    )
