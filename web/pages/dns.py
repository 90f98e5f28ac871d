"""The page of the DNS log: who asked for what, what they were told, and how fast."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, render_template, request

from web.loopback import reached_at
from web.pages.area import Link, Upstream
from web.pages.asking import path
from web.pages.drawing import Column, columns

LINKS = (Link("/dns", "DNS"),)
READ = 1000  # queries among which is chosen
LISTED = 200  # rows on the page
CHARTED_S = 60  # seconds of the chart, a column each
OUTCOMES = ("warm", "cold", "refused", "limited", "forwarded", "dropped", "malformed")
# The symbol (of templates/_icons.html) of each outcome.
SYMBOLS = {
    "warm": "ready",
    "cold": "cold",
    "refused": "refused",
    "limited": "refused",
    "forwarded": "migrating",
    "dropped": "lost",
    "malformed": "failed",
}
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which queries are listed; empty means all. `text` is looked for in names and clients."""

    text: str = ""
    outcome: str = ""
    rcode: str = ""

    @property
    def any(self) -> bool:
        """Whether anything is chosen at all."""
        return bool(self.text or self.outcome or self.rcode)

    def has(self, query: Document) -> bool:
        """Say whether a query is one of them."""
        return (
            self.text.lower() in f"{query['name']} {query['client']}".lower()
            and self.outcome in {"", query["outcome"]}
            and self.rcode in {"", query["rcode"]}
        )


def add(pages: Blueprint, upstream: Upstream) -> None:
    """Add the page."""

    @pages.get("/dns")
    def dns() -> str:
        chosen = Chosen(**{key: request.args.get(key, "") for key in Chosen.__slots__})
        answer = upstream.get(path("queries", limit=READ))
        summary = upstream.get("/queries/summary")
        every = sorted(answer["queries"], key=lambda query: float(query["at"]), reverse=True)
        fitting = [query for query in every if chosen.has(query)]
        status = upstream.get("/status")
        services = status["services"]
        return render_template(
            "dns.html",
            chosen=chosen,
            queries=fitting[:LISTED],
            listed=LISTED,
            log=answer["log"],
            sampled=any(query["of"] > 1 for query in every),
            windows=summary["windows"],
            outcomes=OUTCOMES,
            rcodes=sorted({query["rcode"] for query in every} - {""}),
            chart=chart(every),
            charted_s=CHARTED_S,
            name=next((each["names"][0] for each in services if each["names"]), ""),
            dig=dig(status["dns"]),
            symbols=SYMBOLS,
        )


def dig(dns: str) -> str:
    """Return the beginning of a command that asks the DNS server at an address and port."""
    address, _, port = dns.rpartition(":")
    return f"dig @{reached_at(address)} -p {port}"


def chart(queries: Sequence[Document]) -> tuple[Column, ...]:
    """Return how many queries there were in each of the seconds up to the last one."""
    if not queries:
        return ()
    end = int(max(query["at"] for query in queries))
    return columns(_per_second(queries, end))


def _per_second(queries: Iterable[Document], end: int) -> list[float]:
    counted = [0.0] * CHARTED_S
    for query in queries:
        ago = end - int(query["at"])
        if ago < CHARTED_S:
            counted[CHARTED_S - 1 - ago] += query["of"]
    return counted
