"""How the command line shows things: tables for people, JSON and CSV for programs.

What is shown are the API's documents (`web.models`). rich is imported by the functions that need
it.
"""

# ruff: noqa: PLC0415 - see above

import csv
import difflib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.verdicts import Check

WIDE = 160  # columns when the output is no terminal: enough that nothing is cut
STATE_COLOURS = {"awake": "bold green", "asleep": "green", "waking": "yellow", "stopping": "yellow"}
VERDICT_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def console(*, markup: bool = True) -> "Console":
    """Return where results are printed, wide enough that nothing is cut in a file.

    Without `markup`, text in square brackets is shown as it is.
    """
    from rich.console import Console

    width = None if sys.stdout.isatty() else WIDE
    return Console(width=width, highlight=False, markup=markup)


def print_json(document: object) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(document, indent=2))


def difference(now: Mapping[str, Any], then: Mapping[str, Any]) -> str:
    """Return how a lab differs from the one in use, as unified diff; empty if it does not."""
    before, after = (str(lab["text"]).splitlines(keepends=True) for lab in (now, then))
    names = f"version {now['number']}, in use", str(then["path"])
    lines = difflib.unified_diff(before, after, *names)
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def print_changes(changes: list[dict[str, Any]]) -> None:
    """Print what ends or moves, a line for each."""
    for change in changes:
        typer.echo(f"  {_told(change)}")
    if not changes:
        typer.echo("  no instance has to end or move")


def print_steps(changes: list[dict[str, Any]], left: list[str]) -> None:
    """Print the changes of a plan in the order in which they are carried out, and what is left."""
    for number, change in enumerate(changes, 1):
        why = f" ({change['why']})" if change.get("why") else ""
        typer.echo(f"  {number:>3}. {_told(change)}{why}")
    for service in left:
        typer.echo(f"  {service} stays where it is: no order has room for it beside what runs")
    if not changes and not left:
        typer.echo("  no instance has to end or move")


def _told(change: dict[str, Any]) -> str:
    what = change.get("instance") or change["service"]
    to = f" to {change['to']}" if change.get("to") else ""
    return f"{change['do']:<9} {what} on {change['host']}{to}"


def print_front(front: dict[str, Any]) -> None:
    """Print the points of a Pareto front, each with where it has services beside the one before."""
    from rich.table import Table

    terms = front["terms"]
    heads = [f"{term} ({front['units'][term]})" for term in terms]
    table = Table("", *heads, "hosts", "places", box=None)
    before: dict[str, list[str]] = {}
    for number, plan in enumerate(front["plans"]):
        hosts = {host for where in plan["hosts"].values() for host in where}
        moved = {name: where for name, where in plan["hosts"].items() if before.get(name) != where}
        told = "; ".join(f"{name}: {', '.join(where)}" for name, where in sorted(moved.items()))
        mark = f"{number + 1}{' knee' if number == front['knee'] else ''}"
        values = [f"{plan['terms'][term]:.6g}" for term in terms]
        table.add_row(mark, *values, str(len(hosts)), _plain(told))
        before = plan["hosts"]
    out = console()
    out.print(table)
    proven = "no point is missing" if front["proven"] else "not proven: points may be missing"
    found = len(front["plans"])
    out.print(f"\n{found} point{'s' * (found != 1)} in {front['seconds']:.3f} s; {proven}")
    if front["operation"]:
        out.print(f"what one would change: edgewake plan point {front['operation']} POINT")


def print_status(answer: dict[str, Any]) -> None:
    """Print hosts and services."""
    from rich.table import Table

    heads = ("host", "state", "cpu used", "memory used", "host says free", "wakes on traffic")
    hosts = Table(*heads, box=None)
    for host in answer["hosts"]:
        used, usable, free = host["used"], host["usable"], host["free"]
        spares = f", {host['spares']} anonymous" if host.get("spares") else ""
        hosts.add_row(
            host["name"],
            _host_state(host),
            f"{used['cpu']:g} of {usable['cpu']:g}",
            f"{used['memory_mib']} of {usable['memory_mib']} MiB{spares}",
            f"{free['memory_mib']} MiB" if free else "?",
            _plain(host.get("guard", "")) or "no",
        )
    services = Table("service", "state", "where", "address", "remark", box=None)
    for service in answer["services"]:
        instances, state = service["instances"], service["state"]
        services.add_row(
            service["name"],
            f"[{STATE_COLOURS.get(state, 'default')}]{state}[/]",
            ", ".join(" → ".join(filter(None, (each["host"], each["to"]))) for each in instances),
            ", ".join(each["address"] for each in instances),
            _remark(service),
        )
    out = console()
    out.print(f"lab [bold]{_plain(answer['lab'])}[/]\n", hosts, "", services, sep="\n")


