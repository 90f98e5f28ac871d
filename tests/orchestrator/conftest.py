"""Fixtures for tests of control: worlds in memory."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from images.bootspec import Image
from orchestrator.control import ControlSettings
from orchestrator.model import DnsSettings, Host, Lab, Service
from orchestrator.store.base import Store
from orchestrator.store.memory import MemoryStore
from tests.world import World, a_host, a_service


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """Return an image that the linux family takes: the right magic, and nothing else."""
    kernel, initrd = tmp_path / "vmlinuz", tmp_path / "initrd.gz"
    header = bytearray(0x300)
    header[0x202:0x206] = b"HdrS"
    header[0x206:0x208] = (0x020F).to_bytes(2, "little")
    kernel.write_bytes(bytes(header))
    initrd.write_bytes(bytes.fromhex("1f8b08000000000000030300000000000000000000"))
    return Image(name="tiny", family="linux", kernel=kernel, initrd=initrd)


@pytest.fixture
def make_world(image: Image) -> Iterator[Callable[..., World]]:
    """Return a maker of worlds: services and hosts in, a started `World` out."""
    worlds: list[World] = []

    def make(
        *services: Service,
        hosts: Sequence[Host] = (),
        store: Store | None = None,
        start: bool = True,
        **settings: object,
    ) -> World:
        lab = Lab(
            name="t",
            dns=DnsSettings(zone="edge.test"),
            hosts=tuple(hosts) or (a_host("a"),),
            images=(image,),
            services=services or (a_service("web"),),
        )
        world = World(lab, store or MemoryStore())
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
