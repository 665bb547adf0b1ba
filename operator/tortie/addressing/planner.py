"""The plan: from what there is to what must be written. Pure, with time passed in.

For one node at a time: judge each block it has, then see what it lacks. Nothing is taken from a living node without its
word: a block that should go is asked back (`cede`), and deleted only when the agent has given it up (`ceded`).

Safety of blocks. A new block is inert. It is set active only when the ordered stream that shows it has shown all that was
created before it, and nothing overlaps; of two that overlap the active one stays, else the one created first. A later one
will see this one. All writes carry the version that the decision was made on, so a stale leader's write fails.
"""

from collections import defaultdict
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain

from tortie.addressing.market import Market, largest_unused
from tortie.addressing.ranges import Range, merge
from tortie.addressing.state import Block, Node, Pool, Release, State

# The free addresses of a node are kept at or above min(16, a quarter of a block), so that a pod seldom waits.
LOW_WATER = 16
# NodeNetwork lists a node's blocks in one object: this keeps it under 1 MB with the longest names.
NODE_BLOCKS_MAX = 1024
# Seconds until others are asked, too, for the part of a block that a node should give: an answer takes one where nothing rests.
ANSWER = 10.0
# Releases asked of one block at once; the rest waits (the CRD's bound).
RELEASES_MAX = 256


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
        end = self.since.setdefault(key, now) + delay
        if now < end:
            self.due[key] = end
        else:  # what follows from it is planned now, and need not be looked at again and again
            self.due.pop(key, None)
        return now >= end

    def next_due(self) -> float | None:
        """Return when the next one elapses, or None."""
        return min(self.due.values(), default=None)

    def passed(self, now: float) -> bool:
        """Return whether any has elapsed, and forget when: who asks plans every node, and what it was of may be gone."""
        over = [key for key, end in self.due.items() if end <= now]
        for key in over:
            del self.due[key]
        return bool(over)


