"""What was changed, and who asked for it.

Every request that may change something becomes a line of the audit log, and so does every one that
was forbidden: who, in which role, what, and the status it was answered with; never its body.
"""

from http import HTTPStatus

from flask import Response, request

from orchestrator.control import Orchestrator
from orchestrator.journal import AUDIT
from web.api.caller import caller
from web.api.context import Context
from web.api.operation import PREFIX, Api
from web.models.base import NumberedPage
from web.models.changes import (
    AuditDocument,
    AuditsDocument,
    ChangesDocument,
    LastChanges,
)
from web.problems import HttpProblem
from web.roles import ACTOR_HEADER, LOCAL_ACTOR

LOOKING = frozenset({"GET", "HEAD", "OPTIONS"})
AUDITED = (AUDIT, "login", "login-failed", "refused")  # the door's kinds beside our own
LONGEST = 200  # characters of a path or a name


def add(api: Api, context: Context) -> None:
    """Add what is told of changes, and note every request for one."""
    control = context.control

    @api.get("/changes", LastChanges)
    def last_changes(query: NumberedPage) -> LastChanges:
        """Return the last lists of changes, carried out or proposed, oldest first."""
        found = control.change_log.last(query.limit + 1, query.before)
        page = [ChangesDocument.of(each) for each in found[-query.limit :]]
        more = len(found) > len(page)
        return LastChanges(changes=page, next=str(page[0].number) if more else None)

    @api.get("/audit", AuditsDocument)
    def audit_log(query: NumberedPage) -> AuditsDocument:
        """Return who asked for what, oldest first."""
        found = control.events(query.limit + 1, kinds=AUDITED, before=query.before)
        page = [AuditDocument.of(each) for each in found[-query.limit :]]
        more = len(found) > len(page)
        return AuditsDocument(audit=page, next=str(page[0].number) if more else None)

    @api.blueprint.after_request
    def note(answer: Response) -> Response:
        if request.method not in LOOKING or answer.status_code == HTTPStatus.FORBIDDEN:
            _note(control, answer.status_code)
        return answer


def _note(control: Orchestrator, status: int) -> None:
    try:
        who = caller()
        name, role = who.name, str(who.role)
    except HttpProblem:  # a role that we do not know
        name, role = request.headers.get(ACTOR_HEADER, LOCAL_ACTOR), ""
    asked = f"{request.method} {request.path.removeprefix(PREFIX)}"
    control.audit(_shown(name), role, _shown(asked), status)


def _shown(text: str) -> str:
    """Return a text on one line, and not for ever."""
    return "".join(each if each.isprintable() else "\ufffd" for each in text[:LONGEST])
