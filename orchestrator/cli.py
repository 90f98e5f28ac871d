"""The command line, `edgewake`: reads options, asks the running edgewake, and prints.

`up`, `doctor`, `schema`, `demo`, `study`, `net` and `plan LAB` work by themselves; every other
command asks the edgewake that runs with the same state directory. docs/cli.md has every command
with an example, and the exit codes, which are `Exit`. Heavy modules are imported by the commands
that need them, so that `edgewake --help` is quick.
"""

# ruff: noqa: PLC0415 - see above

import os
import sys
import time
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer
from typer.core import TyperGroup

from orchestrator import cli_plan, cli_study, cli_trace, cli_watch, cli_web, display
from orchestrator.cli_hosts import hosts_app
from orchestrator.cli_images import images_app
from orchestrator.cli_net import net_app
from orchestrator.cli_place import place_of, remember
from orchestrator.cli_waiting import asking
from orchestrator.errors import EdgewakeError, InstallationError, LabError
from orchestrator.installation import check_installation
from orchestrator.logs import LogFormat, LogLevel
from orchestrator.state_dir import StateDir
from web.client import ApiError, Client, GoesOn, NotRunning

if TYPE_CHECKING:
    from orchestrator.verdicts import Check

SYSTEM_STATE = Path("/var/lib/edgewake")
USER_STATE = Path(".local/state/edgewake")  # below the home directory (XDG base directories)
DEMO_LAB = Path(__file__).resolve().parents[1] / "examples" / "demo.yaml"
FOLLOW_S = 0.5
RECOGNISED = 64  # characters by which a place in a console's text is found again


class Exit(IntEnum):
    """The exit codes; 2 is the option parser's own."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    LAB_INVALID = 4
    INSTALLATION = 5
    INTERRUPTED = 130


class _Commands(TyperGroup):
    """Turns errors of ours into a message and an exit code, in one place."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EdgewakeError as error:
            failure = error
        except ImportError as error:
            failure = InstallationError(
                f"a part cannot be loaded: {error}",
                hint="run `make setup` in a checkout, or install edgewake again",
            )
        typer.echo(f"edgewake: {failure.message}", err=True)
        if failure.hint:
            typer.echo(f"  {failure.hint}", err=True)
        raise typer.Exit(exit_code(failure))


def exit_code(error: EdgewakeError) -> Exit:
    """Return the exit code that goes with an error."""
    match error:
        case NotRunning():
            return Exit.NOT_RUNNING
        case LabError() | ApiError(kind="lab"):
            return Exit.LAB_INVALID
        case InstallationError():
            return Exit.INSTALLATION
        case GoesOn():
            return Exit.INTERRUPTED
        case _:
            return Exit.FAILED


app = typer.Typer(
    name="edgewake",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: edgewake up examples/demo.yaml",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A service of the lab.")]
MaybeLab = Annotated[Path | None, typer.Argument(metavar="LAB", help="A lab file.")]


def _default_state() -> Path:
    return SYSTEM_STATE if os.geteuid() == 0 else Path.home() / USER_STATE


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"edgewake {version('edgewake')}")
        raise typer.Exit


@app.callback()
def edgewake(
    ctx: typer.Context,
    state: Annotated[
        Path | None,
        typer.Option(
            envvar="EDGEWAKE_STATE",
            file_okay=False,
            help=f"State directory. Default: {SYSTEM_STATE} for root, else ~/{USER_STATE}.",
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            envvar="EDGEWAKE_URL",
            help="Ask the edgewake there, such as https://box:8480, and not the one here.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with a token for --url. Default: the variable EDGEWAKE_TOKEN."),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(envvar="EDGEWAKE_CA", help="Certificates (PEM) to check --url against."),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback does it all
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version, and end."
        ),
    ] = False,
) -> None:
    """Boot services on edge hosts when somebody asks DNS for them, and let them sleep again."""
    if ctx.invoked_subcommand != "doctor":  # which finds out for itself, and goes on
        check_installation()
    ctx.obj = StateDir(state or _default_state())
    if url is not None:
        remember(ctx, url, token_file, ca)


# --- the running edgewake ---------------------------------------------------------------------


