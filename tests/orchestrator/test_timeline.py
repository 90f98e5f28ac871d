"""What people are shown of a wake."""

import io

from rich.console import Console

from orchestrator.timeline import print_wakes
from orchestrator.trace import Wake

STAMPS = (
    *(("query", 0.0), ("decided", 0.001), ("claimed", 0.002), ("define", 0.1), ("start", 0.2)),
    *(("answer", 1.002), ("reply", 1.003), ("client", 1.5)),
)


def shown(wake: Wake) -> str:
    out = io.StringIO()
    print_wakes(Console(file=out, width=160, color_system=None), [wake])
    return out.getvalue()


def test_a_wake_has_a_line_per_stage_and_says_whose_time_it_was() -> None:
    wake = Wake(
        id=7,
        service="web",
        started_at=0.0,
        stamps=STAMPS,
        outcome="ready",
        instance="ew-t-web-0",
        host="a",
        queries=3,
        rung="cold",
        decided_by="only host [x]",
    )
    told = shown(wake)
    assert "wake 7 of web: ready, ew-t-web-0 on a, was cold" in told
    lines = told.splitlines()
    assert next(line for line in lines if "guest's first answer" in line).split()[:2] == [
        "1002.0",
        "802.00",
    ]
    assert "ours █ 3.0 ms, hypervisor and guest █ 1000.0 ms" in told
    assert "hypervisor 198.0 ms, guest 802.0 ms, a client's first byte, after the reply 497" in told
    assert "our overhead is 0.30% of their time; 3 queries waited for it" in told
    assert "host chosen by: only host [x]" in told


def test_a_failure_is_told_in_its_own_words() -> None:
    wake = Wake(1, "web", 0.0, (("query", 0.0), ("reply", 0.5)), "no-capacity", text="[no] room")
    told = shown(wake)
    assert "no-capacity, no host" in told
    assert "[no] room" in told
    assert "overhead" not in told
