"""A small world behind the HTTP door: hosts in memory, and the application over them."""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from orchestrator.labfile import parse_lab
from orchestrator.model import DnsSettings, Lab, Link, Population, Router
from orchestrator.store.memory import MemoryStore
from tests.world import World, a_host, a_service, an_image
from web.app import create_app

LAB = """\
name: t
zone: edge.test
hosts:
  a:
    uri: memory:///
    capacity: {cpu: 64, memory: 1 GiB}
    network:
      name: net-a
      create: true
      bridge: neta
      subnet: 10.9.0.0/24
      gateway: 10.9.0.1
      pool: 10.9.0.10-10.9.0.200
images:
  tiny: {family: linux, kernel: vmlinuz, initrd: initrd}
services:
  web:
    names: [web]
    image: tiny
    resources: {cpu: 0.1, memory: 100 MiB}
    ready: {tcp: 80}
"""


def a_lab(folder: Path) -> Lab:
    """Return a lab of hosts a and b, services web, other (no image) and huge."""
    image = an_image(folder)
    return Lab(
        name="t",
        dns=DnsSettings(zone="edge.test"),
        hosts=(replace(a_host("a"), router="r1"), replace(a_host("b", 1), router="r2")),
        routers=(Router("r1"), Router("r2")),
        links=(Link("r1", "r2", latency_ms=50.0, bandwidth_mbps=100.0),),
        populations=(
            Population("near-a", (ip_network("192.0.2.0/24"),), "r1", requests_s=1.0),
            Population("near-b", (ip_network("192.0.2.128/25"),), "r2", requests_s=10.0),
        ),
        images=(image, replace(image, name="gone", kernel=folder / "gone")),
        services=(
            a_service("web"),
            a_service("other", images=("gone",)),
            a_service("huge", resources=replace(a_service("x").resources, memory_mib=1000)),
        ),
    )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return a running edgewake over that lab."""
    world = World(a_lab(tmp_path), MemoryStore())
    world.start()
    yield world
    world.control.close(end_guests=True)


@pytest.fixture
def http(world: World) -> FlaskClient:
    """Return a client of the application that waits for what takes long, as the CLI does."""
    client = create_app(world.control, load=parse_lab).test_client()
    client.environ_base["HTTP_PREFER"] = "wait=30"
    return client


@pytest.fixture
def lab_text() -> str:
    """Return a lab file that has host a and service web, and nothing else."""
    return LAB
