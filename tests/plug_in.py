"""A package of examples/, laid out as pip would: its modules, and what its pyproject says of it."""

import tomllib
from importlib import invalidate_caches
from pathlib import Path

import pytest


def lay_out(example: Path, group: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package's modules and its entry points of one group into a folder, to be found."""
    project = tomllib.loads((example / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = "".join(f"{key} = {value}\n" for key, value in project["entry-points"][group].items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{points}")
    for module in example.glob("*.py"):
        (folder / module.name).write_text(module.read_text())
    monkeypatch.syspath_prepend(str(folder))
    invalidate_caches()