@app.command(epilog="Example: edgewake up lab.yaml")
def up(
    ctx: typer.Context,
    lab: MaybeLab = None,
    ephemeral: Annotated[
        bool,
        typer.Option("--ephemeral", help="At the end, stop our guests and remove our networks."),
    ] = False,
    while_stdin: Annotated[
        bool,
        typer.Option("--while-stdin", help="End when standard input does, as with its starter."),
    ] = False,
    trace_csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Append a line of CSV for each wake that is over."),
    ] = None,
    otel: Annotated[
        bool,
        typer.Option(
            "--otel", help="Send each wake to OpenTelemetry, as OTEL_* variables say where."
        ),
    ] = False,
    log_format: Annotated[
        LogFormat, typer.Option(help="How lines of the log are written.")
    ] = LogFormat.CONSOLE,
    log_level: Annotated[
        LogLevel, typer.Option(help="The least important lines that are written.")
    ] = LogLevel.INFO,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="As with --log-level debug.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run edgewake in the foreground.

    It runs LAB, or the lab that was applied last in this state directory. SIGTERM and Ctrl-C stop
    it in order; guests go on running, and the next start finds them. SIGHUP reads the lab file
    again. Logs go to standard error.
    """
    from orchestrator.daemon import Tracing, run

    run(
        ctx.obj.path,
        lab,
        ephemeral=ephemeral,
        while_stdin=while_stdin,
        tracing=Tracing(csv=trace_csv and trace_csv.absolute(), otel=otel),
        as_json=as_json,
        log_format=log_format,
        log_level=LogLevel.DEBUG if verbose else log_level,
    )


@app.command(epilog="Example: edgewake apply lab.yaml --dry-run")
def apply(
    ctx: typer.Context,
    lab: Annotated[Path, typer.Argument(metavar="LAB", help="A lab file.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would end.")] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Also only show how LAB differs from the lab in use.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Go over to another lab without a restart.

    At a terminal it asks first if instances have to end for it. The lab's name and DNS settings
    change with a restart only.
    """
    from orchestrator.labfile import load_lab
    from orchestrator.unguarded import WHAT_TO_DO

    path = lab.absolute()
    load_lab(path)  # a wrong file is told without asking anybody
    body = {"text": path.read_text(encoding="utf-8-sig"), "path": str(path)}
    client = _client(ctx)
    answer = client.put("/lab?dry_run=1", body)
    if diff:
        answer["diff"] = display.difference(client.get("/lab"), body)
    if not dry_run and not diff:
        if answer["changes"] and not yes and not as_json and _at_terminal():
            display.print_changes(answer["changes"])
            typer.confirm("Go on?", abort=True)
        with asking(place_of(ctx), "applying ...") as client:
            answer = client.put("/lab", body)
    if as_json:
        display.print_json(answer)
        return
    typer.echo(answer.get("diff", ""), nl=False)
    typer.echo(f"lab {answer['lab']}: {'applied' if answer['applied'] else 'not applied'}")
    typer.echo(f"  {answer['summary']}")
    display.print_changes(answer["changes"])
    for host, why in answer["unguarded"].items():
        typer.echo(f"note: {host} is {why}. {WHAT_TO_DO.capitalize()}.", err=True)


cli_plan.register(app)


