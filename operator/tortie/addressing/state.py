"""What the planner knows: pools, nodes, blocks and reservations, with the indexes that make a plan cheap.

Memory only: events are told to it (`put_…`, `drop_…`), in any order, and the state that results depends on what is there,
not on the order in which it came. Each change marks the nodes that must be planned again in `dirty`.
"""

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tortie.addressing.allocator import Address
from tortie.addressing.ranges import BITS, Range, covered, merge, without
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


class Release(NamedTuple):
    """An allocation judged leaked: its address, its sequence in the ledger of an epoch, and why."""

    address: Address
    sequence: int
    epoch: str
    reason: str


class Held(NamedTuple):
    """An allocation that a block publishes: its address, its sequence, and whom it says that it is for."""

    address: Address
    sequence: int
    namespace: str = ""
    pod: str = ""
    uid: str = ""


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
    without: tuple[Range, ...] = ()  # parts that were given back and are others' now
    releases: tuple[Release, ...] = ()
    held: tuple[Held, ...] = ()
    allocated: int = 0
    published_free: int | None = None
    published: tuple[str, int] = ("", 0)  # the ledger's epoch and count when its node last spoke
    settled: tuple[str, int] = ("", 0)  # releases of that epoch up to this count may go out again
    provisional: bool = False

    @property
    def parts(self) -> tuple[Range, ...]:
        """The range without what was given back, as maximal ranges in order."""
        return tuple(without(self.range, self.without)) if self.without else (self.range,)

    @property
    def size(self) -> int:
        """How many addresses it has that aren't reserved."""
        return self.range.size - covered(self.range, self.without) - sum(covered(part, self.reserved) for part in self.parts)

    @property
    def free(self) -> int:
        """How many addresses a pod can still get here, as far as is known."""
        return self.size if self.published_free is None else self.published_free

    @property
    def resting(self) -> int:
        """How many addresses were released and can't go out yet, as far as is known."""
        if self.published_free is None:
            return 0
        return max(0, self.size - self.allocated - self.published_free)


