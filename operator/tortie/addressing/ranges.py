"""CIDRs as integers: the arithmetic that everything about addresses rests on.

Parsing is netaddr's, done once at the edge. Two CIDRs either nest or are disjoint; all below relies on it.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

import netaddr

Family = Literal[4, 6]

BITS: dict[int, int] = {4: 32, 6: 128}


class Range(NamedTuple):
    """A CIDR: `family` 4 or 6, `start` its first address as an integer, `prefix` its length in bits."""

    family: Family
    start: int
    prefix: int

    @property
    def size(self) -> int:
        """How many addresses it has."""
        return 1 << (BITS[self.family] - self.prefix)

    @property
    def last(self) -> int:
        """Its last address."""
        return self.start + self.size - 1

    def contains(self, other: "Range") -> bool:
        """Whether `other` lies wholly in this range."""
        return self.family == other.family and self.start <= other.start and other.last <= self.last

    def overlaps(self, other: "Range") -> bool:
        """Whether the two have an address in common."""
        return self.family == other.family and self.start <= other.last and other.start <= self.last

    def parent(self) -> "Range":
        """The range of twice the size that it is one half of."""
        prefix = self.prefix - 1
        mask = (1 << (BITS[self.family] - prefix)) - 1
        return Range(self.family, self.start & ~mask, prefix)

    def halves(self) -> tuple["Range", "Range"]:
        """Its lower and upper half."""
        half = self.size // 2
        return Range(self.family, self.start, self.prefix + 1), Range(self.family, self.start + half, self.prefix + 1)

    def sibling(self) -> "Range":
        """The other half of `parent()`."""
        return Range(self.family, self.start ^ self.size, self.prefix)

    def __str__(self) -> str:
        return f"{netaddr.IPAddress(self.start, self.family)}/{self.prefix}"


@lru_cache(maxsize=65536)
def parse(cidr: str) -> Range:
    """Return the range that `cidr` or a single address names; host bits are cut off. Raises ValueError with the text."""
    try:
        network = netaddr.IPNetwork(cidr)
    except (netaddr.AddrFormatError, ValueError) as error:
        raise ValueError(f"not a CIDR: {cidr!r}") from error
    return Range(network.version, network.first, network.prefixlen)


def merge(ranges: Iterable[Range]) -> list[Range]:
    """Return the fewest ranges that cover the same addresses, ordered."""
    networks = [netaddr.IPNetwork((r.start, r.prefix), version=r.family) for r in ranges]
    return sorted(Range(n.version, n.first, n.prefixlen) for n in netaddr.cidr_merge(networks))


def without(whole: Range, taken: Iterable[Range]) -> Iterator[Range]:
    """Yield the maximal ranges of `whole` that no range of `taken` touches, ordered."""
    taken = [t for t in taken if t.overlaps(whole)]
    if not taken:
        yield whole
    elif not any(t.contains(whole) for t in taken):
        for half in whole.halves():
            yield from without(half, taken)


def covered(whole: Range, parts: Iterable[Range]) -> int:
    """Return how many addresses of `whole` lie in `parts`, which must be disjoint."""
    return sum(min(part.size, whole.size) for part in parts if part.overlaps(whole))
