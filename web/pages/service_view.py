"""Services in words: whether all is well, what is being paid for being warm, what was asked for.

Pure: API documents in, sentences out.
"""

from collections.abc import Mapping
from typing import Any

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
