"""What the planner knows: pools, nodes, blocks and reservations, with the indexes that make a plan cheap.

Memory only: events are told to it (`put_…`, `drop_…`), in any order, and the state that results depends on what is there,
not on the order in which it came. Each change marks the nodes that must be planned again in `dirty`.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tortie.addressing.ranges import Range, covered, merge
from tortie.addressing.selector import Selector
from tortie.addressing.space import Space


@dataclass(frozen=True, slots=True)
class Pool:
    """An IPPool, as far as it matters for who gets which block."""

    name: str
    uid: str
    created: str
    range: Range
    block_size: int
    node_selector: Selector
    automatic: bool = True
    disabled: bool = False
    deleting: bool = False
    guarded: bool = True  # our finalizer is on it, so that it can't vanish under its blocks


@dataclass(frozen=True, slots=True)
class Node:
    """A Node, as far as it matters for who gets which block."""

    name: str
    uid: str
    machine_id: str
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class Block:
    """An IPAMBlock. A `provisional` one was written by us and hasn't come back through the stream yet."""

    name: str
    range: Range
    pool_name: str
    pool_uid: str
    node: str
    node_uid: str
    machine_id: str = ""
    uid: str = ""
    version: str = ""
    created: str = ""
    active: bool = False
    cede: Range | None = None
    ceded: Range | None = None
    reserved: tuple[Range, ...] = ()
    allocated: int = 0
    published_free: int | None = None
    published: tuple[str, int] = ("", 0)  # the ledger's epoch and count when its node last spoke
    settled: tuple[str, int] = ("", 0)  # releases of that epoch up to this count may go out again
    provisional: bool = False

    @property
    def free(self) -> int:
        """How many addresses a pod can still get here, as far as is known."""
        if self.published_free is None:
            return self.range.size - covered(self.range, self.reserved)
        return self.published_free

    @property
    def resting(self) -> int:
        """How many addresses were released and can't go out yet, as far as is known."""
        if self.published_free is None:
            return 0
        return max(0, self.range.size - covered(self.range, self.reserved) - self.allocated - self.published_free)


