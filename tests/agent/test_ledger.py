"""The ledger against a model: whatever happens in whatever order, crashes included, no address has two owners."""

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tortie.addressing.allocator import Address, OwnBlock, address
from tortie.addressing.ranges import parse
from tortie.addressing.wants import Wanted
from tortie.agent.journal import NotDurable
from tortie.agent.ledger import Exhausted, Ledger, Link
from tortie.agent.start import reconcile

V4 = OwnBlock("v4", parse("10.0.0.0/29"), "pool")
V6 = OwnBlock("v6", parse("fd00::/125"), "pool")
POOL = frozenset({"pool"})
ANY4 = Wanted(4, POOL)


def link(number: int, netns: str = "/run/netns/x") -> Link:
    return Link(f"cali{number:011x}", f"container-{number}", "eth0", netns, "default", f"pod-{number}", f"uid-{number}")


class Machine(RuleBasedStateMachine):
    """Allocations, releases, cessions, publications and crashes at any moment between them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.loop = asyncio.new_event_loop()
        self.clock = 0.0
        self.owners: dict[str, tuple[Address, ...]] = {}
        self.rests: dict[Address, float | None] = {}  # since when; None: not published yet
        self.block = V4
        self.open()
        self.put(V4, V6)

    def open(self) -> None:
        async def make() -> Ledger:
            return Ledger(self.folder / "ledger.db", now=lambda: self.clock)

        self.ledger = self.loop.run_until_complete(make())

    def put(self, *blocks: OwnBlock) -> None:
        for block in blocks:
            self.loop.run_until_complete(self.ledger.put_block(block))

    def teardown(self) -> None:
        self.loop.run_until_complete(self.ledger.close())
        self.loop.close()
        shutil.rmtree(self.folder)

    @rule(number=st.integers(0, 12), dual=st.booleans())
    def add(self, number: int, dual: bool) -> None:
        if link(number).host in self.owners:
            return
        wanted = [ANY4, Wanted(6, POOL)] if dual else [ANY4]
        try:
            entries = self.loop.run_until_complete(self.ledger.allocate(link(number), wanted))
        except Exhausted:
            ours = {a for addresses in self.owners.values() for a in addresses}
            short = [b for b in ((self.block, V6) if dual else (self.block,)) if not self.could(b, ours)]
            assert short, "refused though an address could go out"
            return
        for entry in entries:
            since = self.rests.pop(entry.address, -1e9)
            assert since is not None, "handed out before its release was published"
            assert since + 30 <= self.clock, "handed out before it had rested"
            assert self.block.offers(entry.address.value) or entry.address.family == 6
        self.owners[link(number).host] = tuple(e.address for e in entries)

    def could(self, block: OwnBlock, ours: set[Address]) -> bool:
        for value in range(block.range.start, block.range.last + 1):
            one = Address(block.range.family, value)
            since = self.rests.get(one, -1e9)
            if one not in ours and block.offers(value) and since is not None and since + 30 <= self.clock:
                return True
        return False

    @rule(number=st.integers(0, 12))
    def delete(self, number: int) -> None:
        released = self.loop.run_until_complete(self.ledger.release(link(number).host))
        assert tuple(e.address for e in released) == self.owners.pop(link(number).host, ())
        self.rests.update({e.address: None for e in released})

    @rule()
    def publish_and_settle(self) -> None:
        self.block = replace(self.block, settled=self.ledger.sequence)
        self.put(self.block, replace(V6, settled=self.ledger.sequence))
        for name in ("v4", "v6"):
            self.ledger.published(name, self.ledger.sequence)
        self.rests = {a: self.clock if since is None else since for a, since in self.rests.items()}

    @rule(seconds=st.integers(1, 31))
    def wait(self, seconds: int) -> None:
        self.clock += seconds

    @rule(half=st.sampled_from(["10.0.0.0/30", "10.0.0.4/30", "10.0.0.0/29"]))
    def ask_back(self, half: str) -> None:
        self.block = replace(self.block, cede=parse(half))
        self.put(self.block)
        given = self.loop.run_until_complete(self.ledger.cede(self.block))
        used = any(a.within(parse(half)) for addresses in self.owners.values() for a in addresses)
        rests = any(a.within(parse(half)) and (since is None or since + 30 > self.clock) for a, since in self.rests.items())
        assert given == (None if used or rests else parse(half))

    @precondition(lambda self: self.block.cede is not None)
    @rule()
    def ask_no_more(self) -> None:
        self.block = replace(self.block, cede=None)
        self.put(self.block)
        assert self.loop.run_until_complete(self.ledger.cede(self.block)) is None

    @rule()
    def crash(self) -> None:
        """What was acknowledged is there again; everything released rests anew, because nobody knows what was published."""
        old, self.folder = self.folder, Path(tempfile.mkdtemp())
        for file in old.iterdir():  # as the disk is at this moment: the journal isn't closed
            shutil.copy(file, self.folder / file.name)
        self.loop.run_until_complete(self.ledger.close())
        shutil.rmtree(old)
        self.open()
        self.rests = dict.fromkeys(self.rests)

    @invariant()
    def agrees(self) -> None:
        assert {e[0].link.host: tuple(x.address for x in e) for e in self.ledger.links()} == self.owners
        everything = [a for addresses in self.owners.values() for a in addresses]
        assert len(everything) == len(set(everything))
        ours = set(everything)
        could = sum(self.could_one(self.block, v, ours) for v in range(self.block.range.start, self.block.range.last + 1))
        assert self.ledger.free("v4") == could

    def could_one(self, block: OwnBlock, value: int, ours: set[Address]) -> bool:
        since = self.rests.get(Address(4, value), -1e9)
        return Address(4, value) not in ours and block.offers(value) and since is not None and since + 30 <= self.clock


TestLedger = Machine.TestCase


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.db")
    await opened.put_block(V4)
    yield opened
    await opened.close()


async def test_sixty_four_at_once_get_as_many_addresses(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    await ledger.put_block(OwnBlock("b", parse("10.0.0.0/26"), "pool"))
    got = await asyncio.gather(*(ledger.allocate(link(n), [ANY4]) for n in range(64)))
    assert sorted(str(e.address) for (e,) in got) == sorted(f"10.0.0.{n}" for n in range(64))
    with pytest.raises(Exhausted, match=r"all 64 IPv4 addresses of this node's 1 blocks"):
        await ledger.allocate(link(65), [ANY4])
    await ledger.close()


async def test_what_is_asked_no_more_while_it_is_given_up_isn_t_given_up(ledger: Ledger) -> None:
    asked = replace(V4, cede=V4.range)
    await ledger.put_block(asked)
    await asyncio.gather(ledger.cede(asked), ledger.put_block(V4))
    assert ledger.ceded == {}
    assert await ledger.cede(V4) is None


async def test_a_change_counts_when_it_is_durable_and_not_before(ledger: Ledger) -> None:
    """Else its number would be published with a state that hasn't it, and would count as said."""
    (entry,) = await ledger.allocate(link(1), [ANY4])
    before = ledger.sequence
    releasing = asyncio.ensure_future(ledger.release(link(1).host))
    await asyncio.sleep(0)  # it has begun, and waits for the disk
    assert (ledger.sequence, len(ledger)) == (before, 1)
    await releasing
    assert ledger.sequence > before == entry.sequence


