"""The DNS log as its readers know it: queries, rates, and who is asked for them.

`dns_boot.log` keeps it; the API, the CLI and the dashboard read it through `QueryLog`. Names are
escaped text of bounded length, whatever bytes were asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Literal, Protocol

WINDOWS_S = (10, 60, 600)  # of a summary
Mode = Literal["on", "off", "anonymous"]


class Outcome(StrEnum):
    """What became of a query."""

    WARM = "warm"  # answered at once, be it with NXDOMAIN
    COLD = "cold"  # held until a wake was over
    REFUSED = "refused"  # told at once that it gets no answer here, or no wake
    LIMITED = "limited"  # its reply was dropped, or cut short, by the response rate limit
    FORWARDED = "forwarded"  # answered by another resolver
    DROPPED = "dropped"  # no reply: too many wait, or it was sent again while it is held
    MALFORMED = "malformed"  # told that it breaks the rules


@dataclass(frozen=True, slots=True)
class LoggedQuery:
    """One query. `number` grows with each; `at` is seconds since the epoch.

    `client` is an address, or a network where the log is anonymous, whose `port` is 0. `rcode` is
    empty if there was no reply; `answers` are its first addresses, or types of records; `wake` is
    the number of the wake that it waited for, 0 for none; `subnet` is the EDNS Client Subnet that
    was named; `process` is who answered. It stands for `of` queries: more than 1 where there were
    too many to keep all.
    """

    number: int
    at: float
    client: str
    port: int
    name: str
    qtype: str
    transport: str
    outcome: Outcome
    rcode: str = ""
    answers: tuple[str, ...] = ()
    latency_s: float = 0.0
    service: str = ""
    wake: int = 0
    subnet: str = ""
    process: int = 0
    of: int = 1


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which queries are wanted; what is empty chooses all."""

    service: str = ""
    client: IPv4Network | IPv6Network | None = None
    rcode: str = ""


EVERYTHING = Chosen()


@dataclass(frozen=True, slots=True)
class QueryRates:
    """Queries per second over the last `window_s` seconds, in all and by what they were.

    `held` counts those that waited for a wake, and `held_s` has the 50th, 95th and 99th percentile
    of how long; nothing if none did.
    """

    window_s: float
    total: float
    types: Mapping[str, float] = field(default_factory=dict)
    rcodes: Mapping[str, float] = field(default_factory=dict)
    outcomes: Mapping[str, float] = field(default_factory=dict)
    services: Mapping[str, float] = field(default_factory=dict)
    held: int = 0
    held_s: tuple[float, ...] = ()


class QueryLog(Protocol):
    """The last queries and the rates of all. Safe to use from several threads."""

    @property
    def mode(self) -> Mode:
        """``on``, ``off`` (only rates) or ``anonymous``."""
        ...

    def last(self, limit: int, before: int = 0, chosen: Chosen = EVERYTHING) -> list[LoggedQuery]:
        """Return the last queries, newest first; only those with lower numbers than `before`."""
        ...

    def rates(self) -> tuple[QueryRates, ...]:
        """Return the rates over each of `WINDOWS_S`."""
        ...


class NoQueries:
    """The log where no DNS server runs."""

    mode: Mode = "off"

    def last(self, limit: int, before: int = 0, chosen: Chosen = EVERYTHING) -> list[LoggedQuery]:
        """Return nothing."""
        del limit, before, chosen
        return []

    def rates(self) -> tuple[QueryRates, ...]:
        """Return that nothing was asked."""
        return tuple(QueryRates(window, 0.0) for window in WINDOWS_S)


NO_QUERIES = NoQueries()
