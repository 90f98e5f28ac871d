"""Wakes as people read them: one line per stage, a bar for its time, and whose time it was.

For `edgewake trace` and the demo. The numbers are those of `orchestrator.trace.Wake`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.trace import OURS, Wake

BAR = 28  # characters for the longest span
WORDS = {
    "decided": "host chosen, memory held",
    "intent": "intent stored",
    "define": "hypervisor built the guest",
    "start": "guest's processor runs",
    "roused": "guest's processor runs again",
    "answer": "guest's first answer",
    "stored": "stored and announced",
    "reply": "reply sent",
    "failed": "failed there, undone",
}


def wake_of(data: Mapping[str, Any]) -> Wake:
    """Return a wake from the JSON that the API gives."""
    return Wake(
        id=data["id"],
        service=data["service"],
        started_at=data["started_at"],
        stamps=tuple((stage, at) for stage, at in data["stamps"]),
        outcome=data["outcome"],
        instance=data["instance"],
        host=data["host"],
        queries=data["queries"],
        text=data["text"],
        rung=data["rung"],
        by=data["by"],
    )


def print_wakes(out: Console, wakes: Iterable[Wake]) -> None:
    """Print each wake's time line and what share of it was ours."""
    for wake in wakes:
        out.print(_table(wake))
        out.print(f"  {_summary(wake)}\n", highlight=False)


def _table(wake: Wake) -> Table:
    where = f"{wake.instance} on {wake.host}" if wake.instance else "no host"
    was = f"was {wake.rung}{_by(wake)}"
    table = Table(
        title=f"wake {wake.id} of {wake.service}: {wake.outcome}, {where}, {was}",
        title_justify="left",
        box=None,
        pad_edge=True,
    )
    table.add_column("at ms", justify="right")
    table.add_column("took ms", justify="right")
    table.add_column("stage")
    table.add_column("")
    spans = list(zip(wake.stamps, wake.stamps[1:], strict=False))
    longest = max((at - before for (_, before), (_, at) in spans), default=0.0) or 1.0
    for (_, before), (stage, at) in spans:
        took = at - before
        bar = "█" * max(1, round(BAR * took / longest))
        colour = "green" if stage in OURS else "blue"
        table.add_row(
            f"{at * 1000:.1f}", f"{took * 1000:.2f}", WORDS.get(stage, stage), f"[{colour}]{bar}[/]"
        )
    return table


def _by(wake: Wake) -> str:
    return "" if wake.by == "query" else f", by {wake.by}"


def _summary(wake: Wake) -> str:
    own, theirs = wake.own_s, wake.total_s - wake.own_s
    text = (
        f"ours [green]█[/] {own * 1000:.1f} ms, "
        f"hypervisor and guest [blue]█[/] {theirs * 1000:.1f} ms"
    )
    if any(stage == "answer" for stage, _ in wake.stamps):
        text += f": our overhead is {own / theirs:.2%} of their time"
    if wake.queries > 1:
        text += f"; {wake.queries} queries waited for it"
    return f"{text}\n  {wake.text}" if wake.text else text
