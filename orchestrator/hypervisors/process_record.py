"""What is written down about a guest that is a process, so that it is found again after a restart.

One JSON object per guest, in a file of `linux.records.Records`. Each back end adds what else there
is of its guests; `process_host` says when a record is written.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from orchestrator.linux.processes import Identity
from orchestrator.model import Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRecord:
    """What there is of every guest, or may be.

    `process` is None until it has begun to run; `asleep` says that it was stopped by our own
    `sleep`.
    """

    mark: Mark
    console: Path
    process: Identity | None = None
    asleep: bool = False


def record_text(record: ProcessRecord) -> str:
    """Return the text of a record."""
    return json.dumps(asdict(record), default=str)  # addresses and paths have no form in JSON


def common_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a text says of every guest; ValueError, KeyError or TypeError if it is none."""
    mark: dict[str, Any] = data["mark"]
    address6 = mark["address6"]
    addresses = {
        "address": IPv4Address(mark["address"]),
        "address6": IPv6Address(address6) if address6 else None,
    }
    return {
        "mark": Mark(**{**mark, **addresses}),
        "console": Path(data["console"]),
        "process": identity_of(data["process"]),
        "asleep": bool(data.get("asleep", False)),
    }


def identity_of(data: Mapping[str, Any] | None) -> Identity | None:
    """Return which process a part of a text is about, None if about none; TypeError if damaged."""
    return Identity(**data) if data else None