class State:
    """Everything that a plan is made from."""

    def __init__(self) -> None:
        self.pools: dict[str, Pool] = {}
        self.nodes: dict[str, Node] = {}
        self.blocks: dict[str, Block] = {}
        self.networks: dict[str, tuple[str, ...]] = {}
        self.reservations: list[Range] = []
        self.max_blocks_per_host = 0
        self.blocks_of: dict[str, set[str]] = defaultdict(set)
        self.blocks_in: dict[str, set[str]] = defaultdict(set)
        self.allocated_in: dict[str, int] = defaultdict(int)
        self.spaces: dict[str, Space] = {}
        self.dirty: set[str] = set()
        self.starving: set[str] = set()
        self._starts: list[tuple[int, int, int, str]] = []

    def put_pool(self, pool: Pool) -> None:
        """Take in a new or changed pool."""
        old = self.pools.get(pool.name)
        if old == pool:
            return
        self.pools[pool.name] = pool
        if old is None or old.range != pool.range:
            self._make_space(pool)
        self.mark_all()

    def drop_pool(self, name: str) -> None:
        """Forget a pool that is gone."""
        if self.pools.pop(name, None):
            del self.spaces[name]
            self.mark_all()

    def put_node(self, node: Node) -> None:
        """Take in a new or changed node."""
        if self.nodes.get(node.name) != node:
            self.nodes[node.name] = node
            self.dirty.add(node.name)

    def drop_node(self, name: str) -> None:
        """Forget a node that is gone; its blocks stay until the reclaim delay is over."""
        if self.nodes.pop(name, None):
            self.dirty.add(name)

    def put_network(self, node: str, blocks: tuple[str, ...]) -> None:
        """Take in what a NodeNetwork lists."""
        if self.networks.get(node) != blocks:
            self.networks[node] = blocks
            self.dirty.add(node)

    def drop_network(self, node: str) -> None:
        """Forget a NodeNetwork that is gone."""
        if self.networks.pop(node, None) is not None:
            self.dirty.add(node)

    def put_block(self, block: Block) -> None:
        """Take in a new or changed block."""
        old = self.blocks.get(block.name)
        if old == block:
            return
        if old is not None and _place(old) == _place(block):
            self.allocated_in[block.pool_uid] += block.allocated - old.allocated
            self.blocks[block.name] = block
            self.dirty.add(block.node)
            return
        if old is not None:
            self._unlink(old)
        self.blocks[block.name] = block
        self._link(block)
        self._mark_around(block)
        if old is not None:
            self._mark_around(old)

    def drop_block(self, name: str) -> None:
        """Forget a block that is gone."""
        block = self.blocks.pop(name, None)
        if block is not None:
            self._unlink(block)
            self._mark_around(block)
            self.dirty |= self.starving

    def put_reservations(self, ranges: Iterable[Range]) -> None:
        """Take in all that IPReservations hold."""
        merged = merge(ranges)
        if merged == self.reservations:
            return
        self.reservations = merged
        for pool in self.pools.values():
            self._make_space(pool)
        self.mark_all()

    def put_max_blocks(self, limit: int) -> None:
        """Take in `maxBlocksPerHost`; 0 is no limit."""
        if limit != self.max_blocks_per_host:
            self.max_blocks_per_host = limit
            self.mark_all()

    def mark_all(self) -> None:
        """Have every node planned again."""
        self.dirty.update(self.nodes, self.blocks_of, self.networks)

    def overlapping(self, block: Block) -> Iterator[Block]:
        """Yield the other blocks that have an address in common with `block`."""
        for other in self._touching(block.range):
            if other.name != block.name:
                yield other

    def reserved_in(self, whole: Range) -> tuple[Range, ...]:
        """Return the parts of `whole` that reservations hold, ordered."""
        return tuple(whole if r.contains(whole) else r for r in self.reservations if r.overlaps(whole))

    def _touching(self, whole: Range) -> Iterator[Block]:
        around = whole
        for _ in range(whole.prefix):
            around = around.parent()
            for *found, name in self._from(around):
                if tuple(found) != around:
                    break
                yield self.blocks[name]
        for *found, name in self._from(whole):
            if found[1] > whole.last:
                return
            if found[2] >= whole.prefix:
                yield self.blocks[name]

    def _from(self, first: Range) -> Iterator[tuple[int, int, int, str]]:
        """Yield the blocks of the family that start at `first` or later, those of one start from large to small."""
        at = bisect_left(self._starts, (*first, ""))
        while at < len(self._starts) and self._starts[at][0] == first.family:
            yield self._starts[at]
            at += 1

    def _make_space(self, pool: Pool) -> None:
        space = Space(pool.range)
        for reserved in self.reservations:
            if reserved.prefix <= pool.block_size:
                space.hold(reserved)
        for block in self.blocks.values():
            space.hold(block.range)
        self.spaces[pool.name] = space

    def _link(self, block: Block) -> None:
        self.blocks_of[block.node].add(block.name)
        self.blocks_in[block.pool_uid].add(block.name)
        self.allocated_in[block.pool_uid] += block.allocated
        insort(self._starts, (*block.range, block.name))
        for space in self.spaces.values():
            space.hold(block.range)

    def _unlink(self, block: Block) -> None:
        for index, key in ((self.blocks_of, block.node), (self.blocks_in, block.pool_uid)):
            index[key].discard(block.name)
            if not index[key]:
                del index[key]
        self.allocated_in[block.pool_uid] -= block.allocated
        del self._starts[bisect_left(self._starts, (*block.range, block.name))]
        for space in self.spaces.values():
            space.release(block.range)

    def _mark_around(self, block: Block) -> None:
        self.dirty.add(block.node)
        self.dirty.update(other.node for other in self.overlapping(block))


def _place(block: Block) -> tuple[Range, str, str]:
    """Return what the indexes are made from."""
    return block.range, block.node, block.pool_uid
