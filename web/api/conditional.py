"""Versions of documents: send, or change, only what is as whoever asks thinks (RFC 9110, 13).

A document whose figures change by themselves, such as a link's load, has an ETag in two parts: the
`mark` of what people change of it, and the rest. A change is refused over the first part only.
"""

import hashlib
from dataclasses import dataclass
from typing import Self

from flask import Request, Response
from werkzeug.datastructures import ETags

from orchestrator.errors import Outdated
from web import problems

MARK_LENGTH = 16
_BETWEEN = "-"


def tag_of(content: bytes) -> str:
    """Return the name of a version, by what it holds."""
    return hashlib.sha256(content).hexdigest()[:32]


def mark_of(version: str) -> str:
    """Return the first part of an ETag, given all that people change as text; empty for none."""
    return tag_of(version.encode())[:MARK_LENGTH] if version else ""


def marked_tag(mark: str, content: bytes) -> str:
    """Return the ETag of a document; `mark` is empty where all of it is what people change."""
    return f"{mark}{_BETWEEN}{tag_of(content)}" if mark else tag_of(content)


def marked(answer: Response, asked: Request) -> Response:
    """Return an answer with its ETag; no more than a 304 if whoever asks has it already.

    An answer that has one has its mark there.
    """
    mark, _ = answer.get_etag()
    answer.set_etag(marked_tag(mark or "", answer.get_data()))
    answer.headers["Cache-Control"] = "no-cache"  # kept, but asked for each time
    answer.make_conditional(asked)
    return answer


@dataclass(frozen=True, slots=True)
class Condition:
    """Of which versions of a thing a request is meant, by its headers."""

    match: ETags
    none_match: ETags

    @classmethod
    def of(cls, asked: Request) -> Self:
        """Return what a request says."""
        return cls(asked.if_match, asked.if_none_match)

    def __bool__(self) -> bool:
        """Whether it is not meant of all versions."""
        return bool(self.match or self.none_match)

    def met_by(self, mark: str) -> bool:
        """Return whether it is meant for the thing with this mark; empty: there is none.

        Of a document that has no mark, it is its whole ETag.
        """
        if self.match and not _names(self.match, mark):
            return False
        return not _names(self.none_match, mark)


def outdated(error: Outdated, tag: str) -> Response:
    """Return the refusal of a change with the ETag of what there is; empty: there is nothing."""
    answer = problems.response(problems.problem(error))
    if tag:
        answer.set_etag(tag)
    return answer


def _names(tags: ETags, mark: str) -> bool:
    return bool(mark) and (tags.star_tag or any(_mark(tag) == mark for tag in tags))


def _mark(tag: str) -> str:
    """Return the first part of an ETag in two; all of another."""
    return tag[:MARK_LENGTH] if tag[MARK_LENGTH:].startswith(_BETWEEN) else tag
