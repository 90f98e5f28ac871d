"""What the spt back end writes down about a guest besides what `process_record` does."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.hypervisors.process_record import ProcessRecord, common_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestRecord(ProcessRecord):
    """All that there is of a guest, or may be.

    `nets` are the tender's arguments that name its taps; `copies` the disks made for it alone.
    """

    taps: tuple[str, ...]
    nets: tuple[str, ...]
    copies: tuple[Path, ...]


def parse_record(text: str) -> GuestRecord:
    """Return the record that a text is; ValueError, KeyError or TypeError if it is none."""
    data: dict[str, Any] = json.loads(text)
    return GuestRecord(
        **common_fields(data),
        taps=tuple(data["taps"]),
        nets=tuple(data["nets"]),
        copies=tuple(Path(file) for file in data["copies"]),
    )