@dataclass(slots=True)
class _Standing:
    """What a node has of one family, of blocks that count: what is free by group, how many by pool, and which may go first."""

    free: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    count: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    over: bool = False  # more blocks than maxBlocksPerHost
    first: str = ""


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
        self._standings: dict[tuple[str, int], _Standing] = {}
        self._markets: dict[str, Market] = {}

    def plan(self, names: set[str]) -> list[Change]:
        """Return the changes that these nodes need, in the order of their names."""
        return list(chain.from_iterable(self._plan_node(name) for name in sorted(names)))

    def _plan_node(self, name: str) -> Iterator[Change]:
        blocks = [self._state.blocks[b] for b in sorted(self._state.blocks_of.get(name, ()))]
        node = self._state.nodes.get(name)
        self._state.starving.pop(name, None)
        gone = self._timers.elapsed("gone", name, holds=node is None, now=self._now, delay=self._delays.reclaim)
        kept: list[Block] = []
        for block in blocks:
            change = None if block.provisional else self._judge(block, node, gone=gone)
            if change is not None:
                yield change
            if isinstance(change, Delete) or (node is not None and self._foreign(block, node)):
                continue  # another machine's block is not this node's supply, and this node isn't told of it
            kept.append(change.block if isinstance(change, Update) else block)
        if node is not None:
            kept = yield from self._fill(node, kept)
        yield from self._network(name, kept, gone=gone and not kept)

    def _judge(self, block: Block, node: Node | None, *, gone: bool) -> Update | Delete | None:
        """Return what must be done with one block, or None."""
        given = () if block.ceded is None or block.ceded != block.cede else tuple(merge((*block.without, block.ceded)))
        if given == (block.range,):
            return Delete(block, "given up by its node")
        if node is None or self._foreign(block, node):
            return self._reclaimed(block, node, gone=gone)
        if given:
            return Update(replace(block, without=given, cede=None))
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
            releases=self._releases(block),
        )
        return Update(wanted) if wanted != block else None

    def _reclaimed(self, block: Block, node: Node | None, *, gone: bool) -> Delete | None:
        """Return the deletion of a block whose machine is gone for long enough, or None.

        Where a pod still reports an address it may run: its machine may have lost no more than its Node.
        """
        if node is None:
            late, why = gone, "its node is gone"
        else:
            key = f"{node.name}/{block.node_uid}"
            late = self._timers.elapsed("foreign", key, holds=True, now=self._now, delay=self._delays.reclaim)
            late, why = late or not block.active, "its node was replaced by another machine"
        return Delete(block, why) if late and not any(map(self._state.is_reported, block.parts)) else None

    def _releases(self, block: Block) -> tuple[Release, ...]:
        """Return which allocations the agent is asked to free: those judged leaked that it still publishes."""
        condemned = self._state.condemned.get(block.name, {})
        if not (condemned or block.releases):
            return ()
        held = {(one.address, one.sequence) for one in block.held}
        epoch = block.published[0]
        asked = {one[:2]: one for one in (*block.releases, *condemned.values()) if one.epoch == epoch}
        for key in condemned.keys() - held:
            del condemned[key]
        return tuple(asked[key] for key in sorted(asked.keys() & held))[:RELEASES_MAX]

    def _foreign(self, block: Block, node: Node) -> bool:
        """Whether `block` belongs to another machine than the one that has the node's name now."""
        return block.node_uid != node.uid and (not node.machine_id or block.machine_id != node.machine_id)

    def _is_foreign(self, block: Block) -> bool:
        node = self._state.nodes.get(block.node)
        return node is not None and self._foreign(block, node)

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
        few = block.resting >= max(1, block.range.size // 4) or block.free < low_water(block.range)
        needed = block.resting and (few or block.cede is not None)
        return block.published if needed else block.settled

    def _loses(self, block: Block) -> bool:
        """Whether another block that overlaps is active or was created first."""
        return any(
            other.active or (other.created, other.name) < (block.created, block.name)
            for other in self._state.overlapping(block)
            if not other.provisional
        )

    def _surplus(self, block: Block) -> Range | None:
        """Return the range to ask back because the node has more than it needs, or others have nothing, or None."""
        if block.cede is not None and (block.ceded is not None or self._is_missed(block)):
            return self._still_asked(block, block.cede)
        if block.cede is not None and block.cede != block.range:
            return None
        pool = self._by_uid.get(block.pool_uid)
        if pool is not None and pool.disabled:
            return self._drained(block)
        standing = self._standing(block.node, block.range.family)
        if block.cede is not None:
            return block.cede if standing.over or self._is_spare(block, standing) else None
        if block.ceded is not None:
            return None  # the answer to an earlier question; the agent takes it back when it sees that nothing is asked
        holds = block.name == standing.first
        delay = 0.0 if standing.over else self._delays.grace
        return block.range if self._timers.elapsed("surplus", block.name, holds=holds, now=self._now, delay=delay) else None

    def _still_asked(self, block: Block, part: Range) -> Range | None:
        """Return what is asked of what was asked.

        What came into use since was taken before the node heard of it, so the rest is asked: else it would be nobody's until
        that pod ends. Nothing is, where the node's own pods wait by now and no others do.
        """
        if block.ceded is not None:
            return part
        pool = self._by_uid.get(block.pool_uid)
        if pool is not None and self._waits(block.node, pool):
            others = self._state.waiting.keys() - {block.node}
            if not any(self._waits(other, pool) for other in others):
                return None
        taken = any(held.address.within(part) for held in block.held)
        return largest_unused(block, within=part) if taken else part

    def _is_missed(self, block: Block) -> bool:
        """Whether another node has no address of the block's pool, and there is none to be had."""
        return any(block.pool_uid in uids and node != block.node for node, uids in self._state.starving.items())

    def _drained(self, block: Block) -> Range | None:
        """Return a block of a disabled pool when it has been empty for the grace period."""
        empty = block.active and block.published_free is not None and not block.allocated
        if block.cede is not None:
            return block.cede if empty else None
        if block.ceded is not None:
            return None
        asked = self._timers.elapsed("surplus", block.name, holds=empty, now=self._now, delay=self._delays.grace)
        return block.range if asked else None

    def _standing(self, node: str, family: int) -> _Standing:
        """Return what a node has of a family, looked at once in a pass."""
        key = (node, family)
        if key not in self._standings:
            mates = [self._state.blocks[b] for b in sorted(self._state.blocks_of[node])]
            mates = [m for m in mates if self._counts(m) and m.range.family == family and not self._is_foreign(m)]
            standing = self._standings[key] = _Standing()
            for mate in mates:
                standing.free[self._group(mate)] += mate.free
                standing.count[mate.pool_uid] += 1
            standing.over = bool(self._state.max_blocks_per_host) and len(mates) > self._state.max_blocks_per_host
            empty = (m for m in mates if m.active and m.published_free is not None and not m.allocated)
            standing.first = next((m.name for m in empty if standing.over or self._may_go(m, standing)), "")
        return self._standings[key]

    def _may_go(self, block: Block, standing: _Standing) -> bool:
        last = standing.count[block.pool_uid] == 1 and self._is_wanted(block)
        return not last and self._is_spare(block, standing)

    def _is_spare(self, block: Block, standing: _Standing) -> bool:
        """Whether the node has enough without this block: twice the mark, so that nothing flaps."""
        others = standing.free[self._group(block)] - (block.free if self._counts(block) else 0)
        return not self._is_wanted(block) or others >= 2 * low_water(block.range)

    def _is_wanted(self, block: Block) -> bool:
        """Whether the node should have a block of this pool: every node has one, or this one asked for it."""
        pool = self._by_uid[block.pool_uid]
        return pool.automatic or pool.name in self._asked(block.node)

    def _group(self, block: Block) -> str:
        """Return what stands in for each other: pools that are asked for by name must do alone, all others share one group."""
        pool = self._by_uid[block.pool_uid]
        return "" if pool.automatic and pool.name not in self._asked(block.node) else pool.uid

    def _asked(self, node: str) -> frozenset[str]:
        return self._state.asked.get(node, frozenset())

    def _counts(self, block: Block) -> bool:
        """Whether pods can still get addresses in `block`."""
        pool = self._by_uid.get(block.pool_uid)
        return block.cede is None and block.ceded is None and pool is not None and not pool.disabled

    def _fill(self, node: Node, blocks: list[Block]) -> Generator[Change, None, list[Block]]:
        """Yield the blocks that the node lacks; return all that it will have."""
        blocks = list(blocks)
        asked = self._asked(node.name)
        for family in (4, 6):
            pools = [p for p in self._pools if p.range.family == family and self._gives(p, node)]
            for pool in pools:
                if not any(b.pool_uid == pool.uid for b in blocks):
                    yield from self._add(pool, node, blocks)
            # What is asked for by name must do alone; the others stand in for each other.
            for group in ([p for p in pools if p.automatic], *([p] for p in pools if p.name in asked)):
                if group and self._short(group, blocks):
                    for pool in group:
                        added = yield from self._add(pool, node, blocks)
                        if added:
                            break
                    else:
                        yield from self._starve(node, group, blocks)
        return blocks

    def _free(self, pools: list[Pool], blocks: list[Block]) -> int:
        """Return how many addresses of these pools' blocks pods can get, as far as is known."""
        uids = {p.uid for p in pools}
        return sum(b.free for b in blocks if b.pool_uid in uids and b.cede is None and b.ceded is None)

    def _short(self, pools: list[Pool], blocks: list[Block]) -> bool:
        """Whether the free addresses of these pools' blocks are below the low-water mark."""
        mark = low_water(Range(pools[0].range.family, pools[0].range.start, pools[0].block_size))
        return self._free(pools, blocks) < mark

    def _starve(self, node: Node, pools: list[Pool], blocks: list[Block]) -> Iterator[Change]:
        """Yield what can be done for a node when its pools have no block left: a piece of one, or others are asked for one.

        While it has a few addresses, nothing is: the last ones are for nodes that have none.
        """
        self._state.starving.setdefault(node.name, frozenset())
        if self._free(pools, blocks):
            return
        waits = any(self._waits(node.name, pool) for pool in pools)
        for pool in pools:
            others_first = not waits and any(self._waits(other, pool) for other in self._state.waiting)
            piece = None if others_first else self._market(pool).piece(self._state)
            if piece is not None:
                yield self._create(pool, node, piece, blocks)
                return
        self._state.starving[node.name] |= {pool.uid for pool in pools}
        for pool in pools:
            victim = self._market(pool).victim(self._state, node.name, least=1 if waits else 2)
            if victim is not None:
                yield Update(victim)
                return

    def _waits(self, node: str, pool: Pool) -> bool:
        """Whether a pod of a node waits for an address of the pool, and the node hasn't one."""
        return pool.name in self._state.waiting.get(node, ()) and node in self._state.nodes

    def _market(self, pool: Pool) -> Market:
        if pool.uid not in self._markets:
            self._markets[pool.uid] = Market.of(pool, self._state, self._is_awaited)
        return self._markets[pool.uid]

    def _is_awaited(self, block: Block) -> bool:
        """Whether a node was asked for a part of a block just now; one that is silent for long is not waited for."""
        asked = block.cede is not None
        late = self._timers.elapsed("asked", block.name, holds=asked, now=self._now, delay=ANSWER)
        return asked and not late

    def _gives(self, pool: Pool, node: Node) -> bool:
        """Whether `node` may get new blocks of `pool`."""
        wanted = pool.automatic or pool.name in self._asked(node.name)
        open_ = wanted and pool.guarded and not pool.disabled and not pool.deleting
        return open_ and pool.name not in self._refused and pool.node_selector.matches(node.labels)

    def _add(self, pool: Pool, node: Node, blocks: list[Block]) -> Generator[Change, None, bool]:
        """Yield one new block of `pool`, put it on `blocks` and return True; or return False where none can be had."""
        limit = min(self._state.max_blocks_per_host or NODE_BLOCKS_MAX, NODE_BLOCKS_MAX)
        mine = sum(1 for b in blocks if b.range.family == pool.range.family)
        if mine >= limit or len(blocks) >= NODE_BLOCKS_MAX:
            return False
        picked = self._pick(pool)
        if picked is None:
            return False
        yield self._create(pool, node, picked, blocks)
        return True

    def _create(self, pool: Pool, node: Node, picked: Range, blocks: list[Block]) -> Create:
        block = Block(
            block_name(picked), picked, pool.name, pool.uid, node.name, node.uid, node.machine_id,
            reserved=self._state.reserved_in(picked), provisional=True,
        )  # fmt: skip
        blocks.append(block)
        return Create(block)

    def _pick(self, pool: Pool) -> Range | None:
        fresh = self._fresh.setdefault(pool.name, self._state.spaces[pool.name].blocks(pool.block_size))
        return next((one for one in fresh if not self._state.is_reported(one)), None)

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
