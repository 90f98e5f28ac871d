"""Saved guests are found again, and what is not whole counts for nothing."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from orchestrator.hypervisors.depot import Stored
from orchestrator.hypervisors.saved import SavedGuests

ONE, OTHER = str(uuid4()), str(uuid4())


class Folder:
    """A pool in memory."""

    folder = Path("/depot/owner")

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.looks = 0

    def stored(self) -> tuple[Stored, ...]:
        self.looks += 1
        return tuple(Stored(name, len(data), 0.0) for name, data in self.files.items())

    def find(self, name: str) -> Stored | None:
        return next((each for each in self.stored() if each.name == name), None)

    def write(
        self, name: str, pieces: Iterable[bytes], *, offset: int = 0, writable: bool = False
    ) -> None:
        assert writable, "nobody but root may read it"
        self.files[name] = b"".join(pieces)

    def read(self, name: str) -> Iterator[bytes]:
        yield self.files[name]

    def remove(self, name: str) -> None:
        self.files.pop(name, None)

    def free(self) -> int:
        return 2**40


@pytest.fixture
def pool() -> Folder:
    return Folder()


@pytest.fixture
def saved(pool: Folder) -> SavedGuests:
    return SavedGuests(lambda: pool)


def save(saved: SavedGuests, pool: Folder, uuid: str, description: str = "<domain/>") -> None:
    pool.files[saved.memory_file(uuid).name] = b"memory"
    saved.add(uuid, description)


def test_what_was_saved_is_found_after_a_restart(saved: SavedGuests, pool: Folder) -> None:
    save(saved, pool, ONE, "<domain>one</domain>")
    save(saved, pool, OTHER)
    for one in (saved, SavedGuests(lambda: pool)):
        assert one.all() == {ONE: "<domain>one</domain>", OTHER: "<domain/>"}


def test_half_of_a_saved_guest_is_none(saved: SavedGuests, pool: Folder) -> None:
    pool.files |= {f"saved-{OTHER}.xml": b"<domain/>", "other": b""}
    assert saved.all() == {}
    pool.files |= {f"saved-{ONE}": b"cut off just now"}
    assert saved.all() == {}
    saved.drop(ONE)
    assert f"saved-{ONE}" in pool.files, "not looked for in every start"
    saved.drop(ONE, also_unfinished=True)
    assert set(pool.files) == {f"saved-{OTHER}.xml", "other"}


def test_dropping_removes_both_files_and_repeats(saved: SavedGuests, pool: Folder) -> None:
    save(saved, pool, ONE)
    save(saved, pool, OTHER)
    for _twice in range(2):
        saved.drop(ONE)
    assert set(pool.files) == {f"saved-{OTHER}", f"saved-{OTHER}.xml"}
    assert set(saved.all()) == {OTHER}


def test_the_host_is_asked_once_per_connection(saved: SavedGuests, pool: Folder) -> None:
    for _start in range(5):
        saved.drop(ONE)
    assert pool.looks == 1
    saved.forget()
    pool.files |= {f"saved-{ONE}": b"m", f"saved-{ONE}.xml": b"<domain/>"}
    assert set(saved.all()) == {ONE}
    assert pool.looks == 2


def test_memory_that_was_cut_off_goes_when_its_guest_does(saved: SavedGuests, pool: Folder) -> None:
    """A libvirtd that died while it saved left it; the next connection sees it."""
    pool.files |= {f"saved-{ONE}": b"half"}
    saved.forget()
    assert saved.all() == {}
    saved.drop(OTHER)
    assert set(pool.files) == {f"saved-{ONE}"}
    saved.drop(ONE)
    assert pool.files == {}
