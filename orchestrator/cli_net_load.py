"""`edgewake net load`: how busy the virtual network of a lab is: lines, JSON, metrics, graph."""

# ruff: noqa: PLC0415 - as in orchestrator.cli: what a command needs is imported by it

import time
from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from orchestrator import display
from orchestrator.cli_net_parts import AnyLab, Json, is_path, lab_at, networks_at


class Form(StrEnum):
    """How it is printed."""

    LINES = "lines"
    METRICS = "metrics"
    DOT = "dot"
    GRAPH = "graph"


def load(
    ctx: typer.Context,
    lab: AnyLab,
    seconds: Annotated[
        float, typer.Option(min=1.0, max=3600.0, help="Between the two looks that are compared.")
    ] = 1.0,
    form: Annotated[
        Form,
        typer.Option(
            "--form", help="`metrics`: for Prometheus; `graph`: node-link JSON of a lab file."
        ),
    ] = Form.LINES,
    as_json: Json = False,
) -> None:
    """Show how busy links and routers are: rates, share of bandwidth, processors, losses."""
    from orchestrator import net_report
    from orchestrator.network_monitor import NetworkMonitor
    from orchestrator.topology import Topology
    from web.families import text
    from web.network_metrics import families

    known = lab_at(ctx, Path(lab)) if is_path(lab) else None
    if form is Form.GRAPH and known is None:
        raise typer.BadParameter("--form graph needs a lab file")
    name = known.name if known else lab
    with networks_at(ctx) as networks:
        monitor = NetworkMonitor(name, partial(networks.seen, name))
        monitor.sample()
        if form is Form.METRICS:
            typer.echo(text(families([monitor.sample()])), nl=False)
            return
        time.sleep(seconds)
        monitor.outdate()
        monitor.sample()
        busy = monitor.load()
        network = networks.view(name).kept.network
    if as_json:
        display.print_json(asdict(busy))
    elif form is Form.DOT:
        typer.echo(net_report.dot(network, busy), nl=False)
    elif form is Form.GRAPH and known is not None:
        typer.echo(Topology.of(known).node_link_json(busy))
    else:
        typer.echo("\n".join(net_report.load_lines(busy)))


def register(app: typer.Typer) -> None:
    """Add the command to the application of `edgewake net`."""
    app.command(epilog="Example: edgewake net load lab.yaml --form dot | dot -Tsvg > lab.svg")(load)
