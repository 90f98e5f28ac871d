"""Keeps our state in one SQLite file, through SQLAlchemy Core.

This is the store of every installation that runs on one machine. Nouns go in and out whole; SQL,
rows and SQLAlchemy's errors stay in here. Which file it is, and that only one process has it open,
is the business of `orchestrator.state_dir`.

Durability: the file is in write-ahead-log mode with ``synchronous=NORMAL``. A commit has been
handed to the kernel when a method returns, so it survives `kill -9` at any later instant. A power
failure may lose the last moments (never the file's consistency), and that is acceptable because
the guests those rows speak of are then gone as well. In return a save costs no disk flush on the
wake path. See https://www.sqlite.org/pragma.html#pragma_synchronous.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BindParameter,
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    Text,
    bindparam,
    create_engine,
    delete,
    event,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.dialects.sqlite import dialect, insert
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from orchestrator.errors import StoreError
from orchestrator.model import Ability, Event, Instance, InstanceState, Rung
from orchestrator.store.base import (
    IMAGES_KEPT,
    JOURNAL_KEPT,
    VERSIONS_KEPT,
    Drain,
    LabVersion,
    Quarantine,
    Stored,
)

SCHEMA = "5"  # grows by one with every change of the tables below; see `_MIGRATIONS`
LAB_ON_DISK = "lab_on_disk"  # the key in `meta`
PRUNE_EVERY = 1_000  # rows between two prunings, so that almost no record() pays for one
BUSY_TIMEOUT_MS = 5_000  # how long to wait for a tool (sqlite3, a backup) that holds the file
FILE_MODE = 0o600  # the journal may say who asked for what
DIRECTORY_MODE = 0o711  # a hypervisor's own user must get through to the images beside the file

_SCHEMA = MetaData()
_META = Table(
    "meta",
    _SCHEMA,
    Column("key", String, primary_key=True),
    Column("value", Text, nullable=False),
)
_INSTANCES = Table(
    "instances",
    _SCHEMA,
    Column("name", String, primary_key=True),
    Column("service", String, nullable=False),
    Column("host", String, nullable=False),
    Column("address", String, nullable=False),
    Column("mac", String, nullable=False),
    Column("state", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("address6", String),
    Column("ready_at", Float),
    Column("moving_to", String),
)
_QUARANTINES = Table(
    "quarantines",
    _SCHEMA,
    Column("host", String, primary_key=True),
    Column("address", String, primary_key=True),
    Column("service", String, nullable=False),
    Column("until", Float, nullable=False),
)
_DRAINS = Table(
    "drains",
    _SCHEMA,
    Column("host", String, primary_key=True),
    Column("since", Float, nullable=False),
    Column("force", Boolean, nullable=False),
)
_ABILITIES = Table(
    "abilities",
    _SCHEMA,
    Column("image", String, primary_key=True),
    Column("host", String, primary_key=True),
    Column("rung", String, primary_key=True),
    Column("works", Boolean, nullable=False),
    Column("why", Text, nullable=False),
    Column("sleep_s", Float, nullable=False),
    Column("rouse_s", Float, nullable=False),
    Column("clock", Boolean),
    Column("probed_at", Float, nullable=False),
)
_JOURNAL = Table(
    "journal",
    _SCHEMA,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("kind", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("text", Text, nullable=False),
    Column("data", Text, nullable=False),
)
_LABS = Table(
    "labs",
    _SCHEMA,
    Column("number", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("actor", String, nullable=False),
    Column("path", Text, nullable=False),
    Column("text", Text, nullable=False),
)

# Up to schema 4 only the last lab was kept, and not when it was applied: it becomes version 1 now.
_FIRST_LAB = """
INSERT INTO labs (at, actor, path, text)
SELECT CAST(strftime('%s', 'now') AS FLOAT), '', path.value, text.value
FROM meta AS text JOIN meta AS path ON path."key" = 'lab_path'
WHERE text."key" = 'lab_text' AND text.value <> ''
"""
_NO_LAB_IN_META = """DELETE FROM meta WHERE "key" IN ('lab_text', 'lab_path')"""

# What each older schema lacks: the tables to make, and then what to say, on the way to the next.
_MIGRATIONS: Mapping[str, tuple[str, Sequence[Table], Sequence[str]]] = {
    "1": ("2", (_DRAINS,), ()),
    "2": ("3", (), ("ALTER TABLE instances ADD COLUMN moving_to VARCHAR",)),
    "3": ("4", (_ABILITIES,), ()),
    "4": ("5", (_LABS,), (_FIRST_LAB, _NO_LAB_IN_META)),
}

_SAVE = insert(_INSTANCES)
_SAVE = _SAVE.on_conflict_do_update(
    index_elements=["name"],
    set_={column.name: column for column in _SAVE.excluded if column.name != "name"},
)
_SAVE_TEXT = str(_SAVE.compile(dialect=dialect(paramstyle="named")))
_REST = insert(_QUARANTINES)
_REST = _REST.on_conflict_do_update(
    index_elements=["host", "address"],
    set_={
        "service": _REST.excluded.service,
        "until": func.max(_QUARANTINES.c.until, _REST.excluded.until),
    },
)
_WISH = insert(_DRAINS)
_WISH = _WISH.on_conflict_do_update(
    index_elements=["host"],
    set_={"since": _WISH.excluded.since, "force": _WISH.excluded.force},
)
_FOUND = insert(_ABILITIES)
_FOUND = _FOUND.on_conflict_do_update(
    index_elements=["image", "host", "rung"],
    set_={column.name: column for column in _FOUND.excluded if not column.primary_key},
)
_OLD = _ABILITIES.alias("old")
_HOST: BindParameter[str] = bindparam("of_host")
_RUNG: BindParameter[str] = bindparam("of_rung")
_FORGET_OLD = delete(_ABILITIES).where(
    _ABILITIES.c.host == _HOST,
    _ABILITIES.c.rung == _RUNG,
    _ABILITIES.c.image.in_(
        select(_OLD.c.image)
        .where(_OLD.c.host == _HOST, _OLD.c.rung == _RUNG)
        .order_by(_OLD.c.probed_at.desc())
        .limit(-1)
        .offset(IMAGES_KEPT)
    ),
)
_LAB_ON_DISK = select(_META.c.value).where(_META.c.key == LAB_ON_DISK)
_SET = insert(_META)
_SET = _SET.on_conflict_do_update(index_elements=["key"], set_={"value": _SET.excluded.value})

_DAMAGED = "move the file away: edgewake then starts afresh and adopts the guests it finds running"
_PERMISSION = "run as the user who owns the file and its folder, on a file system that is writable"
HINTS = {  # by SQLite's primary result code, https://www.sqlite.org/rescode.html
    sqlite3.SQLITE_BUSY: "another process holds the file; end it (fuser names it) and try again",
    sqlite3.SQLITE_READONLY: _PERMISSION,
    sqlite3.SQLITE_CANTOPEN: _PERMISSION,
    sqlite3.SQLITE_IOERR: "look at the kernel's log (dmesg) for errors of the disk",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_FULL: "make room on its file system; what was saved before is still there",
}


class SqlStore:
    """A `Store` in the SQLite file that `url` names, such as ``sqlite:////var/lib/x/state.db``.

    The file is created with mode 0600, and its folder, if missing, with 0711. One connection
    writes, behind a lock; readers have their own and never make a writer wait. `failures` counts
    what could not be done.
    """

    def __init__(self, url: str) -> None:
        self.failures = 0
        self._path = _file_of(url)
        self._lock = threading.Lock()
        self._closed = False
        with self._telling("open"):
            _create_file(self._path)
            self._engine = create_engine(url)
            event.listen(self._engine, "connect", _set_pragmas)
            event.listen(self._engine, "begin", _begin)
            try:
                self._writer = self._engine.connect()
                self._prepare()
                self._use_wal()
            except BaseException:
                self._engine.dispose()
                raise

    def load(self) -> Stored:
        """Return all that is kept."""
        with self._reading("load") as connection:
            lab = connection.execute(_last_labs(1)).mappings().one_or_none()
            return Stored(
                instances=tuple(
                    _instance(row) for row in connection.execute(select(_INSTANCES)).mappings()
                ),
                quarantines=tuple(
                    _quarantine(row) for row in connection.execute(select(_QUARANTINES)).mappings()
                ),
                lab_text=lab["text"] if lab else "",
                lab_path=lab["path"] if lab else "",
                lab_on_disk=int(connection.execute(_LAB_ON_DISK).scalar_one_or_none() or 0),
                drains=tuple(
                    Drain(row["host"], row["since"], row["force"])
                    for row in connection.execute(select(_DRAINS)).mappings()
                ),
                abilities=tuple(
                    Ability(**{**row, "rung": Rung(row["rung"])})
                    for row in connection.execute(select(_ABILITIES)).mappings()
                ),
            )

    def save(self, instance: Instance) -> None:
        """Keep an instance, replacing what was kept under its name."""
        with self._lock, self._telling(f"save {instance.name}"):
            self._refuse_closed()
            # One statement of the driver's own is a transaction; SQLAlchemy's takes six times as
            # long, and whoever wakes a service waits for two.
            cursor = self._writer.connection.cursor()
            cursor.execute(_SAVE_TEXT, _row(instance))
            cursor.close()

    def remove(self, instance: Instance, *, rest_until: float) -> None:
        """Forget an instance and put its address in quarantine until then, in one step."""
        rest = {
            "host": instance.host,
            "address": str(instance.address),
            "service": instance.service,
            "until": rest_until,
        }
        with self._writing(f"remove {instance.name}") as connection:
            connection.execute(delete(_INSTANCES).where(_INSTANCES.c.name == instance.name))
            connection.execute(_REST, rest)

    def save_lab(
        self, text: str, path: str, *, actor: str = "", at: float = 0.0, on_disk: bool = False
    ) -> None:
        """Keep the lab file last applied as a new version, unless it is the last one."""
        row = {"at": at, "actor": actor, "path": path, "text": text}
        with self._writing("save the lab file") as connection:
            last = connection.execute(_last_labs(1)).mappings().one_or_none()
            if not last or (last["text"], last["path"]) != (text, path):
                kept = last["number"] - VERSIONS_KEPT + 1 if last else 0
                connection.execute(insert(_LABS), row)
                connection.execute(delete(_LABS).where(_LABS.c.number <= kept))
            if on_disk:
                number = connection.execute(select(func.max(_LABS.c.number))).scalar_one()
                connection.execute(_SET, {"key": LAB_ON_DISK, "value": str(number)})

    def lab_versions(self, limit: int = VERSIONS_KEPT) -> Sequence[LabVersion]:
        """Return the last `limit` versions of the lab, oldest first."""
        with self._reading("read the versions of the lab") as connection:
            rows = connection.execute(_last_labs(limit)).mappings()
            return [LabVersion(**row) for row in rows][::-1]

    def save_drain(self, drain: Drain) -> None:
        """Keep the wish that a host be drained."""
        wish = {"host": drain.host, "since": drain.since, "force": drain.force}
        with self._writing(f"save the drain of {drain.host}") as connection:
            connection.execute(_WISH, wish)

    def remove_drain(self, host: str) -> None:
        """Forget that wish."""
        with self._writing(f"forget the drain of {host}") as connection:
            connection.execute(delete(_DRAINS).where(_DRAINS.c.host == host))

    def save_ability(self, ability: Ability) -> None:
        """Keep what a probe found."""
        with self._writing(f"save what is known of {ability.rung} guests") as connection:
            connection.execute(_FOUND, asdict(ability))
            connection.execute(_FORGET_OLD, {"of_host": ability.host, "of_rung": ability.rung})

    def forget_abilities(self) -> None:
        """Forget all of that."""
        with self._writing("forget what guests survive") as connection:
            connection.execute(delete(_ABILITIES))

    def record(self, event: Event) -> None:
        """Append to the journal; all but the last `JOURNAL_KEPT` rows go, now and then."""
        row = {
            "at": event.at,
            "kind": event.kind,
            "subject": event.subject,
            "text": event.text,
            "data": json.dumps(event.data),
        }
        with self._writing("write the journal") as connection:
            result = connection.execute(insert(_JOURNAL), row)
            number = result.inserted_primary_key[0] if result.inserted_primary_key else 0
            if number % PRUNE_EVERY == 0:
                connection.execute(delete(_JOURNAL).where(_JOURNAL.c.id <= number - JOURNAL_KEPT))

    def events(
        self, limit: int = 100, *, kinds: Collection[str] = (), before: int = 0
    ) -> Sequence[Event]:
        """Return the last `limit` events, oldest first."""
        last = select(_JOURNAL).order_by(_JOURNAL.c.id.desc()).limit(limit)
        if kinds:
            last = last.where(_JOURNAL.c.kind.in_(kinds))
        if before:
            last = last.where(_JOURNAL.c.id < before)
        with self._reading("read the journal") as connection:
            return [_event(row) for row in connection.execute(last).mappings()][::-1]

    def close(self) -> None:
        """Let go of the file. May be called twice."""
        with self._lock, self._telling("close"):
            if not self._closed:
                self._closed = True
                self._writer.close()
                self._engine.dispose()

    def _prepare(self) -> None:
        """Make the tables of a new file, and refuse a file that is damaged or not ours to read.

        All tables are made in one transaction with the schema's number, and so is every step from
        an older schema: a crash leaves either nothing or everything of it.
        """
        with self._writer.begin():
            verdict = self._writer.execute(text("PRAGMA quick_check(1)")).scalar_one()
            if verdict != "ok":
                raise StoreError(f"{self._path}: the file is damaged: {verdict}", hint=_DAMAGED)
            tables = inspect(self._writer).get_table_names()
            if not tables:
                _SCHEMA.create_all(self._writer)
                self._writer.execute(_SET, {"key": "schema", "value": SCHEMA})
                return
            self._migrate(self._schema_of(tables))

    def _use_wal(self) -> None:
        """Go over to a write-ahead log, which stays with the file; not possible in a transaction.

        Only now is it known that the file is ours to change.
        """
        cursor = self._writer.connection.cursor()  # the driver's own, so nothing sends BEGIN
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.close()

    def _schema_of(self, tables: Sequence[str]) -> str:
        """Return the number of the file's schema; StoreError if the file is not ours."""
        schema: str | None = None
        if _META.name in tables:
            ours = select(_META.c.value).where(_META.c.key == "schema")
            schema = self._writer.execute(ours).scalar_one_or_none()
        if schema is None:
            raise StoreError(
                f"{self._path}: this is a database of some other program",
                hint="name another file; this one was left as it is",
            )
        return schema

    def _migrate(self, found: str) -> None:
        """Bring a file of an older schema up to ours; StoreError if we know no way."""
        schema = found
        while schema in _MIGRATIONS:
            schema, tables, statements = _MIGRATIONS[schema]
            _SCHEMA.create_all(self._writer, tables)
            for statement in statements:
                self._writer.execute(text(statement))
        if schema != found:
            self._writer.execute(_SET, {"key": "schema", "value": schema})
        if schema != SCHEMA:
            raise StoreError(
                f"{self._path}: its schema is number {schema}, this edgewake reads {SCHEMA}",
                hint="use the edgewake that wrote it, or name another file",
            )

    @contextmanager
    def _writing(self, doing: str) -> Iterator[Connection]:
        with self._lock, self._telling(doing):
            self._refuse_closed()
            with self._writer.begin():
                yield self._writer

    @contextmanager
    def _reading(self, doing: str) -> Iterator[Connection]:
        with self._telling(doing):
            self._refuse_closed()
            with self._engine.connect() as connection:
                yield connection

    def _refuse_closed(self) -> None:
        if self._closed:
            raise StoreError(f"{self._path}: the store was closed", hint="open it again")

    @contextmanager
    def _telling(self, doing: str) -> Iterator[None]:
        """Translate every foreign error into a `StoreError` that names the file, and count it."""
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
            code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the rest is the extended code
            raise self._failed(doing, str(cause), HINTS.get(code, "")) from error
        except OSError as error:
            raise self._failed(doing, str(error.strerror), _PERMISSION) from error
        except (ValueError, TypeError) as error:
            raise self._failed(doing, f"a row makes no sense: {error}", _DAMAGED) from error

    def _failed(self, doing: str, why: str, hint: str) -> StoreError:
        self.failures += 1
        return StoreError(f"{self._path}: cannot {doing}: {why}", hint=hint)


