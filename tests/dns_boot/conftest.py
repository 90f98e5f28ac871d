"""A summoner that remembers instead of booting, a small zone, and packets made by hand."""

import struct
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from types import SimpleNamespace

import pytest
from dnslib import DNSRecord

from dns_boot.resolver import Resolver, Source
from orchestrator.model import (
    Capacity,
    Client,
    DnsSettings,
    Endpoint,
    Port,
    Probe,
    ProbeKind,
    Service,
)
from orchestrator.steering.base import Route
from orchestrator.summons import Summons
from orchestrator.trace import WakeTrace

ZONE = "edge.test"


def make_service(name: str, **changes: object) -> Service:
    settings: dict[str, object] = {
        "names": (f"{name}.{ZONE}",),
        "images": ("image",),
        "resources": Capacity(cpu=1, memory_mib=64),
        "probe": Probe(ProbeKind.TCP, 80),
        "deadline_s": 20.0,
    }
    return Service(name, **(settings | changes))  # type: ignore[arg-type]


def make_endpoint(service: str, last: int = 5, *, ipv6: bool = False, ttl_s: int = 7) -> Endpoint:
    return Endpoint(
        service=service,
        instance=f"ew-lab-{service}-{last}",
        host="host",
        address=IPv4Address(f"10.0.0.{last}"),
        ttl_s=ttl_s,
        address6=IPv6Address(f"fd00::{last}") if ipv6 else None,
    )


WEB = make_service("web", names=("web.edge.test", "www.edge.test"))
SIX = make_service(
    "six",
    names=("six.deep.edge.test",),
    alpn=("h2", "http/1.1"),
    ports=(Port(8443), Port(53, "udp")),
)


@dataclass
class FakeSummoner:
    """Answers from `futures`; every service it was not told about is awake at 10.0.0.5."""

    asked: dict[str, float] = field(default_factory=dict)
    calls: list[tuple[str, Client]] = field(default_factory=list)
    futures: dict[str, Future[tuple[Endpoint, ...]]] = field(default_factory=dict)
    traces: dict[str, WakeTrace] = field(default_factory=dict)
    asked_at: list[float] = field(default_factory=list)
    error: Exception | None = None

    def summon(self, service: str, client: Client, asked_at: float = 0.0) -> Summons:
        self.calls.append((service, client))
        self.asked_at.append(asked_at)
        if self.error is not None:
            raise self.error
        if service not in self.futures:
            ended: Future[tuple[Endpoint, ...]] = Future()
            ended.set_result((make_endpoint(service, ipv6=service == "six"),))
            return Summons(ended)
        return Summons(self.futures[service], self.traces.get(service))

    def sleeping(self, service: str) -> Future[tuple[Endpoint, ...]]:
        """Have a service sleep; the future is its wake."""
        self.traces[service] = WakeTrace(service)
        return self.futures.setdefault(service, Future())


def make_query(
    name: str | bytes = "web.edge.test",
    qtype: int = 1,
    qclass: int = 1,
    *,
    ident: int = 0x1234,
    flags: int = 0x0100,
    edns: int | None = None,
    do: bool = False,
    version: int = 0,
    options: bytes = b"",
) -> bytes:
    """Return a query; `name` as bytes is taken as it stands, `edns` is the client's UDP size."""
    if isinstance(name, str):
        labels = [label.encode() for label in name.split(".") if label]
        name = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    opt = b""
    if edns is not None:
        ttl = version << 16 | (0x8000 if do else 0)
        opt = b"\0" + struct.pack("!HHIH", 41, edns, ttl, len(options)) + options
    header = struct.pack("!6H", ident, flags, 1, 0, 0, 1 if opt else 0)
    return header + name + struct.pack("!HH", qtype, qclass) + opt


def ede_of(reply: bytes) -> tuple[int, str] | None:
    """Return code and text of the Extended DNS Error in a reply."""
    for record in DNSRecord.parse(reply).ar:
        for option in record.rdata if record.rtype == 41 else ():
            if option.code == 15:
                return int.from_bytes(option.data[:2], "big"), bytes(option.data[2:]).decode()
    return None


@pytest.fixture
def lab() -> SimpleNamespace:
    """Give the makers and values of this file to tests."""
    return SimpleNamespace(
        query=make_query,
        service=make_service,
        endpoint=make_endpoint,
        ede=ede_of,
        WEB=WEB,
        SIX=SIX,
        routes=(Route(WEB), Route(SIX, ipv6=True)),
    )


@pytest.fixture
def summoner() -> FakeSummoner:
    return FakeSummoner()


@pytest.fixture
def make_resolver(summoner: FakeSummoner) -> Iterator[Callable[..., Resolver]]:
    """Return a maker of resolvers for the zone; they are closed after the test."""
    made = []

    def make(**changes: object) -> Resolver:
        settings = {key: changes.pop(key) for key in tuple(changes) if key in DnsSettings.__slots__}
        populations = changes.pop("populations", ())
        resolver = Resolver(
            DnsSettings(**({"zone": ZONE} | settings)),  # type: ignore[arg-type]
            populations if callable(populations) else lambda: populations,  # type: ignore[arg-type, return-value]
            summoner,
            **changes,  # type: ignore[arg-type]
        )
        resolver.set((Route(WEB), Route(SIX, ipv6=True)))
        made.append(resolver)
        return resolver

    yield make
    for resolver in made:
        resolver.close()


@pytest.fixture
def resolver(make_resolver: Callable[..., Resolver]) -> Resolver:
    return make_resolver()


class Asker:
    """Collects what a resolver says to one source."""

    def __init__(self, resolver: Resolver, source: Source) -> None:
        self.resolver = resolver
        self.source = source
        self.replies: list[bytes | None] = []

    def __call__(self, packet: bytes) -> bytes | None:
        """Ask, and return the reply that came at once; fails if there was none."""
        count = len(self.replies)
        self.send(packet)
        assert len(self.replies) == count + 1, "no reply at once"
        return self.replies[-1]

    def send(self, packet: bytes) -> None:
        self.resolver.resolve(packet, self.source, self.replies.append)


@pytest.fixture
def asker() -> Callable[..., Asker]:
    """Return a maker of askers: `asker(resolver, address="192.0.2.1", port=4000, udp=True)`."""

    def make(
        resolver: Resolver, address: str = "192.0.2.1", port: int = 4000, *, udp: bool = True
    ) -> Asker:
        return Asker(resolver, Source(address, port, udp))

    return make
