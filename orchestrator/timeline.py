"""Wakes as people read them: one line per stage, a bar for its time, and whose time it was.

For `edgewake trace` and the demo. The numbers are those of `orchestrator.trace.Wake`.
"""

from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestrator.trace import Owner, Wake, words_of

BAR = 28  # characters for the longest span
COLOURS = {
    Owner.OURS: "green",
    Owner.HYPERVISOR: "blue",
    Owner.GUEST: "cyan",
    Owner.CLIENT: "magenta",
}


def print_wakes(out: Console, wakes: Iterable[Wake]) -> None:
    """Print each wake's time line and what share of it was ours."""
    for wake in wakes:
        out.print(_table(wake))
        out.print(f"  {_summary(wake)}\n", highlight=False)


def _table(wake: Wake) -> Table:
    where = f"{wake.instance} on {wake.host}" if wake.instance else "no host"
    where += f", was {wake.rung}" if wake.rung else ""
    where += "" if wake.by == "query" else f", by {wake.by}"
    table = Table(
        title=f"wake {wake.id} of {wake.service}: {wake.outcome}, {where}",
        title_justify="left",
        box=None,
        pad_edge=True,
    )
    table.add_column("at ms", justify="right")
    table.add_column("took ms", justify="right")
    table.add_column("stage")
    table.add_column("")
    longest = max((span.took_s for span in wake.spans), default=0.0) or 1.0
    for span in wake.spans:
        bar = "█" * max(1, round(BAR * span.took_s / longest))
        table.add_row(
            f"{span.at_s * 1000:.1f}",
            f"{span.took_s * 1000:.2f}",
            words_of(span.stage),
            f"[{COLOURS[span.owner]}]{bar}[/]",
        )
    return table


def _summary(wake: Wake) -> str:
    spent = {owner: wake.spent_s(owner) for owner in Owner}
    theirs = spent[Owner.HYPERVISOR] + spent[Owner.GUEST]
    text = (
        f"ours [{COLOURS[Owner.OURS]}]█[/] {spent[Owner.OURS] * 1000:.1f} ms, "
        f"hypervisor and guest [{COLOURS[Owner.HYPERVISOR]}]█[/] {theirs * 1000:.1f} ms"
    )
    if theirs and any(stage == "answer" for stage, _ in wake.stamps):
        text += f": our overhead is {spent[Owner.OURS] / theirs:.2%} of their time"
    if wake.queries > 1:
        text += f"; {wake.queries} queries waited for it"
    said = (_theirs(spent), _chosen(wake), wake.text)
    return "\n  ".join([text, *(escape(line) for line in said if line)])


def _theirs(spent: Mapping[Owner, float]) -> str:
    told = {
        "hypervisor": spent[Owner.HYPERVISOR],
        "guest": spent[Owner.GUEST],
        "a client's first byte, after the reply": spent[Owner.CLIENT],
    }
    return ", ".join(f"{who} {took * 1000:.1f} ms" for who, took in told.items() if took)


def _chosen(wake: Wake) -> str:
    return f"host chosen by: {wake.decided_by}" if wake.decided_by else ""