def _host_state(host: dict[str, Any]) -> str:
    if host["lost"]:
        return f"[red]lost[/]: {_plain(host['lost'])}"
    if host["refused"]:
        return f"[red]not used[/]: {_plain(host['refused'])}"
    if drain := host["drain"]:
        moved = f"{drain['moved']} of {drain['total']} moved"
        far = [f", {each['instance']} {_percent(each)}" for each in drain["migrating"]]
        return f"[yellow]{drain['state']}[/]: {moved}{''.join(far)}"
    return "[green]reachable[/]"


def _percent(migration: dict[str, Any]) -> str:
    percent = migration["percent"]
    return "is being migrated" if percent is None else f"migrated to {percent} %"


def _remark(service: dict[str, Any]) -> str:
    if service["trouble"]:
        return f"[yellow]{_plain(service['trouble'])}[/]"
    if (copies := service["copies"])["why"]:
        return _plain(f"{copies['has']} of {copies['wanted']} copies: {copies['why']}")
    asleep = service["state"] == "asleep"
    rests = f"{service['rung']}, kept by the warm plan" if service["kept"] else service["rung"]
    return _plain(service["idle"]) or (f"{rests}, healthy: a query wakes it" if asleep else "")


def print_proposal(proposal: dict[str, Any]) -> None:
    """Print a plan and what it changes, or has changed, of what is awake."""
    print_plan(proposal)
    done = ", carried out:" if proposal["applied"] else ":"
    typer.echo(f"Changes to what is awake now{done}")
    print_steps(proposal["changes"], proposal["left"])


def print_plan(proposal: dict[str, Any]) -> None:
    """Print where everything is to run, how good that is, and what runs now beside it."""
    from rich.table import Table

    plan, now = proposal["plan"], proposal["now"]
    table = Table("service", "hosts", "why", box=None)
    for service, hosts in sorted(plan["hosts"].items()):
        table.add_row(service, ", ".join(hosts), _plain(plan["why"].get(service, "")))
    out = console()
    out.print(table)
    if now and now["terms"]:
        compared = Table("", "now", "plan", box=None)
        for name, then in {"value": plan["value"], **plan["terms"]}.items():
            before = {"value": now["value"], **now["terms"]}[name]
            if before or then:
                compared.add_row(name, f"{before:g}", f"{then:g}")
        out.print("", compared, sep="\n")
    else:
        terms = ", ".join(f"{name} {value:g}" for name, value in plan["terms"].items() if value)
        out.print(f"\nvalue {plan['value']:g}" + (f" ({terms})" if terms else ""))
    for wrong in now["wrong"] if now else ():
        out.print(f"what runs now is no answer: {_plain(wrong)}")
    out.print(f"no plan is better than {plan['bound']:g}, gap {plan['gap']:.2%}")
    out.print(f"found by {plan['algorithm']} in {plan['seconds']:.3f} s")


def print_pairs(heads: tuple[str, str], pairs: dict[str, str]) -> None:
    """Print a table of two columns, by the first."""
    from rich.table import Table

    table = Table(*heads, box=None)
    for left, right in sorted(pairs.items()):
        table.add_row(_plain(left), _plain(right))
    console().print(table)


def print_compared(lines: list[dict[str, Any]], fields: tuple[str, ...]) -> None:
    """Print what each algorithm found: some fields, the proven gap and the time; or why nothing."""
    from rich.table import Table

    table = Table("algorithm", *fields, "gap", "ms", box=None)
    for line in lines:
        if line["why"]:
            table.add_row(line["algorithm"], _plain(line["why"]))
            continue
        numbers = (f"{line[field]:g}" for field in fields)
        table.add_row(
            line["algorithm"], *numbers, f"{line['gap']:.2%}", f"{line['seconds'] * 1000:.1f}"
        )
    console().print(table)


def print_abilities(found: list[dict[str, Any]]) -> None:
    """Print what guests were found to survive."""
    from rich.table import Table

    clocks = {None: "?", True: "right", False: "[red]wrong[/]"}
    table = Table("host", "image", "rung", "survives", "asleep in", "back in", "clock", box=None)
    for each in found:
        table.add_row(
            _plain(each["host"]),
            each["image"][:12],
            each["rung"],
            "[green]yes[/]" if each["works"] else f"[red]no[/]: {_plain(each['why'])}",
            f"{each['sleep_s'] * 1000:.0f} ms",
            f"{each['rouse_s'] * 1000:.0f} ms" if each["works"] else "",
            clocks[each["clock"]],
        )
    console().print(table if found else "nothing has been tried yet: it is when a service sleeps")


