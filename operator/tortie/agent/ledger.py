"""The node's ledger: which link of which pod has which address, durable before anybody is told.

Belongs here: allocation and release as records, and what is true after a restart. Does not: which address is next
(`tortie.addressing.allocator`), nor what the kernel has (`tortie.agent.wire`).

Crash points: before the commit of an allocation nothing happened; after it, before the answer, the same request finds
its addresses again. A release counts from its commit; before it, the address is in use.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tortie.addressing.allocator import COOLDOWN, Address, Allocator, OwnBlock, address
from tortie.addressing.ranges import Range, parse
from tortie.addressing.wants import Wanted
from tortie.agent.journal import Journal, NotDurable, Statement


@dataclass(frozen=True, slots=True)
class Link:
    """Who an address is for: one interface of one container.

    Attributes:
        host: The host's end, a name made of container and interface; the key of it all.
        netns: The path of the pod's network namespace.
        uid: The pod's uid, "" where the runtime names none; so are namespace and pod.
    """

    host: str
    container: str = ""
    ifname: str = ""
    netns: str = ""
    namespace: str = ""
    pod: str = ""
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One address in use."""

    address: Address
    sequence: int
    since: str  # RFC 3339
    link: Link


class Exhausted(Exception):
    """No address that was wanted can go out now; the message says why."""


