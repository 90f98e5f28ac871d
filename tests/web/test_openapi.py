"""The API against its own OpenAPI document: Schemathesis asks all that it allows, and does not.

All its checks are on. The application is the real one over hosts in memory and a store in a file;
before it stands what the door does as far as the document tells of it: it asks for a token.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy  # noqa: F401, ICN001 - Hypothesis stumbles when a plan begins to import it
import pytest
import schemathesis
from flask import Flask
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import from_schema
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished
from schemathesis.specs.openapi.schemas import OpenApiSchema
from schemathesis.transport.wsgi import WSGITransport

from orchestrator.labfile import parse_lab
from orchestrator.store.sql import SqlStore
from tests.web.conftest import LAB, a_lab
from tests.world import World
from web import problems
from web.app import create_app
from web.door.tokens import Tokens

TOKEN = "Bearer let-me-in"  # noqa: S105 - nobody else's
ACCEPTED = ["2xx", "3xx", "401", "403", "404", "409", "412", "503"]
# What they take obeys more than a schema says: a network, a lab file, the parameters of a program,
# what goes with what.
MORE_THAN_A_SCHEMA = (
    "GET /api/v1/queries",
    "PUT /api/v1/lab",
    "POST /api/v1/plans",
    "POST /api/v1/routers/{name}/apps",
)
CONFIG = {
    "seed": 8,
    "headers": {"Authorization": TOKEN},
    "generation": {"max-examples": 5, "deterministic": True, "database": "none"},
    "phases": {"stateful": {"max-steps": 4}},
    "checks": {
        "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503"]},
        "positive_data_acceptance": {"expected-statuses": ACCEPTED},
    },
    "operations": [
        {
            "include-name": name,
            "checks": {"positive_data_acceptance": {"expected-statuses": [*ACCEPTED, "422"]}},
        }
        for name in MORE_THAN_A_SCHEMA
    ],
}

THERE: dict[str, tuple[str | int, ...]] = {
    "hosts": ("a", "b"),
    "images": ("tiny", "gone"),
    "instances": ("ew-t-web-0",),
    "links": ("r1--r2",),
    "routers": ("r1",),
    "services": ("web", "other", "huge"),
    "wakes": (1,),
}
LAB_PATH = "/etc/edgewake/lab.yaml"
OF_SOCKETS = frozenset({"max_redirects", "verify", "cert", "proxies"})
Start = Callable[..., Any]


class Door:
    """Lets in who has the token."""

    def __init__(self, app: Flask) -> None:
        self.app = app

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        if environ.get("HTTP_AUTHORIZATION") == TOKEN:
            return self.app(environ, start)
        with self.app.app_context():
            refusal = problems.plain_problem(problems.HTTPStatus.UNAUTHORIZED, "who are you?")
            response = problems.response(refusal)
        response.headers["WWW-Authenticate"] = "Bearer"
        return response(environ, start)


def _name_what_is_there(told: dict[str, Any]) -> None:
    """Add examples of what paths name, so that not all requests are for nothing."""
    for path, methods in told["paths"].items():
        names = THERE.get(path.removeprefix("/api/v1/").partition("/")[0], ())
        for method, operation in methods.items():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path" and names and method != "delete":
                    parameter["examples"] = {str(name): {"value": name} for name in names}


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenApiSchema]:
    """Return the document of a running edgewake."""
    folder: Path = tmp_path_factory.mktemp("openapi")
    store = SqlStore(f"sqlite:///{folder}/state.db")
    world = World(a_lab(folder), store)
    world.start()
    world.control.apply(world.lab, text=LAB, path=LAB_PATH)
    app = create_app(world.control, load=parse_lab, tokens=Tokens(folder / "tokens.json"))
    world.control.feed.close()  # so that streams end
    told = app.test_client().get("/api/v1/openapi.json").get_json()
    _name_what_is_there(told)
    schema = schemathesis.openapi.from_dict(told, config=SchemathesisConfig.from_dict(CONFIG))
    schema.app = Door(app)
    yield schema
    world.control.close(end_guests=True)
    store.close()


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep Schemathesis from passing a WSGI application what only sockets know (seen in 4.32)."""
    send = WSGITransport.send

    def sent(self: WSGITransport, case: schemathesis.Case, **kwargs: Any) -> Any:
        known = {name: kwargs[name] for name in kwargs if name not in OF_SOCKETS}
        return send(self, case, **known)

    monkeypatch.setattr(WSGITransport, "send", sent)


def _failures(described: OpenApiSchema) -> Iterator[str]:
    """Yield what each failed check says, with the request that shows it."""
    for event in from_schema(described).execute():
        if isinstance(event, FatalError):
            raise event.exception
        if isinstance(event, NonFatalError):
            yield f"{event.label}: {event.value!r}"
        if isinstance(event, ScenarioFinished):
            for nodes in event.recorder.checks.values():
                for node in nodes:
                    if node.failure_info is not None:
                        told = node.failure_info
                        yield f"{event.recorder.label}: {told.failure}\n  {told.code_sample}"


@pytest.mark.usefixtures("in_process")
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")
def test_every_operation_does_what_the_document_says(described: OpenApiSchema) -> None:
    failures = list(dict.fromkeys(_failures(described)))
    assert not failures, "\n\n".join(failures)
