"""The DNS log: the last queries, and rates of all."""

from ipaddress import ip_network
from typing import Literal, Self

from pydantic import Field, field_validator

from orchestrator.queries import Chosen, LoggedQuery, Mode, Outcome, QueryRates
from web.models.base import LONGEST_NAME, Document, Page


class QueryDocument(Document):
    """A query that was asked; `at` is seconds since the epoch, when its reply was sent.

    `client` is an address with its `port`, or of an anonymous log a network, and `port` is null.
    `name` is escaped as in zone files, and cut. `rcode` is empty if there was no reply; `answers`
    are the first addresses of it, or the types of other records. `wake` is the wake that it waited
    for, or null; `subnet` is the EDNS Client Subnet it named, `process` the id of who answered.
    `sampled`: there were too many to keep all, and this one stands for `of`.
    """

    id: int
    at: float
    client: str
    port: int | None
    family: Literal["ipv4", "ipv6"]
    name: str
    type: str
    transport: Literal["udp", "tcp"]
    outcome: Outcome
    rcode: str
    answers: list[str]
    latency_ms: float
    service: str
    wake: int | None
    subnet: str
    process: int
    sampled: bool
    of: int

    @classmethod
    def of_query(cls, value: LoggedQuery) -> Self:
        """Return a query."""
        network = ip_network(value.client.partition("%")[0])
        mapped = getattr(network.network_address, "ipv4_mapped", None)
        return cls(
            id=value.number,
            at=value.at,
            client=value.client,
            port=value.port or None,
            family="ipv4" if network.version == 4 or mapped else "ipv6",
            name=value.name,
            type=value.qtype,
            transport="udp" if value.transport == "udp" else "tcp",
            outcome=value.outcome,
            rcode=value.rcode,
            answers=list(value.answers),
            latency_ms=round(value.latency_s * 1000, 3),
            service=value.service,
            wake=value.wake or None,
            subnet=value.subnet,
            process=value.process,
            sampled=value.of > 1,
            of=value.of,
        )


class QueriesPage(Page):
    """Which queries are asked for; what is not said chooses all."""

    after: str = Field("", pattern="^[0-9]{0,16}$", description="`next` of the page before")
    service: str = Field("", max_length=LONGEST_NAME)
    client: str = Field("", max_length=64, description="an address or a network")
    rcode: str = Field("", max_length=16, description="such as NXDOMAIN")

    @field_validator("client")
    @classmethod
    def _is_network(cls, written: str) -> str:
        try:
            if written:
                ip_network(written, strict=False)
        except ValueError:
            raise ValueError(f"{written!r} is no IP address or network") from None
        return written

    @property
    def chosen(self) -> Chosen:
        """What is asked for."""
        client = ip_network(self.client, strict=False) if self.client else None
        return Chosen(self.service, client, self.rcode.upper())


class QueriesDocument(Document):
    """The last queries, newest first; `log` says whether, and how, they are kept."""

    queries: list[QueryDocument]
    next: str | None
    log: Mode


class HeldDocument(Document):
    """How long queries waited for wakes: percentiles."""

    p50: float
    p95: float
    p99: float


class WindowDocument(Document):
    """Queries per second over the last `window_s` seconds; all of them, none sampled.

    `held` counts those that waited for a wake; `held_ms` says for how long, null if none did.
    """

    window_s: float
    total: float
    types: dict[str, float]
    rcodes: dict[str, float]
    outcomes: dict[str, float]
    services: dict[str, float]
    held: int
    held_ms: HeldDocument | None

    @classmethod
    def of(cls, value: QueryRates) -> Self:
        """Return the rates over a window."""
        held = [round(each * 1000, 3) for each in value.held_s]
        return cls(
            window_s=value.window_s,
            total=value.total,
            types=dict(value.types),
            rcodes=dict(value.rcodes),
            outcomes=dict(value.outcomes),
            services=dict(value.services),
            held=value.held,
            held_ms=HeldDocument(p50=held[0], p95=held[1], p99=held[2]) if held else None,
        )


class QueriesSummaryDocument(Document):
    """Rates over the last 10 seconds, minute and 10 minutes."""

    log: Mode
    windows: list[WindowDocument]
