"""One SQLite file in which what is acknowledged is durable: concurrent changes share one commit.

Belongs here: transactions, their thread, and a file that is damaged. Does not: what the rows mean.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

_log = logging.getLogger(__name__)

Statement = tuple[str, tuple[Any, ...]]

# What waits shares a commit; more than this would make the first of them wait.
BATCH = 256


class NotDurable(Exception):
    """What was to be recorded isn't: the disk is full, read-only or broken. The message names the file and the reason."""


class _Change(NamedTuple):
    statements: Sequence[Statement]
    done: asyncio.Future[None]


class Journal:
    """The file at `path`, made with `schema` where it isn't there. A damaged one is put aside as `….broken`.

    `commit()` belongs to one event loop; a thread of its own writes.
    """

    def __init__(self, path: Path, schema: str) -> None:
        self.path = path
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Change | None] = queue.SimpleQueue()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = self._open(schema)
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

    def _open(self, schema: str) -> sqlite3.Connection:
        try:
            return self._connect(schema)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise NotDurable(
                    f"{self.path} can't be opened: {error}; see that its disk has room and can be written"
                ) from error
            aside = self.path.with_name(f"{self.path.name}.broken")
            _log.error("%s is damaged (%s); it is put aside as %s and begun anew", self.path, error, aside.name)
            self.path.replace(aside)
            for suffix in ("-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            return self._connect(schema)

    def _connect(self, schema: str) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")  # a commit is on the disk when it returns, also after a power loss
            found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(found)  # noqa: TRY301 - as SQLite itself says it
            database.executescript(schema)
        except BaseException:
            database.close()
            raise
        return database

    def _write_all(self) -> None:
        for batch in self._batches():
            error = self._write(batch)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(_resolve, batch, error)

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
        try:
            self._database.execute("BEGIN IMMEDIATE")
            for change in batch:
                for statement, values in change.statements:
                    self._database.execute(statement, values)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            return NotDurable(f"{self.path} can't be written: {error}; see that its disk has room and can be written")
        return None


def _resolve(batch: list[_Change], error: NotDurable | None) -> None:
    for change in batch:
        if change.done.done():
            continue
        if error is None:
            change.done.set_result(None)
        else:
            change.done.set_exception(error)
