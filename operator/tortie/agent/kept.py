"""What the agent was told to enforce, on disk: after a restart without an API server it holds what it knew.

Belongs here: the rows. Does not: what they mean (`tortie.policy.view`). A file that is damaged is begun anew, and then what
the kernel has stays until the API server tells it all again.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from tortie.agent.journal import Journal, NotDurable, Statement
from tortie.api.compiled import AddressSet, NodePolicy, RuleSet

_log = logging.getLogger(__name__)

Object = RuleSet | AddressSet | NodePolicy

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (kind TEXT, name TEXT, body BLOB NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID;
"""
_KINDS: dict[str, type[Object]] = {kind.__name__: kind for kind in (NodePolicy, RuleSet, AddressSet)}


class Kept:
    """The file at `path`, begun anew where it is damaged. One event loop's; raises NotDurable where it can't be opened."""

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path, _SCHEMA, self._read)

    def objects(self) -> Iterator[Object]:
        """Yield what was kept before, once."""
        while self._found:
            yield self._found.pop()

    async def keep(self, changed: Mapping[tuple[str, str], Object | None]) -> bool:
        """Keep objects by kind and name, or forget them; whether that could be done."""
        try:
            await self._journal.commit([_statement(key, item) for key, item in changed.items()])
        except NotDurable as error:
            _log.error("policies can't be kept for a start without an API server: %s", error)
            return False
        return True

    async def close(self) -> None:
        """Write what waits and close the file."""
        await self._journal.close()

    def _read(self, journal: Journal) -> None:
        rows = journal.rows("SELECT kind, body FROM objects")
        try:
            self._found: list[Object] = [msgspec.json.decode(body, type=_KINDS[kind]) for kind, body in rows]
        except (msgspec.DecodeError, KeyError) as error:
            raise ValueError(f"an object can't be read: {error}") from error


def _statement(key: tuple[str, str], item: Object | None) -> Statement:
    if item is None:
        return "DELETE FROM objects WHERE kind = ? AND name = ?", key
    return "INSERT OR REPLACE INTO objects VALUES (?, ?, ?)", (*key, msgspec.json.encode(item))
