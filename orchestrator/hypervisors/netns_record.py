"""What the netns back end writes down about a guest besides what `process_record` does."""

import json
from dataclasses import dataclass
from typing import Any

from orchestrator.hypervisors.process_record import ProcessRecord, common_fields, identity_of
from orchestrator.linux.processes import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class NetnsRecord(ProcessRecord):
    """All that there is of a guest, or may be.

    `world` is the name of its network namespace, and of its control group; `card` the host's end of
    its pair of cards. `keeper` is process 1 of its namespace of processes, whose end is theirs.
    """

    world: str
    card: str
    keeper: Identity | None = None


def parse_record(text: str) -> NetnsRecord:
    """Return the record that a text is; ValueError, KeyError or TypeError if it is none."""
    data: dict[str, Any] = json.loads(text)
    return NetnsRecord(
        **common_fields(data),
        world=str(data["world"]),
        card=str(data["card"]),
        keeper=identity_of(data["keeper"]),
    )
