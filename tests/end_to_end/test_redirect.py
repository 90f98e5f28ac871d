"""A public address with a real guest: the client's packets go to it while it runs, then on."""

import http.client
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from orchestrator.linux import namespaces
from tests.end_to_end.conftest import Edgewake, domains, virsh

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

PUBLIC = "203.0.113.79"
FORWARDS = Path("/proc/sys/net/ipv4/ip_forward")
CLIENT, ORIGIN = "ew-e2e-client", "ew-e2e-origin"
SERVICES = f"""
  web:
    idle: never
    public: {{address: {PUBLIC}, interface: ewe2ec, rule: tcp and dst port 80}}
"""


class Origin(BaseHTTPRequestHandler):
    """The server far away."""

    def do_GET(self) -> None:
        body = f"origin, to {self.client_address[0]}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as there
        """Say nothing."""


@pytest.fixture
def wires() -> Iterator[None]:
    """Make a client and an origin, both behind this machine, which leads between them."""
    forwarded = FORWARDS.read_text()
    FORWARDS.write_text("1")
    try:
        for number, (name, device) in enumerate(((CLIENT, "ewe2ec"), (ORIGIN, "ewe2eo")), 81):
            namespaces.make(name)
            _ip(f"link add name {device} type veth peer name eth0 netns {name}")
            _ip(f"addr add 10.213.{number}.1/24 dev {device}")
            _ip(f"link set {device} up")
            for line in (
                f"addr add 10.213.{number}.2/24 dev eth0",
                "link set eth0 up",
                "link set lo up",
                f"route add default via 10.213.{number}.1",
            ):
                _ip(f"-n {name} {line}")
        _ip(f"-n {ORIGIN} addr add {PUBLIC} dev lo")
        _ip(f"route add {PUBLIC} via 10.213.82.2")
        server = namespaces.inside(ORIGIN, lambda: HTTPServer((PUBLIC, 80), Origin))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield
        server.shutdown()
        thread.join()
        server.server_close()
    finally:
        FORWARDS.write_text(forwarded)
        for name, device in ((CLIENT, "ewe2ec"), (ORIGIN, "ewe2eo")):
            namespaces.remove(name)
            subprocess.run(["ip", "link", "del", device], check=False, capture_output=True)


def _ip(line: str) -> None:
    subprocess.run(["ip", *line.split()], check=True)


def page() -> str:
    """Return what the client gets from the public address."""

    def connect() -> socket.socket:
        return socket.create_connection((PUBLIC, 80), 5.0)

    connection = http.client.HTTPConnection(PUBLIC)
    connection.sock = namespaces.inside(CLIENT, connect)
    connection.request("GET", "/")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def test_clients_are_led_to_the_guest_and_when_all_is_dead_to_the_origin(
    wires: None, make_edgewake: Callable[..., Edgewake], capsys: pytest.CaptureFixture[str]
) -> None:
    edgewake = make_edgewake(SERVICES, port=5396)
    assert page() == "origin, to 10.213.81.2"
    assert edgewake.ask("web").addresses
    edgewake.wait_until(lambda: "Hello from web" in page(), 10)
    edgewake.kill()
    assert "Hello from web" in page()
    (domain,) = domains()
    virsh("destroy", domain)
    gone = time.monotonic()
    assert page() == "origin, to 10.213.81.2"
    with capsys.disabled():
        took_ms = (time.monotonic() - gone) * 1000
        sys.stdout.write(f"\nguest gone, nobody there: a page of the origin in {took_ms:.0f} ms\n")