_LINK = ", ".join(field.name for field in fields(Link))
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counter (one INTEGER PRIMARY KEY CHECK (one = 1), sequence INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS allocations (address TEXT PRIMARY KEY, sequence INTEGER NOT NULL, since TEXT NOT NULL,
    {_LINK.replace(", ", " TEXT NOT NULL, ")} TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS releases (address TEXT PRIMARY KEY, sequence INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blocks (name TEXT PRIMARY KEY, range TEXT NOT NULL, pool TEXT NOT NULL, active INTEGER NOT NULL,
    reserved TEXT NOT NULL, cede TEXT, settled INTEGER NOT NULL, ceded TEXT) WITHOUT ROWID;
INSERT OR IGNORE INTO counter VALUES (1, 0);
INSERT OR IGNORE INTO meta VALUES ('epoch', lower(hex(randomblob(16))));
"""  # noqa: S608
_INSERT = f"INSERT INTO allocations (address, sequence, since, {_LINK}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - names of ours
_BLOCK = "name, range, pool, active, reserved, cede, settled"
_SELECT = f"SELECT address, sequence, since, {_LINK} FROM allocations"  # noqa: S608 - names of ours
_COUNT = "UPDATE counter SET sequence = max(sequence, ?)"


class Ledger:
    """The file at `path` and its picture in memory. One event loop's; `now` is a steady clock."""

    def __init__(self, path: Path, *, cooldown: float = COOLDOWN, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._journal = Journal(path, _SCHEMA)
        self._allocator = Allocator(cooldown)
        self._links: dict[str, tuple[Entry, ...]] = {}
        self.changed: Callable[[Address], None] = lambda _address: None  # told after every durable change
        ((self.epoch,),) = self._journal.rows("SELECT value FROM meta WHERE key = 'epoch'")
        self.sequence: int
        ((self.sequence,),) = self._journal.rows("SELECT sequence FROM counter")
        self.meta: dict[str, str] = dict(self._journal.rows("SELECT key, value FROM meta"))
        self.ceded: dict[str, Range] = {}  # by block
        self._load()

    def __len__(self) -> int:
        """Return how many addresses are in use."""
        return sum(len(entries) for entries in self._links.values())

    @property
    def allocator(self) -> Allocator:
        """What may go out; blocks are put there."""
        return self._allocator

    def links(self) -> Iterable[tuple[Entry, ...]]:
        """Return the entries of every link."""
        return list(self._links.values())

    def find(self, host: str) -> tuple[Entry, ...]:
        """Return what a link has, nothing if it is unknown."""
        return self._links.get(host, ())

    def entries_in(self, whole: Range) -> list[Entry]:
        """Return what is in use in a range, by address."""
        found = (entry for entries in self._links.values() for entry in entries if entry.address.within(whole))
        return sorted(found, key=lambda entry: entry.address)

    async def allocate(self, link: Link, wanted: Sequence[Wanted]) -> tuple[Entry, ...]:
        """Return one durable entry for each address wanted, all or none; raises Exhausted, NotDurable."""
        taken = [self._pick(one) for one in wanted]
        for one in taken:
            self._allocator.take(one)
        since = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entries = tuple(Entry(one, self._next(), since, link) for one in taken)
        try:
            await self._journal.commit(_allocation(entries, self.sequence))
        except NotDurable:
            for one in taken:  # they rest: a commit that failed may still have reached the disk
                self._allocator.release(one, self._next())
            raise
        self._links[link.host] = entries
        self._tell(entries)
        return entries

    async def adopt(self, link: Link, addresses: Iterable[Address]) -> None:
        """Record a link that was found in the kernel and is in no record: what it uses isn't handed out."""
        since = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entries = tuple(Entry(one, self._next(), since, link) for one in addresses)
        await self._journal.commit(_allocation(entries, self.sequence))
        for entry in entries:
            self._allocator.take(entry.address)
        self._links[link.host] = entries
        self._tell(entries)

    async def release(self, host: str) -> tuple[Entry, ...]:
        """Free what a link has, and return it; nothing if it is unknown. Raises NotDurable: then it is still in use."""
        entries = self._links.get(host, ())
        if not entries:
            return ()
        sequence = self._next()
        statements: list[Statement] = [("DELETE FROM allocations WHERE host = ?", (host,)), (_COUNT, (sequence,))]
        statements += [("INSERT OR REPLACE INTO releases VALUES (?, ?)", (str(e.address), sequence)) for e in entries]
        await self._journal.commit(statements)
        self._links.pop(host, None)
        for entry in entries:
            self._allocator.release(entry.address, sequence)
        self._tell(entries)
        return entries

    async def put_block(self, block: OwnBlock) -> None:
        """Take a block as the operator says it is; it is known again after a restart. Another `cede` undoes what was ceded."""
        self._allocator.put_block(block, self._now())
        if self.ceded.get(block.name) != block.cede:
            self.ceded.pop(block.name, None)
        await self._journal.commit([_block_row(block, self.ceded.get(block.name))])

    async def drop_block(self, block: OwnBlock) -> None:
        """Forget a block that the node owns no more; what is in use there stays on record."""
        past = self._allocator.resting_in(block.name)
        self._allocator.drop_block(block.name)
        self.ceded.pop(block.name, None)
        statements: list[Statement] = [("DELETE FROM releases WHERE address = ?", (str(one),)) for one in past]
        await self._journal.commit([*statements, ("DELETE FROM blocks WHERE name = ?", (block.name,))])

    async def cede(self, block: OwnBlock) -> Range | None:
        """Give up `block.cede` once nothing in it is in use; return what is given up, durable, or None."""
        if block.cede is not None and block.name not in self.ceded and not self._allocator.used_in(block.cede):
            await self._journal.commit([_block_row(block, block.cede)])
            self.ceded[block.name] = block.cede
        return self.ceded.get(block.name)

    async def note(self, key: str, value: str) -> None:
        """Keep a text over restarts; nothing is written where it is the same."""
        if self.meta.get(key) != value:
            await self._journal.commit([("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))])
            self.meta[key] = value

    def free(self, block: str) -> int:
        """Return how many addresses of a block a pod can get now."""
        return self._allocator.free(block, self._now())

    def published(self, block: str, sequence: int) -> None:
        """Note that a block's status was written as it was at `sequence`."""
        self._allocator.published(block, sequence, self._now())

    def seconds_to_rest(self) -> float | None:
        """Return in how many seconds the next resting address may go out, if one rests."""
        return self._allocator.next_ripe(self._now())

    async def probe(self) -> None:
        """Raise NotDurable when nothing could be recorded now."""
        await self._journal.commit([(_COUNT, (self.sequence,))])

    async def close(self) -> None:
        """Write what waits and close the file."""
        await self._journal.close()

    def _load(self) -> None:
        for *row, ceded in self._journal.rows(f"SELECT {_BLOCK}, ceded FROM blocks"):  # noqa: S608 - names of ours
            block = _block(row)
            self._allocator.put_block(block, self._now())
            if ceded:
                self.ceded[block.name] = parse(ceded)
        rows: dict[str, list[Entry]] = {}
        for text, sequence, since, *link in self._journal.rows(_SELECT):
            entry = Entry(address(text), sequence, since, Link(*link))
            rows.setdefault(entry.link.host, []).append(entry)
            self._allocator.take(entry.address)
        self._links = {host: tuple(sorted(entries, key=lambda e: e.address)) for host, entries in rows.items()}
        for text, sequence in self._journal.rows("SELECT address, sequence FROM releases ORDER BY sequence"):
            self._allocator.release(address(text), sequence)

    def _pick(self, wanted: Wanted) -> Address:
        if wanted.fixed is not None:
            if not self._allocator.may_take(wanted.fixed, self._now()):
                raise Exhausted(self._why_not(wanted.fixed))
            return wanted.fixed
        picked = self._allocator.pick(wanted.family, wanted.pools, self._now())
        if picked is None:
            raise Exhausted(self._why_none(wanted))
        return picked

    def _why_not(self, fixed: Address) -> str:
        block = self._allocator.block_of(fixed)
        if block is None:
            return f"{fixed} is in no block of this node"
        holder = next((e.link for e in self.entries_in(block.range) if e.address == fixed), None)
        if holder is not None:
            return f"{fixed} is in use by pod {holder.namespace}/{holder.pod}"
        return f"{fixed} can't go out now: it is reserved or asked back, or rests after its last pod"

    def _why_none(self, wanted: Wanted) -> str:
        blocks = [b for b in self._allocator.blocks if b.range.family == wanted.family and b.pool in wanted.pools]
        family, pools = f"IPv{wanted.family}", ", ".join(sorted(wanted.pools)) or "none"
        if not blocks:
            return f"this node has no {family} block of a pool that the pod may use ({pools})"
        size = sum(block.range.size for block in blocks)
        return (
            f"all {size} {family} addresses of this node's {len(blocks)} blocks are in use, reserved or rest (pools: {pools})"
        )

    def _next(self) -> int:
        self.sequence += 1
        return self.sequence

    def _tell(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self.changed(entry.address)


def _block_row(block: OwnBlock, ceded: Range | None) -> Statement:
    reserved = " ".join(str(part) for part in block.reserved)
    values = (block.name, str(block.range), block.pool, block.active, reserved, block.cede and str(block.cede), block.settled)
    return (f"INSERT OR REPLACE INTO blocks ({_BLOCK}, ceded) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*values, ceded and str(ceded)))  # noqa: S608


def _block(row: Sequence[Any]) -> OwnBlock:
    name, whole, pool, active, reserved, cede, settled = row
    parts = tuple(parse(part) for part in reserved.split())
    return OwnBlock(name, parse(whole), pool, bool(active), parts, parse(cede) if cede else None, settled)


def _allocation(entries: Iterable[Entry], sequence: int) -> list[Statement]:
    statements: list[Statement] = [(_COUNT, (sequence,))]
    for entry in entries:
        statements.append(("DELETE FROM releases WHERE address = ?", (str(entry.address),)))
        statements.append((_INSERT, (str(entry.address), entry.sequence, entry.since, *astuple(entry.link))))
    return statements