async def test_a_link_without_addresses_is_nobody_s(ledger: Ledger) -> None:
    await ledger.adopt(link(1), [])
    assert list(ledger.links()) == []


async def test_a_pool_that_the_pod_may_not_use(ledger: Ledger) -> None:
    with pytest.raises(Exhausted, match="no IPv4 block of a pool that the pod may use \\(other\\)"):
        await ledger.allocate(link(1), [Wanted(4, frozenset({"other"}))])


async def test_one_family_short_takes_nothing(ledger: Ledger) -> None:
    with pytest.raises(Exhausted, match="no IPv6 block"):
        await ledger.allocate(link(1), [ANY4, Wanted(6, POOL)])
    assert ledger.free("v4") == 8


FIXED = {
    "elsewhere": ("10.9.0.1", "10.9.0.1 is in no block of this node"),
    "in use": ("10.0.0.0", "10.0.0.0 is in use by pod default/pod-1"),
    "released": ("10.0.0.1", "10.0.0.1 can't go out now"),
}


@pytest.mark.parametrize("row", FIXED)
async def test_a_fixed_address_that_is_refused(ledger: Ledger, row: str) -> None:
    await ledger.allocate(link(1), [ANY4])
    await ledger.allocate(link(2), [ANY4])
    await ledger.release(link(2).host)
    text, words = FIXED[row]
    with pytest.raises(Exhausted, match=words):
        await ledger.allocate(link(3), [Wanted(4, fixed=address(text))])


async def test_a_fixed_address(ledger: Ledger) -> None:
    (entry,) = await ledger.allocate(link(1), [Wanted(4, fixed=address("10.0.0.5"))])
    assert str(entry.address) == "10.0.0.5"


