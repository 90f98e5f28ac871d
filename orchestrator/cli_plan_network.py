"""`edgewake plan routers` and `edgewake plan aggregation`: the virtual network's own questions.

Both read a lab file and print; nothing has to run, and nothing is changed. The answers are made by
`orchestrator.router_planner` and `orchestrator.aggregation`; here are options and words.
"""

# ruff: noqa: PLC0415 - as in orchestrator.cli: what a command needs is imported by it

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator import display

if TYPE_CHECKING:
    from orchestrator.router_planner import RouterPlan
    from placement.median import MedianPlan

MOST_S = 300.0

LabFile = Annotated[Path, typer.Argument(metavar="LAB", help="A lab file.")]
Algorithm = Annotated[str, typer.Option(metavar="NAME", help="An algorithm; default: auto.")]
Deadline = Annotated[
    float,
    typer.Option("--deadline", metavar="SECONDS", min=0.1, max=MOST_S, help="For each algorithm."),
]
Compare = Annotated[
    bool, typer.Option("--compare", help="Show what several algorithms find, side by side.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def routers(  # noqa: PLR0917 - typer declares options as arguments
    ctx: typer.Context,
    lab: LabFile,
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A host that may run routers, repeatable; default: all."),
    ] = None,
    cpu: Annotated[
        float | None, typer.Option(metavar="CORES", min=0.0, help="What a router needs.")
    ] = None,
    memory_mib: Annotated[
        int | None, typer.Option("--memory", metavar="MIB", min=0, help="What a router needs.")
    ] = None,
    algorithm: Algorithm = "",
    deadline_s: Deadline = 30.0,
    compare: Compare = False,
    as_json: Json = False,
) -> None:
    """Say which host runs each virtual router.

    Links between routers of two hosts cost what they carry. A router stays on the host that the lab
    file names for it, and with the guests that are attached to it. With --compare, the four engines
    of VLSP are asked beside the planner.
    """
    from orchestrator import router_planner
    from orchestrator.labfile import load_lab
    from orchestrator.model import Capacity

    _check(algorithm, compare=compare)
    wanted = load_lab(lab, images_dir=ctx.obj.images)
    usual = router_planner.NEED
    need = Capacity(
        usual.cpu if cpu is None else cpu, usual.memory_mib if memory_mib is None else memory_mib
    )
    options = replace(router_planner.OPTIONS, deadline_s=deadline_s)
    machines = tuple(host or ())
    if compare:
        found = router_planner.compare(wanted, machines=machines, need=need, options=options)
        lines = [
            {"algorithm": each.algorithm, "why": each.why}
            | (_routers(each.found) if each.found else {})
            for each in found
        ]
        _show_compared(lines, ("value", "mbps", "most"), as_json=as_json)
        return
    options = replace(options, algorithm=algorithm or options.algorithm)
    made = router_planner.plan_routers(wanted, machines=machines, need=need, options=options)
    answer = _routers(made)
    if as_json:
        display.print_json(answer)
        return
    display.print_pairs(("router", "host"), answer["routers"])
    typer.echo(f"\n{len(made.crossing)} links between hosts, {made.mbps:g} Mbit/s together")
    _show_proof(answer)


def aggregation(  # noqa: PLR0917 - typer declares options as arguments
    ctx: typer.Context,
    lab: LabFile,
    points: Annotated[
        int, typer.Option("--points", "-p", metavar="N", min=1, help="How many points.")
    ] = 1,
    algorithm: Algorithm = "",
    deadline_s: Deadline = 30.0,
    seed: Annotated[int, typer.Option(help="For algorithms that draw.")] = 0,
    compare: Compare = False,
    as_json: Json = False,
) -> None:
    """Say which routers are to gather what the others measure.

    The sum of latencies from every router to the nearest point is least (the p-median). With
    --compare, the choices of VLSP's controllers are shown beside it.
    """
    from orchestrator import aggregation as gathering
    from orchestrator.labfile import load_lab
    from orchestrator.topology import Topology
    from placement.median import MedianOptions

    if compare and algorithm:
        raise typer.BadParameter("--compare does not go with --algorithm")
    topology = Topology.of(load_lab(lab, images_dir=ctx.obj.images))
    options = MedianOptions(algorithm or "auto", deadline_s=deadline_s, seed=seed)
    if compare:
        lines = [
            {"algorithm": each.algorithm, "why": each.why}
            | (_points(each.plan) if each.plan else {})
            for each in gathering.compare(topology, points, options=options)
        ]
        _show_compared(lines, ("value",), as_json=as_json)
        return
    answer = _points(gathering.aggregation(topology, points, options=options))
    if as_json:
        display.print_json(answer)
        return
    typer.echo(f"points: {', '.join(answer['points'])}\n")
    display.print_pairs(("router", "reports to"), answer["reports_to"])
    typer.echo(f"\n{answer['value']:g} ms in all, one way")
    _show_proof(answer)


def register(app: typer.Typer) -> None:
    """Add the commands to those of `edgewake plan`."""
    app.command(epilog="Example: edgewake plan routers lab.yaml --compare")(routers)
    app.command(epilog="Example: edgewake plan aggregation lab.yaml -p 2")(aggregation)


def _check(algorithm: str, *, compare: bool) -> None:
    if compare and algorithm:
        raise typer.BadParameter("--compare does not go with --algorithm")
    if algorithm:
        from placement.problem import Malformed
        from placement.registry import algorithm as registered

        try:
            registered(algorithm)
        except Malformed as error:
            raise typer.BadParameter(f"--{error}") from error


def _routers(found: "RouterPlan") -> dict[str, Any]:
    plan = found.plan
    return {
        "routers": dict(found.hosts),
        "crossing": [{"between": [each.a, each.b]} for each in found.crossing],
        "mbps": found.mbps,
        "most": found.most,
        "terms": dict(plan.terms),
        "value": plan.value,
        "bound": plan.bound,
        "gap": plan.gap,
        "algorithm": plan.algorithm,
        "seconds": plan.seconds,
    }


def _points(plan: "MedianPlan") -> dict[str, Any]:
    return {
        "points": list(plan.opened),
        "reports_to": dict(plan.serves),
        "latency_ms": dict(plan.distances),
        "value": plan.value,
        "bound": plan.bound,
        "gap": plan.gap,
        "algorithm": plan.algorithm,
        "seconds": plan.seconds,
    }


def _show_compared(lines: list[dict[str, Any]], fields: tuple[str, ...], *, as_json: bool) -> None:
    if as_json:
        display.print_json({"algorithms": lines})
    else:
        display.print_compared(lines, fields)


def _show_proof(answer: dict[str, Any]) -> None:
    typer.echo(f"no plan is better than {answer['bound']:g}, gap {answer['gap']:.2%}")
    typer.echo(f"found by {answer['algorithm']} in {answer['seconds']:.3f} s")
