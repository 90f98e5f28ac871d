"""What the commands `edgewake net ...` share: arguments, and the networks that they speak of."""

# ruff: noqa: PLC0415 - as in orchestrator.cli: what a command needs is imported by it

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator import display

if TYPE_CHECKING:
    from orchestrator.model import Lab
    from orchestrator.network import Network
    from orchestrator.networks import Networks

AnyLab = Annotated[
    str, typer.Argument(metavar="LAB", help="A lab file, or the name of a lab whose network runs.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


class BackEnd(StrEnum):
    """What makes networks."""

    NETNS = "netns"
    MEMORY = "memory"


@contextmanager
def networks_at(
    ctx: typer.Context, back_end: BackEnd = BackEnd.NETNS, bridges: Iterable[str] = ()
) -> "Iterator[Networks]":
    """Yield the networks of the installation; in memory, as if the machine had these bridges."""
    from orchestrator.local import networks_in_memory, networks_of

    if back_end is BackEnd.NETNS:
        yield networks_of(ctx.obj)
    else:
        with networks_in_memory(bridges) as networks:
            yield networks


def lab_at(ctx: typer.Context, file: Path) -> "Lab":
    """Return the lab of a file."""
    from orchestrator.labfile import load_lab

    return load_lab(file, images_dir=ctx.obj.images)


def name_of(ctx: typer.Context, lab: str) -> str:
    """Return the name of a lab that was given by its file or by its name."""
    return lab_at(ctx, Path(lab)).name if is_path(lab) else lab


def is_path(lab: str) -> bool:
    """Return whether a lab was given by its file, there or not: no name has a slash or a dot."""
    return Path(lab).is_file() or "/" in lab or "." in lab


def network_at(ctx: typer.Context, networks: "Networks", lab: str) -> "Network":
    """Return the network that runs, or else the one that a file wants, run or not."""
    from orchestrator.wanted_network import network_of

    kept = networks.kept(name_of(ctx, lab))
    if kept is not None:
        return kept.network
    file = Path(lab)
    if not file.is_file():
        return networks.view(lab).kept.network  # which says what there is
    known = lab_at(ctx, file)
    return network_of(replace(known, network=replace(known.network, run=True)))


@contextmanager
def progress_shown(*, quiet: bool) -> Iterator[Any]:
    """Yield what tells at a terminal how far a change is."""
    if quiet or not sys.stdout.isatty():
        yield None
        return
    with display.console(markup=False).status("looking ...") as status:
        yield lambda what, done, of: status.update(f"{what}: {done} of {of}")
