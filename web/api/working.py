"""Answers to requests for long work: at once with its operation, or with the result if waited for.

Handlers check what they were asked for, so that a wrong request fails at once; then they `begin`
the work. Its operation is answered with 202, and where to look for it; with ``Prefer: wait=N`` the
result, or the problem, if it has ended by then.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from http import HTTPStatus
from typing import TypeVar

from flask import Response, json

from orchestrator.control import Orchestrator
from orchestrator.operations import Document as Plain
from orchestrator.operations import Job, Operation
from web.api.caller import caller
from web.api.operation import PREFIX, Answer
from web.models.base import Document
from web.models.operations import OperationDocument, Preferred

Value = TypeVar("Value")
Begun = Response | tuple[OperationDocument, int, Mapping[str, str]]

ACCEPTED: Mapping[int, Answer] = {HTTPStatus.ACCEPTED: OperationDocument}


def begin(
    control: Orchestrator,
    header: Preferred,
    kind: str,
    subject: str,
    work: Callable[[Job], Document],
    *,
    lane: str = "",
) -> Begun:
    """Begin work, in the name of the present caller, and answer; `lane` as `Operations` has it."""
    operation = control.operations.begin(
        kind, subject, caller().name, lambda job: _plain(work(job)), lane=lane
    )
    return _answer(control, header, operation)


def follow(
    control: Orchestrator,
    header: Preferred,
    kind: str,
    subject: str,
    future: Future[Value],
    *,
    result: Callable[[Value], Document],
) -> Begun:
    """Answer with what ends with a future; `result` makes a document of its value."""
    operation = control.operations.follow(
        *(kind, subject, caller().name, future), lambda value: _plain(result(value))
    )
    return _answer(control, header, operation)


def _plain(document: Document) -> Plain:
    """Return a document as its JSON says it: a number that is infinite is null there."""
    plain: Plain = json.loads(document.model_dump_json())
    return plain


def _answer(control: Orchestrator, header: Preferred, operation: Operation) -> Begun:
    """Answer with an operation, or what came of it. Raises its error if it was waited for."""
    if header.wait_s is not None:
        operation = control.operations.wait(operation.id, header.wait_s)
        if operation.error is not None:
            raise operation.error
        if operation.ended:
            answer = Response(json.dumps(operation.result), mimetype="application/json")
            answer.headers["Preference-Applied"] = f"wait={header.wait_s}"
            return answer
    where = {"Location": f"{PREFIX}/operations/{operation.id}"}
    return OperationDocument.of(operation), HTTPStatus.ACCEPTED, where
