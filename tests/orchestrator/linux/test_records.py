"""Records are there whole or not at all, and turns keep others out, whoever they are."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from errno import ENOSPC
from pathlib import Path

import pytest

from orchestrator.linux.records import Records

NAMES = ["ew-lab-web-0", "a/b", "..", "naïve %2F", "with blank.json"]

HOLDER = """
import sys
from pathlib import Path
from orchestrator.linux.records import Records

with Records(Path(sys.argv[1])).turn("one"):
    print("mine", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "made" / "when-needed")


@pytest.mark.parametrize("name", NAMES)
def test_a_text_is_read_back_replaced_and_removed(records: Records, name: str) -> None:
    assert records.read(name) is None
    records.write(name, "one")
    records.write(name, "two")
    assert records.read(name) == "two"
    assert records.names() == [name]
    records.remove(name)
    records.remove(name)
    assert (records.read(name), records.names()) == (None, [])


def test_names_do_not_collide(records: Records) -> None:
    for name in NAMES:
        records.write(name, name)
    assert [records.read(name) for name in NAMES] == NAMES
    assert records.names() == sorted(NAMES)


def test_a_reader_never_sees_half_a_text(records: Records) -> None:
    texts = {"a" * 100_000, "b" * 100_000}
    done = threading.Event()
    records.write("one", "a" * 100_000)

    def keep_writing() -> None:
        while not done.is_set():
            for text in texts:
                records.write("one", text)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(keep_writing)
        seen = {records.read("one") for _ in range(500)}
        done.set()
        writing.result()
    assert seen <= texts


def test_a_turn_keeps_threads_out(records: Records) -> None:
    inside = 0
    most = 0

    def enter(_: int) -> None:
        nonlocal inside, most
        for _round in range(50):
            with records.turn("one"):
                inside += 1
                most = max(most, inside)
                inside -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(8)))
    assert most == 1
    assert list(records.folder.iterdir()) == [], "no lock is left lying about"


def test_another_name_is_another_turn(records: Records) -> None:
    with records.turn("one"), records.turn("two", wait=False) as mine:
        assert mine


def test_a_turn_keeps_processes_out_until_they_die(records: Records) -> None:
    command = [sys.executable, "-c", HOLDER, str(records.folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mine\n"
        with records.turn("one", wait=False) as mine:
            assert not mine
        holder.kill()
        with records.turn("one") as mine:
            assert mine


def test_a_full_disk_is_told_with_the_file_and_leaves_what_was_there(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.write("one", "before")

    def full(*_: object) -> None:
        raise OSError(ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*one\.new'"):
            records.write("one", "after")
    assert records.read("one") == "before"
    assert [file.name for file in records.folder.iterdir()] == ["one.json"]
