"""Refuses to start from a broken installation, and says what broke it.

Our top-level packages have everyday names (`web`, `images`), so another distribution, or a folder
in the working directory, may hide one of them. Python would then run half of us and half of
something else. `check_installation` is what the command line calls before anything else; it uses
the standard library only and imports none of the packages it looks at.
"""

import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

from orchestrator.errors import InstallationError

DISTRIBUTION = "edgewake"
PACKAGES = ("orchestrator", "placement", "images", "dns_boot", "web")


def check_installation(search_path: Sequence[str] | None = None) -> None:
    """Raise `InstallationError` unless each of our packages is the one that belongs to us.

    Ours are those beside this very file. `search_path` is `sys.path` unless given.
    """
    path = list(sys.path if search_path is None else search_path)
    home = Path(__file__).resolve().parents[1]
    for name in PACKAGES:
        _check_origin(name, home, path)
    _check_overwritten(home)


def _check_origin(name: str, home: Path, path: Sequence[str]) -> None:
    """Raise if Python would import a package of this name from anywhere but `home`."""
    spec = PathFinder.find_spec(name, list(path))
    if spec is None or spec.origin is None:
        raise InstallationError(
            f"our package {name!r} is missing from {home}", hint="install edgewake again"
        )
    found = Path(spec.origin).resolve()
    if found != home / name / "__init__.py":
        raise InstallationError(
            f"the name of our package {name!r} is taken by {found}, {_belongs_to(found, path)}",
            hint=_hint(),
        )


def _check_overwritten(home: Path) -> None:
    """Raise if another distribution put its own package over ours, in the same folder."""
    for name in PACKAGES:
        owners = _owners(f"{name}/__init__.py", [str(home)])
        if others := [owner for owner in owners if owner.split()[0] != DISTRIBUTION]:
            raise InstallationError(
                f"our package {name!r} in {home} was also installed by {', '.join(others)}; "
                "which files are whose cannot be told",
                hint=_hint(),
            )


def _belongs_to(file: Path, path: Sequence[str]) -> str:
    """Say in words which distribution installed a package's `__init__.py`."""
    entry = file.parents[1]
    here = [each for each in path if Path(each or ".").resolve() == entry]
    owners = _owners(f"{file.parent.name}/{file.name}", here)
    if owners:
        return f"which belongs to the distribution {', '.join(owners)}"
    return f"which Python finds first because {entry} comes before us in its search path"


def _owners(file: str, path: Iterable[str]) -> list[str]:
    """Return the distributions on the path whose list of files has this one, with versions."""
    found = metadata.distributions(path=list(path))
    return [
        f"{each.name} {each.version}"
        for each in found
        if f"\n{file}," in "\n" + (each.read_text("RECORD") or "")
    ]


def _hint() -> str:
    return (
        "install edgewake into a virtual environment of its own (pipx install edgewake), "
        "and run it from another folder"
    )


def version() -> str:
    """Return edgewake's version; ``unknown`` if it runs from a folder that is not installed."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"