async def test_a_ledger_of_before_gets_the_columns_that_it_lacks(tmp_path: Path) -> None:
    older = sqlite3.connect(tmp_path / "ledger.db")
    older.execute(
        "CREATE TABLE blocks (name TEXT PRIMARY KEY, range TEXT NOT NULL, pool TEXT NOT NULL, active INTEGER NOT NULL,"
        " reserved TEXT NOT NULL, cede TEXT, settled INTEGER NOT NULL, ceded TEXT) WITHOUT ROWID"
    )
    older.execute("INSERT INTO blocks VALUES ('v4', '10.0.0.0/29', 'pool', 1, '', NULL, 0, NULL)")
    older.commit()
    older.close()
    ledger = Ledger(tmp_path / "ledger.db")
    assert ledger.allocator.blocks == [V4]
    await ledger.close()


async def test_what_was_given_up_is_the_block_s_no_more(ledger: Ledger) -> None:
    """The lower half is another block's now: its addresses are nobody's here, not even by name."""
    smaller = replace(V4, without=(parse("10.0.0.0/30"),))
    await ledger.put_block(smaller)
    got = [(await ledger.allocate(link(number), [ANY4]))[0].address for number in range(4)]
    assert [str(one) for one in got] == [f"10.0.0.{number}" for number in range(4, 8)]
    with pytest.raises(Exhausted):
        await ledger.allocate(link(9), [ANY4])
    with pytest.raises(Exhausted, match=r"10\.0\.0\.1 is in no block of this node"):
        await ledger.allocate(link(9), [Wanted(4, fixed=address("10.0.0.1"))])
    assert [entry.address for entry in ledger.entries_of(smaller)] == got


async def test_a_full_disk_is_said_and_nothing_is_lost(ledger: Ledger, tmp_path: Path) -> None:
    await ledger.allocate(link(1), [ANY4])
    assert ledger.is_writable
    other = sqlite3.connect(tmp_path / "ledger.db")
    pages = ledger._journal._database.execute("PRAGMA page_count").fetchone()[0]
    ledger._journal._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(NotDurable, match=r"ledger.db can't be written: .*full"):
        await ledger.allocate(Link("cali2", "c" * 100_000), [ANY4])
    kept = len(ledger)
    ledger._journal._database.execute("PRAGMA query_only = 1")
    with pytest.raises(NotDurable):
        await ledger.release(link(1).host)
    assert not ledger.is_writable
    assert kept == 1
    assert len(ledger) == kept == other.execute("SELECT count(*) FROM allocations").fetchone()[0]
    ledger._journal._database.execute("PRAGMA query_only = 0")
    await ledger.probe()
    assert ledger.is_writable
    other.close()


def aside(folder: Path) -> list[Path]:
    """Return the damaged ledgers that are kept."""
    return sorted(folder.glob("ledger.db.damaged-*[0-9]"))


async def test_a_damaged_file_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"not a database" * 100)
    ledger = Ledger(path)
    assert len(ledger) == 0
    assert [kept.read_bytes() for kept in aside(tmp_path)] == [b"not a database" * 100]
    await ledger.close()


async def test_a_rebuilt_ledger_has_another_epoch(tmp_path: Path) -> None:
    first, again, other = Ledger(tmp_path / "a.db"), Ledger(tmp_path / "a.db"), Ledger(tmp_path / "b.db")
    assert first.epoch == again.epoch != other.epoch
    for ledger in (first, again, other):
        await ledger.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A ledger's file: of eight addresses five are in use and one rests."""

    async def write() -> None:
        ledger = Ledger(path)
        await ledger.put_block(V4)
        for number in range(6):
            await ledger.allocate(link(number), [ANY4])
        await ledger.release(link(5).host)
        await ledger.close()

    path = tmp_path_factory.mktemp("written") / "ledger.db"
    asyncio.run(write())
    return path.read_bytes()


@given(data=st.data(), garbage=st.binary(min_size=1, max_size=600), cut=st.booleans())
def test_broken_bytes_anywhere_hand_out_nothing_that_the_kernel_has(
    written: bytes, data: st.DataObject, garbage: bytes, cut: bool
) -> None:
    begin = data.draw(st.integers(0, len(written) - 1))
    broken = written[:begin] + (b"" if cut else garbage + written[begin + len(garbage) :])
    kernel = {link(number).host: [Address(4, V4.range.start + number)] for number in range(5)}

    async def use(path: Path) -> None:
        ledger = Ledger(path)
        await reconcile(ledger, kernel, "boot", "a")
        await ledger.put_block(V4)  # the most that can happen: as if it were known
        with suppress(Exhausted):
            for number in range(20, 40):
                (entry,) = await ledger.allocate(link(number), [ANY4])
                assert [entry.address] not in kernel.values()
        held = {host: [entry.address for entry in ledger.find(host)] for host in kernel}
        assert all(set(addresses) <= set(held[host]) for host, addresses in kernel.items())
        await ledger.close()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        path.write_bytes(broken)
        asyncio.run(use(path))
