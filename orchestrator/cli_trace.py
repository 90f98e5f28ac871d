"""`edgewake trace` and `edgewake metrics`: where the time of wakes went, one by one and in all.

Both ask the running edgewake; the API has the same numbers (`/wakes`, `/metrics`).
"""

import time
from itertools import count
from typing import Annotated, Any
from urllib.parse import quote

import typer

from orchestrator import display
from orchestrator.cli_place import place_of
from web.client import Client

FOLLOW_S = 0.5
MOST = 1000  # what the API gives at once, and what edgewake keeps
REPLY_S = 1.0  # within which a wake that is over has got its reply stamped


def trace(  # noqa: PLR0917 - typer declares options as arguments
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A service; none for all.", show_default=False)
    ] = "",
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=MOST, help="How many wakes; default: 10, of a summary all."),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, one line per wake.")] = False,
    summary: Annotated[
        bool, typer.Option("--summary", help="Print percentiles per service and stage.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with each wake that ends, until Ctrl-C.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show where the time of the last wakes went.

    Each stage has a bar, and each wake says who chose its host, and the ratio of our own time to
    the hypervisor's and guest's.
    """
    if as_csv and (as_json or summary):
        raise typer.BadParameter("--csv does not go with --json or --summary")
    if follow and (as_json or summary):
        raise typer.BadParameter("--follow does not go with --json or --summary")
    client, path = Client(place_of(ctx)), f"/wakes?service={quote(name, safe='')}&limit="
    answer = client.get(f"{path}{limit or (MOST if summary else 10)}")
    wakes = answer["wakes"]
    if summary:
        display.print_summary(wakes, as_json=as_json)
    elif as_json:
        display.print_json(answer)
    elif follow:
        _follow(client, f"{path}{MOST}", wakes, as_csv=as_csv)
    elif as_csv:
        display.print_csv(wakes)
    elif wakes:
        display.print_wakes(wakes)
    else:
        typer.echo("no wakes yet")


def metrics(ctx: typer.Context) -> None:
    """Print counters and histograms in the text format of Prometheus."""
    typer.echo(Client(place_of(ctx)).text("/metrics"), nl=False)


def register(app: typer.Typer) -> None:
    """Add the commands to a group."""
    app.command(epilog="Example: edgewake trace web --limit 3")(trace)
    app.command(epilog="Example: edgewake metrics > edgewake.prom")(metrics)


def _follow(client: Client, path: str, wakes: list[dict[str, Any]], *, as_csv: bool) -> None:
    """Print these wakes, then each that ends, once it is over."""
    told: set[int] = set()
    for turn in count():
        over = [wake for wake in wakes if wake["id"] not in told and _is_over(wake)]
        told.update(wake["id"] for wake in over)
        if as_csv:
            display.print_csv(over, header=turn == 0)
        else:
            display.print_wakes(over)
        try:
            time.sleep(FOLLOW_S)
        except KeyboardInterrupt:
            return
        if turn == 0:  # what is older than the first list is not asked for
            told.update(range(min((wake["id"] for wake in wakes), default=1)))
        wakes = client.get(path)["wakes"]


def _is_over(wake: dict[str, Any]) -> bool:
    if wake["outcome"] == "waking":
        return False
    replied = any(stage == "reply" for stage, _ in wake["stamps"])
    return replied or time.time() > wake["started_at"] + wake["total_s"] + REPLY_S