def _file_of(url: str) -> Path:
    """Return the file of a ``sqlite:///`` URL; StoreError for every other kind."""
    hint = "write sqlite:////an/absolute/path.db"
    try:
        parsed = make_url(url)
    except SQLAlchemyError as error:
        raise StoreError(f"{url!r} is not the URL of a database", hint=hint) from error
    if parsed.drivername not in {"sqlite", "sqlite+pysqlite"}:
        raise StoreError(f"{parsed.drivername}: only SQLite is supported", hint=hint)
    if parsed.database in {None, "", ":memory:"}:
        raise StoreError(f"{url!r} names no file", hint=hint)
    return Path(str(parsed.database))


def _create_file(path: Path) -> None:
    """Create the file with its mode before SQLite does; its log files inherit the mode."""
    path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, FILE_MODE))


def _set_pragmas(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    """Set up a new connection; transactions are begun by `_begin`, not by the sqlite3 module.

    The module's own way leaves CREATE TABLE outside of transactions; see SQLAlchemy's page on the
    pysqlite dialect, "Serializable isolation / Savepoints / Transactional DDL".
    """
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _row(instance: Instance) -> dict[str, object]:
    return {
        "name": instance.name,
        "service": instance.service,
        "host": instance.host,
        "address": str(instance.address),
        "mac": instance.mac,
        "state": instance.state.value,
        "created_at": instance.created_at,
        "address6": str(instance.address6) if instance.address6 else None,
        "ready_at": instance.ready_at,
        "moving_to": instance.to or None,
    }


def _last_labs(limit: int) -> Select[Any]:
    return select(_LABS).order_by(_LABS.c.number.desc()).limit(limit)


def _instance(row: Mapping[Any, Any]) -> Instance:
    return Instance(
        name=row["name"],
        service=row["service"],
        host=row["host"],
        address=IPv4Address(row["address"]),
        mac=row["mac"],
        state=InstanceState(row["state"]),
        created_at=row["created_at"],
        address6=IPv6Address(row["address6"]) if row["address6"] else None,
        ready_at=row["ready_at"],
        to=row["moving_to"] or "",
    )


def _quarantine(row: Mapping[Any, Any]) -> Quarantine:
    return Quarantine(
        host=row["host"],
        address=IPv4Address(row["address"]),
        service=row["service"],
        until=row["until"],
    )


def _event(row: Mapping[Any, Any]) -> Event:
    return Event(
        at=row["at"],
        kind=row["kind"],
        subject=row["subject"],
        text=row["text"],
        data=tuple((str(key), str(value)) for key, value in json.loads(row["data"])),
        number=row["id"],
    )
