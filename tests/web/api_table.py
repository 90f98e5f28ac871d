"""Writes the table of operations in docs/api.md: ``python -m tests.web.api_table``."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.labfile import parse_lab
from orchestrator.store.memory import MemoryStore
from tests.web.conftest import a_lab
from tests.world import World
from web.api.operation import PREFIX
from web.app import create_app

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"


def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(a_lab(Path(folder)), MemoryStore())
        world.start()
        try:
            http = create_app(world.control, load=parse_lab).test_client()
            told: dict[str, Any] = http.get(f"{PREFIX}/openapi.json").get_json()
            return told
        finally:
            world.control.close(end_guests=True)


def table(told: dict[str, Any]) -> str:
    """Return the operations as a table, in their order."""
    return "\n".join(["| request | role | what it does |", "|---|---|---|", *_lines(told)]) + "\n"


def _lines(told: dict[str, Any]) -> Iterator[str]:
    for path, methods in told["paths"].items():
        for method, entry in methods.items():
            request = f"{method.upper()} {path.removeprefix(PREFIX)}"
            yield f"| `{request}` | {entry['x-role']} | {entry['summary']} |"


def written(page: str, lines: str) -> str:
    """Return a page with another table."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + lines + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(), table(document())))
