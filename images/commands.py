"""Images that are commands: a program of this machine or of a folder, with its arguments.

There is no file to look into that says it all. What such an image is, and whether it changed, is
told from the program's file and, where there is one, everything in its tree.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG, S_IXOTH

from images.bootspec import Image
from images.errors import ImageNotFound, ImageRefused
from images.facts import Container, Entry, Format, ImageFacts

FAMILY = "command"

_MOST_LINKS = 40  # path_resolution(7)
_MOST_ENTRIES = 100_000  # of a tree that is looked through each time it may have changed


def executable(image: Image) -> Path:
    """Return where the program of a command is on this machine.

    Links are followed as its own processes would, whose root is the tree. Raises `ImageNotFound` if
    it is not there, and `ImageRefused` if nobody could start it.
    """
    asked = image.exec[0]
    try:
        path = _inside(image.tree or Path("/"), asked)
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        where = f" in {image.tree}" if image.tree else ""
        raise ImageNotFound(f"{asked}{where}: {reason}; correct 'exec:'") from error
    if not S_ISREG(mode) or not mode & S_IXOTH:
        raise ImageRefused(f"{path} is no program that every user may run; `chmod a+rx {path}`")
    return path


def command_facts(image: Image, inspect: Callable[[Path], ImageFacts]) -> ImageFacts:
    """Return what a command is. Raises `ImageNotFound` and `ImageRefused` like `executable`."""
    if image.tree is not None and not image.tree.is_dir():
        raise ImageNotFound(f"{image.tree}: is no folder; correct 'tree:'")
    seen = inspect(executable(image))
    return ImageFacts(
        file_bytes=seen.file_bytes,
        container=Container.PLAIN,
        format=seen.format,
        architecture=seen.architecture if seen.format is Format.ELF else None,
        bits=seen.bits if seen.format is Format.ELF else 0,
        entries=frozenset({Entry.COMMAND}),
        family=FAMILY,
        evidence="a command",
    )


def digest(image: Image, of: Callable[[Path], str]) -> str:
    """Return the SHA-256 of a command: its arguments, its program, and its whole tree.

    `of` gives the SHA-256 of a file. Raises OSError if something cannot be read.
    """
    whole = hashlib.sha256(repr((image.exec, image.filtered)).encode())
    for name, path, stat in _parts(image):
        whole.update(repr((name, stat.st_mode, _content(path, stat.st_mode, of))).encode())
    return whole.hexdigest()


def version(image: Image) -> str:
    """Return what changes when a command does: cheaper than `digest`, and of this machine only."""
    whole = hashlib.sha256(repr((image.exec, image.filtered)).encode())
    for name, _, stat in _parts(image):
        seen = (name, stat.st_mode, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        whole.update(repr(seen).encode())
    return whole.hexdigest()


def written_at(image: Image) -> float:
    """Return when something of a command was last written (seconds since the epoch)."""
    return max((stat.st_mtime for _, _, stat in _parts(image)), default=0.0)


def _content(path: Path, mode: int, of: Callable[[Path], str]) -> str:
    if S_ISLNK(mode):
        return str(path.readlink())
    return of(path) if S_ISREG(mode) else ""


def _parts(image: Image) -> Iterator[tuple[str, Path, os.stat_result]]:
    """Yield name, path and status of all that a command consists of, in a fixed order."""
    if image.tree is None:
        path = executable(image)
        yield image.exec[0], path, path.stat()
        return
    for number, path in enumerate(_walk(image.tree)):
        if number >= _MOST_ENTRIES:
            raise ImageRefused(f"{image.tree} has more than {_MOST_ENTRIES} files; name less of it")
        yield os.fspath(path.relative_to(image.tree)), path, path.lstat()


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        yield path
        if S_ISDIR(path.lstat().st_mode):
            yield from _walk(path)


def _inside(root: Path, asked: str) -> Path:
    """Return where a path leads for those whose root is a folder (path_resolution(7)).

    A path that leads nowhere is returned as far as it goes; one that goes round is refused.
    """
    left, at, links = [*reversed(Path(asked).parts)], root, 0
    while left:
        name = left.pop()
        if name == "/":
            at = root
        elif name == "..":
            at = at if at == root else at.parent
        elif (at / name).is_symlink():
            links += 1
            if links > _MOST_LINKS:
                raise ImageRefused(f"{asked} leads from link to link without end; correct 'exec:'")
            left += reversed((at / name).readlink().parts)
        else:
            at /= name
    return at
