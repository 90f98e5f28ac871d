"""The stores under their contract, and what only a file can suffer."""

import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import Engine, event

from orchestrator.errors import StoreError
from orchestrator.model import Event, InstanceState
from orchestrator.store import sql
from orchestrator.store.base import Drain, Store
from orchestrator.store.memory import MemoryStore
from orchestrator.store.sql import SqlStore
from tests.contracts.store import StoreContract, event_of, instance_of

NOBODY = 65534


class TestMemoryStore(StoreContract):
    def make(self) -> Store:
        return MemoryStore()


class TestSqlStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.file = tmp_path / "state.db"

    def make(self) -> SqlStore:
        return SqlStore(f"sqlite:///{self.file}")

    def test_everything_is_there_after_a_restart(self) -> None:
        store = self.make()
        store.save(instance_of(1))
        store.remove(instance_of(2), rest_until=5.0)
        store.save_lab("name: x", "x.yaml")
        store.record(event_of(1))
        before = store.load()
        store.close()

        again = self.make()
        assert again.load() == before
        assert again.events() == [event_of(1)]
        again.close()

    def test_the_files_are_private(self) -> None:
        store = self.make()
        store.save(instance_of(1))
        modes = {
            each.name: stat.S_IMODE(each.stat().st_mode) for each in self.file.parent.iterdir()
        }
        store.close()
        assert modes == dict.fromkeys(("state.db", "state.db-wal", "state.db-shm"), 0o600)

    def test_a_missing_folder_is_made_passable_but_not_listable(self, tmp_path: Path) -> None:
        self.file = tmp_path / "new" / "state.db"
        self.make().close()
        assert stat.S_IMODE(self.file.parent.stat().st_mode) == 0o711

    def test_the_file_is_in_wal_mode_without_a_flush_per_commit(self) -> None:
        seen: list[tuple[str, int]] = []

        def look(connection: sqlite3.Connection, _entry: object) -> None:
            journal = connection.execute("PRAGMA journal_mode").fetchone()[0]
            seen.append((journal, connection.execute("PRAGMA synchronous").fetchone()[0]))

        store = self.make()
        with _listening(store._engine, look):
            store.load()
        store.close()
        assert seen
        assert set(seen) == {("wal", 1)}  # 1 is NORMAL

    def test_the_journal_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sql, "JOURNAL_KEPT", 20)
        monkeypatch.setattr(sql, "PRUNE_EVERY", 10)
        store = self.make()
        for number in range(1, 96):
            store.record(event_of(number))
        kept = [each.at for each in store.events(1000)]
        store.close()
        assert kept == list(range(71, 96))  # pruned to 20 at number 90, then five more


# --- files that are wrong -------------------------------------------------------------------------


def _garbage(file: Path) -> None:
    file.write_bytes(b"this is not a database, " * 1000)


def _torn(file: Path) -> None:
    """Make a whole database and overwrite three of its pages."""
    store = SqlStore(f"sqlite:///{file}")
    for number in range(500):
        store.save(instance_of(number))
    store.close()
    with file.open("r+b") as f:
        f.seek(4096 * 3)
        f.write(b"\xa5" * 4096 * 3)


def _other_program(file: Path) -> None:
    _execute(file, "CREATE TABLE songs (name TEXT)")


def _other_meta(file: Path) -> None:
    _execute(file, "CREATE TABLE meta (key TEXT, value TEXT)")


def _other_schema(file: Path) -> None:
    SqlStore(f"sqlite:///{file}").close()
    _execute(file, "UPDATE meta SET value = '999' WHERE key = 'schema'")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_garbage, "move the file away"),
        (_torn, "move the file away"),
        (_other_program, "some other program"),
        (_other_meta, "some other program"),
        (_other_schema, "schema is number 999"),
    ],
)
def test_a_wrong_file_is_refused_and_left_as_it_is(
    tmp_path: Path, spoil: Callable[[Path], None], told: str
) -> None:
    file = tmp_path / "state.db"
    spoil(file)
    before = file.read_bytes()
    with pytest.raises(StoreError, match=told) as caught:
        SqlStore(f"sqlite:///{file}")
    assert str(file) in str(caught.value)
    assert caught.value.hint
    assert file.read_bytes() == before


