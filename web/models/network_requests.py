"""What is asked of the virtual network: which part of it, and what it shall be."""

from ipaddress import IPv4Address, IPv6Address
from typing import Annotated

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    RootModel,
    Tag,
    WithJsonSchema,
)

from orchestrator.network_edits import LinkWish
from orchestrator.programs import catalogue
from web.models.base import LONGEST_NAME, MOST_LISTED, Body, Parameters, Switch

NAME = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"  # of a router, as in a lab file
PROGRAM_NAME = r"^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$"
LONGEST_KEY = 30
LONGEST_LINK = 2 * LONGEST_KEY + 8
LONGEST_ARGUMENT = 4096
MOST_ARGUMENTS = 64
MOST_MS = 60_000.0
MOST_MBPS = 1_000_000.0
LEAST_MBPS = 0.001
WEIGHTS = (0.000001, 1_000_000.0)
RIGHTS = r"^(net_raw|net_admin|net_bind_service)$"


class HowBusy(Parameters):
    """Whether loads and counters are asked for, too."""

    load: Switch = Field(
        True, description="whether it says what goes through; without, its `ETag` stays longer"
    )


class WholePage(HowBusy):
    """Which part of a list is asked for: `after` is what `next` of the page before said."""

    limit: int = Field(MOST_LISTED, ge=1, le=MOST_LISTED, description="how many at most")
    after: str = Field("", max_length=LONGEST_NAME, description="`next` of the page before")


class NamedRouter(Parameters):
    """A path that names a router."""

    name: str = Field(min_length=1, max_length=LONGEST_KEY, pattern=NAME)


class NamedNode(Parameters):
    """A path that names a router, or a population of clients."""

    name: str = Field(min_length=1, max_length=LONGEST_NAME)


class NamedLink(Parameters):
    """A path that names a link: its two routers, such as ``r1--r2``."""

    name: str = Field(min_length=1, max_length=LONGEST_LINK)


class NamedApp(Parameters):
    """A path that names a program on a router, or among clients."""

    name: str = Field(min_length=1, max_length=LONGEST_NAME, description="router, or clients")
    app: str = Field(min_length=1, max_length=LONGEST_KEY)


class Ends(Parameters):
    """Two routers, populations or hosts."""

    start: str = Field(alias="from", min_length=1, max_length=LONGEST_NAME)
    end: str = Field(alias="to", min_length=1, max_length=LONGEST_NAME)


class RouterBody(Body):
    """A router as wished; what is left out stays, or is as the lab file has it, or is chosen."""

    address: IPv4Address | None = None
    address6: IPv6Address | None = None
    machine: str | None = Field(
        None, max_length=LONGEST_NAME, description="of `network.machines`; empty: this one"
    )


class LinkBody(Body):
    """A link as wished; what is left out stays, or for a new link is as in a lab file.

    A new link has no latency, no loss and no limit of bandwidth unless that is said.
    """

    latency_ms: float | None = Field(None, ge=0, le=MOST_MS, description="one way")
    jitter_ms: float | None = Field(None, ge=0, le=MOST_MS, description="more or less of it")
    loss: float | None = Field(None, ge=0, le=1, description="share of packets")
    bandwidth_mbps: float | None = Field(None, ge=LEAST_MBPS, le=MOST_MBPS)
    weight: float | None = Field(None, ge=WEIGHTS[0], le=WEIGHTS[1], description="smaller is near")
    up: bool | None = Field(None, description="whether it carries anything")

    def wish(self) -> LinkWish:
        """Return what is wished."""
        return LinkWish(**self.model_dump())


def _known_program(name: str) -> str:
    catalogue.ready_made(name)
    return name


Argument = Annotated[str, Field(max_length=LONGEST_ARGUMENT, pattern=r"^[^\x00]*$")]
ReadyMade = Annotated[
    str,
    AfterValidator(_known_program),
    WithJsonSchema({"type": "string", "enum": sorted(catalogue.PROGRAMS)}),
]


class ReadyMadeBody(Body):
    """A ready-made program to start, with its parameters as texts: docs/apps-on-routers.md.

    `command` and `python` run whatever is asked: that takes an admin.
    """

    run: ReadyMade
    name: str = Field(
        "",
        max_length=LONGEST_KEY,
        pattern=rf"^$|{PROGRAM_NAME}",
        description="what it is called there; default: as the program",
    )
    parameters: dict[str, Argument] = Field({}, max_length=MOST_ARGUMENTS)


class ProgramBody(Body):
    """Any program of the machine to start, by its arguments: that takes an admin."""

    argv: list[Argument] = Field(min_length=1, max_length=MOST_ARGUMENTS)
    name: str = Field(
        max_length=LONGEST_KEY, pattern=PROGRAM_NAME, description="what it is called there"
    )
    rights: list[Annotated[str, Field(pattern=RIGHTS)]] = Field(
        [], max_length=MOST_ARGUMENTS, description="capabilities that it needs"
    )


def _way(body: object) -> str:
    """Return which of the two a body is."""
    return "program" if isinstance(body, dict) and "argv" in body else "ready-made"


class AppBody(
    RootModel[
        Annotated[
            Annotated[ReadyMadeBody, Tag("ready-made")] | Annotated[ProgramBody, Tag("program")],
            Discriminator(_way),
        ]
    ]
):
    """A program to start on a router, or among clients."""
