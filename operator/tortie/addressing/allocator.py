"""Which address a pod gets, inside the blocks that its node owns. Pure: the ledger makes what is decided here durable.

Never-used addresses go first, then the longest rested. A released address rests for the cooldown, counted from when its
release was published and settled (`spec.settled`: no AddressSet holds it any more), so nobody inherits a dead pod's rights.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple

import netaddr

from tortie.addressing.ranges import Family, Range

COOLDOWN = 30.0  # seconds


class Address(NamedTuple):
    """One address: its family, and the address as an integer."""

    family: Family
    value: int

    def __str__(self) -> str:
        return str(netaddr.IPAddress(self.value, self.family))

    def within(self, whole: Range) -> bool:
        """Whether the address lies in a range."""
        return self.family == whole.family and whole.start <= self.value <= whole.last


@lru_cache(maxsize=262144)  # a pod's address comes from its block and from the pod itself, again and again
def address(text: str) -> Address:
    """Return the address that `text` names; raises ValueError with the text."""
    try:
        parsed = ip_address(text)  # not netaddr's: 15 µs, for each of 100,000 pods
    except ValueError as error:
        raise ValueError(f"not an IP address: {text!r}") from error
    if "%" in text:
        raise ValueError(f"not an IP address of a pod, but of one link: {text!r}")
    return Address(4 if parsed.version == 4 else 6, int(parsed))


@dataclass(frozen=True, slots=True)
class OwnBlock:
    """A block as the node that owns it knows it.

    Attributes:
        active: Whether addresses may be taken from it.
        reserved: Parts that are never handed out.
        cede: A range asked back: nothing more is taken there.
        settled: Releases up to this sequence are forgotten everywhere.
        without: Parts that were given back, and are others' now.
    """

    name: str
    range: Range
    pool: str
    active: bool = True
    reserved: tuple[Range, ...] = ()
    cede: Range | None = None
    settled: int = 0
    without: tuple[Range, ...] = ()

    def has(self, value: int) -> bool:
        """Whether an address, as an integer, is the block's."""
        return self.range.start <= value <= self.range.last and not any(p.start <= value <= p.last for p in self.without)

    def offers(self, value: int, *, by_name: bool = False) -> bool:
        """Whether the address may be handed out as far as the operator is concerned.

        A reservation is for those that ask for the very address (`by_name`), as Calico's is.
        """
        if not (self.active and self.has(value)):
            return False
        barred = [*([] if by_name else self.reserved), *([self.cede] if self.cede else [])]
        return not any(part.start <= value <= part.last for part in barred)

    def offered(self) -> Iterator[int]:
        """Yield all that may be handed out as far as the operator is concerned."""
        return (value for value in range(self.range.start, self.range.last + 1) if self.offers(value))


@dataclass(slots=True)
class _Rest:
    """A released address: the sequence of its release, and since when it rests (steady clock), None while it can't yet."""

    sequence: int
    since: float | None = None


@dataclass(slots=True)
class _Stock:
    """A block's addresses: those in use, those released (oldest release first), and where never-used ones begin."""

    block: OwnBlock
    used: set[int] = field(default_factory=set)
    released: dict[int, _Rest] = field(default_factory=dict)
    cursor: int = 0  # every address before it was used once, or isn't offered
    published: int = 0  # releases up to this sequence are published

    def ripen(self, now: float) -> None:
        """Let those begin their rest whose release is published and settled."""
        known = min(self.published, self.block.settled)
        for rest in self.released.values():
            if rest.since is None and rest.sequence <= known:
                rest.since = now

    def untouched(self) -> Iterator[int]:
        """Yield the offered addresses that nobody ever had."""
        for value in range(max(self.cursor, self.block.range.start), self.block.range.last + 1):
            if value not in self.used and value not in self.released and self.block.offers(value):
                yield value

    def rested(self, until: float) -> Iterator[int]:
        """Yield the offered addresses that have rested since `until` or longer, the longest first."""
        for value, rest in self.released.items():
            if rest.since is not None and rest.since <= until and self.block.offers(value):
                yield value


