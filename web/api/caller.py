"""Who asks: what the door says of somebody it let in, else whoever may open the socket."""

from http import HTTPStatus

from flask import request

from web.problems import HttpProblem
from web.roles import ACTOR_HEADER, LOCAL_ACTOR, ROLE_HEADER, Caller, Role


def caller() -> Caller:
    """Return who asks in the present request. Raises a 403 for a role that we do not know."""
    actor = request.headers.get(ACTOR_HEADER, LOCAL_ACTOR)
    written = request.headers.get(ROLE_HEADER)
    if written is None:
        return Caller(actor, Role.ADMIN)
    if written not in set(Role):
        known = ", ".join(Role)
        raise HttpProblem(
            HTTPStatus.FORBIDDEN, f"there is no role {written!r}", hint=f"known: {known}"
        )
    return Caller(actor, Role(written))


def demand(least: Role) -> None:
    """Refuse the present request, with a 403, unless its caller's role covers `least`."""
    who = caller()
    if not who.role.covers(least):
        raise HttpProblem(
            HTTPStatus.FORBIDDEN,
            f"{who.name} is {who.role}; this takes {least}",
            hint=f"ask an admin for a token of role {least} (edgewake token create)",
        )
