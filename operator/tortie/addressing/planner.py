"""The plan: from what there is to what must be written. Pure, with time passed in.

For one node at a time: judge each block it has, then see what it lacks. Nothing is taken from a living node without its
word: a block that should go is asked back (`cede`), and deleted only when the agent has given it up (`ceded`).

Safety of blocks. A new block is inert. It is set active only when the ordered stream that shows it has shown all that was
created before it, and nothing overlaps; of two that overlap the active one stays, else the one created first. A later one
will see this one. All writes carry the version that the decision was made on, so a stale leader's write fails.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain

from tortie.addressing.ranges import Range
from tortie.addressing.state import Block, Node, Pool, State

# The free addresses of a node are kept at or above min(16, a quarter of a block), so that a pod seldom waits.
LOW_WATER = 16
# NodeNetwork lists a node's blocks in one object: this keeps it under 1 MB with the longest names.
NODE_BLOCKS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Create:
    """Make a new, inert block."""

    block: Block


@dataclass(frozen=True, slots=True)
class Update:
    """Change a block's spec, if it still has the version that was seen."""

    block: Block


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a block, if it still has the version that was seen."""

    block: Block
    reason: str


@dataclass(frozen=True, slots=True)
class WriteNetwork:
    """Make a NodeNetwork list exactly these blocks."""

    node: str
    blocks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeleteNetwork:
    """Delete the NodeNetwork of a node that is gone."""

    node: str


Change = Create | Update | Delete | WriteNetwork | DeleteNetwork


@dataclass(frozen=True, slots=True)
class Delays:
    """Seconds to wait before something is given up; 0 waits not at all."""

    reclaim: float = 300.0  # a node's absence, before its blocks are deleted
    grace: float = 900.0  # a surplus block's emptiness, before it is asked back


@dataclass(slots=True)
class Timers:
    """Since when something holds: the planner's only memory, in seconds of the caller's monotonic clock."""

    since: dict[tuple[str, str], float] = field(default_factory=dict)
    due: dict[tuple[str, str], float] = field(default_factory=dict)

    def elapsed(self, what: str, whose: str, *, holds: bool, now: float, delay: float) -> bool:
        """Return whether `what` has held of `whose` for `delay` seconds; start or stop counting as it holds or not."""
        key = (what, whose)
        if not holds:
            self.since.pop(key, None)
            self.due.pop(key, None)
            return False
        self.due[key] = self.since.setdefault(key, now) + delay
        return now >= self.due[key]

    def next_due(self) -> float | None:
        """Return when the next one elapses, or None."""
        return min(self.due.values(), default=None)


class Planner:
    """Plans one pass: every node that it is asked for, with the pools judged once."""

    def __init__(self, state: State, timers: Timers, delays: Delays, now: float) -> None:
        self._state = state
        self._timers = timers
        self._delays = delays
        self._now = now
        self._refused = refused_pools(state)
        self._pools = sorted(state.pools.values(), key=lambda p: (p.created, p.name))
        self._by_uid = {p.uid: p for p in self._pools}
        self._fresh: dict[str, Iterator[Range]] = {}
        self._picked: list[Range] = []

    def plan(self, names: set[str]) -> list[Change]:
        """Return the changes that these nodes need, in the order of their names."""
        return list(chain.from_iterable(self._plan_node(name) for name in sorted(names)))

    def _plan_node(self, name: str) -> Iterator[Change]:
        blocks = [self._state.blocks[b] for b in sorted(self._state.blocks_of.get(name, ()))]
        node = self._state.nodes.get(name)
        self._state.starving.discard(name)
        gone = self._timers.elapsed("gone", name, holds=node is None, now=self._now, delay=self._delays.reclaim)
        kept: list[Block] = []
        for block in blocks:
            change = None if block.provisional else self._judge(block, node, gone=gone)
            if change is not None:
                yield change
            if isinstance(change, Delete):
                continue
            kept.append(change.block if isinstance(change, Update) else block)
        if node is not None:
            kept = yield from self._fill(node, kept)
        yield from self._network(name, kept, gone=gone and not kept)

    def _judge(self, block: Block, node: Node | None, *, gone: bool) -> Update | Delete | None:
        """Return what must be done with one block, or None."""
        if block.ceded is not None and block.ceded.contains(block.range):
            return Delete(block, "given up by its node")
        if node is None:
            return Delete(block, "its node is gone") if gone else None
        foreign = self._foreign(block, node)
        if foreign:
            key = f"{node.name}/{block.node_uid}"
            if not block.active or self._timers.elapsed("foreign", key, holds=True, now=self._now, delay=self._delays.reclaim):
                return Delete(block, "its node was replaced by another machine")
            return None
        misplaced = self._misplaced(block, node)
        if not block.active and (misplaced or self._loses(block)):
            return Delete(block, misplaced or "it overlaps an older block")
        wanted = replace(
            block,
            node_uid=node.uid,
            active=block.active or not any(True for _ in self._state.overlapping(block)),
            reserved=self._state.reserved_in(block.range),
            cede=block.range if misplaced else self._surplus(block),
            settled=self._settled(block),
        )
        return Update(wanted) if wanted != block else None

    def _foreign(self, block: Block, node: Node) -> bool:
        """Whether `block` belongs to another machine than the one that has the node's name now."""
        return block.node_uid != node.uid and (not node.machine_id or block.machine_id != node.machine_id)

    def _misplaced(self, block: Block, node: Node) -> str:
        """Return why the node should not have this block, or an empty text."""
        pool = self._by_uid.get(block.pool_uid)
        if pool is None or pool.deleting:
            return "its pool is deleted"
        if not pool.node_selector.matches(node.labels):
            return "the pool's nodeSelector doesn't take its node"
        return ""

    def _settled(self, block: Block) -> tuple[str, int]:
        """Return up to where releases may go out again. It is written only when the block needs them: each is a write more."""
        needed = block.resting >= max(1, block.range.size // 4) or (block.resting and block.free < low_water(block.range))
        return block.published if needed else block.settled

    def _loses(self, block: Block) -> bool:
        """Whether another block that overlaps is active or was created first."""
        return any(
            other.active or (other.created, other.name) < (block.created, block.name)
            for other in self._state.overlapping(block)
            if not other.provisional
        )

    def _surplus(self, block: Block) -> Range | None:
        """Return the range to ask back because the node has more than it needs, or None."""
        mates = [self._state.blocks[b] for b in self._state.blocks_of[block.node]]
        mates = [m for m in mates if self._counts(m) and m.range.family == block.range.family]
        spare = sum(m.free for m in mates if m != block) >= 2 * low_water(block.range)
        last = not any(m.pool_uid == block.pool_uid for m in mates if m != block)
        over = bool(self._state.max_blocks_per_host) and len(mates) > self._state.max_blocks_per_host
        empty = block.active and block.published_free is not None and not block.allocated
        first = min((m.name for m in mates if m.active and m.published_free is not None and not m.allocated), default="")
        holds = empty and block.name == first and (over or (spare and not last))
        delay = 0.0 if over else self._delays.grace
        if block.cede is not None:
            return block.cede if spare or over else None
        return block.range if self._timers.elapsed("surplus", block.name, holds=holds, now=self._now, delay=delay) else None

    def _counts(self, block: Block) -> bool:
        """Whether pods can still get addresses in `block`."""
        pool = self._by_uid.get(block.pool_uid)
        return block.cede is None and block.ceded is None and pool is not None and not pool.disabled

    def _fill(self, node: Node, blocks: list[Block]) -> Generator[Change, None, list[Block]]:
        """Yield the blocks that the node lacks; return all that it will have."""
        blocks = list(blocks)
        for family in (4, 6):
            pools = [p for p in self._pools if p.range.family == family and self._gives(p, node)]
            for pool in pools:
                if not any(b.pool_uid == pool.uid for b in blocks):
                    yield from self._add(pool, node, blocks)
            if pools and self._short(pools, blocks):
                for pool in pools:
                    added = yield from self._add(pool, node, blocks)
                    if added:
                        break
                else:
                    self._state.starving.add(node.name)
        return blocks

    def _short(self, pools: list[Pool], blocks: list[Block]) -> bool:
        """Whether the free addresses of these pools' blocks are below the low-water mark."""
        uids = {p.uid for p in pools}
        free = sum(b.free for b in blocks if b.pool_uid in uids and b.cede is None and b.ceded is None)
        return free < low_water(Range(pools[0].range.family, pools[0].range.start, pools[0].block_size))

    def _gives(self, pool: Pool, node: Node) -> bool:
        """Whether `node` may get new blocks of `pool` unasked."""
        open_ = pool.automatic and pool.guarded and not pool.disabled and not pool.deleting
        return open_ and pool.name not in self._refused and pool.node_selector.matches(node.labels)

    def _add(self, pool: Pool, node: Node, blocks: list[Block]) -> Generator[Change, None, bool]:
        """Yield one new block of `pool`, put it on `blocks` and return True; or return False where none can be had."""
        limit = min(self._state.max_blocks_per_host or NODE_BLOCKS_MAX, NODE_BLOCKS_MAX)
        mine = sum(1 for b in blocks if b.range.family == pool.range.family)
        if mine >= limit:
            return False
        picked = self._pick(pool)
        if picked is None:
            return False
        block = Block(
            block_name(picked), picked, pool.name, pool.uid, node.name, node.uid, node.machine_id,
            reserved=self._state.reserved_in(picked), provisional=True,
        )  # fmt: skip
        blocks.append(block)
        yield Create(block)
        return True

    def _pick(self, pool: Pool) -> Range | None:
        fresh = self._fresh.setdefault(pool.name, self._state.spaces[pool.name].blocks(pool.block_size))
        return next(fresh, None)

    def _network(self, name: str, blocks: list[Block], *, gone: bool) -> Iterator[Change]:
        """Yield the write that makes the node's NodeNetwork true. It waits for first blocks, to be written once."""
        known = self._state.networks.get(name)
        if gone:
            self._timers.elapsed("gone", name, holds=False, now=self._now, delay=0)
            if known is not None:
                yield DeleteNetwork(name)
            return
        listed = tuple(sorted(b.name for b in blocks if b.active))
        pending = any(not b.active for b in blocks)
        if name in self._state.nodes and listed != known and not (known is None and pending and not listed):
            yield WriteNetwork(name, listed)


def low_water(block: Range) -> int:
    """Return the fewest free addresses that a node should have: min(16, a quarter of a block), at least 1."""
    return min(LOW_WATER, max(1, block.size // 4))


def block_name(block: Range) -> str:
    """Return the IPAMBlock's name: the range spelled with dashes, so that two leaders name the same range the same."""
    if block.family == 4:
        return str(block).replace(".", "-").replace("/", "-")
    return f"{block.start:032x}-{block.prefix}"


def refused_pools(state: State) -> dict[str, str]:
    """Return the pools that must wait because they overlap an older one, each with the name of that one."""
    refused: dict[str, str] = {}
    standing: list[Pool] = []
    for pool in sorted(state.pools.values(), key=lambda p: (p.created, p.name)):
        older = next((p for p in standing if p.range.overlaps(pool.range)), None)
        if older is None:
            standing.append(pool)
        else:
            refused[pool.name] = older.name
    return refused


def plan(state: State, timers: Timers, delays: Delays, now: float, nodes: set[str] | None = None) -> list[Change]:
    """Return the changes that `nodes` need (None: every node). `now` is in seconds of a monotonic clock."""
    if nodes is None:
        nodes = {*state.nodes, *state.blocks_of, *state.networks}
    return Planner(state, timers, delays, now).plan(nodes)