@app.command(epilog="Example: edgewake explain web --for campus")
def explain(
    ctx: typer.Context,
    name: Name,
    population: Annotated[
        str, typer.Option("--for", metavar="CLIENTS", help="As if these clients asked.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Show where a service would wake now, with which image, and why not on the other hosts."""
    query = f"?population={quote(population, safe='')}" if population else ""
    answer = _client(ctx).get(f"/services/{quote(name, safe='')}/hosts{query}")
    if as_json:
        display.print_json(answer)
    else:
        display.print_choices(answer["hosts"])


@app.command(epilog="Example: edgewake status")
def status(ctx: typer.Context, as_json: Json = False) -> None:
    """Show hosts and services.

    Asleep is a healthy state: the next query wakes the service.
    """
    answer = _client(ctx).get("/status")
    if as_json:
        display.print_json(answer)
    else:
        display.print_status(answer)


@app.command(epilog="Example: edgewake wake web")
def wake(
    ctx: typer.Context,
    name: Name,
    client: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Wake it for a client at this address.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Wake a service, and print its addresses.

    It is woken as by a DNS query; the command ends when the service answers.
    """
    body = {"client": client} if client else {}
    with asking(place_of(ctx), f"waking {name} ...") as edgewake:
        answer = edgewake.post(f"/services/{quote(name, safe='')}/wake", body)
    if as_json:
        display.print_json(answer)
        return
    for end in answer["endpoints"]:
        addresses = " ".join(each for each in (end["address"], end["address6"]) if each)
        typer.echo(f"{name}: {addresses} on {end['host']} ({end['instance']})")
    if answer["wake"] is None:
        typer.echo("it was awake")
    else:
        display.print_wakes([answer["wake"]])


@app.command(epilog="Example: edgewake sleep web")
def sleep(
    ctx: typer.Context,
    name: Name,
    to: Annotated[
        str | None,
        typer.Option("--to", help="How deeply: paused, saved or cold; default: one rung down."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Put a service to sleep now, used or not.

    It goes down one rung of the ladder (ready, paused, saved, cold), or to the one that is named.
    """
    with asking(place_of(ctx), f"putting {name} to sleep ...") as edgewake:
        answer = edgewake.post(f"/services/{quote(name, safe='')}/sleep", {"to": to})
    if as_json:
        display.print_json(answer)
    else:
        slept = ", ".join(answer["slept"])
        went = f"{slept} went to sleep, " if slept else ""
        typer.echo(f"{name}: {went}{answer['rung']} now")


@app.command(epilog="Example: edgewake move web pc2")
def move(
    ctx: typer.Context,
    name: Name,
    host: Annotated[str, typer.Argument(metavar="HOST", help="A host of the lab.")],
    as_json: Json = False,
) -> None:
    """Move a service that is awake to a host.

    It answers there before it ends where it is; with `migrate: live` in the lab file it goes there
    as it runs. If the host cannot take it, it stays where it is, and why is told.
    """
    with asking(place_of(ctx), f"moving {name} to {host} ...") as edgewake:
        answer = edgewake.post(f"/services/{quote(name, safe='')}/move", {"host": host})
    if as_json:
        display.print_json(answer)
        return
    display.print_steps(answer["changes"], [])
    typer.echo(f"{name}: on {host} now")


@app.command(epilog="Example: edgewake abilities")
def abilities(
    ctx: typer.Context,
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget them, so that each is found out anew.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show which rungs of sleep guests were found to survive, by host and image."""
    client = _client(ctx)
    answer = client.delete("/abilities") if forget else client.get("/abilities")
    if as_json:
        display.print_json(answer)
    elif forget:
        typer.echo("forgotten; what guests survive is found out anew")
    else:
        display.print_abilities(answer["abilities"])


@app.command(epilog="Example: edgewake logs web --follow")
def logs(
    ctx: typer.Context,
    name: Name,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on printing what it says, until Ctrl-C.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the console of a service's guest.

    The last 64 KiB are there, also of a guest that has ended.
    """
    if follow and as_json:
        raise typer.BadParameter("--follow and --json do not go together")
    client, path = _client(ctx), f"/services/{quote(name, safe='')}/console"
    text = client.text(path)
    if as_json:
        display.print_json({"service": name, "console": text})
        return
    typer.echo(text, nl=False)
    while follow:
        try:
            time.sleep(FOLLOW_S)
        except KeyboardInterrupt:
            return
        before, text = text, client.text(path)
        typer.echo(unseen(before, text), nl=False)


cli_trace.register(app)
cli_watch.register(app)


# --- alone ------------------------------------------------------------------------------------


@app.command(epilog="Example: edgewake doctor lab.yaml")
def doctor(ctx: typer.Context, lab: MaybeLab = None, as_json: Json = False) -> None:
    """Say what this machine lacks to boot guests.

    With LAB, its libvirt hosts, images and DNS address are looked at too. Ends with 5 if a check
    failed; warnings are no failure.
    """
    from orchestrator.doctor import Patient, examine
    from orchestrator.labfile import load_lab
    from orchestrator.local import kvm_known, library_of
    from orchestrator.verdicts import Verdict

    images = ctx.obj.images
    parsed = load_lab(lab, images_dir=images) if lab else None
    library = library_of(ctx.obj)
    patient = Patient(images, library, kvm_known(ctx.obj), parsed, dns_is_ours=_is_running(ctx))
    checks: list[Check] = []
    out = display.console()
    with out.status("looking; booting a kernel under KVM may take seconds ..."):
        for check in examine(patient):
            checks.append(check)
            if not as_json:
                display.print_check(out, check)
    if as_json:
        display.print_json({"checks": [display.check_document(check) for check in checks]})
    if any(check.verdict is Verdict.FAIL for check in checks):
        raise typer.Exit(Exit.INSTALLATION)


@app.command(epilog="Example: edgewake demo")
def demo(ctx: typer.Context, lab: MaybeLab = None) -> None:
    """Show the main job for real: a query boots a machine.

    It removes all it made at the end. Needs root and what `make setup` installs. LAB is
    examples/demo.yaml of the checkout if not given. It keeps its state in a folder of its own below
    the state directory.
    """
    from orchestrator.demo import run_demo

    if lab is None and not DEMO_LAB.exists():
        raise typer.BadParameter("this is no checkout with examples/demo.yaml: name a LAB file")
    run_demo(lab or DEMO_LAB, ctx.obj.path / "demo")


@app.command(epilog="Example: edgewake schema > edgewake.schema.json")
def schema(
    study: Annotated[bool, typer.Option("--study", help="Of study files.")] = False,
) -> None:
    """Print the JSON Schema of lab files, for editors."""
    if study:
        from placement.study.spec import study_schema

        display.print_json(study_schema())
        return
    from orchestrator.labfile import lab_schema

    display.print_json(lab_schema())


cli_study.register(app)
app.add_typer(images_app)
app.add_typer(hosts_app)
app.add_typer(net_app)
cli_web.register(app)


def main() -> None:
    """Run the command line; what the `edgewake` script calls."""
    app(prog_name="edgewake")


# --- asking -----------------------------------------------------------------------------------


def _client(ctx: typer.Context) -> Client:
    return Client(place_of(ctx))


def _at_terminal() -> bool:
    return sys.stdin.isatty()


def _is_running(ctx: typer.Context) -> bool:
    try:
        _client(ctx).get("/healthz")
    except EdgewakeError:
        return False
    return True


def unseen(before: str, now: str) -> str:
    """Return what a console shows now that it did not show before.

    It is a window on the end of a longer text, so its beginning is looked for in what was seen.
    When it is not there, this is another guest's console, and all of it is new.
    """
    if now.startswith(before):
        return now[len(before) :]
    at = before.find(now[:RECOGNISED])
    while at >= 0:
        if now.startswith(before[at:]):
            return now[len(before) - at :]
        at = before.find(now[:RECOGNISED], at + 1)
    return now
