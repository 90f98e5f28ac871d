"""Wake on traffic with real guests: a client that never asks for a name gets its page."""

import os
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from images.build.hello import build as build_hello
from orchestrator.state_dir import StateDir
from tests.end_to_end.conftest import Edgewake, virsh
from tests.orchestrator.guards.wires import ip, within

pytestmark = [pytest.mark.real, pytest.mark.timeout(480)]

PORT = 5387
LAB = """
name: ewtraffic
zone: e2e.test
dns: {{listen: 127.0.0.1:{port}}}
hosts:
  box:
    uri: qemu:///system
    capacity: {{cpu: 8, memory: 1200 MiB}}
    network:
      name: ewtraffic
      subnet: 10.214.80.0/24
      gateway: 10.214.80.1
      pool: 10.214.80.10-10.214.80.60
      create: true
      bridge: ewtraffic0
      subnet6: fd00:ed:80::/64
images:
  hello: {{family: hello, kernel: "built:hello/kernel"}}
  sample: {{family: linux, kernel: built:linux-microvm/kernel, initrd: built:linux-microvm/initrd}}
defaults:
  image: hello
  resources: {{cpu: 0.25, memory: 16 MiB}}
  ready: {{http: {{port: 80}}}}
  deadline: 30 s
  ttl: 1 s
  idle: never
  config: {{greeting: hello from traffic}}
traffic: {{wakes_per_host: 4/s}}  # 2/s for one client
services:
  web: {{ports: [80/tcp]}}
  slow: {{image: sample, resources: {{cpu: 0.25, memory: 96 MiB}}}}
  early: {{reply: early, image: sample, resources: {{cpu: 0.25, memory: 96 MiB}}}}
  a: {{}}
  b: {{}}
  c: {{}}
  d: {{}}
"""


class Rig:
    """An edgewake whose guests a client in a namespace reaches through this machine."""

    def __init__(self, edgewake: Edgewake, client: str) -> None:
        self.edgewake = edgewake
        self.client = client

    def asleep(self, service: str) -> tuple[str, str]:
        """Wake a service and put it to sleep again; return its addresses."""
        (address,) = self.edgewake.ask(service).addresses
        (address6,) = self.edgewake.ask(service, "AAAA").addresses
        self.edgewake.client.post(f"/services/{service}/sleep")
        assert self.edgewake.state_of(service) == "asleep"
        time.sleep(0.6)  # one token of the budget, whatever woke before
        return address, address6

    def page(self, address: str, whence: str = "") -> Future[str]:
        """Fetch a page with one connection, from the client's namespace unless told otherwise."""
        to = f"[{address}]" if ":" in address else address
        namespace = {"here": ""}.get(whence, self.client)
        return within(namespace, lambda: fetch(f"http://{to}/"))

    def wakes(self, service: str) -> list[dict[str, Any]]:
        return list(self.edgewake.client.get(f"/wakes?service={service}")["wakes"])


def fetch(url: str) -> str:
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "30", url], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def rig(sample_images: Path) -> Iterator[Rig]:
    folder = Path(f"/var/lib/edgewake-tests/traffic-{os.getpid()}")
    StateDir.open(folder).close()
    (folder / "images" / "hello").mkdir(parents=True)
    build_hello(folder / "images" / "hello")
    (folder / "images" / "linux-microvm").symlink_to(sample_images)
    lab = folder / "lab.yaml"
    lab.write_text(LAB.format(port=PORT))
    edgewake = Edgewake(folder, lab, PORT)
    name = f"ewt{uuid.uuid4().hex[:6]}"
    try:
        ip(f"netns add {name}")
        ip(f"link add {name} type veth peer name eth0 netns {name}")
        ip(f"link set {name} up")
        ip(f"-n {name} link set eth0 up")
        ip(f"addr add 10.214.81.1/24 dev {name}")
        ip(f"addr add fd00:ed:81::1/64 dev {name} nodad")
        ip(f"-n {name} addr add 10.214.81.2/24 dev eth0")
        ip(f"-n {name} addr add fd00:ed:81::2/64 dev eth0 nodad")
        ip(f"-n {name} route add default via 10.214.81.1")
        ip(f"-n {name} -6 route add default via fd00:ed:81::1")
        edgewake.start()
        yield Rig(edgewake, name)
    finally:
        edgewake.clean()
        for words in (["link", "del", name], ["netns", "del", name]):
            subprocess.run(["ip", *words], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    ("service", "version", "whence"),
    [
        ("web", 4, "client"),
        ("web", 4, "here"),
        ("web", 6, "client"),
        ("web", 6, "here"),
        ("slow", 4, "client"),
        ("slow", 4, "here"),
        ("slow", 6, "here"),  # this guest has no IPv6 route to other networks, awake or not
    ],
)
def test_a_client_that_asks_no_name_gets_its_page(
    rig: Rig, service: str, version: int, whence: str
) -> None:
    addresses = rig.asleep(service)
    before = len(rig.wakes(service))
    began = time.monotonic()
    page = rig.page(addresses[version == 6], whence).result(40)
    took = time.monotonic() - began
    assert "hello from traffic" in page
    assert len(rig.wakes(service)) == before + 1
    wake = rig.wakes(service)[-1]
    assert wake["by"].startswith("traffic: ")
    assert wake["by"].endswith(f"for {addresses[version == 6]} tcp/80")
    assert took < wake["total_s"] + 0.9, "it was the client's sending again that got through"


