"""`edgewake net scenario`: plays a scenario file, and fails if anything is not as it should be.

It is alone in what it makes: a network of the scenario's own name, which is removed at the end.
"""

# ruff: noqa: PLC0415 - as in orchestrator.cli: what a command needs is imported by it

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli_net_parts import BackEnd, lab_at
from orchestrator.errors import CannotNetwork

if TYPE_CHECKING:
    from orchestrator.network import Network
    from orchestrator.scenario.generate import Pools
    from orchestrator.scenario.ground import Ground
    from orchestrator.scenario.play import Row
    from orchestrator.scenario.spec import Scenario

PATIENCE_S = 3.0  # for a packet to get through, asked again after losses
OSPF_PATIENCE_S = 60.0  # for routing daemons to learn of a change


class Speed(StrEnum):
    """When events come."""

    FAST = "fast"
    REAL = "real"


def scenario(  # noqa: PLR0917 - typer declares options as arguments
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="RUN", help="A scenario file.")],
    back_end: Annotated[
        BackEnd, typer.Option(help="Where it is played; `netns`: for real, as root.")
    ] = BackEnd.MEMORY,
    seed: Annotated[
        int | None, typer.Option(min=0, help="What chance begins with; default: the file's.")
    ] = None,
    speed: Annotated[
        Speed, typer.Option(help="`real`: each event in its time; `fast`: one after the other.")
    ] = Speed.FAST,
    events: Annotated[bool, typer.Option("--events", help="Only list the events.")] = False,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the table as CSV, too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object per line.")] = False,
) -> None:
    """Play a scenario: routers, links and programs come, go and fail, by script and by chance.

    After each event, all is checked; it ends with 1 at the first one after which something is not
    as it should be.
    """
    from orchestrator.scenario import results
    from orchestrator.scenario.generate import events_of
    from orchestrator.scenario.play import Player
    from orchestrator.scenario.spec import load_scenario

    wanted = load_scenario(file)
    wanted = wanted if seed is None else replace(wanted, seed=seed)
    start, pools = _start(ctx, wanted)
    happenings = events_of(wanted, start, pools)
    if events:
        typer.echo(results.event_lines(happenings), nl=False)
        return
    rows: list[Row] = []
    with _ground(ctx, back_end, start) as ground:
        player = Player(ground, start, happenings, seed=wanted.seed)
        with closing(player.play(_pace(speed))) as playing:
            for row in playing:
                typer.echo(results.json_line(row) if as_json else results.told(row))
                rows.append(row)
    if csv is not None:
        csv.write_text(results.csv_text(rows))
    if rows[-1].broken:
        last = rows[-1]
        raise CannotNetwork(
            f"{file}: after event {last.number} ({last.event}): {'; '.join(last.broken)}",
            hint=f"play it again with --seed {wanted.seed} --back-end {back_end}",
        )


def register(app: typer.Typer) -> None:
    """Add the command to the application of `edgewake net`."""
    app.command(epilog="Example: edgewake net scenario churn.yaml --seed 7")(scenario)


def _pace(speed: Speed) -> Callable[[float], None]:
    if speed is Speed.FAST:
        return lambda _at_s: None
    began = time.monotonic()
    return lambda at_s: time.sleep(max(0.0, began + at_s - time.monotonic()))


def _start(ctx: typer.Context, wanted: "Scenario") -> "tuple[Network, Pools]":
    """Return the network at the start, under the scenario's name, and where addresses are from."""
    from orchestrator.scenario.generate import ANYWHERE, Pools, start_of
    from orchestrator.wanted_network import network_of

    if wanted.lab is None:
        return start_of(wanted), ANYWHERE
    lab = lab_at(ctx, wanted.lab)
    network = network_of(replace(lab, network=replace(lab.network, run=True)))
    if any(router.machine for router in network.routers):
        raise CannotNetwork(f"{wanted.lab}: its routers are on several machines, a scenario on one")
    pools = Pools(lab.network.subnet, lab.network.subnet6)
    return replace(network, name=wanted.name), pools


@contextmanager
def _ground(ctx: typer.Context, back_end: BackEnd, start: "Network") -> "Iterator[Ground]":
    """Yield where to play; what it remembers is forgotten afterwards, but for a crash."""
    if back_end is BackEnd.MEMORY:
        yield _in_memory(start)
        return
    folder = ctx.obj.path / "scenario" / start.name
    made = _in_namespaces(start, folder)
    with closing(made):
        yield made
    rmtree(folder, ignore_errors=True)


def _in_memory(start: "Network") -> "Ground":
    from orchestrator.routers.memory import MemoryKernel, MemoryRouters
    from orchestrator.routers.memory_apps import MemoryApps
    from orchestrator.scenario.ground import MemoryGround

    bridges = {stub.bridge for stub in start.stubs}
    routers = MemoryRouters("scenario", MemoryKernel(bridges=bridges))

    def nodes() -> set[str]:
        found = routers.found()
        return {*found.routers, *found.stubs}

    return MemoryGround(routers, MemoryApps(nodes), lambda a, b: routers.paths().path(a, b))


def _in_namespaces(start: "Network", folder: Path) -> "Ground":
    from orchestrator.local import apps_here, namespace_of, routers_here
    from orchestrator.network import Routing
    from orchestrator.scenario.ground import NetnsGround

    if os.geteuid() != 0:
        raise CannotNetwork("scenarios on netns take root", hint="or choose --back-end memory")
    owner = f"scenario {start.name}"
    return NetnsGround(
        routers_here(owner, folder),
        apps_here(owner, folder, start.name),
        partial(namespace_of, start.name),
        patience_s=OSPF_PATIENCE_S if start.routing is Routing.OSPF else PATIENCE_S,
    )
