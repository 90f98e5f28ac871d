"""Counts what the API answers, by route, method and class of status; for Prometheus.

A route is a rule of the API, such as ``/api/v1/services/<name>``, never what somebody asked for.
"""

import threading
from collections import Counter
from collections.abc import Mapping

from flask import Flask, Response, request

from orchestrator.metrics import Labels

NO_ROUTE = "none"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


class AnswerCounts:
    """Counts the answers of the applications that it watches. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: Counter[Labels] = Counter()

    def watched(self, app: Flask) -> Flask:
        """Return an application, whose answers are counted from now on."""
        app.after_request(self._note)
        return app

    def counts(self) -> Mapping[Labels, int]:
        """Return what was counted."""
        with self._lock:
            return dict(self._answers)

    def _note(self, response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else NO_ROUTE
        method = request.method if request.method in METHODS else "other"
        status = f"{response.status_code // 100}xx"
        with self._lock:
            self._answers[("route", route), ("method", method), ("code", status)] += 1
        return response
