"""Copies by load on real parts: a guest that is kept busy gets a second one, for as long as it is.

Two hosts on one libvirt, with networks of their own. The load is one client that asks for a page at
a time, with a pause between.
"""

import os
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from orchestrator.state_dir import StateDir
from tests.end_to_end.conftest import Edgewake, virsh

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

PORT = 5487
PAUSE_S = 0.02
LAB = f"""
name: scale
zone: e2e.test
dns: {{listen: 127.0.0.1:{PORT}}}
hosts:
  one:
    uri: qemu:///system
    capacity: {{cpu: 1, memory: 256 MiB}}
    network:
      {{name: ewscale-1, subnet: 10.213.87.0/24, gateway: 10.213.87.1, create: true, bridge: ewsc1,
       pool: 10.213.87.10-10.213.87.20}}
  two:
    uri: qemu:///system
    capacity: {{cpu: 1, memory: 256 MiB}}
    network:
      {{name: ewscale-2, subnet: 10.213.88.0/24, gateway: 10.213.88.1, create: true, bridge: ewsc2,
       pool: 10.213.88.10-10.213.88.20}}
images:
  sample:
    family: linux
    kernel: built:linux-microvm/kernel
    initrd: built:linux-microvm/initrd
services:
  web:
    image: sample
    resources: {{cpu: 0.25, memory: 96 MiB}}
    ready: {{http: {{path: /healthz}}}}
    deadline: 30 s
    ttl: 1 s
    idle: never
    scale: {{most: 2, cpu: 60 %, out_after: 3 s, in_after: 6 s}}
"""


@pytest.fixture
def edgewake(sample_images: Path) -> Iterator[Edgewake]:
    folder = Path(f"/var/lib/edgewake-tests/scale-{os.getpid()}")
    StateDir.open(folder).close()
    (folder / "images" / "linux-microvm").symlink_to(sample_images)
    lab = folder / "lab.yaml"
    lab.write_text(LAB)
    edgewake = Edgewake(folder, lab, PORT)
    edgewake.start()
    yield edgewake
    edgewake.clean()
    assert "ew-scale-" not in virsh("list", "--all", "--name")
    assert "ewscale-" not in virsh("net-list", "--all", "--name")


@contextmanager
def busy(address: str) -> Iterator[None]:
    """Keep a guest busy in the block, by one client."""
    done = threading.Event()

    def ask() -> None:
        while not done.wait(PAUSE_S):
            with suppress(OSError), urllib.request.urlopen(f"http://{address}/", timeout=5) as page:
                page.read()

    client = threading.Thread(target=ask)
    client.start()
    try:
        yield
    finally:
        done.set()
        client.join()


def status(edgewake: Edgewake) -> dict[str, Any]:
    (service,) = edgewake.client.get("/status")["services"]
    return dict(service)


def test_a_busy_guest_gets_a_second_one_until_it_is_calm(edgewake: Edgewake) -> None:
    (address,) = edgewake.ask("web").addresses
    with busy(address):
        edgewake.wait_until(lambda: status(edgewake)["copies"]["has"] == 2, 60)
        assert status(edgewake)["copies"]["wanted"] == 2
        spread = edgewake.ask("web").addresses
        assert address in spread
        assert {each.rpartition(".")[0] for each in spread} == {"10.213.87", "10.213.88"}
        for each in spread:
            with urllib.request.urlopen(f"http://{each}/healthz", timeout=10) as page:
                assert page.status == 200
    edgewake.wait_until(lambda: status(edgewake)["copies"]["has"] == 1, 60)
    assert edgewake.ask("web").addresses == (address,)
    edgewake.wait_until(lambda: len(instances(edgewake)) == 1 or len(asleep(edgewake)) == 1, 60)
    with busy(address):
        edgewake.wait_until(lambda: status(edgewake)["copies"]["has"] == 2, 60)
        assert set(edgewake.ask("web").addresses) == set(spread)
    told = [(each["kind"], each["text"]) for each in edgewake.client.get("/events")["events"]]
    out, back, again = (text for kind, text in told if kind in {"scaled-out", "scaled-in"})
    assert back.startswith("from 2 to 1 copies: cpu ")
    for each in (out, again):
        assert each.startswith("from 1 to 2 copies: cpu ")


def instances(edgewake: Edgewake) -> list[dict[str, Any]]:
    return list(status(edgewake)["instances"])


def asleep(edgewake: Edgewake) -> list[str]:
    return [e["name"] for e in instances(edgewake) if e["state"] in {"paused", "saved"}]
