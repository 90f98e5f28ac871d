"""The pages of hosts: what they have, what is used of it and what that draws; and emptying one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, render_template

from orchestrator.journal import TROUBLE
from web.pages import wake_view
from web.pages.area import Link, Upstream
from web.pages.asking import path

LINKS = (Link("/hosts", "Hosts"),)
LAST_WAKES = 10
READ_WAKES = 300  # in which those on one host are looked for
LAST_EVENTS = 15
READ_EVENTS = 200
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Room:
    """How much of one thing a host has, in cores or MiB.

    `used` is promised to what is placed there, of `usable`; `held` is kept back from guests by the
    lab file; `said_free` is what the host itself says is free, None if it does not.
    """

    name: str
    used: float
    usable: float
    held: float
    said_free: float | None

    @property
    def share(self) -> float:
        """How much of the usable is used, from 0 to 1."""
        return self.used / self.usable if self.usable else 0.0


def add(pages: Blueprint, upstream: Upstream) -> None:
    """Add the list and the page of one host."""

    @pages.get("/hosts")
    def hosts() -> str:
        every = [_shown(host) for host in upstream.get("/hosts")["hosts"]]
        return render_template("hosts.html", hosts=every, watts=_watts(every))

    @pages.get("/hosts/<name>")
    def host(name: str) -> str:
        found = upstream.get(path("hosts", name))
        wakes = upstream.get(path("wakes", limit=READ_WAKES))["wakes"]
        events = upstream.get(path("events", limit=READ_EVENTS))["events"]
        return render_template(
            "host.html",
            host=_shown(found),
            wakes=[wake for wake in reversed(wakes) if wake["host"] == name][:LAST_WAKES],
            events=_about(events, name),
            view=wake_view,
            trouble=TROUBLE,
        )


def _shown(host: Document) -> dict[str, Any]:
    """Return a host's document with what its page shows beside it."""
    return {**host, "state": state_of(host), "rooms": rooms(host)}


def _watts(hosts: Iterable[Document]) -> float | None:
    """Return what all hosts draw together now; None if no lab file says it of any."""
    known = [host["power"]["now_w"] for host in hosts if host["power"]]
    return sum(each for each in known if each is not None) if known else None


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
        Room(name, host["used"][key], host["usable"][key], host["reserve"][key], free.get(key))
        for name, key in (("cores", "cpu"), ("memory", "memory_mib"))
    )


def _about(events: Sequence[Document], name: str) -> list[Document]:
    about = [e for e in reversed(events) if name in {e["subject"], e["data"].get("host")}]
    return about[:LAST_EVENTS]
