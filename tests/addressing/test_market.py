"""When a pool is exhausted: rows of who waits, who starves, and what the others' blocks have."""

from dataclasses import replace

import pytest

from tests.addressing.test_planner import DELAYS, node, pool, settle, world
from tortie.addressing.allocator import address
from tortie.addressing.market import exhausted
from tortie.addressing.planner import ANSWER, Timers, Update, plan
from tortie.addressing.ranges import parse
from tortie.addressing.state import Held, State

# What is free in the two nodes' blocks, whether a block is left, which nodes wait; for which of them the pool is exhausted.
ROWS: dict[str, tuple[int, int, bool, str, list[str]]] = {
    "nobody waits": (0, 0, False, "", []),
    "one waits and nothing is left": (0, 0, False, "a", ["a"]),
    "both wait": (0, 0, False, "ab", ["a", "b"]),
    "the other has one to give": (0, 1, False, "a", []),
    "it has one itself": (1, 0, False, "a", []),
    "a block is left": (0, 0, True, "a", []),
}


def full(free: tuple[int, int], *, left: bool) -> State:
    """Return two nodes with a block each, of a pool that has one more or not."""
    state = world(pool(cidr="10.0.0.0/24" if left else "10.0.0.0/25"), nodes=(node("a"), node("b")))
    settle(state)
    for name, count in zip("ab", free, strict=True):
        (block,) = (state.blocks[one] for one in state.blocks_of[name])
        state.put_block(replace(block, published_free=count))
    return state


@pytest.mark.parametrize("row", ROWS)
def test_exhausted(row: str) -> None:
    *free, left, waiting, expected = ROWS[row]
    state = full((free[0], free[1]), left=left)
    for name in waiting:
        state.put_network(name, state.networks[name], waiting=frozenset({"p", "gone"}))
    plan(state, Timers(), DELAYS, 0)
    assert exhausted(state) == ({"p": expected} if expected else {})


def test_no_more_when_the_node_has_what_it_waited_for() -> None:
    state = full((0, 0), left=False)
    state.put_network("a", state.networks["a"], waiting=frozenset({"p"}))
    plan(state, Timers(), DELAYS, 0)
    state.put_network("a", state.networks["a"])
    assert exhausted(state) == {}


@pytest.mark.parametrize("before", [0, None], ids=["used until now", "new, and not spoken of"])
def test_what_comes_free_anywhere_is_asked_for_at_once_for_a_node_whose_pods_wait(before: int | None) -> None:
    state = full((0, 0), left=False)
    state.put_network("a", state.networks["a"], waiting=frozenset({"p"}))
    (block,) = (state.blocks[one] for one in state.blocks_of["b"])
    state.put_block(replace(block, published_free=before))
    plan(state, Timers(), DELAYS, 0)
    state.dirty.clear()
    state.put_block(replace(block, published_free=1))
    asked = [c.block for c in plan(state, Timers(), DELAYS, 0, state.dirty) if isinstance(c, Update)]
    assert [one.node for one in asked if one.cede] == ["b"]


def test_a_node_that_doesn_t_answer_is_not_waited_for() -> None:
    """It has the two richest blocks, so one of these is asked first; after a while others are asked, too."""
    state, timers = world(pool(cidr="10.0.0.0/24"), nodes=tuple(node(name) for name in "abc")), Timers()
    settle(state, timers)
    (name,) = state.blocks_of["b"]
    state.put_block(replace(state.blocks[name], published_free=0))
    settle(state, timers)
    for block in list(state.blocks.values()):
        state.put_block(replace(block, published_free={"a": 0, "b": 9, "c": 1}[block.node]))
    state.put_network("a", state.networks["a"], waiting=frozenset({"p"}))

    def asked(now: float) -> list[str]:
        settle(state, timers, now)
        return sorted(block.node for block in state.blocks.values() if block.cede)

    assert asked(0) == ["b"]
    assert asked(ANSWER - 1) == ["b"]
    assert timers.next_due() == ANSWER
    assert asked(ANSWER) == ["b", "b"]
    assert asked(2 * ANSWER) == ["b", "b", "c"]


# Which nodes' pods wait, and what is in use of the part that was asked of b's block; what is asked then.
ASKED: dict[str, tuple[str, tuple[str, ...], str | None]] = {
    "nothing of it was taken": ("a", (), "10.0.0.126/31"),
    "one was taken before the node heard of it": ("a", ("10.0.0.126",), "10.0.0.127/32"),
    "all of it was taken": ("a", ("10.0.0.126", "10.0.0.127"), None),
    "nobody waits, and the other has none": ("", ("10.0.0.126",), "10.0.0.127/32"),
    "its own pods wait alone": ("b", ("10.0.0.126",), None),
    "both wait": ("ab", ("10.0.0.126",), "10.0.0.127/32"),
}


@pytest.mark.parametrize("row", ASKED)
def test_what_is_still_asked_of_a_part_that_pods_took_meanwhile(row: str) -> None:
    waiting, taken, expected = ASKED[row]
    state = full((0, 0), left=False)
    for name in waiting:
        state.put_network(name, state.networks[name], waiting=frozenset({"p"}))
    (block,) = (state.blocks[one] for one in state.blocks_of["b"])
    assert str(block.range) == "10.0.0.64/26"
    held = tuple(Held(address(one), number) for number, one in enumerate(taken, 1))
    asked = replace(block, cede=parse("10.0.0.126/31"), held=held, allocated=len(held), published_free=0)
    state.put_block(asked)
    settle(state)
    now = state.blocks[block.name].cede
    assert (now and str(now)) == expected
