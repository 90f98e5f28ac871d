"""A door over the small world of `tests.web`, without sockets."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from orchestrator.labfile import parse_lab
from orchestrator.model import DnsSettings, Lab
from orchestrator.store.memory import MemoryStore
from tests.world import World, a_host, a_service, an_image
from web.app import create_app
from web.door.access import Access
from web.door.app import create_door
from web.door.settings import DoorSettings
from web.door.tokens import Tokens
from web.door.upstream import Upstream
from web.roles import Role
from web.server import Server


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    return Tokens(tmp_path_factory.mktemp("tokens") / "tokens.json")


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


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, tokens: Tokens) -> Iterator[Path]:
    """Return the socket of a running API, over host a and service web."""
    folder = tmp_path_factory.mktemp("door")
    lab = Lab(
        name="t",
        dns=DnsSettings(zone="edge.test"),
        hosts=(a_host("a"),),
        images=(an_image(folder),),
        services=(a_service("web"),),
    )
    world = World(lab, MemoryStore())
    world.start()
    server = Server(create_app(world.control, load=parse_lab, tokens=tokens), folder / "s")
    server.start()
    yield server.path
    server.stop()
    world.control.close(end_guests=True)


@pytest.fixture
def settings(daemon: Path, tokens: Tokens) -> DoorSettings:
    return DoorSettings(daemon, tokens.path, lab="t")


@pytest.fixture
def door(settings: DoorSettings, access: Access) -> Flask:
    return create_door(Upstream(settings.socket), access, settings)


@pytest.fixture
def browser(door: Flask) -> FlaskClient:
    """Return a browser that nobody has logged in with."""
    return door.test_client()