class State:
    """Everything that a plan is made from."""

    def __init__(self) -> None:
        self.pools: dict[str, Pool] = {}
        self.nodes: dict[str, Node] = {}
        self.blocks: dict[str, Block] = {}
        self.networks: dict[str, tuple[str, ...]] = {}
        self.asked: dict[str, frozenset[str]] = {}  # by node: pools that pods there asked for by name
        self.waiting: dict[str, frozenset[str]] = {}  # by node whose pods wait for addresses: of which pools
        self.reservations: list[Range] = []
        self.max_blocks_per_host = 0
        self.blocks_of: dict[str, set[str]] = defaultdict(set)
        self.blocks_in: dict[str, set[str]] = defaultdict(set)
        self.allocated_in: dict[str, int] = defaultdict(int)
        self._selected: Counter[str] = Counter()  # by pool: how many nodes its nodeSelector takes
        self._askers: Counter[str] = Counter()  # by pool: how many nodes ask for it by name
        self.spaces: dict[str, Space] = {}
        self.dirty: set[str] = set()
        # By node that is short of addresses: the uids of exhausted pools of which it needs any, none where it has a few left.
        self.starving: dict[str, frozenset[str]] = {}
        self.condemned: dict[str, dict[tuple[Address, int], Release]] = {}  # by block: judged leaked, to be freed by its agent
        self._reports: dict[str, tuple[Address, ...]] = {}  # by pod: addresses that it reports and may use
        self._reported: list[Address] | None = None  # all of them in order, as soon as somebody asks
        self._starts: list[tuple[int, int, int, str]] = []

    def put_pool(self, pool: Pool) -> None:
        """Take in a new or changed pool."""
        old = self.pools.get(pool.name)
        if old == pool:
            return
        self.pools[pool.name] = pool
        if old is None or old.node_selector != pool.node_selector:
            self._selected[pool.name] = sum(pool.node_selector.matches(node.labels) for node in self.nodes.values())
        if old is None or old.range != pool.range:
            self._make_space(pool)
        self.mark_all()

    def drop_pool(self, name: str) -> None:
        """Forget a pool that is gone."""
        if self.pools.pop(name, None):
            del self.spaces[name], self._selected[name]
            self.mark_all()

    def put_node(self, node: Node) -> None:
        """Take in a new or changed node."""
        old = self.nodes.get(node.name)
        if old == node:
            return
        self.nodes[node.name] = node
        self.dirty.add(node.name)
        if old is None or old.labels != node.labels:
            self._count(node, 1)
            if old is not None:
                self._count(old, -1)

    def drop_node(self, name: str) -> None:
        """Forget a node that is gone; its blocks stay until the reclaim delay is over."""
        node = self.nodes.pop(name, None)
        if node is not None:
            self.dirty.add(name)
            self._count(node, -1)

    def put_network(
        self, node: str, blocks: tuple[str, ...], asked: frozenset[str] = frozenset(), waiting: frozenset[str] = frozenset()
    ) -> None:
        """Take in what a NodeNetwork lists, the pools that its node asks for, and those for whose addresses pods there wait."""
        nothing = frozenset[str]()
        known = self.networks.get(node), self.asked.get(node, nothing), self.waiting.get(node, nothing)
        if known != (blocks, asked, waiting):
            self._askers.update(asked)
            self._askers.subtract(self.asked.get(node, nothing))
            self.networks[node], self.asked[node], self.waiting[node] = blocks, asked, waiting
            if not waiting:
                del self.waiting[node]
            self.dirty.add(node)

    def drop_network(self, node: str) -> None:
        """Forget a NodeNetwork that is gone."""
        self._askers.subtract(self.asked.pop(node, ()))
        self.waiting.pop(node, None)
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
            if block.published_free:  # a part of it may be given to a node whose pods wait
                self.dirty.update(name for name in self.waiting if block.pool_uid in self.starving.get(name, ()))
            return
        if old is not None:
            self._unlink(old)
        self.blocks[block.name] = block
        self._link(block)
        self._mark_around(block)
        if old is not None:
            self._mark_around(old)
            self.dirty.update(self.starving)  # a part may be free now

    def drop_block(self, name: str) -> None:
        """Forget a block that is gone."""
        block = self.blocks.pop(name, None)
        self.condemned.pop(name, None)
        if block is not None:
            self._unlink(block)
            self._mark_around(block)
            self.dirty.update(self.starving)

    def condemn(self, name: str, release: Release) -> None:
        """Have a block's agent asked to free an allocation that was judged leaked."""
        block = self.blocks.get(name)
        if block is not None:
            self.condemned.setdefault(name, {})[release.address, release.sequence] = release
            self.dirty.add(block.node)

    def put_reports(self, pod: str, addresses: tuple[Address, ...]) -> None:
        """Take in which addresses a pod reports that may still use them; none for one that is gone or has ended."""
        old = self._reports.get(pod, ())
        if old == addresses:
            return
        self._reports[pod] = addresses
        if not addresses:
            del self._reports[pod]
        if self._reported is not None:  # kept in order: to sort 100,000 anew after each pod takes 20 ms
            for one in old:
                del self._reported[bisect_left(self._reported, one)]
            for one in addresses:
                insort(self._reported, one)
        for gone in set(old) - set(addresses):
            block = self.block_at(gone)
            if block is None:
                self.dirty.update(self.starving)  # its range may be given now
            elif block.node not in self.nodes:
                self.dirty.add(block.node)  # the block may go now

    def is_reported(self, whole: Range) -> bool:
        """Whether a pod that may still use it reports an address of a range."""
        if self._reported is None:
            self._reported = sorted(one for addresses in self._reports.values() for one in addresses)
        at = bisect_left(self._reported, Address(whole.family, whole.start))
        return at < len(self._reported) and self._reported[at].within(whole)

    def block_at(self, one: Address) -> Block | None:
        """Return the block that an address lies in."""
        single = Range(one.family, one.value, BITS[one.family])
        return next(self._touching(single), None)

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

    def takers(self, pool: Pool) -> int:
        """Return how many nodes are to have a block of a pool; counted as nodes come and go, not now."""
        return self._selected[pool.name] if pool.automatic else self._askers[pool.name]

    def whole_blocks(self, pool: Pool) -> int:
        """Return how many blocks a pool can be split into that reservations leave."""
        large = (reserved for reserved in self.reserved_in(pool.range) if reserved.prefix <= pool.block_size)
        return (pool.range.size - covered(pool.range, large)) >> (BITS[pool.range.family] - pool.block_size)

    def mark_all(self) -> None:
        """Have every node planned again."""
        self.dirty.update(self.nodes, self.blocks_of, self.networks)

    def overlapping(self, block: Block) -> Iterator[Block]:
        """Yield the other blocks that have an address in common with `block`."""
        seen = {block.name}
        for part in block.parts:
            for other in self._touching(part):
                if other.name not in seen:
                    seen.add(other.name)
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

    def _count(self, node: Node, by: int) -> None:
        """Count a node `by` times more for each pool that takes it."""
        for pool in self.pools.values():
            self._selected[pool.name] += by * pool.node_selector.matches(node.labels)

    def _make_space(self, pool: Pool) -> None:
        space = Space(pool.range)
        for reserved in self.reservations:
            if reserved.prefix <= pool.block_size:
                space.hold(reserved)
        for block in self.blocks.values():
            for part in block.parts:
                space.hold(part)
        self.spaces[pool.name] = space

    def _link(self, block: Block) -> None:
        self.blocks_of[block.node].add(block.name)
        self.blocks_in[block.pool_uid].add(block.name)
        self.allocated_in[block.pool_uid] += block.allocated
        for part in block.parts:
            insort(self._starts, (*part, block.name))
            for space in self.spaces.values():
                space.hold(part)

    def _unlink(self, block: Block) -> None:
        for index, key in ((self.blocks_of, block.node), (self.blocks_in, block.pool_uid)):
            index[key].discard(block.name)
            if not index[key]:
                del index[key]
        self.allocated_in[block.pool_uid] -= block.allocated
        for part in block.parts:
            del self._starts[bisect_left(self._starts, (*part, block.name))]
            for space in self.spaces.values():
                space.release(part)

    def _mark_around(self, block: Block) -> None:
        self.dirty.add(block.node)
        self.dirty.update(other.node for other in self.overlapping(block))


def _place(block: Block) -> tuple[Range, tuple[Range, ...], str, str]:
    """Return what the indexes are made from."""
    return block.range, block.without, block.node, block.pool_uid
