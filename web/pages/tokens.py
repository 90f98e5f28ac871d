"""The page of tokens: who may come in through the door. For admins."""

from flask import Blueprint, render_template

from web.pages.area import ROLES, Link, Upstream

LINKS = (Link("/tokens", "Tokens", least="admin"),)
DAY_S = 86400
LIFETIMES = ((1, "1 day"), (30, "30 days"), (90, "90 days"), (365, "1 year"))  # in days
MEANINGS = {
    "viewer": "looks",
    "operator": "also does things to what runs: wake, sleep, drain, move, plan",
    "admin": "also changes what is wanted, and who may come in",
}
SYMBOLS = {"valid": "done", "revoked": "refused", "expired": "off"}


def add(pages: Blueprint, upstream: Upstream) -> None:
    """Add the page."""

    @pages.get("/tokens")
    def tokens() -> str:
        every = upstream.get("/tokens")["tokens"]
        return render_template(
            "tokens.html",
            tokens=list(reversed(every)),
            roles=ROLES,
            meanings=MEANINGS,
            lifetimes=[(days * DAY_S, words) for days, words in LIFETIMES],
            symbols=SYMBOLS,
        )