@pytest.mark.parametrize("schema", ["1", "2"])
def test_a_file_of_an_older_schema_is_brought_up_to_date(tmp_path: Path, schema: str) -> None:
    """Schema 1 had no table of drains, and 2 no column for where an instance is going."""
    url = f"sqlite:///{tmp_path}/state.db"
    store = SqlStore(url)
    store.save(instance_of(1))
    store.close()
    _execute(tmp_path / "state.db", "ALTER TABLE instances DROP COLUMN moving_to")
    if schema == "1":
        _execute(tmp_path / "state.db", "DROP TABLE drains")
    older = f"UPDATE meta SET value = '{schema}' WHERE key = 'schema'"  # noqa: S608
    _execute(tmp_path / "state.db", older)

    for _ in range(2):
        store = SqlStore(url)
        assert store.load().instances == (instance_of(1),)
        store.save_drain(Drain("edge1", 1.0))
        store.save(replace(instance_of(2), state=InstanceState.READY).migrating("edge2"))
        store.save(instance_of(1))
        store.remove(instance_of(2), rest_until=0.0)
        store.close()
    connection = sqlite3.connect(tmp_path / "state.db")
    found = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    connection.close()
    assert found == (sql.SCHEMA,)


def test_the_lab_of_an_older_schema_is_its_first_version(tmp_path: Path) -> None:
    """Up to schema 4 the last lab was in `meta`, and no older one anywhere."""
    url, file = f"sqlite:///{tmp_path}/state.db", tmp_path / "state.db"
    SqlStore(url).close()
    _execute(file, "DROP TABLE labs")
    _execute(file, "INSERT INTO meta VALUES ('lab_text', 'name: é'), ('lab_path', '/a.yaml')")
    _execute(file, "UPDATE meta SET value = '4' WHERE key = 'schema'")
    for _ in range(2):
        store = SqlStore(url)
        (version,) = store.lab_versions()
        stored = store.load()
        store.close()
        assert (version.number, version.path, version.text) == (1, "/a.yaml", "name: é")
        assert version.at > 1_700_000_000
        assert (stored.lab_text, stored.lab_path) == ("name: é", "/a.yaml")


@pytest.mark.parametrize(("column", "value"), [("address", "10.0.0"), ("state", "flying")])
def test_a_row_that_makes_no_sense_is_told(tmp_path: Path, column: str, value: str) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/state.db")
    store.save(instance_of(1))
    _execute(tmp_path / "state.db", f"UPDATE instances SET {column} = '{value}'")  # noqa: S608
    with pytest.raises(StoreError, match="a row makes no sense"):
        store.load()
    store.close()


@pytest.mark.parametrize(
    "url", ["", "sqlite://", "sqlite:///:memory:", "postgresql://h/db", "no url at all"]
)
def test_a_url_we_cannot_use_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(StoreError, match=r"sqlite:////an/absolute/path\.db"):
        SqlStore(url)


def test_a_read_only_folder_is_told() -> None:
    with TemporaryDirectory() as folder:
        SqlStore(f"sqlite:///{folder}/warm.db").close()  # nobody may not import what it needs
        Path(folder).chmod(0o555)
        with _as_nobody(), pytest.raises(StoreError, match="Permission denied") as caught:
            SqlStore(f"sqlite:///{folder}/state.db")
        assert "state.db" in str(caught.value)
        assert "writable" in caught.value.hint


