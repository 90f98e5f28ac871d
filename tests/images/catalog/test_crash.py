"""A crash at any instant leaves a valid catalogue: every step is made the last one, in turn.

The steps are the system calls that change names or make them durable. The crash is a real one: a
process of its own that ends at once, without cleaning up.
"""

import errno
import multiprocessing
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import pytest

from images.bootspec import Platform
from images.catalog import Adding, Catalog, ImageConfig
from images.errors import CatalogError, ImageNotFound
from tests.images.catalog.ready import ready

STEPS = ("replace", "rename", "fsync", "fchmod", "unlink", "mkdir")
CRASHED = 77
MOST_STEPS = 200

Act = Callable[[Catalog, Path], object]


def _add(catalog: Catalog, kernel: Path) -> None:
    catalog.add_from("new", str(kernel))


def _add_flavour(catalog: Catalog, kernel: Path) -> None:
    catalog.add_from("old", str(kernel), how=Adding(config=ImageConfig(platforms=(Platform.XEN,))))


def _replace(catalog: Catalog, kernel: Path) -> None:
    how = Adding(config=ImageConfig(platforms=(Platform.QEMU,)), replace=True)
    catalog.add_from("old", str(kernel), how=how)


def _remove(catalog: Catalog, kernel: Path) -> None:
    catalog.remove("unused")


def _collect(catalog: Catalog, kernel: Path) -> None:
    catalog.collect(grace_s=0)


def _hold(catalog: Catalog, kernel: Path) -> None:
    catalog.hold("guest", ready(catalog, "old", Platform.QEMU).files)
    assert catalog.holders() == ("guest",)
    catalog.hold("guest", ready(catalog, "unused").files)
    catalog.release("guest")


ACTS = {
    "add": _add,
    "flavour": _add_flavour,
    "replace": _replace,
    "remove": _remove,
    "gc": _collect,
    "hold": _hold,
}


def _fail_at(step: int, fail: Callable[[], None], steps: Iterable[str] = STEPS) -> list[int]:
    """Make the step of that number fail, counted from 0; return what counts the steps."""
    counted = [0]

    def wrap(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            counted[0] += 1
            if counted[0] == step + 1:
                fail()
            return real(*args, **options)

        return call

    for name in steps:
        setattr(os, name, wrap(getattr(os, name)))
    return counted


def _crash(make: Callable[..., Catalog], root: Path, act: Act, kernel: Path, step: int) -> None:
    _fail_at(step, lambda: os._exit(CRASHED))
    act(make(root), kernel)
    os._exit(0)


@pytest.fixture
def filled(
    open_catalog: Callable[..., Catalog], file: Callable[..., Path]
) -> Callable[[Path], Path]:
    """Return what fills a catalogue with an image, and one that nothing needs any more."""
    old, unused = file("old", "KERN old"), file("unused", "KERN unused")

    def fill(root: Path) -> Path:
        catalog = open_catalog(root)
        catalog.add_from(
            "old", str(old), how=Adding(config=ImageConfig(platforms=(Platform.QEMU,)))
        )
        catalog.add_from("unused", str(unused))
        catalog.add_from("gone", str(file("gone", "KERN gone")))
        catalog.remove("gone")
        return root

    return fill


@pytest.mark.parametrize("name", ACTS)
def test_a_crash_leaves_a_valid_catalogue(
    name: str,
    open_catalog: Callable[..., Catalog],
    filled: Callable[[Path], Path],
    file: Callable[..., Path],
    tmp_path: Path,
) -> None:
    act, kernel = ACTS[name], file("new", "KERN new")
    fork = multiprocessing.get_context("fork")
    for step in range(MOST_STEPS):
        root = filled(tmp_path / f"c{step}")
        process = fork.Process(target=_crash, args=(open_catalog, root, act, kernel, step))
        process.start()
        process.join(60)
        assert process.exitcode in {0, CRASHED}
        catalog = open_catalog(root)
        assert catalog.verify() == (), step
        assert not [each for each in catalog.list() if each.problem]
        old = ready(catalog, "old", Platform.QEMU).main_file.read_bytes()
        assert old in {b"KERN old", b"KERN new"} if name == "replace" else old == b"KERN old"
        try:
            act(catalog, kernel)  # the same again works
        except ImageNotFound:
            assert name == "remove"  # it was done before the crash
        catalog.collect(grace_s=0)
        assert catalog.verify() == ()
        assert not list(root.rglob(".new-*"))
        if process.exitcode == 0:
            assert step > 1, "no step was seen: nothing was tested"
            return
    pytest.fail(f"{name} has more than {MOST_STEPS} steps")


@pytest.mark.parametrize("name", ACTS)
def test_an_error_of_the_disk_is_told_and_changes_nothing(  # noqa: PLR0917 - fixtures
    name: str,
    open_catalog: Callable[..., Catalog],
    filled: Callable[[Path], Path],
    file: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    act, kernel = ACTS[name], file("new", "KERN new")

    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for step in range(MOST_STEPS):
        root = filled(tmp_path / f"c{step}")
        with monkeypatch.context() as patched:
            for each in (*STEPS, "open"):
                patched.setattr(os, each, getattr(os, each))  # so that it is put back
            counted = _fail_at(step, fail, (*STEPS, "open"))
            with suppress(CatalogError):
                act(open_catalog(root), kernel)
        catalog = open_catalog(root)
        assert catalog.verify() == (), step
        assert ready(catalog, "old", Platform.QEMU).main_file.exists()
        if counted[0] <= step:
            return
    pytest.fail(f"{name} has more than {MOST_STEPS} steps")


def _first(make: Callable[..., Catalog], root: Path, kernel: Path, step: int) -> None:
    _fail_at(step, lambda: os._exit(CRASHED))
    _add(make(root), kernel)
    os._exit(0)


def test_a_crash_while_the_catalogue_is_made(
    open_catalog: Callable[..., Catalog], file: Callable[..., Path], tmp_path: Path
) -> None:
    kernel, fork = file(), multiprocessing.get_context("fork")
    for step in range(MOST_STEPS):
        root = tmp_path / f"c{step}"
        process = fork.Process(target=_first, args=(open_catalog, root, kernel, step))
        process.start()
        process.join(60)
        assert len(open_catalog(root).list()) <= 1
        assert open_catalog(root).verify() == ()
        _add(open_catalog(root), kernel)
        assert ready(open_catalog(root), "new").main_file.exists()
        if process.exitcode == 0:
            return
    pytest.fail(f"more than {MOST_STEPS} steps")
