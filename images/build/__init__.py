"""Recipes that make an image on this machine from public packages and our own sources.

`RECIPES` names them; `build` runs one. A lab file names what a recipe made as ``built:NAME/FILE``.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from images.errors import BuildFailed

RECIPES = {
    "hello": "images.build.hello",
    "linux-microvm": "images.build.linux_microvm",
}

Progress = Callable[[str], None]


def build(name: str, images: Path, progress: Progress = lambda _: None) -> Path:
    """Run the recipe of that name for a folder of images; return the folder of what it made.

    Does nothing when that is there from the same inputs. `progress` is told what is being done.
    Raises `BuildFailed`, also for an unknown recipe.
    """
    if name not in RECIPES:
        raise BuildFailed(f"no recipe is named {name!r}; there are: {', '.join(sorted(RECIPES))}")
    import_module(RECIPES[name]).build(images / name, progress=progress)
    return images / name