def test_a_read_only_file_is_told() -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "state.db"
        SqlStore(f"sqlite:///{file}").close()
        file.chmod(0o444)
        Path(folder).chmod(0o555)
        with _as_nobody(), pytest.raises(StoreError, match="cannot open") as caught:
            SqlStore(f"sqlite:///{file}")
        assert "writable" in caught.value.hint


def test_a_full_disk_loses_nothing_that_was_saved_and_heals(tmp_path: Path) -> None:
    def limit(connection: sqlite3.Connection, _entry: object) -> None:
        connection.execute("PRAGMA max_page_count=40")

    with _listening(Engine, limit):
        store = SqlStore(f"sqlite:///{tmp_path}/state.db")
    store.save(instance_of(1))
    big = Event(at=0.0, kind="x", subject="x", text="x" * 3000)
    with pytest.raises(StoreError, match="full") as caught:
        _record_many(store, big)
    assert "make room" in caught.value.hint

    assert [each.name for each in store.load().instances] == [instance_of(1).name]
    store._writer.exec_driver_sql("PRAGMA max_page_count=4000")
    store._writer.rollback()
    store.record(big)
    store.save(instance_of(2))
    assert len(store.load().instances) == 2
    store.close()


def test_a_change_that_fails_half_way_changes_nothing(tmp_path: Path) -> None:
    """The journal says that remove is one step: here its second half fails."""
    store = SqlStore(f"sqlite:///{tmp_path}/state.db")
    store.save(instance_of(1))
    _execute(
        tmp_path / "state.db",
        "CREATE TRIGGER no BEFORE INSERT ON quarantines BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    with pytest.raises(StoreError, match="cannot remove ew-lab-web-1"):
        store.remove(instance_of(1), rest_until=1.0)
    assert store.load().instances == (instance_of(1),)
    store.close()


def test_a_file_held_by_another_program_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "BUSY_TIMEOUT_MS", 50)
    store = SqlStore(f"sqlite:///{tmp_path}/state.db")
    other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="another process holds the file"):
        store.save(instance_of(1))
    other.execute("ROLLBACK")
    other.close()
    store.save(instance_of(1))
    store.close()


# --- a process that is killed ---------------------------------------------------------------------

SAVER = """
import sys
from itertools import count
from orchestrator.store.sql import SqlStore
from tests.contracts.store import instance_of

store = SqlStore("sqlite:///" + sys.argv[1])
for number in count():
    instance = instance_of(number)
    store.save(instance)
    if number % 3 == 2:
        store.remove(instance, rest_until=float(number))
    print(number, flush=True)
"""


@pytest.mark.parametrize("after", [1, 17, 230])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, after: int) -> None:
    file = tmp_path / "state.db"
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SAVER), str(file)],
        stdout=subprocess.PIPE,
        cwd=root,
        text=True,
    ) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(after)]
        process.kill()
        acknowledged += [int(line) for line in process.stdout if line.endswith("\n")]

    store = SqlStore(f"sqlite:///{file}")
    kept = store.load()
    store.close()
    names = {each.name for each in kept.instances}
    rested = {each.until for each in kept.quarantines}
    assert len(acknowledged) >= after
    for number in acknowledged:
        if number % 3 == 2:
            assert number in rested
            assert instance_of(number).name not in names
        else:
            assert instance_of(number).name in names
    assert len(names) + len(rested) <= len(acknowledged) + 1


# --- helpers --------------------------------------------------------------------------------------


def _record_many(store: Store, event: Event) -> None:
    for _ in range(200):
        store.record(event)


def _execute(file: Path, statement: str) -> None:
    connection = sqlite3.connect(file)
    with connection:
        connection.execute(statement)
    connection.close()


@contextmanager
def _listening(target: object, listener: Callable[..., None]) -> Iterator[None]:
    """Call `listener` for each new connection of an engine, or of all of them."""
    event.listen(target, "connect", listener)
    try:
        yield
    finally:
        event.remove(target, "connect", listener)


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Give up root's right to write anywhere, so that a mode means what it says."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
