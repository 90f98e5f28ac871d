"""A small edge cloud to look at: ``python -m tests.web.play [--port 8480] [--once]``.

Hosts in memory, so that nothing is booted and no root is needed: six hosts on three sites, a dozen
services, populations and routers between them, some services awake, some that fail to wake, and a
door in the same process. It prints a link that logs a browser in, and a token of each role, as JSON
with ``--json``. For those who make pages, and for browser tests (`playing`).
"""

import argparse
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

from orchestrator.daemon import Daemon
from tests.ports import free_port
from tests.world import an_image
from web.client import ApiError, Client
from web.door.access import Access
from web.door.app import HUB, create_door
from web.door.server import TcpServer
from web.door.settings import DoorSettings
from web.door.tokens import Tokens
from web.door.upstream import Upstream
from web.roles import Role

HOSTS = {  # name: (site, router, MiB)
    "attic": ("campus", "r-campus", 2048),
    "cellar": ("campus", "r-campus", 1024),
    "tram-stop": ("city", "r-city", 512),
    "library": ("city", "r-city", 1024),
    "lighthouse": ("coast", "r-coast", 512),
    "harbour": ("coast", "r-coast", 768),
}
SERVICES = (  # name, MiB
    ("shop", 128),
    ("blog", 96),
    ("wiki", 96),
    ("maps", 192),
    ("tiles", 128),
    ("weather", 80),
    ("timetable", 96),
    ("camera", 96),
    ("queue", 80),
    ("search", 512),
    ("mail", 128),
    ("archive", 1990),  # only the attic holds it, and only alone: while others are there it fails
)
CLIENTS = ("192.0.2.7", "192.0.2.200", "198.51.100.9")  # one of each population
AWAKE = ("shop", "blog", "maps", "weather", "search", "mail")


@dataclass(frozen=True, slots=True)
class Played:
    """A running edge cloud, and how to get in: by HTTP, by DNS. `tokens` are texts, by role."""

    url: str
    dns: tuple[str, int]
    once: str
    socket: str
    state: str
    tokens: dict[str, str]


def lab_text(folder: Path) -> str:
    """Return the lab file; its image is in `folder`."""
    image = an_image(folder)
    lines = [
        "name: harbour-town",
        "zone: edge.test",
        f"dns: {{listen: '127.0.0.1:{free_port()}'}}",
        "hosts:",
    ]
    for index, (name, (site, router, mib)) in enumerate(HOSTS.items()):
        lines += [
            f"  {name}:",
            "    uri: memory:///",
            f"    site: {site}",
            f"    router: {router}",
            f"    capacity: {{cpu: 8, memory: {mib} MiB}}",
            f"    energy: {{idle: {4 + index} W, busy: {20 - index} W}}",
            f"    network: {{name: net{index}, create: true, bridge: ew{index},"
            f" subnet: 10.9.{index}.0/24, gateway: 10.9.{index}.1,"
            f" pool: 10.9.{index}.10-10.9.{index}.200}}",
        ]
    lines += ["routers:", "  r-campus: {}", "  r-city: {}", "  r-coast: {}", "links:"]
    for one, other, ms in (
        ("r-campus", "r-city", 2),
        ("r-city", "r-coast", 5),
        ("r-campus", "r-coast", 9),
    ):
        lines.append(f"  - {{between: [{one}, {other}], latency: {ms} ms, bandwidth: 1 Gbit/s}}")
    lines += [
        "clients:",
        "  students: {subnets: [192.0.2.0/25], router: r-campus, rate: 12/s}",
        "  commuters: {subnets: [192.0.2.128/25], router: r-city, rate: 30/s}",
        "  sailors: {subnets: [198.51.100.0/24], router: r-coast, rate: 3/s}",
        "images:",
        f"  tiny: {{family: linux, kernel: {image.kernel}, initrd: {image.initrd}}}",
        "services:",
    ]
    for name, mib in SERVICES:
        lines.append(
            f"  {name}: {{image: tiny, resources: {{cpu: 0.1, memory: {mib} MiB}},"
            " ready: {tcp: 80}}"
        )
    return "\n".join(lines) + "\n"


@contextmanager
def playing(folder: Path, port: int = 0, *, awake: tuple[str, ...] = AWAKE) -> Iterator[Played]:
    """Run an edge cloud with its door in this process, with its state in a folder."""
    lab = folder / "lab.yaml"
    lab.write_text(lab_text(folder))
    daemon = Daemon(folder / "state", lab, ephemeral=True)
    daemon.start()
    try:
        _wake(Client(daemon.socket), awake)
        with _door(folder, daemon, port) as played:
            yield played
    finally:
        daemon.stop()


def _wake(client: Client, services: tuple[str, ...]) -> None:
    for service, address in zip(services, cycle(CLIENTS), strict=False):
        client.post(f"/services/{service}/wake", {"client": address})
    with suppress(ApiError):
        client.post("/services/archive/wake")


@contextmanager
def _door(folder: Path, daemon: Daemon, port: int) -> Iterator[Played]:
    asked = daemon.socket
    tokens = Tokens(folder / "state" / "tokens.json")
    with socket.create_server(("127.0.0.1", port), backlog=128) as listener:
        port = listener.getsockname()[1]
        settings = DoorSettings(asked, tokens.path, lab="harbour-town", port=port)
        app = create_door(Upstream(asked), Access(tokens), settings)
        server = TcpServer(listener, app, streams=settings.streams)
        server.prepare()
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{port}"
        texts = {str(role): tokens.create(str(role), role)[1] for role in Role}
        try:
            once = tokens.once("you", Role.ADMIN)
            link = f"{url}/login?once={once}"
            yield Played(url, daemon.dns_address, link, str(asked), str(folder / "state"), texts)
        finally:
            app.extensions[HUB].close()
            server.stop()
            thread.join()


def main() -> None:
    """Run until Ctrl-C."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--port", type=int, default=8480)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    with TemporaryDirectory(prefix="ew-play-") as folder, playing(Path(folder), chosen.port) as it:
        if chosen.json:
            print(json.dumps(asdict(it)), flush=True)
        else:
            print(f"open  {it.once}\n(works once, for five minutes)")
            for role, text in it.tokens.items():
                print(f"{role:9} {text}")
            print(f"API   {it.socket}\nstate {it.state}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("ended")


if __name__ == "__main__":
    main()
