"""`edgewake queries` and `edgewake events`: what was asked and what happened, and what does now.

Both ask the running edgewake; the API has the same (`/queries`, `/events`, `/events/stream`).
"""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from orchestrator import display
from web.client import Client
from web.sse import ServerEvent

MOST = 1000  # what the API gives at once
FROM_THE_START = "1"  # no number of an event that there is: the stream begins with a gap

Found = list[dict[str, Any]]
Limit = Annotated[int, typer.Option(min=1, max=MOST, help="How many.")]
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON, for programs; with --follow, one per line.")
]


def queries(  # noqa: PLR0917 - typer declares options as arguments
    ctx: typer.Context,
    service: Annotated[str, typer.Option(help="Only those for a service.")] = "",
    client: Annotated[str, typer.Option(help="Only those of an address or network.")] = "",
    rcode: Annotated[str, typer.Option(help="Only those with this reply, as NXDOMAIN.")] = "",
    limit: Limit = 20,
    follow: Follow = False,
    as_json: AsJson = False,
) -> None:
    """Show the last DNS queries: who asked for what, the answer, and what became of each."""
    api = Client(ctx.obj.socket)
    chosen = {"service": service, "client": client, "rcode": rcode}
    path = "/queries?" + urlencode({"limit": limit, **{k: v for k, v in chosen.items() if v}})
    if follow:
        _print_each(_new_queries(api, path, chosen), query_line, as_json=as_json)
        return
    answer = api.get(path)
    if as_json:
        display.print_json(answer)
        return
    for each in reversed(answer["queries"]):
        typer.echo(query_line(each))
    if not answer["queries"]:
        off = "the lab file says 'dns: {log: off}': no queries are kept"
        typer.echo(off if answer["log"] == "off" else "no queries yet")


def events(
    ctx: typer.Context, limit: Limit = 20, follow: Follow = False, as_json: AsJson = False
) -> None:
    """Show the last lines of the journal: what was done, and what went wrong."""
    api, path = Client(ctx.obj.socket), f"/events?limit={limit}"
    if follow:
        _print_each(_new_events(api, path), event_line, as_json=as_json)
        return
    answer = api.get(path)
    if as_json:
        display.print_json(answer)
        return
    for each in answer["events"]:
        typer.echo(event_line(each))
    if not answer["events"]:
        typer.echo("no events yet")


def register(app: typer.Typer) -> None:
    """Add the commands to a group."""
    app.command(epilog="Example: edgewake queries --follow --service web")(queries)
    app.command(epilog="Example: edgewake events --follow")(events)


def query_line(query: dict[str, Any]) -> str:
    """Return a query as a line; its name is escaped already."""
    port = f":{query['port']}" if query["port"] else ""
    client = query["client"]
    client = f"[{client}]{port}" if port and ":" in client else client + port
    answer = " ".join((query["rcode"] or "no reply", *query["answers"]))
    more = [query["outcome"], f"{query['latency_ms']:.1f} ms"]
    if query["wake"]:
        more.append(f"wake {query['wake']}")
    if query["subnet"]:
        more.append(f"for {query['subnet']}")
    if query["sampled"]:
        more.append(f"one of {query['of']}")
    asked = f"{_time(query['at'])} {client} {query['type']} {query['name']}"
    return f"{asked}: {answer} ({', '.join(more)})"


def event_line(event: dict[str, Any]) -> str:
    """Return an event as a line."""
    return f"{_time(event['at'])} {event['kind']}: {event['subject']}: {event['text']}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]


def _new_queries(api: Client, path: str, chosen: dict[str, str]) -> Iterator[Found]:
    last = 0
    for message in _stream(api, "queries"):
        if message.name == "gap":
            found = list(reversed(api.get(path)["queries"]))
        else:
            found = [each for each in message.data if _is_chosen(each, chosen)]
        yield [each for each in found if each["id"] > last]
        last = max([last, *(each["id"] for each in found)])


def _is_chosen(query: dict[str, Any], chosen: dict[str, str]) -> bool:
    """Say what the API says of a list."""
    if not all(chosen[key].lower() in {"", query[key].lower()} for key in ("service", "rcode")):
        return False
    if not chosen["client"]:
        return True
    one = ip_network(query["client"].partition("%")[0])
    other = ip_network(chosen["client"], strict=False)
    return one.version == other.version and one.overlaps(other)


def _new_events(api: Client, path: str) -> Iterator[Found]:
    told: set[str] = set()  # by the last message: after a gap, some come again
    for message in _stream(api, "event"):
        found = [message.data] if message.name == "event" else api.get(path)["events"]
        keys = [json.dumps(each, sort_keys=True) for each in found]
        yield [each for each, key in zip(found, keys, strict=True) if key not in told]
        told = told | set(keys) if message.name == "event" else set(keys)
        if len(told) > MOST:
            told = set(keys)


def _stream(api: Client, topic: str) -> Iterator[ServerEvent]:
    return api.stream(f"/events/stream?topic={topic}", FROM_THE_START)


def _print_each(
    found: Iterator[Found], line: Callable[[dict[str, Any]], str], *, as_json: bool
) -> None:
    with suppress(KeyboardInterrupt):
        for some in found:
            for each in some:
                typer.echo(json.dumps(each) if as_json else line(each))
