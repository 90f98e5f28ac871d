"""Builds every image there is a recipe for: ``python -m images.build DIRECTORY``."""

import sys
from pathlib import Path

from images.build import RECIPES, build
from images.errors import BuildFailed


def main(arguments: list[str]) -> int:
    """Build them all below one directory; return the exit code."""
    if len(arguments) != 1:
        print("usage: python -m images.build DIRECTORY", file=sys.stderr)  # noqa: T201
        return 2
    for name in RECIPES:
        try:
            folder = build(name, Path(arguments[0]), lambda text: print(f"  {text}"))  # noqa: T201
        except BuildFailed as error:
            print(f"{name}: {error}", file=sys.stderr)  # noqa: T201
            return 1
        print(f"{folder}: built")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
