"""`edgewake host drain`: asks the running edgewake to empty a host, and shows how far that is.

The drain is edgewake's and goes on without this command: it may be interrupted, and asked again.
"""

import json
import time
from typing import Annotated, Any
from urllib.parse import quote

import typer

from orchestrator.cli_place import place_of
from orchestrator.errors import EdgewakeError
from web.client import Client

LOOK_S = 0.5  # between two looks at the drain: a step takes a boot and a TTL, so seconds


def drain(  # noqa: PLR0917 - typer declares options as arguments
    ctx: typer.Context,
    host: Annotated[str, typer.Argument(metavar="HOST", help="A host of the lab.")],
    undo: Annotated[
        bool,
        typer.Option(
            "--undo",
            help="Use the host again; what has moved stays moved.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="End services that can run nowhere else.")
    ] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Only begin, and end at once.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Move everything off a host, and place nothing new there.

    Each instance is booted elsewhere before it is ended, or, with `migrate: live` in the lab file,
    migrated as it runs. What can run nowhere else goes on running and is listed; the command then
    ends with 1.
    """
    if undo and force:
        raise typer.BadParameter("--undo and --force do not go together")
    client, path = Client(place_of(ctx)), f"/hosts/{quote(host, safe='')}/drain"
    if undo:
        answer = client.delete(path)
        typer.echo(json.dumps(answer, indent=2) if as_json else f"{host}: in use again")
        return
    report = client.post(path, {"force": force})["drain"]
    if not no_wait:
        report = _watch(client, host, report, quiet=as_json)
    if as_json:
        typer.echo(json.dumps({"host": host, "drain": report}, indent=2))
    else:
        _print(host, report)
    if not no_wait and report["state"] != "drained":
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the command to the application of `edgewake host`."""
    app.command(epilog="Example: edgewake host drain pc1")(drain)


def _watch(client: Client, host: str, report: Any, *, quiet: bool) -> Any:
    """Return the drain when nothing more of it can be done now; show each step unless `quiet`."""
    said = _steps(report)
    while report["state"] != "drained" and len(report["stuck"]) < report["total"] - report["moved"]:
        time.sleep(LOOK_S)
        report = _report(client, host)
        steps = _steps(report)
        for step in steps:
            if not quiet and step not in said:
                typer.echo(f"{host}: {step}")
        said = steps
    return report


def _steps(report: Any) -> list[str]:
    """Return what there is to be told about a drain, a line each."""
    lines = [f"{each['instance']} is booted elsewhere: {each['why']}" for each in report["booted"]]
    for each in report["migrating"]:
        far = "" if each["percent"] is None else f": {each['percent']} %"
        left = "" if each["percent"] is None else f", {each['left_bytes'] / 2**20:.0f} MiB left"
        lines.append(f"{each['instance']} is being migrated to {each['to']}{far}{left}")
    return [*lines, _progress(report)]


def _report(client: Client, host: str) -> Any:
    for each in client.get("/status")["hosts"]:
        if each["name"] == host and each["drain"]:
            return each["drain"]
    raise EdgewakeError(f"{host}: the drain was undone meanwhile")


def _progress(report: Any) -> str:
    return f"drained {report['moved']} of {report['total']}"


def _print(host: str, report: Any) -> None:
    for each in report["stuck"]:
        typer.echo(f"{host}: {each['instance']} stays: {each['why']}")
    left = report["total"] - report["moved"]
    movable = any(not each["ending"] for each in report["stuck"])
    hint = "; --force ends what cannot move" if movable else ""
    typer.echo(f"{host}: {_progress(report)}" + (f", {left} left{hint}" if left else ""))