def print_warm(answer: dict[str, Any]) -> None:
    """Print how each idle service rests, what is kept of each recipe, and what that is worth."""
    from rich.table import Table

    heads = ("host", "rests", "count", "MiB", "wait cold ms", "wait ms", "clients/GiB", "wake cost")
    table = Table("service or recipe", *heads, box=None)
    for line in answer["warm"]:
        table.add_row(
            _plain(line["name"]) + (" (recipe)" if line["anonymous"] else ""),
            _plain(line["host"]),
            _plain(line["rung"]),
            str(line["count"]),
            f"{line['memory_mib']:g}",
            f"{round(line['before_s'] * 1000, 3):g}",
            f"{round(line['after_s'] * 1000, 3):g}",
            f"{line['value']:.3g}" if line["memory_mib"] else "",
            "measured" if line["measured"] else "default",
        )
    out = console()
    out.print(table)
    before, after = round(answer["before"], 6), round(answer["after"], 6)
    out.print(f"\nclients that wait for a wake, on average: {before:.4g} cold, {after:.4g} so")
    out.print(f"memory held: {answer['memory_mib']:g} of {answer['room_mib']:g} MiB")
    if not before:
        out.print("nobody waits even with everything cold: do the lab's clients have a rate?")
    out.print(f"no plan is better than {answer['bound']:.4g}, gap {answer['gap']:.2%}")
    out.print(f"found by {answer['algorithm']} in {answer['seconds']:.3f} s")


def print_choices(hosts: list[dict[str, Any]]) -> None:
    """Print hosts as places for one service."""
    from rich.table import Table

    table = Table("host", "choice", "boots", "away", "why not", box=None)
    for host in hosts:
        boots = f"{_plain(host['image'])} by {host['entry']}" if host["image"] else ""
        away = "" if host["distance_ms"] is None else f"{host['distance_ms']:g} ms"
        rank = "[red]no[/]" if host["rank"] is None else f"[green]{host['rank']}[/]"
        table.add_row(_plain(host["host"]), rank, boots, away, _plain(host["why_not"]))
    console().print(table)


def print_wakes(wakes: list[dict[str, Any]]) -> None:
    """Print where the time of wakes went."""
    from orchestrator.timeline import print_wakes
    from orchestrator.trace import wake_of

    print_wakes(console(), [wake_of(wake) for wake in wakes])


def print_csv(wakes: list[dict[str, Any]], *, header: bool = True) -> None:
    """Print one line per wake, for spreadsheets and data frames."""
    from orchestrator.trace import wake_of
    from orchestrator.trace_csv import COLUMNS, row

    writer = csv.writer(sys.stdout, lineterminator="\n")
    if header:
        writer.writerow(COLUMNS)
    writer.writerows(row(wake_of(wake)) for wake in wakes)
    sys.stdout.flush()


def print_summary(wakes: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print percentiles per service and stage."""
    from rich.table import Table

    from orchestrator.trace import wake_of, words_of
    from orchestrator.trace_summary import summary

    lines = summary([wake_of(wake) for wake in wakes])
    if as_json:
        print_json({"summary": [asdict(line) for line in lines]})
        return
    table = Table("service", "wakes", "stage", "p50 ms", "p95 ms", "p99 ms", box=None)
    for line in lines:
        times = (f"{seconds * 1000:.2f}" for seconds in (line.p50_s, line.p95_s, line.p99_s))
        table.add_row(_plain(line.service), str(line.count), words_of(line.stage), *times)
    console().print(table)


def print_check(out: "Console", check: "Check") -> None:
    """Print one finding of the doctor."""
    colour = VERDICT_COLOURS[check.verdict]
    found = f"[{colour}]{check.verdict:<4}[/]  {_plain(check.name)}: {_plain(check.what)}"
    out.print(found, soft_wrap=True)
    if check.to_do:
        out.print(f"      {_plain(check.to_do)}", soft_wrap=True)


def check_document(check: "Check") -> dict[str, str]:
    """Return a finding as JSON."""
    return {
        "name": check.name,
        "verdict": check.verdict.value,
        "what": check.what,
        "to_do": check.to_do,
    }


def _plain(text: str) -> str:
    """Return text in which rich sees no markup."""
    from rich.markup import escape

    return escape(text)
