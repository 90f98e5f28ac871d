"""What the spt back end writes down about a guest, so that it is found again after a restart.

One JSON object per guest, in a file of `records.Records`; `SptHypervisor` says when it is written.
"""

import json
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from orchestrator.hypervisors.processes import Identity
from orchestrator.model import Mark


@dataclass(frozen=True, slots=True)
class GuestRecord:
    """All that there is of a guest, or may be.

    `nets` are the tender's arguments that name its taps; `copies` the disks made for it alone.
    `process` is None until it has begun to run; `asleep` says that it was stopped by our own
    `sleep`.
    """

    mark: Mark
    taps: tuple[str, ...]
    nets: tuple[str, ...]
    copies: tuple[Path, ...]
    console: Path
    process: Identity | None = None
    asleep: bool = False


def record_text(record: GuestRecord) -> str:
    """Return the text of a record."""
    return json.dumps(asdict(record), default=str)  # addresses and paths have no form in JSON


def parse_record(text: str) -> GuestRecord:
    """Return the record that a text is; ValueError, KeyError or TypeError if it is none."""
    data: dict[str, Any] = json.loads(text)
    mark: dict[str, Any] = data["mark"]
    address6 = mark["address6"]
    addresses = {
        "address": IPv4Address(mark["address"]),
        "address6": IPv6Address(address6) if address6 else None,
    }
    return GuestRecord(
        mark=Mark(**{**mark, **addresses}),
        taps=tuple(data["taps"]),
        nets=tuple(data["nets"]),
        copies=tuple(Path(file) for file in data["copies"]),
        console=Path(data["console"]),
        process=Identity(**data["process"]) if data["process"] else None,
        asleep=bool(data.get("asleep", False)),
    )
