"""Versions of documents: send only what has changed, change only what was seen (RFC 9110, 13)."""

import hashlib
from http import HTTPStatus

from flask import Request, Response, request

from web.problems import HttpProblem


def tag_of(content: bytes) -> str:
    """Return the name of a version, by what it holds."""
    return hashlib.sha256(content).hexdigest()[:32]


def marked(answer: Response, asked: Request) -> Response:
    """Return an answer with its ETag; no more than a 304 if whoever asks has it already."""
    answer.set_etag(tag_of(answer.get_data()))
    answer.headers["Cache-Control"] = "no-cache"  # kept, but asked for each time
    answer.make_conditional(asked)
    return answer


def demand_match(tag: str) -> None:
    """Refuse the present request, with a 412, if it has an `If-Match` that does not name `tag`."""
    if request.if_match and not request.if_match.contains(tag):
        raise HttpProblem(
            HTTPStatus.PRECONDITION_FAILED,
            "it was changed since you read it",
            hint="read it again, make your change to what is there now, and send that",
        )
