"""One SQLite file in which what is acknowledged is durable: concurrent changes share one commit.

Belongs here: transactions, their thread, and a file that is damaged. Does not: what the rows mean.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

_log = logging.getLogger(__name__)

Statement = tuple[str, tuple[Any, ...]]
# Columns that files of before lack, with their types: by table, by name.
Added = Mapping[str, Mapping[str, str]]

# What waits shares a commit; more than this would make the first of them wait.
BATCH = 256
# Of the files' format. One of a later format is put aside: what its tables mean isn't known here.
FORMAT = 1
# Damaged files that are kept, for whoever wants to know what happened.
KEPT = 3
# SQLite's results (sqlite.org/rescode.html) that say nothing of the content: the file can't be got at now.
_OUT_OF_REACH = {
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN,
}  # fmt: skip
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_WAY_OUT = "see that its disk has room and can be written"


class NotDurable(Exception):
    """What was to be recorded isn't: the disk is full, read-only or broken. The message names the file and the reason."""


class Damaged(NotDurable):
    """The file isn't what it was when it was opened; whoever opens it anew puts it aside."""


class _Change(NamedTuple):
    statements: Sequence[Statement]
    done: asyncio.Future[None]


class Journal:
    """The file at `path`, made with `schema` where it isn't there. A damaged one is put aside as `….damaged-…`.

    `read` is told of the open file, and takes what is in it; what it can't read, by sqlite3.Error, ValueError or TypeError,
    is damage as well. `commit()` belongs to one event loop; a thread of its own writes. Raises NotDurable.
    """

    def __init__(self, path: Path, schema: str, read: Callable[["Journal"], None], added: Added = MappingProxyType({})) -> None:
        self.path, self._schema, self._added = path, schema, added
        self.failure: NotDurable | None = None  # of the last commit
        self.damage = ""  # why the file of before was put aside
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Change | None] = queue.SimpleQueue()
        try:
            self._open(read)
        except (sqlite3.Error, OSError) as error:
            raise NotDurable(f"{path} can't be opened: {error}; {_WAY_OUT}") from error
        self._thread = threading.Thread(target=self._write_all, name="journal", daemon=True)
        self._thread.start()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what a query finds; to be used before the first `commit`."""
        return self._database.execute(query).fetchall()

    async def commit(self, statements: Sequence[Statement]) -> None:
        """Return when the statements are durable, all of them or none; raises NotDurable."""
        change = _Change(statements, self._loop.create_future())
        self._queue.put(change)
        # Shielded: what is under way is recorded even when nobody waits for it any more.
        await asyncio.shield(change.done)

    async def close(self) -> None:
        """Write what waits and close the file."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._database.close()

    @property
    def _files(self) -> dict[str, Path]:
        """The file, its log and its index, by what their names end with."""
        return {suffix: self.path.with_name(self.path.name + suffix) for suffix in ("", "-wal", "-shm")}

    def _open(self, read: Callable[["Journal"], None]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connect(read)
        except (sqlite3.Error, ValueError, TypeError) as error:
            if _code(error) in _OUT_OF_REACH and all(file.is_file() for file in self._files.values() if file.exists()):
                raise
            self.damage = str(error)
            self._put_aside()
            self._connect(read)

    def _connect(self, read: Callable[["Journal"], None]) -> None:
        self._database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            self._database.execute("PRAGMA journal_mode=WAL")
            # A commit is on the disk when it returns, also after a power loss.
            self._database.execute("PRAGMA synchronous=FULL")
            self._check()
            self._database.executescript(self._schema)
            for table, columns in self._added.items():
                there = {row[1] for row in self._database.execute(f"PRAGMA table_info({table})")}
                for name in columns.keys() - there:
                    self._database.execute(f"ALTER TABLE {table} ADD COLUMN {name} {columns[name]}")
            read(self)
        except BaseException:
            self._database.close()
            raise

    def _check(self) -> None:
        """Raise ValueError where the file isn't whole (1 ms for 1,000 pods), or is of a later format."""
        ((found,),) = self._database.execute("PRAGMA integrity_check(1)")
        if found != "ok":
            raise ValueError(found)
        ((written,),) = self._database.execute("PRAGMA user_version")
        if written > FORMAT:
            raise ValueError(f"a later Tortie wrote it, in format {written}; this one knows {FORMAT}")
        if written < FORMAT:
            self._database.execute(f"PRAGMA user_version = {FORMAT}")

    def _put_aside(self) -> None:
        aside = f"{self.path.name}.damaged-{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}"
        _log.error("%s is damaged (%s); it is put aside as %s and begun anew", self.path, self.damage, aside)
        for suffix, file in self._files.items():
            if file.exists():
                file.replace(file.with_name(aside + suffix))
        for old in sorted(self.path.parent.glob(f"{self.path.name}.damaged-*[0-9]"))[:-KEPT]:
            for suffix in self._files:
                with suppress(OSError):  # a folder, or gone
                    old.with_name(old.name + suffix).unlink()

    def _write_all(self) -> None:
        for batch in self._batches():
            error = self._write(batch)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._resolve, batch, error)

    def _batches(self) -> Iterator[list[_Change]]:
        """Yield what waits, together."""
        while (change := self._queue.get()) is not None:
            batch = [change]
            while len(batch) < BATCH and not self._queue.empty():
                change = self._queue.get()
                if change is None:
                    yield batch
                    return
                batch.append(change)
            yield batch

    def _write(self, batch: list[_Change]) -> NotDurable | None:
        if isinstance(self.failure, Damaged):
            return self.failure  # also where what is written now lies in a part that is whole
        try:
            self._database.execute("BEGIN IMMEDIATE")
            for change in batch:
                for statement, values in change.statements:
                    self._database.execute(statement, values)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            if _code(error) in _DAMAGED:
                return Damaged(f"{self.path} was damaged while it was in use: {error}; the agent ends, to be started anew")
            return NotDurable(f"{self.path} can't be written: {error}; {_WAY_OUT}")
        return None

    def _resolve(self, batch: list[_Change], error: NotDurable | None) -> None:
        if error is not None and self.failure is None:
            _log.error("%s", error)
        elif error is None and self.failure is not None:
            _log.warning("%s can be written again", self.path)
        self.failure = error
        for change in batch:
            if change.done.done():
                continue
            if error is None:
                change.done.set_result(None)
            else:
                change.done.set_exception(error)


def _code(error: Exception) -> int:
    """Return SQLite's primary result, SQLITE_OK for what isn't of its making."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
