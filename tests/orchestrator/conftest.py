"""Fixtures for tests of control: worlds in memory."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from images.bootspec import Image
from orchestrator.control import ControlSettings
from orchestrator.model import DnsSettings, Host, Lab, Service
from orchestrator.store.base import Store
from orchestrator.store.memory import MemoryStore
from tests.world import World, a_host, a_service, an_image


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """Return an image that the linux family takes."""
    return an_image(tmp_path)


@pytest.fixture
def make_world(image: Image) -> Iterator[Callable[..., World]]:
    """Return a maker of worlds: services and hosts in, a started `World` out."""
    worlds: list[World] = []

    def make(
        *services: Service,
        hosts: Sequence[Host] = (),
        store: Store | None = None,
        start: bool = True,
        boot_s: float = 0.0,
        **settings: object,
    ) -> World:
        lab = Lab(
            name="t",
            dns=DnsSettings(zone="edge.test"),
            hosts=tuple(hosts) or (a_host("a"),),
            images=(image,),
            services=services or (a_service("web"),),
        )
        world = World(lab, store or MemoryStore(), boot_s=boot_s)
        if settings:
            world.settings = ControlSettings(**{"sweep_s": 3600, **settings})  # type: ignore[arg-type]
        worlds.append(world)
        if start:
            world.start()
        return world

    yield make
    for world in worlds:
        if hasattr(world, "control"):
            world.control.close(end_guests=True)
            assert world.guests() == []
