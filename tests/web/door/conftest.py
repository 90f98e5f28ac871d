"""A door over the small world of `tests.web`, without sockets."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from orchestrator.labfile import parse_lab
from tests.world import World
from web.app import create_app
from web.door.access import Access
from web.door.app import create_door
from web.door.settings import DoorSettings
from web.door.tokens import Tokens
from web.door.upstream import Upstream
from web.roles import Role
from web.server import Server

ORIGIN = "http://127.0.0.1:8480"


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path / "tokens.json")


@pytest.fixture
def noted() -> list[tuple[str, str, str]]:
    """Return what the audit log was told."""
    return []


@pytest.fixture
def access(tokens: Tokens, noted: list[tuple[str, str, str]]) -> Access:
    return Access(tokens, note=lambda *told: noted.append(told))


@pytest.fixture
def texts(tokens: Tokens) -> dict[Role, str]:
    """Return the text of a token for each role."""
    return {role: tokens.create(f"a {role}", role)[1] for role in Role}


@pytest.fixture
def daemon(world: World, tmp_path: Path, tokens: Tokens) -> Iterator[Path]:
    """Return the socket of a running API."""
    path = tmp_path / "control.sock"
    server = Server(create_app(world.control, load=parse_lab, tokens=tokens), path)
    server.start()
    yield path
    server.stop()


@pytest.fixture
def settings(daemon: Path, tokens: Tokens) -> DoorSettings:
    return DoorSettings(daemon, tokens.path, lab="t")


@pytest.fixture
def door(settings: DoorSettings, access: Access) -> Flask:
    return create_door(Upstream(settings.socket), access, settings)


@pytest.fixture
def browser(door: Flask) -> FlaskClient:
    """Return a browser that nobody has logged in with."""
    client = door.test_client()
    client.environ_base["HTTP_HOST"] = ORIGIN.removeprefix("http://")
    return client
