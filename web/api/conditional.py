"""Versions of documents: send only what has changed (RFC 9110, 13)."""

import hashlib

from flask import Request, Response


def tag_of(content: bytes) -> str:
    """Return the name of a version, by what it holds."""
    return hashlib.sha256(content).hexdigest()[:32]


def marked(answer: Response, asked: Request) -> Response:
    """Return an answer with its ETag; no more than a 304 if whoever asks has it already."""
    answer.set_etag(tag_of(answer.get_data()))
    answer.headers["Cache-Control"] = "no-cache"  # kept, but asked for each time
    answer.make_conditional(asked)
    return answer
