"""The rules of a depot, on a pool in memory that breaks when told to."""

import hashlib
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from images.bootspec import BootSpec, Disk
from orchestrator.digests import PIECE
from orchestrator.errors import StartFailed
from orchestrator.hypervisors import depot as module
from orchestrator.hypervisors.depot import SEAL, Depot, Stored, image_name
from orchestrator.hypervisors.qcow2 import empty_overlay, leans_on
from orchestrator.model import guest_uuid

OWNER = "owner"
BIG = bytes(range(256)) * (5 * PIECE // 256) + b"end"
MIB = 2**20
DAY_S = 86400.0


class Broken(Exception):  # noqa: N818
    """The connection is gone."""


class MemoryPool:
    """Remembers files. `breaks_after` lets writes fail when so many more bytes have come."""

    folder = Path("/depot/owner")

    def __init__(self) -> None:
        self.files: dict[str, bytearray] = {}
        self.writable: dict[str, bool] = {}
        self.changed_at: dict[str, float] = {}
        self.calls = 0
        self.sent = 0
        self.room = 2**40
        self.breaks_after: int | None = None
        self.damages = 0
        self.slow: threading.Event | None = None

    def stored(self) -> tuple[Stored, ...]:
        return tuple(found for name in self.files if (found := self.find(name)))

    def find(self, name: str) -> Stored | None:
        self.calls += 1
        if name not in self.files:
            return None
        return Stored(name, len(self.files[name]), self.changed_at.get(name, 0.0))

    def grow_old(self) -> None:
        self.changed_at = dict.fromkeys(self.files, time.time() - DAY_S)

    def write(
        self, name: str, pieces: Iterable[bytes], *, offset: int = 0, writable: bool = False
    ) -> None:
        self.calls += 1
        file = self.files.setdefault(name, bytearray())
        self.writable[name] = writable
        self.changed_at[name] = time.time()
        file.extend(bytes(max(0, offset - len(file))))
        for piece in pieces:
            if self.slow is not None:
                assert self.slow.wait(10)
            if self.breaks_after is not None and self.breaks_after < len(piece):
                raise Broken
            if self.breaks_after is not None:
                self.breaks_after -= len(piece)
            file[offset : offset + len(piece)] = piece
            offset += len(piece)
            self.sent += 0 if name.endswith(SEAL) else len(piece)
        if self.damages and file:
            self.damages -= 1
            file[len(file) // 2] ^= 1

    def read(self, name: str) -> Iterator[bytes]:
        self.calls += 1
        yield bytes(self.files[name])

    def remove(self, name: str) -> None:
        self.calls += 1
        self.files.pop(name, None)

    def free(self) -> int:
        self.calls += 1
        return self.room


@pytest.fixture
def pool() -> MemoryPool:
    return MemoryPool()


@pytest.fixture
def depot(pool: MemoryPool) -> Depot:
    return Depot("far", OWNER, lambda: pool, far=True)


@pytest.fixture
def near(pool: MemoryPool) -> Depot:
    return Depot("here", OWNER, lambda: pool, far=False)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(BIG)
    return path


def name_of(path: Path) -> str:
    return image_name(hashlib.sha256(path.read_bytes()).hexdigest())


def overlay_of(backing: Path) -> bytes:
    return b"".join(empty_overlay(str(backing), "raw", len(BIG)))


# --- images ---------------------------------------------------------------------------------------


def test_a_file_is_sent_once_and_has_a_seal(depot: Depot, pool: MemoryPool, image: Path) -> None:
    there = depot.bring(image)
    assert there == pool.folder / name_of(image)
    assert bytes(pool.files[there.name]) == BIG
    assert set(pool.files) == {there.name, there.name + SEAL}
    before = pool.calls
    assert depot.bring(image) == there
    assert pool.calls == before, "a file known to be there costs no call"


def test_another_depot_finds_what_is_there(depot: Depot, pool: MemoryPool, image: Path) -> None:
    depot.bring(image)
    sent = pool.sent
    assert Depot("far", OWNER, lambda: pool, far=True).bring(image).name in pool.files
    assert pool.sent == sent


def test_two_names_of_the_same_content_are_one_image(
    depot: Depot, pool: MemoryPool, image: Path
) -> None:
    other = image.with_name("other")
    other.write_bytes(BIG)
    assert depot.bring(image) == depot.bring(other)
    assert pool.sent == len(BIG)


def test_a_host_on_this_machine_is_sent_nothing(near: Depot, pool: MemoryPool, image: Path) -> None:
    boot = BootSpec(kernel=image, initrd=image, memory_mib=1, disks=(Disk(image),))
    assert near.placed("web-0", boot) is boot
    near.drop("web-0")
    assert pool.calls == 0


def test_a_file_that_changed_is_another_file(depot: Depot, pool: MemoryPool, image: Path) -> None:
    first = depot.bring(image)
    image.write_bytes(b"new")
    assert depot.bring(image) != first
    assert {first.name, name_of(image)} <= set(pool.files)


def test_many_callers_cause_one_transfer(depot: Depot, pool: MemoryPool, image: Path) -> None:
    pool.slow = threading.Event()
    with ThreadPoolExecutor(8) as executor:
        waiting = [executor.submit(depot.bring, image) for _ in range(8)]
        pool.slow.set()
        assert {done.result() for done in waiting} == {pool.folder / name_of(image)}
    assert pool.sent == len(BIG)


@pytest.mark.parametrize("arrived", [0, PIECE, 3 * PIECE])
def test_a_transfer_that_broke_off_goes_on_at_its_end(
    depot: Depot, pool: MemoryPool, image: Path, arrived: int
) -> None:
    pool.breaks_after = arrived
    with pytest.raises(Broken):
        depot.bring(image)
    assert name_of(image) + SEAL not in pool.files, "what is not whole has no seal"
    pool.breaks_after, pool.sent = None, 0
    assert bytes(pool.files[depot.bring(image).name]) == BIG
    assert pool.sent == len(BIG) - arrived


def test_a_damaged_part_is_found_and_all_of_it_sent_anew(
    depot: Depot, pool: MemoryPool, image: Path
) -> None:
    pool.breaks_after = 2 * PIECE
    with pytest.raises(Broken):
        depot.bring(image)
    pool.breaks_after = None
    pool.files[name_of(image)][7] ^= 1
    assert bytes(pool.files[depot.bring(image).name]) == BIG


@pytest.mark.parametrize("left", [b"x" * len(BIG), BIG + b"more"])
def test_a_whole_file_without_a_seal_is_not_believed(
    depot: Depot, pool: MemoryPool, image: Path, left: bytes
) -> None:
    pool.files[name_of(image)] = bytearray(left)
    assert bytes(pool.files[depot.bring(image).name]) == BIG


def test_a_file_that_lost_its_end_after_it_was_checked_is_sent_anew(
    depot: Depot, pool: MemoryPool, image: Path
) -> None:
    there = depot.bring(image)
    del pool.files[there.name][PIECE:]
    pool.files[there.name][0] ^= 1
    depot.forget()
    assert bytes(pool.files[depot.bring(image).name]) == BIG


def test_a_file_that_was_written_to_after_it_was_checked_is_sent_anew(
    depot: Depot, pool: MemoryPool, image: Path, caplog: pytest.LogCaptureFixture
) -> None:
    there = depot.bring(image)
    pool.files[there.name][7] ^= 1
    pool.changed_at[there.name] += 1e-6
    assert depot.bring(image) == there, "not looked at again while the connection holds"
    depot.forget()
    assert bytes(pool.files[depot.bring(image).name]) == BIG
    assert f"host far: {there.name} is not as it was when checked" in caplog.text


@pytest.mark.parametrize("seal", [b"", b"x" * 100], ids=["torn", "odd"])
def test_a_file_with_an_odd_seal_is_read_back_and_not_sent(
    depot: Depot, pool: MemoryPool, image: Path, seal: bytes
) -> None:
    there = depot.bring(image)
    whole = pool.files[there.name + SEAL]
    pool.files[there.name + SEAL] = bytearray(seal)
    pool.sent = 0
    depot.forget()
    depot.bring(image)
    assert pool.sent == 0
    assert pool.files[there.name + SEAL] == whole


@pytest.mark.parametrize(
    "data",
    [(), (0,), (3,), (0, 3, 9)],
    ids=["all a hole", "a hole at the end", "a hole at both ends", "no hole at the end"],
)
def test_a_hole_is_not_sent(
    depot: Depot, pool: MemoryPool, tmp_path: Path, data: tuple[int, ...]
) -> None:
    """A file of 10 MiB with a piece of data at the end of these MiB."""
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(10 * MIB)
        for at in data:
            file.seek((at + 1) * MIB - PIECE)
            file.write(b"d" * PIECE)
    pool.room = 3 * PIECE
    there = depot.bring(sparse)
    assert pool.sent <= len(data) * PIECE + 1
    assert bytes(pool.files[there.name]) == sparse.read_bytes()


def test_an_empty_file_is_a_file(depot: Depot, pool: MemoryPool, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    assert bytes(pool.files[depot.bring(empty).name]) == b""


def test_what_arrives_wrong_twice_is_never_used(
    depot: Depot, pool: MemoryPool, image: Path
) -> None:
    pool.damages = 2
    digest = hashlib.sha256(BIG).hexdigest()
    with pytest.raises(StartFailed, match=f"host far: .*image arrived .* instead of {digest}"):
        depot.bring(image)
    assert pool.files == {}
    assert depot.bring(image).name in pool.files


def test_no_space_says_how_much_is_missing(depot: Depot, pool: MemoryPool, image: Path) -> None:
    pool.room = 2**20
    with pytest.raises(StartFailed, match=r"no space left for .*: 1\.3 MiB needed, 1\.0 MiB free"):
        depot.bring(image)
    pool.files[name_of(image)] = bytearray(BIG[: 2 * PIECE])
    assert depot.bring(image), "what has arrived already needs no room"


def test_a_file_that_is_not_here_is_named(depot: Depot, tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="no-kernel cannot be read on this machine: No such"):
        depot.bring(tmp_path / "no-kernel")


# --- disks ----------------------------------------------------------------------------------------


def test_all_files_of_a_guest_are_the_hosts(depot: Depot, pool: MemoryPool, image: Path) -> None:
    initrd = image.with_name("initrd")
    initrd.write_bytes(b"initrd")
    boot = BootSpec(kernel=image, initrd=initrd, memory_mib=1, disks=(Disk(image),))
    placed = depot.placed("web-0", boot)
    assert placed.files == tuple(pool.folder / name_of(path) for path in (image, initrd, image))
    assert replace(placed, kernel=image, initrd=initrd, disks=boot.disks) == boot


@pytest.mark.parametrize("far", [True, False])
def test_a_writable_disk_is_an_overlay_of_its_instance(
    pool: MemoryPool, image: Path, tmp_path: Path, far: bool
) -> None:
    depot = Depot("some", OWNER, lambda: pool, far=far)
    boot = BootSpec(kernel=None, memory_mib=1, disks=(Disk(image), Disk(image, read_only=False)))
    shared, own = depot.placed("web-0", boot).disks
    backing = pool.folder / name_of(image) if far else image
    assert shared.path == backing
    assert own == Disk(own.path, format="qcow2", read_only=False)
    assert own.path.parent == pool.folder
    assert bytes(pool.files[own.path.name]) == overlay_of(backing)
    assert pool.writable[own.path.name]
    assert not pool.writable.get(backing.name, False)
    other = depot.placed("web-1", boot).disks[1]
    assert other.path != own.path
    copy = tmp_path / "copy"
    copy.write_bytes(pool.files[other.path.name])
    assert leans_on(copy) == f"backing file {backing}"


def test_an_overlay_is_fresh_at_each_boot_and_gone_at_the_end(
    near: Depot, pool: MemoryPool, image: Path
) -> None:
    boot = BootSpec(kernel=None, memory_mib=1, disks=(Disk(image, read_only=False),))
    (first,), (neighbour,) = (near.placed(name, boot).disks for name in ("web-0", "web-1"))
    pool.files[first.path.name] += b"written by the guest"
    assert near.placed("web-0", boot).disks == (first,)
    assert bytes(pool.files[first.path.name]) == overlay_of(image)
    near.drop("web-0")
    near.drop("web-0")
    assert set(pool.files) == {neighbour.path.name}


def test_after_a_restart_overlays_of_before_are_dropped(
    near: Depot, pool: MemoryPool, image: Path
) -> None:
    boot = BootSpec(kernel=None, memory_mib=1, disks=(Disk(image, read_only=False),))
    near.placed("web-0", boot)
    Depot("here", OWNER, lambda: pool, far=False).drop("web-0")
    assert pool.files == {}


@pytest.mark.parametrize("read_only", [True, False])
def test_a_disk_that_leads_to_other_files_of_the_host_is_refused(
    near: Depot, pool: MemoryPool, tmp_path: Path, read_only: bool
) -> None:
    path = tmp_path / "trap.qcow2"
    path.write_bytes(b"".join(empty_overlay("/etc/shadow", "raw", 2**20)))
    disk = Disk(path, format="qcow2", read_only=read_only)
    with pytest.raises(StartFailed, match=r"trap.qcow2 needs backing file /etc/shadow; make it"):
        near.placed("web-0", BootSpec(kernel=None, memory_mib=1, disks=(disk,)))
    assert pool.files == {}


@pytest.mark.parametrize(
    ("disk_format", "sentence"),
    [("qcow2", "is not a qcow2 file; write `format: raw`"), ("vmdk", "format vmdk is not known")],
)
def test_a_disk_of_another_format_is_refused(
    near: Depot, image: Path, disk_format: str, sentence: str
) -> None:
    boot = BootSpec(kernel=None, memory_mib=1, disks=(Disk(image, format=disk_format),))
    with pytest.raises(StartFailed, match=sentence):
        near.placed("web-0", boot)


def test_a_disk_that_no_overlay_can_show_is_refused(
    near: Depot, pool: MemoryPool, image: Path, tmp_path: Path
) -> None:
    huge = bytearray(overlay_of(image))
    huge[8:20] = bytes(12)  # no backing file
    huge[24:32] = (2**60).to_bytes(8, "big")
    (tmp_path / "huge").write_bytes(huge)
    deep = tmp_path.joinpath(*["x" * 200] * 6)
    deep.parent.mkdir(parents=True)
    deep.touch()
    for disk, why in (
        (Disk(tmp_path / "huge", "qcow2", read_only=False), "a disk too large for QEMU"),
        (Disk(deep, read_only=False), "longer than the 1023 bytes that an overlay has .* move"),
    ):
        with pytest.raises(StartFailed, match=f"host here: .*{why}"):
            near.placed("web-0", BootSpec(kernel=None, memory_mib=1, disks=(disk,)))
    assert pool.files == {}


@pytest.fixture
def block_device(image: Path) -> Iterator[Path]:
    """Return a block device that shows an image, as far as there are whole sectors of it."""
    argv = ["losetup", "--find", "--show", str(image)]
    made = subprocess.run(argv, check=False, capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"this machine makes no loop device: {made.stderr.strip()}")
    yield Path(made.stdout.strip())
    subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


@pytest.mark.parametrize("far", [True, False])
def test_a_block_device_is_as_large_as_what_can_be_read_from_it(
    pool: MemoryPool, block_device: Path, far: bool
) -> None:
    size = len(BIG) // 512 * 512
    depot = Depot("some", OWNER, lambda: pool, far=far)
    boot = BootSpec(kernel=None, memory_mib=1, disks=(Disk(block_device, read_only=False),))
    (own,) = depot.placed("web-0", boot).disks
    assert int.from_bytes(pool.files[own.path.name][24:32], "big") == size
    images = [bytes(data) for name, data in pool.files.items() if name[-64:].isalnum()]
    assert images == ([BIG[:size]] if far else [])


def test_a_block_device_of_this_machine_is_shown_by_an_overlay(
    near: Depot, pool: MemoryPool, block_device: Path
) -> None:
    """QEMU opens no block device as a file, which is all that domains know."""
    (shared,) = near.placed("web-0", BootSpec(None, 1, disks=(Disk(block_device),))).disks
    assert shared == Disk(shared.path, format="qcow2", read_only=True)
    assert set(pool.files) == {shared.path.name}


# --- what may go ----------------------------------------------------------------------------------


@pytest.fixture
def old(pool: MemoryPool, image: Path) -> Depot:
    """Return a depot that has used nothing yet, of a host where everything is a day old."""
    maker = Depot("far", OWNER, lambda: pool, far=True)
    boot = BootSpec(kernel=image, memory_mib=1, disks=(Disk(image, read_only=False),))
    maker.placed("web-0", boot)
    pool.files["sha256-partial-of-another-name"] = bytearray()
    pool.files["precious"] = bytearray(b"not ours")
    pool.grow_old()
    return Depot("far", OWNER, lambda: pool, far=True)


def test_what_nobody_needs_goes_and_what_is_not_ours_stays(
    old: Depot, pool: MemoryPool, image: Path
) -> None:
    gone = old.collect((), frozenset)
    assert gone == (f"overlay-{guest_uuid(OWNER, 'web-0')}-0", name_of(image))
    assert set(pool.files) == {"precious", "sha256-partial-of-another-name"}


def test_an_overlay_of_an_earlier_run_goes_whatever_its_age(
    near: Depot, pool: MemoryPool, image: Path
) -> None:
    boot = BootSpec(kernel=None, memory_mib=1, disks=(Disk(image, read_only=False),))
    (left,), (used,) = (near.placed(name, boot).disks for name in ("web-0", "web-1"))
    module._made_here.clear()
    (mine,) = near.placed("web-2", boot).disks
    neighbour = Depot("there", OWNER, lambda: pool, far=False)
    assert neighbour.collect((), lambda: {used.path}) == (left.path.name,)
    assert set(pool.files) == {used.path.name, mine.path.name}, "mine may be about to start"


def test_what_a_guest_uses_stays(old: Depot, pool: MemoryPool, image: Path) -> None:
    overlay = f"overlay-{guest_uuid(OWNER, 'web-0')}-0"
    held = {pool.folder / overlay, pool.folder / name_of(image), Path("/elsewhere/x")}
    assert old.collect((), lambda: held) == ()
    assert old.collect((), lambda: {pool.folder / name_of(image)}) == (overlay,)


def test_what_may_be_booted_soon_stays(old: Depot, pool: MemoryPool, image: Path) -> None:
    missing = image.with_name("missing")
    assert name_of(image) not in old.collect((image, missing), frozenset)
    assert {name_of(image), name_of(image) + SEAL} <= set(pool.files)


def test_what_was_written_or_used_lately_stays(old: Depot, pool: MemoryPool, image: Path) -> None:
    assert old.collect((), frozenset, grace_s=2 * DAY_S) == ()
    old.bring(image)
    assert name_of(image) not in old.collect((), frozenset), "brought a moment ago"
    pool.changed_at[name_of(image) + SEAL] = time.time()
    fresh = Depot("far", OWNER, lambda: pool, far=True)
    assert name_of(image) not in fresh.collect((), frozenset), "checked a moment ago"


def test_a_seal_without_its_image_goes(depot: Depot, pool: MemoryPool) -> None:
    seal = image_name("0" * 64) + SEAL
    pool.files[seal] = bytearray()
    pool.grow_old()
    depot.collect((), frozenset)
    assert pool.files == {}


def test_what_was_removed_is_sent_again(depot: Depot, pool: MemoryPool, image: Path) -> None:
    depot.bring(image)
    pool.grow_old()
    time.sleep(0.01)
    assert depot.collect((), frozenset, grace_s=0.001) == (name_of(image),)
    assert depot.bring(image).name in pool.files
