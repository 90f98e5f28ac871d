"""Services in words: whether all is well, what is being paid for being warm, what was asked for.

Pure: API documents in, sentences out.
"""

from collections.abc import Mapping
from typing import Any

from orchestrator.model import AnswerOrder, Migrate, OnHostLoss, Reply, Restart
from web.pages import formats

Document = Mapping[str, Any]


def symbol(service: Document) -> str:
    """Return the name of the symbol that shows a service's state."""
    if service["state"] == "asleep":
        return str(service["rung"]) if service["rung"] in {"cold", "saved", "paused"} else "asleep"
    return str(service["state"])


def asleep(service: Document) -> str:
    """Return a sentence about a service that sleeps, which is healthy; empty if it does not."""
    if service["state"] != "asleep":
        return ""
    kept = " The warm plan keeps it there." if service["kept"] else ""
    return {
        "paused": "It rests in its host's memory: a query wakes it in a moment.",
        "saved": "It rests on its host's disk and takes no memory: a query wakes it.",
    }.get(service["rung"], "Nothing of it runs and it takes nothing: a query boots it.") + kept


def remark(service: Document) -> str:
    """Return the one thing worth saying of a service in a list; trouble comes first."""
    if service["trouble"]:
        return str(service["trouble"])
    copies = service["copies"]
    if copies["why"]:
        return f"{copies['has']} of {copies['wanted']} copies: {copies['why']}"
    if service["state"] == "asleep":
        return "healthy: a query wakes it" + (", kept by the warm plan" if service["kept"] else "")
    return str(service["idle"])


def costs(cost: Document | None) -> list[tuple[str, str]]:
    """Return what being awake costs, and what a wake would, as subjects and sentences."""
    if cost is None:
        return [("Costs", "nothing can be said: no host can run it now")]
    used = f", {cost['rate_s']:.3g} uses a second" if cost["rate_s"] else ", nobody uses it now"
    said = [
        (
            "Awake",
            f"{formats.mib(cost['memory_mib'])} and {cost['cpu']:g} cores of {cost['host']}{used}",
        )
    ]
    for wake in cost["wakes"]:
        how = "measured" if wake["measured"] else "not measured yet: a guess"
        said.append(
            (f"Wake from {wake['rung']}", f"{formats.milliseconds(wake['wait_ms'])} ({how})")
        )
    return said


def policies(policy: Document) -> list[tuple[str, str]]:
    """Return what the lab file asks for, or what holds without it, as subjects and sentences."""
    return [
        ("Sleeps", _sleeps(policy["idle"])),
        ("Wakes", _wakes(policy)),
        ("Ready when", f"its probe is answered: {policy['probe']}"),
        ("Copies", _copies(policy)),
        ("Answers", f"live {policy['ttl_s']} s in caches; {_ORDER[policy['answer']]}"),
        ("A crash", _CRASH[policy["restart"]]),
        ("A lost host", _LOSS[policy["on_host_loss"]]),
        ("A move", _MOVE[policy["migrate"]]),
        *_bounds(policy),
    ]


_CRASH = {
    Restart.ON_QUERY: "ends the instance; the next query wakes the service",
    Restart.ALWAYS: "ends the instance; while the service is in use another is booted at once",
}
_LOSS = {
    OnHostLoss.WAKE_ELSEWHERE: "it counts as lost, and is woken elsewhere when it is asked for",
    OnHostLoss.KEEP: "it waits for its host: there are never two copies",
}
_MOVE = {
    Migrate.BOOT: "a copy is booted elsewhere, then this one ends",
    Migrate.LIVE: "it is sent as it runs, with its memory; where that fails a copy is booted",
    Migrate.LIVE_ONLY: "it is sent as it runs, with its memory, or stays",
}
_ORDER = {
    AnswerOrder.ORDERED: "the nearest copy first",
    AnswerOrder.WEIGHTED: "first each copy as often as its host has processors free",
    AnswerOrder.ROTATED: "each copy first in turn",
}
_REPLY = {
    Reply.HELD: "the reply is held until it answers",
    Reply.EARLY: "the reply leaves at once and the first connection waits",
}


def _sleeps(idle: Document) -> str:
    if idle["pin"]:
        return "never: it is pinned, so it is kept awake"
    if idle["after_s"] is None:
        return "never by itself"
    steps = [f"after {formats.seconds(idle['after_s'])} without use"]
    steps += [
        f"{rung} for {formats.seconds(idle[key])}" if idle[key] is not None else f"{rung} for good"
        for rung, key in (("paused", "paused_s"), ("saved", "saved_s"))
        if idle[key] != 0
    ]
    hours = f"; kept awake at {', '.join(idle['keep_warm'])}" if idle["keep_warm"] else ""
    return f"{', then '.join(steps)}; at the deepest {idle['deepest']}{hours}"


def _wakes(policy: Document) -> str:
    traffic = " or a packet to its last address" if policy["wake_on_traffic"] else ""
    return f"by a query{traffic}; {_REPLY[policy['reply']]}, {policy['deadline_s']:g} s at most"


def _copies(policy: Document) -> str:
    scale = policy["scale"]
    if scale is None:
        return str(policy["replicas"])
    loads = [
        f"{scale[key]:g} {unit}"
        for key, unit in (("cpu", "of its processors"), ("packets_s", "packets/s"))
        if scale[key] is not None
    ]
    return f"{policy['replicas']} to {scale['most']}, more above {' or '.join(loads)} each"


def _bounds(policy: Document) -> list[tuple[str, str]]:
    bounds = []
    if policy["cpu_cap"] is not None:
        bounds.append(("Processors", f"never more than {policy['cpu_cap']:g} cores"))
    if policy["latency_bound_ms"] is not None:
        bounds.append(("Latency", f"at most {policy['latency_bound_ms']:g} ms to its clients"))
    return bounds
