"""The pages of hosts: what they have, what is used of it, and emptying one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, render_template

from orchestrator.journal import TROUBLE
from web.client import ApiError
from web.pages import wake_view
from web.pages.area import Link, Upstream
from web.pages.asking import path

LINKS = (Link("/hosts", "Hosts"),)
LAST_WAKES = 10
LAST_EVENTS = 15
READ_EVENTS = 500  # in which those about one host are looked for
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Room:
    """How much of one thing a host has: `used` by what is placed there, of `usable`.

    `said_free` is what the host itself says is free, None if it does not; shares are of `usable`.
    """

    name: str
    used: float
    usable: float
    said_free: float | None

    @property
    def share(self) -> float:
        """How much is used, from 0 to 1."""
        return self.used / self.usable if self.usable else 0.0


def add(pages: Blueprint, upstream: Upstream) -> None:
    """Add the list and the page of one host."""

    @pages.get("/hosts")
    def hosts() -> str:
        status = upstream.get("/status")
        return render_template(
            "hosts.html",
            hosts=[_shown(host, status["services"]) for host in status["hosts"]],
        )

    @pages.get("/hosts/<name>")
    def host(name: str) -> str:
        status = upstream.get("/status")
        found = next((each for each in status["hosts"] if each["name"] == name), None)
        if found is None:
            raise _unknown(name)
        wakes = upstream.get(path("wakes", limit=1000))["wakes"]
        events = upstream.get(path("events", limit=READ_EVENTS))["events"]
        return render_template(
            "host.html",
            host=_shown(found, status["services"]),
            more=(),
            wakes=[wake for wake in reversed(wakes) if wake["host"] == name][:LAST_WAKES],
            events=_about(events, name),
            view=wake_view,
            trouble=TROUBLE,
        )


def _unknown(name: str) -> ApiError:
    return ApiError(
        404,
        {"detail": f"{name}: no such host", "hint": "the page of hosts lists those of the lab"},
    )


def _shown(host: Document, services: Iterable[Document]) -> dict[str, Any]:
    """Return a host's document with what its page shows beside it."""
    here = [
        {**instance, "trouble": service["trouble"]}
        for service in services
        for instance in service["instances"]
        if host["name"] in {instance["host"], instance["to"]}
    ]
    return {**host, "state": state_of(host), "rooms": rooms(host), "instances": here}


def state_of(host: Document) -> str:
    """Return a host's state as one word, the symbol's name."""
    if not host["reachable"]:
        return "lost"
    if host["refused"]:
        return "refused"
    return str(host["drain"]["state"]) if host["drain"] else "reachable"


def rooms(host: Document) -> tuple[Room, ...]:
    """Return a host's processors and memory."""
    free = host["free"] or {}
    return tuple(
        Room(name, host["used"][key], host["usable"][key], free.get(key))
        for name, key in (("cores", "cpu"), ("memory", "memory_mib"))
    )


def _about(events: Sequence[Document], name: str) -> list[Document]:
    about = [e for e in reversed(events) if name in {e["subject"], e["data"].get("host")}]
    return about[:LAST_EVENTS]
