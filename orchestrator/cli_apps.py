"""The commands `edgewake net app ...`: programs on the routers of a network that runs.

What is started and ended in the network of an edgewake that runs goes through its API; the rest
needs none. docs/apps-on-routers.md lists the ready-made programs.
"""

# ruff: noqa: PLC0415 - as in orchestrator.cli: what a command needs is imported by it

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator import display
from orchestrator.cli_net_daemon import running
from orchestrator.cli_net_parts import AnyLab, Json, name_of, network_at, networks_at
from orchestrator.errors import CannotNetwork

if TYPE_CHECKING:
    from orchestrator.network import AppState
    from orchestrator.routers.base import Apps

LOOK_S = 0.5

Document = dict[str, Any]

apps_app = typer.Typer(
    name="app",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Start, stop, list and watch programs on the routers of a network that runs.",
    epilog="Example: edgewake net app start lab.yaml r1 ping to=r3",
)

Node = Annotated[str, typer.Argument(metavar="NODE", help="A router, or clients.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="What the program is called there.")]


@apps_app.command(epilog="Example: edgewake net app start lab.yaml r1 send to=r3 rate=100")
def start(  # noqa: PLR0917 - typer declares options as arguments
    ctx: typer.Context,
    lab: AnyLab,
    node: Node,
    program: Annotated[str, typer.Argument(metavar="PROGRAM", help="A ready-made program.")],
    parameters: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Its parameters.")
    ] = None,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="What to call it; default: as the program.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Start a ready-made program on a router, or among clients; see `net app programs`."""
    from orchestrator.networks import router_at
    from orchestrator.programs import catalogue

    given = dict(_parameter(text) for text in parameters or [])
    called = _checked(name or program)
    try:
        catalogue.ready_made(program)
    except ValueError as error:
        raise CannotNetwork(f"{node}: {error}") from error
    if daemon := running(ctx, name_of(ctx, lab)):
        _show([daemon.start(node, called, program, given)], as_json=as_json)
        return
    with networks_at(ctx) as networks:
        apps = networks.apps(name_of(ctx, lab))
        network = network_at(ctx, networks, lab)
    known = catalogue.addresses(network)
    router_at(network, node)  # which says what there is
    try:
        app = catalogue.app(called, node, program, given, known.__getitem__)
    except ValueError as error:
        raise CannotNetwork(f"{node}: {error}") from error
    _show([document(apps.start(app))], as_json=as_json)


@apps_app.command(epilog="Example: edgewake net app stop lab.yaml r1 ping")
def stop(ctx: typer.Context, lab: AnyLab, node: Node, name: Name, as_json: Json = False) -> None:
    """End a program; its console and its end stay known until it is removed."""
    daemon = running(ctx, name_of(ctx, lab))
    if daemon is not None:
        _show([daemon.stop(node, name)], as_json=as_json)
    else:
        _show([document(_apps(ctx, lab).stop(node, name))], as_json=as_json)


@apps_app.command(epilog="Example: edgewake net app remove lab.yaml r1 ping")
def remove(ctx: typer.Context, lab: AnyLab, node: Node, name: Name, as_json: Json = False) -> None:
    """End a program and forget it; one that is not there is no error."""
    (running(ctx, name_of(ctx, lab)) or _apps(ctx, lab)).remove(node, name)
    if as_json:
        display.print_json({"removed": f"{node}/{name}"})


@apps_app.command(name="list", epilog="Example: edgewake net app list lab.yaml")
def list_(ctx: typer.Context, lab: AnyLab, as_json: Json = False) -> None:
    """List the programs that were started and not removed."""
    _show([document(state) for state in _apps(ctx, lab).all()], as_json=as_json)


@apps_app.command(epilog="Example: edgewake net app console lab.yaml r1 ping")
def console(ctx: typer.Context, lab: AnyLab, node: Node, name: Name, as_json: Json = False) -> None:
    """Print what a program has printed: the last 64 KiB."""
    apps = _apps(ctx, lab)
    _state(apps, node, name)
    said = apps.console(node, name)
    if as_json:
        display.print_json({"app": f"{node}/{name}", "console": said.decode(errors="replace")})
    else:
        typer.echo(said, nl=False)


@apps_app.command(epilog="Example: edgewake net app watch lab.yaml r1 ping")
def watch(ctx: typer.Context, lab: AnyLab, node: Node, name: Name) -> None:
    """Print what a program prints, until it ends or Ctrl-C; ends with 1 if it did not end well."""
    from orchestrator.cli import unseen

    apps, before = _apps(ctx, lab), ""
    try:
        while True:
            state = _state(apps, node, name)
            now = apps.console(node, name).decode(errors="replace")
            typer.echo(unseen(before, now), nl=False)
            if not state.running:
                break
            before = now
            time.sleep(LOOK_S)
    except KeyboardInterrupt:
        return
    if state.exit_code != 0:
        typer.echo(f"{node}/{name}: {_end(document(state))}", err=True)
        raise typer.Exit(1)


@apps_app.command(epilog="Example: edgewake net app programs ping")
def programs(
    program: Annotated[str, typer.Argument(metavar="PROGRAM", help="Only this one.")] = "",
    as_json: Json = False,
) -> None:
    """List the ready-made programs and their parameters."""
    from orchestrator.programs import catalogue

    try:
        chosen = [program] if program else sorted(catalogue.PROGRAMS)
        ready = {name: catalogue.ready_made(name) for name in chosen}
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if as_json:
        display.print_json(
            {
                name: {
                    "about": each.about,
                    "parameters": {
                        key: {"about": value.about, "default": value.default}
                        for key, value in each.parameters.items()
                    },
                }
                for name, each in ready.items()
            }
        )
        return
    for name, each in ready.items():
        typer.echo(f"{name}: {each.about}")
        for key, value in each.parameters.items():
            default = "required" if value.default is None else f"default {value.default!r}"
            typer.echo(f"  {key:<10} {value.about} ({default})")


# --- inside ---------------------------------------------------------------------------------------


def _apps(ctx: typer.Context, lab: str) -> "Apps":
    with networks_at(ctx) as networks:
        return networks.apps(name_of(ctx, lab))


def _state(apps: "Apps", node: str, name: str) -> "AppState":
    for state in apps.all():
        if (state.app.router, state.app.name) == (node, name):
            return state
    raise CannotNetwork(
        f"{node}/{name}: there is no such program", hint="`edgewake net app list` has them all"
    )


def _parameter(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f"{text!r} must be written KEY=VALUE")
    return key, value


def _checked(name: str) -> str:
    if not (name.isascii() and name.replace("-", "").isalnum() and len(name) <= 30):
        raise typer.BadParameter(f"--name {name!r} must be 1 to 30 letters, digits and hyphens")
    return name


def _end(state: Document) -> str:
    if state["running"]:
        return "running"
    if state["signal"] is not None:
        return f"ended by signal {state['signal']}"
    return "ended" if state["exit_code"] is None else f"ended with {state['exit_code']}"


def _show(states: list[Document], *, as_json: bool) -> None:
    if as_json:
        display.print_json({"apps": states})
        return
    for state in states:
        where = f"{state['router']}/{state['name']}"
        used = f"{state['cpu_s']:.2f} s of processor, {state['memory_mib']:.1f} MiB"
        typer.echo(f"{where:<24} {_end(state):<20} {used:<40} {' '.join(state['argv'])[:60]}")
    if not states:
        typer.echo("no program was started")


def document(state: "AppState") -> Document:
    """Return a program as the API and JSON have it; its input is left out."""
    return {
        "router": state.app.router,
        "name": state.app.name,
        "argv": list(state.app.argv),
        "rights": list(state.app.rights),
        "running": state.running,
        "pid": state.pid,
        "started_at": state.started_at,
        "exit_code": state.exit_code,
        "signal": state.signal,
        "cpu_s": state.cpu_s,
        "memory_mib": state.memory_mib,
    }
