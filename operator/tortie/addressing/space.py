"""The free space of a pool: a buddy allocator over integers.

What is free is kept as maximal aligned ranges, by their size; what is assigned as a plain set. Memory and time follow
what is assigned, never the size of the pool (Knuth, The Art of Computer Programming 1, section 2.5, buddy system). What is
free depends on what is assigned alone, not on the order in which it was.
"""

from collections import Counter
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import pairwise

from tortie.addressing.ranges import Range, without


class Space:
    """The part of `whole` that nothing holds.

    Ranges may be held twice or overlap, as they do while a mistake is being undone: then free is what none of them touches.
    """

    def __init__(self, whole: Range) -> None:
        self.whole = whole
        self._held: Counter[Range] = Counter()
        self._free: set[Range] = {whole}
        self._heaps: dict[int, list[Range]] = {whole.prefix: [whole]}
        self._tangled = False  # whether held ranges overlap each other or the pool's edge

    def hold(self, held: Range) -> None:
        """Count `held` as taken; it may lie partly outside the pool or overlap what is taken already."""
        if not held.overlaps(self.whole):
            return
        self._held[held] += 1
        container = None if self._tangled else self._free_container(held)
        if container is None:
            self._rebuild()
        else:
            self._split(container, held)

    def release(self, held: Range) -> None:
        """Count `held` once less as taken."""
        if not self._held[held]:
            del self._held[held]
            return
        self._held[held] -= 1
        if not self._held[held]:
            del self._held[held]
        if self._tangled:
            self._rebuild()
        else:
            self._join(held)

    def blocks(self, prefix: int) -> Iterator[Range]:
        """Yield free ranges of length `prefix`: out of the smallest fitting free range first, the lowest of these first.

        The space must not change while the iterator is in use.
        """
        for size in range(prefix, self.whole.prefix - 1, -1):
            for free in self._ordered(size):
                step = 1 << ((32 if free.family == 4 else 128) - prefix)
                for start in range(free.start, free.last + 1, step):
                    yield Range(free.family, start, prefix)

    def count_blocks(self, prefix: int) -> int:
        """Return how many blocks of length `prefix` are free."""
        return sum(1 << (prefix - free.prefix) for free in self._free if free.prefix <= prefix)

    def free_ranges(self) -> list[Range]:
        """Return the maximal free ranges, ordered."""
        return sorted(self._free)

    def _ordered(self, prefix: int) -> Iterator[Range]:
        heap = self._heaps.get(prefix)
        if not heap:
            return
        live: list[Range] = []
        try:
            while heap:
                free = heappop(heap)
                if free in self._free and (not live or live[-1] != free):
                    live.append(free)
                    yield free
        finally:
            for free in live:
                heappush(heap, free)

    def _free_container(self, held: Range) -> Range | None:
        """Return the maximal free range that `held` lies in, or None where something of it is taken or outside."""
        candidate = held
        while candidate.prefix >= self.whole.prefix:
            if candidate in self._free:
                return candidate
            candidate = candidate.parent()
        return None

    def _add_free(self, free: Range) -> None:
        self._free.add(free)
        heappush(self._heaps.setdefault(free.prefix, []), free)

    def _split(self, container: Range, held: Range) -> None:
        self._free.discard(container)
        while container != held:
            lower, upper = container.halves()
            container, other = (lower, upper) if lower.contains(held) else (upper, lower)
            self._add_free(other)

    def _join(self, released: Range) -> None:
        while released != self.whole and released.sibling() in self._free:
            self._free.discard(released.sibling())
            released = released.parent()
        self._add_free(released)

    def _rebuild(self) -> None:
        """Make the free ranges anew from what is held: the slow way, for the rare time in which held ranges overlap."""
        held = list(self._held)
        self._free, self._heaps = set(), {}
        for free in without(self.whole, held):
            self._add_free(free)
        inside = all(self.whole.contains(h) for h in held)
        self._tangled = not (inside and self._disjoint(held))

    def _disjoint(self, held: list[Range]) -> bool:
        ordered = sorted(held)
        apart = all(a.last < b.start for a, b in pairwise(ordered))
        return apart and max(self._held.values(), default=1) == 1