def test_many_clients_at_once_are_one_boot(rig: Rig) -> None:
    address, address6 = rig.asleep("slow")
    before = len(rig.wakes("slow"))
    pages = [rig.page(address) for _ in range(8)]
    pages += [rig.page(address6, "here"), rig.page(address, "here")]
    assert all("hello from traffic" in page.result(40) for page in pages)
    assert len(rig.wakes("slow")) == before + 1


def test_other_ports_and_other_addresses_boot_nothing(rig: Rig) -> None:
    address, _ = rig.asleep("web")
    before = len(rig.wakes("web"))

    def knock() -> None:
        for to in (f"{address}:81", "10.214.80.55:80"):
            subprocess.run(["curl", "-s", "--max-time", "0.5", f"http://{to}/"], check=False)

    within(rig.client, knock).result(10)
    assert len(rig.wakes("web")) == before
    assert rig.edgewake.state_of("web") == "asleep"


def test_a_scan_of_the_network_is_bounded(rig: Rig) -> None:
    for service in ("a", "b", "c", "d"):
        rig.asleep(service)
    time.sleep(1.5)  # the budget is full again

    def scan() -> None:
        threads = [
            threading.Thread(target=fetch_briefly, args=(f"10.214.80.{last}",))
            for last in range(10, 61)
        ]
        within_each(threads, rig.client)

    began = time.monotonic()
    scan()
    took = time.monotonic() - began
    asked = [
        wake
        for service in ("web", "slow", "early", "a", "b", "c", "d")
        for wake in rig.wakes(service)[-1:]
        if wake["by"] and time.time() - wake["started_at"] < took + 0.5
    ]
    assert 1 <= len(asked) <= 2 + 2 * took + 1
    kinds = [event["kind"] for event in rig.edgewake.client.get("/events")["events"]]
    assert "traffic-over-budget" in kinds
    for service in ("a", "b", "c", "d"):
        rig.edgewake.client.post(f"/services/{service}/sleep")


def fetch_briefly(address: str) -> None:
    subprocess.run(["curl", "-s", "--max-time", "0.3", f"http://{address}/"], check=False)


def within_each(threads: list[threading.Thread], namespace: str) -> None:
    def run() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    within(namespace, run).result(30)


def test_an_early_answer_comes_before_the_guest_and_its_connection_waits(rig: Rig) -> None:
    reply = rig.edgewake.ask("early")
    assert reply.seconds < 0.5
    assert rig.edgewake.state_of("early") == "waking"
    page = rig.page(reply.addresses[0]).result(40)
    assert "hello from traffic" in page
    wake = rig.wakes("early")[-1]
    assert wake["total_s"] > reply.seconds


def test_a_restart_keeps_the_guard_and_leaves_nothing_behind(rig: Rig) -> None:
    address, _ = rig.asleep("web")
    assert "ewguard" in routes()
    rig.edgewake.kill()
    assert "ewguard" not in routes(), "the kernel takes our routes back, also after kill -9"
    rig.edgewake.start()
    assert "hello from traffic" in rig.page(address).result(40)
    rig.edgewake.stop()
    assert "ewguard" not in routes()
    rig.edgewake.start()
    assert "hello from traffic" in rig.page(address).result(40), "it ran on, and is warm"
    hosts = rig.edgewake.client.get("/status")["hosts"]
    assert [host["guard"] for host in hosts] == ["routed, bridged"]
    assert "ew-ewtraffic-web-0" in virsh("list", "--name")


def routes() -> str:
    words = ["ip", "route", "show", "table", "main", "root", "10.214.80.0/24"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout
