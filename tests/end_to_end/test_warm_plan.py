"""The warm plan with real guests: who never asked before is answered by a guest that was paused."""

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from images.build.hello import build as build_hello
from orchestrator.state_dir import StateDir
from tests.end_to_end.conftest import Edgewake, get

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

PORT = 5388
LAB = f"""
name: ewwarm
zone: e2e.test
warm: auto
dns: {{listen: 127.0.0.1:{PORT}}}
routers: {{r1: {{}}}}
hosts:
  box:
    uri: qemu:///system
    router: r1
    capacity: {{cpu: 8, memory: 400 MiB}}
    network:
      name: ewwarm
      subnet: 10.214.82.0/24
      gateway: 10.214.82.1
      pool: 10.214.82.10-10.214.82.60
      create: true
      bridge: ewwarm0
clients: {{here: {{subnets: [127.0.0.0/8], router: r1, rate: 1/min}}}}
images:
  hello: {{family: hello, kernel: "built:hello/kernel"}}
defaults:
  image: hello
  resources: {{cpu: 0.25, memory: 16 MiB}}
  ready: {{http: {{port: 80}}}}
  deadline: 30 s
services:
  web: {{config: {{greeting: hello from a pause}}}}
  never: {{idle: {{paused: 0 s, saved: 0 s}}}}
"""


@pytest.fixture
def edgewake() -> Iterator[Edgewake]:
    folder = Path(f"/var/lib/edgewake-tests/warm-{os.getpid()}")
    StateDir.open(folder).close()
    (folder / "images" / "hello").mkdir(parents=True)
    build_hello(folder / "images" / "hello")
    lab = folder / "lab.yaml"
    lab.write_text(LAB)
    edgewake = Edgewake(folder, lab, PORT)
    try:
        edgewake.start()
        yield edgewake
    finally:
        edgewake.clean()
        shutil.rmtree(folder, ignore_errors=True)


def test_the_first_query_ever_rouses_a_guest_also_after_a_crash(edgewake: Edgewake) -> None:
    edgewake.wait_until(partial(edgewake.rests_at, "web", "paused"))
    assert edgewake.client.get("/wakes")["wakes"] == [], "no client has waited for it"
    kinds = [event["kind"] for event in edgewake.client.get("/events")["events"]]
    assert kinds.count("kept-warm") == 1
    edgewake.kill()
    edgewake.start()
    edgewake.wait_until(lambda: bool(edgewake.seen("web")["kept"]))
    reply = edgewake.ask("web")
    assert "hello from a pause" in get(reply)
    (wake,) = edgewake.client.get("/wakes")["wakes"]
    assert (wake["service"], wake["rung"], wake["by"]) == ("web", "paused", "query")
    assert "define" not in [stage for stage, _ in wake["stamps"]], "a guest was booted"
    assert edgewake.rung_of("never") == "cold"
