"""Room on the disk: holes stay holes, nothing is there twice, and a full disk can be emptied."""

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from images.catalog import Catalog, store
from images.catalog.blobs import HOLE
from images.errors import CatalogError, ImageDamaged
from tests.images.catalog.ready import ready

MIB = 1 << 20


def _allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.mark.parametrize("end", [b"", b"the end"], ids=["ends in a hole", "ends in data"])
def test_holes_are_kept_and_hashed(catalog: Catalog, file: Callable[..., Path], end: bytes) -> None:
    path = file("sparse")
    with path.open("r+b") as out:
        out.seek(20 * MIB + 5)
        out.write(b"middle")
        out.truncate(64 * MIB)
        out.seek(0, os.SEEK_END)
        out.write(end)
    kernel = ready(catalog, catalog.add_from("x", str(path))).main_file
    assert kernel.name == hashlib.sha256(path.read_bytes()).hexdigest()
    assert kernel.read_bytes() == path.read_bytes()
    assert _allocated(kernel) <= 4 * HOLE


def test_a_file_that_is_here_needs_no_room(
    catalog: Catalog, file: Callable[..., Path], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file(contents=b"KERN" + bytes(range(256)) * 4096)
    entry = catalog.add_from("one", str(path))
    kernel = ready(catalog, entry).main_file
    made: list[Path] = []
    real = os.open

    def spy(name: str | Path, flags: int, *rest: int) -> int:
        if flags & os.O_CREAT and kernel.parent in Path(name).parents:
            made.append(Path(name))
        return real(name, flags, *rest)

    monkeypatch.setattr(os, "open", spy)
    assert catalog.add_from("two", str(path)).digest == entry.digest
    assert len(made) == 2  # the configuration and the manifest
    other = file("other", "KERN other")
    with pytest.raises(ImageDamaged):  # what was said of another file is not believed for this one
        catalog.add_from("three", str(other), digests=[f"sha256:{kernel.name}"])


def test_of_a_layout_only_what_is_missing_is_copied(
    catalog: Catalog, file: Callable[..., Path], tmp_path: Path
) -> None:
    entry = catalog.add_from("web", str(file()))
    catalog.export("web", tmp_path / "out")
    kernel = ready(catalog, entry).main_file
    (tmp_path / "out" / "blobs" / "sha256" / kernel.name).unlink()
    assert catalog.add_from("again", str(tmp_path / "out")).digest == entry.digest


@pytest.fixture
def fill(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what fills the disk: nothing can be written but in the room that is kept for it."""
    real = store.write_whole

    def write(path: Path, data: bytes) -> None:
        if (root / store.RESERVE).exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        assert len(data) <= store.RESERVE_BYTES
        real(path, data)

    return lambda: monkeypatch.setattr(store, "write_whole", write)


def test_an_image_can_be_removed_from_a_full_disk(
    catalog: Catalog, file: Callable[..., Path], root: Path, fill: Callable[[], None]
) -> None:
    for name in ("web", "two", "three"):
        catalog.add_from(name, str(file()))
    assert _allocated(root / store.RESERVE) >= store.RESERVE_BYTES
    fill()
    with pytest.raises(CatalogError, match=r"image remove.*image gc --all"):
        catalog.tag("web", "another")
    for name in ("web", "two", "three"):
        catalog.remove(name)
    assert catalog.list() == ()
    assert len(catalog.collect(grace_s=0)) == 3


def test_the_room_is_kept_again_with_the_next_image(
    catalog: Catalog, file: Callable[..., Path], root: Path
) -> None:
    catalog.add_from("web", str(file()))
    (root / store.RESERVE).unlink()
    catalog.add_from("web", str(file()))
    assert (root / store.RESERVE).exists()
