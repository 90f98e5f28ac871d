"""Packages that only studies need: loaded when they are used, and missed by name."""

from importlib import import_module
from typing import Any

from placement.study.errors import MissingExtra

NEEDED = ("pandas", "pyarrow", "scipy", "matplotlib")


def optional(module: str, extra: str = "study") -> Any:
    """Return a module of an optional extra; MissingExtra names the extra if it is not there."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(module.partition(".")[0], extra) from error


def check() -> None:
    """Raise MissingExtra if anything is missing that tables and reports need."""
    for module in NEEDED:
        optional(module)
