"""Placement: plans, Pareto fronts, and what hosts should keep warm.

Each begins an operation; its page is the address of that operation, so it can be come back to as
long as edgewake remembers it.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from flask import Blueprint, render_template, request

from web.client import ApiError
from web.pages import placement_words as words
from web.pages.area import Link, Upstream
from web.pages.front_chart import chart_of
from web.pages.placement_view import moves_between, moves_of, rows_of, terms_of, verdict

LINKS = (Link("/placement", "Placement"),)
KINDS = {"plan": "/placement", "front": "/placement/front", "warm": "/placement/warm"}
LISTED = 100

Document = Mapping[str, Any]


def add(pages: Blueprint, upstream: Upstream) -> None:
    """Add the pages of placement."""

    @pages.get("/placement")
    def placement() -> str:
        """Show a plan that was made, and make one."""
        asked = _asked(upstream)
        result = _result(asked)
        status = upstream.get("/status")
        return render_template(
            "placement.html",
            words=words,
            asked=asked,
            earlier=_earlier(upstream, "plan"),
            plan=result["plan"] if result else None,
            result=result,
            moves=moves_of(result["changes"]) if result else [],
            rows=rows_of(result["plan"], status) if result else [],
            terms=terms_of(result["plan"], result["now"]) if result else [],
            verdict=verdict(result["plan"]) if result else "",
            services=len(status["services"]),
        )

    @pages.get("/placement/front")
    def front() -> str:
        """Show a Pareto front that was found, and one of its plans."""
        asked = _asked(upstream)
        result = _result(asked)
        chosen = _chosen(result) if result else 0
        plan = result["plans"][chosen] if result and result["plans"] else None
        rows = rows_of(plan, upstream.get("/status")) if plan else []
        proposal, why_not = _proposal(upstream, asked, chosen) if asked and plan else (None, "")
        return render_template(
            "placement_front.html",
            words=words,
            asked=asked,
            earlier=_earlier(upstream, "front"),
            result=result,
            chart=chart_of(result) if result and plan else None,
            chosen=chosen,
            plan=plan,
            rows=rows,
            proposal=proposal,
            why_not=why_not,
            moves=moves_of(proposal["changes"]) if proposal else moves_between(rows),
            terms=terms_of(plan, proposal["now"] if proposal else None) if plan else [],
        )

    @pages.get("/placement/warm")
    def warm() -> str:
        """Show what hosts should keep warm."""
        asked = _asked(upstream)
        result = _result(asked)
        return render_template(
            "placement_warm.html",
            words=words,
            asked=asked,
            earlier=_earlier(upstream, "warm"),
            result=result,
            verdict=verdict(result) if result else "",
        )


def _asked(upstream: Upstream) -> Document | None:
    """Return the operation that the page is about; "gone" as its state if it is forgotten."""
    id_ = request.args.get("of", "")
    if not id_:
        return None
    try:
        operation: Document = upstream.get(f"/operations/{quote(id_, safe='')}")
    except ApiError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return {"id": id_, "state": "gone"}
    return operation


def _result(asked: Document | None) -> Document | None:
    """Return what an operation of this page's kind has found, if it has."""
    if asked is None or KINDS.get(asked.get("kind", "")) != request.path:
        return None
    result: Document | None = asked["result"]
    return result if asked["state"] == "done" else None


def _proposal(upstream: Upstream, asked: Document, number: int) -> tuple[Document | None, str]:
    """Return a plan of a front as a proposal for what runs now, or why there is none any more."""
    try:
        found: Document = upstream.get(f"/fronts/{quote(asked['id'], safe='')}/plans/{number}")
    except ApiError as error:
        if error.status not in {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}:
            raise
        return None, f"It cannot be applied any more: {error.message} ({error.hint})"
    return found, ""


def _earlier(upstream: Upstream, kind: str) -> list[Document]:
    """Return the last operations of a kind, newest first."""
    known = upstream.get(f"/operations?limit={LISTED}")["operations"]
    of_kind = [each for each in known if each["kind"] == kind]
    return sorted(of_kind, key=lambda each: each["asked_at"], reverse=True)


def _chosen(front: Document) -> int:
    """Return the number of the plan that is looked at: the knee unless the address says another."""
    number = request.args.get("plan", "", str)
    last = len(front["plans"]) - 1
    if number.isascii() and number.isdigit() and int(number[:6]) <= last:
        return int(number[:6])
    knee: int = front["knee"]
    return min(knee, max(last, 0))