class Allocator:
    """The addresses of one node. All times are seconds of a steady clock; `cooldown` zero: no rest."""

    def __init__(self, cooldown: float = COOLDOWN) -> None:
        self._cooldown = cooldown
        self._stocks: dict[str, _Stock] = {}
        self._strays: set[Address] = set()  # in use, in no block that we know
        self._past: dict[Address, int] = {}  # released by that sequence, in no block that we know

    @property
    def blocks(self) -> list[OwnBlock]:
        """The blocks, in the order in which they are used."""
        return [stock.block for stock in self._stocks.values()]

    def put_block(self, block: OwnBlock, now: float) -> None:
        """Take a block, new or changed."""
        old = self._stocks.pop(block.name, None)
        stock = self._stocks[block.name] = _Stock(block)
        if old:
            stock.published, stock.released = old.published, dict(old.released)
            self._strays |= {Address(old.block.range.family, value) for value in old.used}
        stock.released = {v: r for v, r in stock.released.items() if block.has(v)}
        for past in sorted((p for p in self._past if _in(block, p)), key=self._past.__getitem__):
            stock.released[past.value] = _Rest(self._past.pop(past))
        stock.used = {stray.value for stray in self._strays if _in(block, stray)}
        self._strays -= {Address(block.range.family, value) for value in stock.used}
        stock.ripen(now)
        self._stocks = dict(sorted(self._stocks.items(), key=lambda named: named[1].block.range))

    def drop_block(self, name: str) -> None:
        """Forget a block and what rested there: nothing more is taken from it; what is in use there stays so."""
        stock = self._stocks.pop(name, None)
        if stock:
            self._strays |= {Address(stock.block.range.family, value) for value in stock.used}

    def block_of(self, wanted: Address) -> OwnBlock | None:
        """Return the block that an address lies in."""
        stock = self._stock_of(wanted)
        return stock.block if stock else None

    def pick(self, family: Family, pools: frozenset[str], now: float) -> Address | None:
        """Return the address of one of these pools that goes out next, or None; `take` it to have it."""
        stocks = [s for s in self._stocks.values() if s.block.range.family == family and s.block.pool in pools]
        for stock in stocks:
            for value in stock.untouched():
                stock.cursor = value
                return Address(family, value)
        for stock in stocks:
            for value in stock.rested(now - self._cooldown):
                return Address(family, value)
        return None

    def may_take(self, wanted: Address, now: float) -> bool:
        """Whether this very address may go out now."""
        stock = self._stock_of(wanted)
        if stock is None or wanted.value in stock.used or not stock.block.offers(wanted.value, by_name=True):
            return False
        rest = stock.released.get(wanted.value)
        return rest is None or (rest.since is not None and rest.since <= now - self._cooldown)

    def take(self, taken: Address) -> None:
        """Count an address as in use, whoever it belongs to."""
        stock = self._stock_of(taken)
        if stock is None:
            self._strays.add(taken)
            self._past.pop(taken, None)
            return
        stock.used.add(taken.value)
        stock.released.pop(taken.value, None)

    def release(self, released: Address, sequence: int) -> None:
        """Let an address rest as soon as its release, number `sequence`, is published and settled."""
        self._strays.discard(released)
        stock = self._stock_of(released)
        if stock is None:
            self._past[released] = sequence
            return
        stock.used.discard(released.value)
        stock.released.pop(released.value, None)  # so that it stands last
        stock.released[released.value] = _Rest(sequence)

    def published(self, name: str, sequence: int, now: float) -> None:
        """Note that a block's releases up to `sequence` are published."""
        stock = self._stocks.get(name)
        if stock is not None:
            stock.published = max(stock.published, sequence)
            stock.ripen(now)

    def told(self, name: str) -> int:
        """Return up to which release a block's are published."""
        stock = self._stocks.get(name)
        return stock.published if stock else 0

    def free(self, name: str, now: float) -> int:
        """Return how many addresses of a block a pod can get now."""
        stock = self._stocks[name]
        return sum(1 for _ in stock.untouched()) + sum(1 for _ in stock.rested(now - self._cooldown))

    def resting_in(self, name: str) -> list[Address]:
        """Return the addresses of a block that were released, whether or not they may go out again."""
        stock = self._stocks.get(name)
        return [Address(stock.block.range.family, value) for value in stock.released] if stock else []

    def rests_in(self, whole: Range, now: float) -> bool:
        """Whether an address of a range was released and can't go out again yet, or isn't known to be forgotten everywhere."""
        until = now - self._cooldown
        return any(
            rest.since is None or rest.since > until
            for stock in self._stocks.values()
            for value, rest in stock.released.items()
            if Address(stock.block.range.family, value).within(whole)
        )

    def used_in(self, whole: Range) -> int:
        """Return how many addresses of a range are in use."""
        in_blocks = sum(Address(s.block.range.family, v).within(whole) for s in self._stocks.values() for v in s.used)
        return in_blocks + sum(stray.within(whole) for stray in self._strays)

    def next_ripe(self, now: float) -> float | None:
        """Return in how many seconds the next resting address may go out, if one rests."""
        ends = [
            r.since + self._cooldown - now for s in self._stocks.values() for r in s.released.values() if r.since is not None
        ]
        return min((end for end in ends if end > 0), default=None)

    def _stock_of(self, wanted: Address) -> _Stock | None:
        return next((s for s in self._stocks.values() if _in(s.block, wanted)), None)


def _in(block: OwnBlock, one: Address) -> bool:
    return one.family == block.range.family and block.has(one.value)
