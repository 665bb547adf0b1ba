"""The node's ledger: which link of which pod has which address, durable before anybody is told.

Belongs here: allocation and release as records, and what is true after a restart. Does not: which address is next
(`tortie.addressing.allocator`), nor what the kernel has (`tortie.agent.wire`).

Crash points: before the commit of an allocation nothing happened; after it, before the answer, the same request finds
its addresses again. A release counts from its commit; before it, the address is in use. Nothing here is measured by the
wall clock, which may jump: an address's rest is counted by a steady one, and after a restart from its start.
"""

import secrets
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from tortie.addressing.allocator import COOLDOWN, Address, Allocator, OwnBlock, address
from tortie.addressing.ranges import Range, covered, parse
from tortie.addressing.wants import Wanted
from tortie.agent.journal import Journal, NotDurable, Statement


class Link(NamedTuple):
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


class NotReclaimed(Exception):
    """An address that was judged leaked isn't freed; the message says why."""


class InUse(NotReclaimed):
    """It isn't, because an interface uses it."""


_LINK = ", ".join(Link._fields)
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counter (one INTEGER PRIMARY KEY CHECK (one = 1), sequence INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS allocations (address TEXT PRIMARY KEY, sequence INTEGER NOT NULL, since TEXT NOT NULL,
    {_LINK.replace(", ", " TEXT NOT NULL, ")} TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS releases (address TEXT PRIMARY KEY, sequence INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blocks (name TEXT PRIMARY KEY, range TEXT NOT NULL, pool TEXT NOT NULL, active INTEGER NOT NULL,
    reserved TEXT NOT NULL, cede TEXT, settled INTEGER NOT NULL, ceded TEXT, without TEXT NOT NULL DEFAULT '') WITHOUT ROWID;
INSERT OR IGNORE INTO counter VALUES (1, 0);
INSERT OR IGNORE INTO meta VALUES ('epoch', lower(hex(randomblob(16))));
"""  # noqa: S608
_INSERT = f"INSERT INTO allocations (address, sequence, since, {_LINK}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - names of ours
_BLOCK = "name, range, pool, active, reserved, cede, settled, without"
# What ledgers of before lack.
_ADDED = {"blocks": {"without": "TEXT NOT NULL DEFAULT ''"}}
_SELECT = f"SELECT address, sequence, since, {_LINK} FROM allocations"  # noqa: S608 - names of ours
_EPOCH, _LOST = "epoch", "lost"  # keys of meta
_WAITS = "what its blocks published is read before an address goes out: is the API server away?"
_WAY_OUT = "apply another IPPool, or see what kubectl describe ippool says of this one"
_COUNT = "UPDATE counter SET sequence = max(sequence, ?)"


class Ledger:
    """The file at `path` and its picture in memory. One event loop's; `now` is a steady clock."""

    def __init__(self, path: Path, *, cooldown: float = COOLDOWN, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._cooldown = now, cooldown
        self._links: dict[str, tuple[Entry, ...]]
        self.sequence: int  # every change up to this number is durable, and seen by who asks
        self.changed: Callable[[Address], None] = lambda _address: None  # told after every durable change
        self._journal = Journal(path, _SCHEMA, self._read, _ADDED)
        self._last: int = self.sequence  # the number that was given last; its change may be under way

    def __len__(self) -> int:
        """Return how many addresses are in use."""
        return sum(len(entries) for entries in self._links.values())

    @property
    def allocator(self) -> Allocator:
        """What may go out; blocks are put there."""
        return self._allocator

    @property
    def is_writable(self) -> bool:
        """Whether the last record reached the disk."""
        return self._journal.failure is None

    @property
    def damage(self) -> str:
        """Why the file of before was put aside, "" where it was not."""
        return self._journal.damage

    @property
    def lost(self) -> str:
        """Why records are missing, until all that the blocks published has been read; "" where none are."""
        return self.meta.get(_LOST, "")

    @property
    def why_not_ready(self) -> str:
        """Why no pod can get an address now, "" where nothing is known against it."""
        return str(self._journal.failure or "") or (self.lost and f"{self.lost}; {_WAITS}")

    def links(self) -> Iterable[tuple[Entry, ...]]:
        """Return the entries of every link."""
        return list(self._links.values())

    def find(self, host: str) -> tuple[Entry, ...]:
        """Return what a link has, nothing if it is unknown."""
        return self._links.get(host, ())

    def pod_at(self, one: Address) -> str | None:
        """Return the pod that has an address, as namespace/name."""
        every = (entry for entries in self._links.values() for entry in entries)
        found = next((entry.link for entry in every if entry.address == one), None)
        return f"{found.namespace}/{found.pod}" if found and found.pod else None

    def entries_of(self, block: OwnBlock) -> list[Entry]:
        """Return what is in use of a block, by address."""
        every = (entry for entries in self._links.values() for entry in entries)
        family = block.range.family
        found = (entry for entry in every if entry.address.family == family and block.has(entry.address.value))
        return sorted(found, key=lambda entry: entry.address)

    def can_give(self, wanted: Wanted) -> bool:
        """Whether an address that is wanted can go out now."""
        try:
            self._pick(wanted)
        except Exhausted:
            return False
        return True

    async def allocate(self, link: Link, wanted: Sequence[Wanted]) -> tuple[Entry, ...]:
        """Return one durable entry for each address wanted, all or none; raises Exhausted, NotDurable."""
        taken = [self._pick(one) for one in wanted]
        for one in taken:
            self._allocator.take(one)
        since = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entries = tuple(Entry(one, self._next(), since, link) for one in taken)
        try:
            await self._journal.commit(_allocation(entries))
        except NotDurable:
            for one in taken:  # they rest: a commit that failed may still have reached the disk
                self._allocator.release(one, self._next())
            raise
        self._links[link.host] = entries
        self._done(entries[-1].sequence, entries)
        return entries

    async def adopt(self, link: Link, addresses: Collection[Address]) -> None:
        """Record what a link was found to have in the kernel, whatever the records say: it isn't handed out."""
        if not addresses:
            return  # a link without an address uses none
        since = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entries = tuple(Entry(one, self._next(), since, link) for one in addresses)
        deletions: list[Statement] = [("DELETE FROM allocations WHERE address = ?", (str(one),)) for one in addresses]
        await self._journal.commit([*deletions, *_allocation(entries)])
        for entry in entries:
            self._allocator.take(entry.address)
        kept = (entry for held in self._links.values() for entry in held if entry.address not in addresses)
        self._links = _by_link([*kept, *entries])
        self._done(entries[-1].sequence, entries)

    async def name(self, link: Link) -> tuple[Entry, ...]:
        """Record whose a link is that was only found in the kernel; return what it has, if it still is. Raises NotDurable."""
        named = ", ".join(f"{field} = ?" for field in Link._fields)
        await self._journal.commit([(f"UPDATE allocations SET {named} WHERE host = ?", (*link, link.host))])  # noqa: S608
        entries = tuple(replace(entry, link=link) for entry in self._links.get(link.host, ()))
        if entries:
            self._links[link.host] = entries
        return entries

    async def begin_anew(self, why: str) -> None:
        """Go on as another ledger, because records are missing; raises NotDurable. What is on record stays so.

        Nothing goes out of a block until it is put again: by somebody who has read what it published.
        """
        epoch = secrets.token_hex(16)
        for block in self._allocator.blocks:  # before the commit: nothing may go out meanwhile
            self._allocator.put_block(replace(block, active=False, settled=0), self._now())
        statements: list[Statement] = [("UPDATE blocks SET active = 0, settled = 0", ())]
        statements += [("INSERT OR REPLACE INTO meta VALUES (?, ?)", row) for row in ((_EPOCH, epoch), (_LOST, why))]
        await self._journal.commit(statements)
        self.meta |= {_EPOCH: epoch, _LOST: why}

    async def found(self) -> None:
        """Note that all that the blocks published has been read, after records were lost."""
        await self.note(_LOST, "")

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
        self._done(sequence, entries)
        return entries

    async def rest(self, addresses: Sequence[Address]) -> None:
        """Let addresses rest that nobody here has, as if they were released now; raises NotDurable."""
        sequence = self._next()
        statements: list[Statement] = [(_COUNT, (sequence,))]
        statements += [("INSERT OR REPLACE INTO releases VALUES (?, ?)", (str(one), sequence)) for one in addresses]
        await self._journal.commit(statements)
        for one in addresses:
            self._allocator.release(one, sequence)
        self._done(sequence, ())

    async def put_block(self, block: OwnBlock) -> None:
        """Take a block as the operator says it is; it is known again after a restart. Another `cede` undoes what was ceded."""
        past = self._allocator.resting_in(block.name)
        self._allocator.put_block(block, self._now())
        if self.ceded.get(block.name) != block.cede:
            self.ceded.pop(block.name, None)
        given = (one for one in past if not block.has(one.value))
        statements: list[Statement] = [("DELETE FROM releases WHERE address = ?", (str(one),)) for one in given]
        await self._journal.commit([*statements, _block_row(block, self.ceded.get(block.name))])

    async def drop_block(self, block: OwnBlock) -> None:
        """Forget a block that the node owns no more; what is in use there stays on record."""
        past = self._allocator.resting_in(block.name)
        self._allocator.drop_block(block.name)
        self.ceded.pop(block.name, None)
        statements: list[Statement] = [("DELETE FROM releases WHERE address = ?", (str(one),)) for one in past]
        await self._journal.commit([*statements, ("DELETE FROM blocks WHERE name = ?", (block.name,))])

    async def cede(self, block: OwnBlock) -> Range | None:
        """Give up `block.cede` once nothing in it is in use or rests; return what is given up, durable, or None.

        What rests isn't given up: its next owner's ledger doesn't know of it, and would hand it out at once.
        """
        if block.cede is not None and block.name not in self.ceded and not self._is_busy(block.cede):
            self.ceded[block.name] = block.cede  # before the commit: the operator may ask for nothing any more meanwhile
            try:
                await self._journal.commit([_block_row(block, block.cede)])
            except NotDurable:
                self.ceded.pop(block.name, None)
                raise
        return self.ceded.get(block.name)

    def _is_busy(self, whole: Range) -> bool:
        return bool(self._allocator.used_in(whole)) or self._allocator.rests_in(whole, self._now())

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

    def told(self, block: str) -> int:
        """Return up to which change a block's status was written since the start."""
        return self._allocator.told(block)

    def seconds_to_rest(self) -> float | None:
        """Return in how many seconds the next resting address may go out, if one rests."""
        return self._allocator.next_ripe(self._now())

    async def probe(self) -> None:
        """Raise NotDurable when nothing could be recorded now."""
        # Another text each time: SQLite doesn't write a page that stays the same, so a broken disk would go unnoticed.
        await self._journal.commit([("INSERT OR REPLACE INTO meta VALUES ('probe', lower(hex(randomblob(8))))", ())])

    async def close(self) -> None:
        """Write what waits and close the file."""
        await self._journal.close()

    def _read(self, journal: Journal) -> None:
        """Take what is in the file; raises ValueError where that can't be."""
        self._allocator = Allocator(self._cooldown)
        self.meta: dict[str, str] = dict(journal.rows("SELECT key, value FROM meta"))
        ((self.sequence,),) = journal.rows("SELECT sequence FROM counter")
        self.ceded: dict[str, Range] = {}  # by block
        for *row, ceded in journal.rows(f"SELECT {_BLOCK}, ceded FROM blocks"):  # noqa: S608 - names of ours
            block = _block(row)
            self._allocator.put_block(block, self._now())
            if ceded:
                self.ceded[block.name] = parse(ceded)
        entries = [Entry(address(text), sequence, since, Link(*link)) for text, sequence, since, *link in journal.rows(_SELECT)]
        for entry in entries:
            self._allocator.take(entry.address)
        self._links = _by_link(entries)
        releases = journal.rows("SELECT address, sequence FROM releases ORDER BY sequence")
        for text, sequence in releases:
            self._allocator.release(address(text), sequence)
        if max([entry.sequence for entry in entries] + [sequence for _, sequence in releases], default=0) > self.sequence:
            raise ValueError(f"it counts {self.sequence} changes and holds later ones: its parts are of different times")

    @property
    def epoch(self) -> str:
        """Sequences are compared with those of the same epoch alone."""
        return self.meta[_EPOCH]

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
        holder = next((e.link for e in self.entries_of(block) if e.address == fixed), None)
        if holder is not None:
            return f"{fixed} is in use by pod {holder.namespace}/{holder.pod}"
        return f"{fixed} can't go out now: it is asked back, or rests after its last pod"

    def _why_none(self, wanted: Wanted) -> str:
        blocks = [b for b in self._allocator.blocks if b.range.family == wanted.family and b.pool in wanted.pools]
        family, pools = f"IPv{wanted.family}", ", ".join(sorted(wanted.pools)) or "none"
        if not blocks:
            return f"this node has no {family} block of a pool that the pod may use ({pools}); {_WAY_OUT}"
        size = sum(block.range.size - covered(block.range, block.without) for block in blocks)
        return (
            f"all {size} {family} addresses of this node's {len(blocks)} blocks are in use, reserved or rest (pools: {pools});"
            f" {_WAY_OUT}"
        )

    def _next(self) -> int:
        self._last += 1
        return self._last

    def _done(self, sequence: int, entries: Iterable[Entry]) -> None:
        """Note that a change is durable. They become so in the order of their numbers: the journal keeps it."""
        self.sequence = max(self.sequence, sequence)
        for entry in entries:
            self.changed(entry.address)


def _block_row(block: OwnBlock, ceded: Range | None) -> Statement:
    reserved = " ".join(str(part) for part in block.reserved)
    without, cede = " ".join(str(part) for part in block.without), block.cede and str(block.cede)
    values = (block.name, str(block.range), block.pool, block.active, reserved, cede, block.settled, without)
    places = ", ".join("?" * (len(values) + 1))
    return (f"INSERT OR REPLACE INTO blocks ({_BLOCK}, ceded) VALUES ({places})", (*values, ceded and str(ceded)))  # noqa: S608


def _block(row: Sequence[Any]) -> OwnBlock:
    name, whole, pool, active, reserved, cede, settled, without = row
    held, gone = (tuple(parse(part) for part in text.split()) for text in (reserved, without))
    return OwnBlock(name, parse(whole), pool, bool(active), held, parse(cede) if cede else None, settled, gone)


def _by_link(entries: Iterable[Entry]) -> dict[str, tuple[Entry, ...]]:
    held: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda e: e.address):
        held.setdefault(entry.link.host, []).append(entry)
    return {host: tuple(its) for host, its in held.items()}


def _allocation(entries: Sequence[Entry]) -> list[Statement]:
    statements: list[Statement] = [(_COUNT, (entries[-1].sequence,))]
    for entry in entries:
        statements.append(("DELETE FROM releases WHERE address = ?", (str(entry.address),)))
        statements.append((_INSERT, (str(entry.address), entry.sequence, entry.since, *entry.link)))
    return statements
