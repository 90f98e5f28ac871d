"""`edgewake net link`: changes one link of a network that runs, and says what that cost.

docs/network.md tells what it prints.
"""

# ruff: noqa: PLC0415 - as in orchestrator.cli: what a command needs is imported by it

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import display
from orchestrator.cli_net_daemon import running
from orchestrator.cli_net_parts import AnyLab, Json, name_of, networks_at

if TYPE_CHECKING:
    from orchestrator.linux.probing import Loss
    from orchestrator.network import Network
    from orchestrator.routers.base import Done
    from orchestrator.units import Dimension

EndA = Annotated[str, typer.Argument(metavar="A", help="A router.")]
EndB = Annotated[str, typer.Argument(metavar="B", help="The router at the other end.")]


def link(  # noqa: PLR0917 - typer declares options as arguments
    ctx: typer.Context,
    lab: AnyLab,
    a: EndA,
    b: EndB,
    weight: Annotated[
        float | None, typer.Option(help="Routing weight, more than 0; smaller is preferred.")
    ] = None,
    latency: Annotated[str | None, typer.Option(help="In one direction: 20 ms.")] = None,
    jitter: Annotated[str | None, typer.Option(help="More or less of it: 2 ms.")] = None,
    loss: Annotated[str | None, typer.Option(help="Share of packets: 0.5 %.")] = None,
    bandwidth: Annotated[str | None, typer.Option(help="In each direction: 10 Mbit/s.")] = None,
    up: Annotated[
        bool | None, typer.Option("--up/--down", help="Whether it carries anything.")
    ] = None,
    measure: Annotated[
        bool, typer.Option(help="Count the packets that are lost between A and B meanwhile.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Change a link of a network that runs, or only show it.

    The lab file stays as it is: when it is applied again, the link is as it says. Packets between A
    and B are counted during the change, 100 a second, by whichever way they go.
    """
    from orchestrator.net_measure import loss_told
    from orchestrator.net_report import changes_told, quality_told, state_told
    from orchestrator.network_edits import LinkWish, with_link
    from orchestrator.networks import link_between
    from orchestrator.routing import Paths
    from orchestrator.units import BANDWIDTH, MILLISECONDS, PERCENT

    if weight is not None and not 0 < weight < float("inf"):
        raise typer.BadParameter("--weight must be more than 0")
    share = _amount("loss", loss, PERCENT)
    wish = LinkWish(
        latency_ms=_amount("latency", latency, MILLISECONDS),
        jitter_ms=_amount("jitter", jitter, MILLISECONDS),
        loss=None if share is None else share / 100,
        bandwidth_mbps=_amount("bandwidth", bandwidth, BANDWIDTH),
        weight=weight,
        up=up,
    )

    name = name_of(ctx, lab)
    with networks_at(ctx) as networks:
        view = networks.view(name)
        known = link_between(view.kept.network, a, b).name
        done, became = None, None
        if wish != LinkWish():
            after = with_link(view.kept.network, known, wish)
            daemon = running(ctx, name)

            def change() -> "Done":
                if daemon is not None:
                    return daemon.put_link(known, wish)
                return networks.change(name, lambda network: with_link(network, known, wish))

            done, became = _changed(change, after, (a, b) if measure else None)
            view = networks.view(name)
    now = link_between(view.kept.network, a, b)
    if as_json:
        changed = asdict(done) if done else None
        lost = asdict(became) if became else None
        document = {"link": asdict(now), "engine": view.engine(now)}
        display.print_json({**document, "changes": changed, "loss": lost})
        return
    by = view.engine(now) or "nothing"
    told = f"{quality_told(now.quality)}, weight {now.weight:g}, {state_told(view, now)}, by {by}"
    typer.echo(f"{now.name}: {told}")
    if done:
        for line in changes_told(done):
            typer.echo(f"  {line}")
        if became:
            typer.echo(f"  {a} to {b} meanwhile: {loss_told(became)}")
        if not Paths(view.kept.network).path(a, b):
            typer.echo(f"  no way is left from {a} to {b}")
        typer.echo("  the lab file is not changed: applied again, it has the link as it says")


def register(app: typer.Typer) -> None:
    """Add the command to the application of `edgewake net`."""
    app.command(epilog="Example: edgewake net link lab.yaml r1 r2 --down")(link)


def _amount(option: str, text: str | None, dimension: "Dimension") -> float | None:
    if text is None:
        return None
    try:
        return float(dimension.parse(text))
    except ValueError as error:
        raise typer.BadParameter(f"--{option}: {error}") from None


def _changed(
    change: "Callable[[], Done]", after: "Network", ends: tuple[str, str] | None
) -> "tuple[Done, Loss | None]":
    """Change a network; return what was, and what became of packets between two routers of it.

    `after` is the network that it becomes.
    """
    from orchestrator.local import namespace_of
    from orchestrator.net_measure import AFTER_S, CUT_OFF_S, measured
    from orchestrator.routing import Paths

    if ends is None:
        return change(), None
    done: list[Done] = []
    after_s = AFTER_S if Paths(after).path(*ends) else CUT_OFF_S
    loss = measured(after, *ends, namespace_of, lambda: done.append(change()), after_s=after_s)
    return done[0], loss
