"""What is left of an exhausted pool: pieces smaller than a block, and blocks that can give a part of theirs. Pure.

A node that has no address, while others have some to spare, gets a part of the richest block: the operator asks for it, the
agent gives it when nothing there is in use or rests, the block is then without it, and it becomes a block of its own. Each
question halves the largest free range of a block, down to single addresses, so a pool of n addresses serves n pods wherever
they run.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from heapq import heapify, heappop
from typing import Self

from tortie.addressing.ranges import BITS, Range, without
from tortie.addressing.state import Block, Pool, State


@dataclass(slots=True)
class Market:
    """One pool in one pass of planning. `asked` counts the blocks that were asked for a part and may give it any moment."""

    uid: str
    asked: int
    pieces: list[Range]
    rich: list[tuple[int, str]]  # a heap: what is free, negated, and the block's name

    @classmethod
    def of(cls, pool: Pool, state: State, is_awaited: Callable[[Block], bool]) -> Self:
        """Return what the pool has now."""
        blocks = [state.blocks[name] for name in state.blocks_in.get(pool.uid, ())]
        pieces = [free for free in state.spaces[pool.name].free_ranges() if free.prefix > pool.block_size]
        rich = [(-block.free, block.name) for block in blocks if _can_give(block, state)]
        heapify(rich)
        asked = sum(map(is_awaited, blocks))
        return cls(pool.uid, asked, sorted(pieces, key=lambda piece: (-piece.prefix, piece.start)), rich)

    def piece(self, state: State) -> Range | None:
        """Take the largest piece that is free, and of which no pod reports an address."""
        while self.pieces:
            piece = self.pieces.pop()
            if not state.is_reported(piece):
                return piece
        return None

    def victim(self, state: State, node: str, least: int) -> Block | None:
        """Return the richest block of another node, asked for a part; None where enough are asked, or none has `least` free."""
        if self.asked >= sum(self.uid in uids for uids in state.starving.values()):
            return None
        while self.rich and -self.rich[0][0] >= least:
            block = state.blocks[heappop(self.rich)[1]]
            part = part_to_give(block) if block.node != node else None
            if part is not None:
                self.asked += 1
                return replace(block, cede=part)
        return None


def exhausted(state: State) -> dict[str, list[str]]:
    """Return the pools of which pods wait for an address while no node has one to give, each with the nodes that wait."""
    waiting = defaultdict[str, list[str]](list)
    for node in sorted(state.waiting.keys() & state.starving.keys()):
        for name in state.waiting[node] & state.pools.keys():
            if state.pools[name].uid in state.starving[node]:
                waiting[name].append(node)
    return {name: nodes for name, nodes in waiting.items() if not _has_any(state.pools[name], state)}


def part_to_give(block: Block) -> Range | None:
    """Return half of the largest range of a block in which nothing is in use, or all of it where it is one address."""
    free = largest_unused(block)
    return free if free is None or free.size == 1 else free.halves()[1]


def largest_unused(block: Block, within: Range | None = None) -> Range | None:
    """Return the largest range of a block, or of a range of it, in which nothing is in use."""
    return max(_unused(block, within), key=lambda range_: (range_.size, range_.start), default=None)


def _unused(block: Block, within: Range | None) -> Iterator[Range]:
    used = {one.address.value for one in block.held}
    barred = [Range(block.range.family, value, BITS[block.range.family]) for value in used]
    for part in block.parts:
        whole = part if within is None or within.contains(part) else within if part.contains(within) else None
        if whole is not None:
            yield from without(whole, [*barred, *block.reserved])


def _has_any(pool: Pool, state: State) -> bool:
    """Whether a block of the pool is free, or has something to give."""
    blocks = (state.blocks[name] for name in state.blocks_in.get(pool.uid, ()))
    return state.spaces[pool.name].count_blocks(pool.block_size) > 0 or any(_can_give(block, state) for block in blocks)


def _can_give(block: Block, state: State) -> bool:
    node = state.nodes.get(block.node)
    speaks = block.published_free is not None and len(block.held) == block.allocated
    free = block.cede is None and block.ceded is None and block.free > 0
    return block.active and speaks and free and node is not None and node.uid == block.node_uid
