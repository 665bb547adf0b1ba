"""The planner: rows for what a person would ask, properties for what must hold whatever happens."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tortie.addressing import ranges, selector
from tortie.addressing.planner import (
    Change,
    Create,
    Delays,
    Delete,
    DeleteNetwork,
    Timers,
    Update,
    WriteNetwork,
    block_name,
    low_water,
    plan,
    refused_pools,
)  # fmt: skip
from tortie.addressing.state import Block, Node, Pool, State

DELAYS = Delays(reclaim=300, grace=900)


def pool(name: str = "p", cidr: str = "10.0.0.0/16", size: int = 26, **other: Any) -> Pool:
    chosen = selector.parse(other.pop("nodes", ""))
    return Pool(name, other.pop("uid", f"uid-{name}"), other.pop("created", "1"), ranges.parse(cidr), size, chosen, **other)


def node(name: str, uid: str = "", machine: str = "m", **labels: str) -> Node:
    return Node(name, uid or f"uid-{name}", machine, labels)


def apply(state: State, changes: list[Change]) -> None:
    """Do what the API server and the stream would do with these changes."""
    for change in changes:
        match change:
            case Create(block):
                state.put_block(replace(block, provisional=False, version="1", created="2", uid=f"u-{block.name}"))
            case Update(block):
                state.put_block(replace(block, version=str(int(block.version) + 1)))
            case Delete(block, _):
                state.drop_block(block.name)
            case WriteNetwork(name, blocks):
                state.put_network(name, blocks, state.asked.get(name, frozenset()))
            case DeleteNetwork(name):
                state.drop_network(name)


def settle(state: State, timers: Timers | None = None, now: float = 0.0) -> int:
    """Plan and apply until nothing is left to do; return how many rounds that took."""
    timers = timers or Timers()
    for rounds in range(20):
        changes = plan(state, timers, DELAYS, now)
        if not changes:
            return rounds
        apply(state, changes)
    raise AssertionError(f"no rest after 20 rounds: {changes}")


def world(*pools: Pool, nodes: tuple[Node, ...] = ()) -> State:
    state = State()
    for one in pools:
        state.put_pool(one)
    for member in nodes:
        state.put_node(member)
    return state


def cidrs(state: State, name: str) -> list[str]:
    return sorted(str(state.blocks[b].range) for b in state.blocks_of.get(name, ()))


def test_a_node_gets_a_block_of_each_pool_and_then_nothing_more() -> None:
    state = world(pool(), pool("six", "fd00::/48", 122), nodes=(node("a"),))
    settle(state)
    assert cidrs(state, "a") == ["10.0.0.0/26", "fd00::/122"]
    assert state.networks["a"] == tuple(sorted(state.blocks))
    assert plan(state, Timers(), DELAYS, 0) == []


NO_BLOCK = {
    "disabled": pool(disabled=True),
    "being deleted": pool(deleting=True),
    "without our finalizer": pool(guarded=False),
    "only on request": pool(automatic=False),
    "for other nodes": pool(nodes="has(gpu)"),
}


@pytest.mark.parametrize("row", NO_BLOCK)
def test_a_pool_gives_no_block(row: str) -> None:
    state = world(NO_BLOCK[row], nodes=(node("a"),))
    settle(state)
    assert cidrs(state, "a") == []
    assert state.networks["a"] == ()


def test_the_next_block_comes_under_the_low_water_mark() -> None:
    state = world(pool(), nodes=(node("a"),))
    settle(state)
    first = next(iter(state.blocks.values()))
    state.put_block(replace(first, allocated=48, published_free=16))
    settle(state)
    assert len(state.blocks) == 1
    state.put_block(replace(state.blocks[first.name], allocated=49, published_free=15))
    settle(state)
    assert len(state.blocks) == 2


@pytest.mark.parametrize(("size", "mark"), [(26, 16), (20, 16), (28, 4), (31, 1), (32, 1)])
def test_low_water(size: int, mark: int) -> None:
    assert low_water(ranges.parse(f"10.0.0.0/{size}")) == mark


def test_max_blocks_per_host_holds() -> None:
    state = world(pool(size=30), nodes=(node("a"),))
    state.put_max_blocks(2)
    settle(state)
    for block in list(state.blocks.values()):
        state.put_block(replace(block, allocated=4, published_free=0))
    settle(state)
    assert len(state.blocks) == 2


def test_blocks_of_a_node_that_left_go_after_the_reclaim_delay() -> None:
    state, timers = world(pool(), nodes=(node("a"),)), Timers()
    settle(state, timers)
    state.drop_node("a")
    assert plan(state, timers, DELAYS, 100) == []
    assert timers.next_due() == 400
    assert plan(state, timers, DELAYS, 399) == []
    apply(state, plan(state, timers, DELAYS, 400))
    settle(state, timers, 400)
    assert not state.blocks
    assert not state.networks


def test_a_node_that_returns_within_the_delay_keeps_its_blocks() -> None:
    state, timers = world(pool(), nodes=(node("a"),)), Timers()
    settle(state, timers)
    kept = set(state.blocks)
    state.drop_node("a")
    plan(state, timers, DELAYS, 100)
    state.put_node(node("a", uid="new"))
    settle(state, timers, 200)
    assert set(state.blocks) == kept
    assert {b.node_uid for b in state.blocks.values()} == {"new"}


def test_another_machine_of_the_same_name_gets_none_of_the_blocks() -> None:
    state, timers = world(pool(), nodes=(node("a"),)), Timers()
    settle(state, timers)
    old = next(iter(state.blocks))
    state.put_node(node("a", uid="new", machine="other"))
    settle(state, timers, 10)
    assert state.blocks[old].node_uid == "uid-a"
    (fresh,) = state.blocks_of["a"] - {old}
    assert state.networks["a"] == (fresh,), "its agent isn't told of the other machine's"
    settle(state, timers, 1000)
    assert old not in state.blocks
    assert state.networks["a"] == (fresh,)


# What is asked back, what the agent's status gives up, and whether the block is deleted.
GIVEN = {
    "what was asked": ("10.0.0.0/26", "10.0.0.0/26", True),
    "nothing yet": ("10.0.0.0/26", None, False),
    "what was asked before and is no more": (None, "10.0.0.0/26", False),
    "a half": ("10.0.0.0/27", "10.0.0.0/27", False),
}


@pytest.mark.parametrize("row", GIVEN)
def test_deleted_only_when_what_is_asked_now_is_given(row: str) -> None:
    asked, given_up, deleted = GIVEN[row]
    state = world(pool(deleting=True), nodes=(node("a"),))
    cede, ceded = (ranges.parse(text) if text else None for text in (asked, given_up))
    state.put_block(
        Block(
            "b", ranges.parse("10.0.0.0/26"), "p", "uid-p", "a", "uid-a", "m", version="1", active=True, cede=cede, ceded=ceded
        )
    )
    assert any(isinstance(change, Delete) for change in plan(state, Timers(), DELAYS, 0)) == deleted


def test_nothing_is_asked_back_while_an_earlier_answer_stands() -> None:
    """Else the answer would be taken for that to the new question, though pods came in between."""
    state, timers = world(pool(), nodes=(node("a"),)), Timers()
    settle(state, timers)
    (name,) = state.blocks
    spare = Block(
        "s", ranges.parse("10.0.1.0/26"), "p", "uid-p", "a", "uid-a", "m", version="1", active=True, published_free=64
    )
    state.put_block(replace(state.blocks[name], published_free=64))
    state.put_block(replace(spare, ceded=spare.range))
    settle(state, timers, 0)
    settle(state, timers, 1000)
    assert state.blocks["s"].cede is None
    state.put_block(replace(state.blocks["s"], ceded=None))
    settle(state, timers, 1000)
    settle(state, timers, 2000)
    assert [b.cede for b in state.blocks.values() if b.cede], "asked back as soon as it doesn't"


ASKED_BACK = {
    "the node's labels changed": lambda s: s.put_node(node("a", zone="b")),
    "the pool is deleted": lambda s: s.put_pool(replace(s.pools["p"], deleting=True)),
}


@pytest.mark.parametrize("row", ASKED_BACK)
def test_asked_back_and_deleted_only_when_given(row: str) -> None:
    state = world(pool(nodes="!has(zone)"), nodes=(node("a"),))
    settle(state)
    name = next(iter(state.blocks))
    ASKED_BACK[row](state)
    settle(state)
    block = state.blocks[name]
    assert block.cede == block.range
    state.put_block(replace(block, ceded=block.range))
    settle(state)
    assert name not in state.blocks
    assert state.networks["a"] == ()


def test_of_two_that_overlap_the_active_one_stays() -> None:
    state = world(pool(), nodes=(node("a"), node("b")))
    old = Block("old", ranges.parse("10.0.0.0/24"), "p", "uid-p", "a", "uid-a", "m", version="1", created="9", active=True)
    new = Block("new", ranges.parse("10.0.0.0/26"), "p", "uid-p", "b", "uid-b", "m", version="1", created="1")
    state.put_block(old)
    state.put_block(new)
    settle(state)
    assert "old" in state.blocks
    assert "new" not in state.blocks


def test_of_two_inert_ones_the_first_stays_and_waits_for_the_other_to_go() -> None:
    state = world(pool(), nodes=(node("a"), node("b")))
    first = Block("1st", ranges.parse("10.0.0.0/24"), "p", "uid-p", "a", "uid-a", "m", version="1", created="1")
    second = Block("2nd", ranges.parse("10.0.0.0/26"), "p", "uid-p", "b", "uid-b", "m", version="1", created="2")
    state.put_block(first)
    state.put_block(second)
    changes = plan(state, Timers(), DELAYS, 0)
    assert Delete(second, "it overlaps an older block") in changes
    assert not any(isinstance(c, Update) and c.block.active for c in changes)
    settle(state)
    assert state.blocks["1st"].active


def test_overlapping_pools_the_older_stays() -> None:
    state = world(pool("young", "10.0.0.0/8", created="2"), pool("old", created="1"), nodes=(node("a"),))
    settle(state)
    assert refused_pools(state) == {"young": "old"}
    assert {b.pool_name for b in state.blocks.values()} == {"old"}
    state.drop_pool("old")
    assert refused_pools(state) == {}


def test_reserved_addresses_count_as_taken() -> None:
    state = world(pool(), nodes=(node("a"), node("b")))
    state.put_reservations([ranges.parse("10.0.0.0/26"), ranges.parse("10.0.0.64/27")])
    settle(state)
    assert cidrs(state, "a") == ["10.0.0.64/26"]
    block = state.blocks["10-0-0-64-26"]
    assert block.free == 32
    assert [str(r) for r in block.reserved] == ["10.0.0.64/27"]


def test_a_surplus_block_is_asked_back_after_the_grace_period() -> None:
    state, timers = world(pool(), nodes=(node("a"),)), Timers()
    settle(state, timers)
    first = next(iter(state.blocks.values()))
    state.put_block(replace(first, allocated=60, published_free=4))
    settle(state, timers)
    for block in list(state.blocks.values()):
        state.put_block(replace(block, allocated=0, published_free=64))
    settle(state, timers, 10)
    assert [b for b in state.blocks.values() if b.cede] == []
    assert timers.next_due() == 910
    settle(state, timers, 910)
    assert len([b for b in state.blocks.values() if b.cede]) == 1
    assert timers.next_due() is None, "else every node would be planned again and again"


def test_a_block_that_goes_before_its_time_has_nothing_planned_again_and_again() -> None:
    state, timers = world(pool(), nodes=(node("a"),)), Timers()
    settle(state, timers)
    state.put_block(replace(next(iter(state.blocks.values())), allocated=60, published_free=4))
    settle(state, timers)
    for block in list(state.blocks.values()):
        state.put_block(replace(block, allocated=0, published_free=64))
    settle(state, timers, 10)
    for name in list(state.blocks):
        state.drop_block(name)
    state.drop_node("a")
    state.drop_network("a")
    settle(state, timers, 20)
    assert timers.passed(910)
    settle(state, timers, 910)
    assert timers.next_due() is None
    assert not timers.passed(911)


# What a node that has a full block of each asks for, with the blocks that it has then.
ASKED = {
    "nothing": ((), {"auto": 1}),
    "a pool for which one must ask": (("manual",), {"auto": 1, "manual": 1}),
    "a pool that it has anyway": (("auto",), {"auto": 1}),
    "a pool that isn't there": (("fun",), {"auto": 1}),
}


@pytest.mark.parametrize("row", ASKED)
def test_a_node_gets_blocks_of_the_pools_that_it_asks_for(row: str) -> None:
    asked, expected = ASKED[row]
    state = world(pool("auto"), pool("manual", "10.1.0.0/16", automatic=False), nodes=(node("a"), node("b")))
    state.put_network("a", (), frozenset(asked))
    settle(state)
    assert Counter(b.pool_name for b in state.blocks.values() if b.node == "a") == expected
    assert {b.pool_name for b in state.blocks.values() if b.node == "b"} == {"auto"}


def test_a_pool_asked_for_must_do_alone() -> None:
    """Free addresses elsewhere are no use to a pod that chose this one."""
    state = world(pool("auto"), pool("other", "10.1.0.0/16"), nodes=(node("a"),))
    settle(state)
    (full,) = (b for b in state.blocks.values() if b.pool_name == "auto")
    state.put_block(replace(full, allocated=64, published_free=0))
    settle(state)
    assert len(cidrs(state, "a")) == 2
    state.put_network("a", state.networks["a"], frozenset({"auto"}))
    settle(state)
    assert len(cidrs(state, "a")) == 3


def test_the_last_block_of_a_pool_asked_for_goes_when_it_is_asked_for_no_more() -> None:
    state, timers = world(pool("auto"), pool("manual", "10.1.0.0/16", automatic=False), nodes=(node("a"),)), Timers()
    state.put_network("a", (), frozenset({"manual"}))
    settle(state, timers)
    for block in list(state.blocks.values()):
        state.put_block(replace(block, published_free=64))
    settle(state, timers, 1000)
    settle(state, timers, 3000)
    assert not any(b.cede for b in state.blocks.values())
    state.put_network("a", state.networks["a"])
    settle(state, timers, 3000)
    settle(state, timers, 3900)
    assert [b.pool_name for b in state.blocks.values() if b.cede] == ["manual"]
    state.put_network("a", state.networks["a"], frozenset({"manual"}))
    settle(state, timers, 3900)
    assert not any(b.cede for b in state.blocks.values()), "wanted again before it was given"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 64)), max_size=12), st.sets(st.sampled_from(["auto", "manual"])))
def test_nothing_flaps(uses: list[tuple[int, int]], asked: set[str]) -> None:
    """However full the blocks are, what is asked back is not what is missed afterwards."""
    pools = pool("auto"), pool("auto2", "10.2.0.0/16"), pool("manual", "10.1.0.0/16", automatic=False)
    state, timers = world(*pools, nodes=(node("a"),)), Timers()
    state.put_network("a", (), frozenset(asked))
    settle(state, timers)
    for number, used in uses:
        name = sorted(state.blocks)[number % len(state.blocks)]
        state.put_block(replace(state.blocks[name], allocated=used, published_free=64 - used))
        settle(state, timers)
    made: set[str] = set()
    for now in range(1000, 20_000, 1000):
        for block in [b for b in state.blocks.values() if b.cede]:
            state.put_block(replace(block, ceded=block.cede))
        before = set(state.blocks)
        settle(state, timers, now)
        made |= set(state.blocks) - before
    assert made == set()


POOLS = (
    pool("a", "10.0.0.0/24", 28),
    pool("b", "10.0.0.0/16", 26, created="2"),
    pool("c", "fd00::/112", 120, nodes="has(x)"),
)
EVENTS = [
    *(("node", n) for n in (node("n1"), node("n2", x="1"), node("n2"), node("n3", uid="again"), node("n3", machine="other"))),
    *(("gone", n) for n in ("n1", "n2", "n3")),
    *(("pool", p) for p in POOLS),
    *(("pool gone", p.name) for p in POOLS),
    ("reserve", ("10.0.0.0/27",)),
    ("reserve", ()),
    ("settle", None),
]


def happen(state: State, timers: Timers, event: tuple[str, Any], now: float) -> None:
    kind, what = event
    match kind:
        case "node":
            state.put_node(what)
        case "gone":
            state.drop_node(what)
        case "pool":
            state.put_pool(what)
        case "pool gone":
            state.drop_pool(what)
        case "reserve":
            state.put_reservations(ranges.parse(r) for r in what)
        case "settle":
            apply(state, plan(state, timers, DELAYS, now))


@given(st.lists(st.sampled_from(EVENTS), max_size=25))
def test_whatever_happens_blocks_are_disjoint_and_a_second_plan_is_empty(events: list[tuple[str, Any]]) -> None:
    state, timers = State(), Timers()
    for now, event in enumerate(events):
        happen(state, timers, event, now * 100.0)
        owned = sorted(b.range for b in state.blocks.values())
        assert all(not a.overlaps(b) for a, b in pairwise(owned))
        taken = {p.name: sum(p.node_selector.matches(n.labels) for n in state.nodes.values()) for p in state.pools.values()}
        assert {p.name: state.takers(p) for p in state.pools.values()} == taken
    settle(state, timers, 1e6)
    settle(state, timers, 2e6)
    for block in state.blocks.values():
        assert block.active
        home = state.pools.get(block.pool_name)
        assert block.cede == block.range or (home is not None and home.range.contains(block.range))


@given(st.permutations([("node", node(f"n{i}")) for i in range(4)] + [("pool", p) for p in POOLS] + [EVENTS[-3]]))
def test_any_order_of_events_ends_in_the_same_state(events: list[tuple[str, Any]]) -> None:
    state, timers = State(), Timers()
    for event in events:
        happen(state, timers, event, 0)
    settle(state, timers)
    expected = State()
    for event in sorted(events, key=lambda e: (e[0], str(e[1]))):
        happen(expected, Timers(), event, 0)
    settle(expected)
    assert state.blocks == expected.blocks
    assert state.networks == expected.networks


def test_names_are_the_range_s() -> None:
    assert block_name(ranges.parse("10.1.2.64/26")) == "10-1-2-64-26"
    assert block_name(ranges.parse("fd00::40/122")) == "fd000000000000000000000000000040-122"


SETTLED: dict[str, tuple[int, int, bool]] = {
    "nothing rests": (54, 10, False),
    "a few rest and many are free": (4, 55, False),
    "a quarter rests": (8, 40, True),
    "one rests and few are free": (53, 10, True),
    "one rests and none is free": (63, 0, True),
}


@pytest.mark.parametrize("row", SETTLED)
def test_releases_settle_only_when_the_block_needs_them(row: str) -> None:
    allocated, free, needed = SETTLED[row]
    state = State()
    state.put_pool(pool())
    state.put_node(node("a"))
    settle(state)
    (block,) = state.blocks.values()
    state.put_block(replace(block, allocated=allocated, published_free=free, published=("epoch", 99)))
    updates = [c.block.settled for c in plan(state, Timers(), DELAYS, 0.0) if isinstance(c, Update)]
    assert updates == ([("epoch", 99)] if needed else [])
