"""Fixtures for tests of the catalogue: tiny files that a stand-in for `images.inspect` knows."""

from collections.abc import Callable
from pathlib import Path

import pytest

from images.catalog import Catalog
from images.facts import Architecture, Container, Entry, Format, ImageFacts

KINDS = {
    b"KERN": ImageFacts(
        0,
        format=Format.ELF,
        entries=frozenset({Entry.MULTIBOOT, Entry.XEN_PV}),
        family="unikraft",
    ),
    b"XENK": ImageFacts(0, format=Format.ELF, entries=frozenset({Entry.XEN_PV}), family="unikraft"),
    b"QEMU": ImageFacts(
        0, format=Format.ELF, entries=frozenset({Entry.MULTIBOOT}), family="unikraft"
    ),
    b"LINX": ImageFacts(0, format=Format.BZIMAGE, entries=frozenset({Entry.LINUX}), family="linux"),
    b"OSVK": ImageFacts(0, format=Format.ELF, entries=frozenset({Entry.PVH}), family="osv"),
    b"ODDK": ImageFacts(0, format=Format.ELF, entries=frozenset({Entry.MULTIBOOT})),
    b"MIRA": ImageFacts(
        0,
        format=Format.ELF,
        architecture=Architecture.X86_64,
        entries=frozenset({Entry.MULTIBOOT}),
        family="mirage",
    ),
    b"INIT": ImageFacts(0, format=Format.CPIO),
    b"DISK": ImageFacts(0, format=Format.DISK, entries=frozenset({Entry.BIOS})),
    b"QFI\xfb": ImageFacts(0, format=Format.DISK, container=Container.QCOW2),
    b"ARMK": ImageFacts(0, format=Format.ELF, unusable="built for ARM, which no host here is"),
}


def inspect(path: Path) -> ImageFacts:
    """Tell a file by its first four bytes."""
    with path.open("rb") as file:
        return KINDS.get(file.read(4), ImageFacts(0))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "catalog"


@pytest.fixture
def open_catalog(root: Path) -> Callable[..., Catalog]:
    """Return what opens the test's catalogue as a new process would."""

    def make(where: Path = root, **options: object) -> Catalog:
        return Catalog(where, **{"inspect": inspect, **options})  # type: ignore[arg-type]

    return make


@pytest.fixture
def catalog(open_catalog: Callable[..., Catalog]) -> Catalog:
    return open_catalog()


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """Return what makes a file: a kernel unless its contents say something else."""

    def make(name: str = "kernel.bin", contents: bytes | str = b"KERN") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
        return path

    return make
