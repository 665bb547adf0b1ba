"""The collector: whatever happens in whatever order, its candidates are those that judging everything anew would find."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tortie.addressing.allocator import Address
from tortie.addressing.collector import Collector, Suspect, claim
from tortie.addressing.leaks import PodState, why_leaked
from tortie.addressing.ranges import parse
from tortie.addressing.state import Block, Held, State

GRACE = 60.0
BLOCK = Block("b1", parse("10.0.0.0/29"), "p", "uid-p", "a", "uid-a", active=True, published=("ledger", 9))


def held(number: int, sequence: int = 1, uid: str = "u1") -> Held:
    """Return an allocation; number 7 is one without a name."""
    return Held(Address(4, BLOCK.range.start + number), sequence, *(("ns", f"pod-{number}", uid) if number != 7 else ()))


HELD = st.lists(st.builds(held, st.integers(0, 7), st.integers(1, 2), st.sampled_from(["u1", "u2"])), max_size=5, unique=True)
EVENTS = st.one_of(
    st.tuples(st.just("block"), st.sampled_from(["b1", "b2"]), st.sampled_from(["a", "b"]), st.sampled_from(["x", "y"]), HELD),
    st.tuples(st.just("block gone"), st.sampled_from(["b1", "b2"])),
    st.tuples(st.just("pod"), st.integers(0, 6), st.sampled_from(["u1", "u2"]), st.sampled_from(["a", "b"]), st.booleans()),
    st.tuples(st.just("pod gone"), st.integers(0, 6)),
)


@given(st.lists(EVENTS, max_size=30))
def test_each_change_leaves_what_judging_everything_would_find(events: list[tuple[object, ...]]) -> None:
    pods: dict[str, PodState] = {}
    blocks: dict[str, Block] = {}
    collector = Collector(pods.get, GRACE)
    for now, event in enumerate(events):
        match event:
            case ("block", str(name), str(node), str(epoch), list(found)):
                blocks[name] = replace(BLOCK, name=name, node=node, published=(epoch, 1), held=tuple(found))
                collector.put_block(blocks[name], now)
            case ("block gone", str(name)):
                blocks.pop(name, None)
                collector.drop_block(name)
            case ("pod", number, str(uid), str(node), bool(ended)):
                pods[f"ns/pod-{number}"] = PodState(uid, node, ended=ended)
                collector.pod_changed(f"ns/pod-{number}", now)
            case ("pod gone", number):
                pods.pop(f"ns/pod-{number}", None)
                collector.pod_changed(f"ns/pod-{number}", now)
        assert collector.since.keys() == {
            (name, one)
            for name, block in blocks.items()
            for one in block.held
            if why_leaked(claim(block.node, one), pods.get(f"{one.namespace}/{one.pod}"))
        }


@pytest.fixture
def pods() -> dict[str, PodState]:
    return {}


@pytest.fixture
def collector(pods: dict[str, PodState]) -> Collector:
    """Give one that knows of a leaked allocation since 100."""
    collector = Collector(pods.get, GRACE)
    collector.put_block(replace(BLOCK, held=(held(1),)), 100)
    return collector


def test_a_candidate_is_due_after_the_grace_period_and_again_after_another(collector: Collector) -> None:
    suspect = Suspect("b1", held(1), "a", "ledger")
    assert [collector.due(now) for now in (159, 160, 161, 219, 220)] == [[], [suspect], [], [], [suspect]]


# What comes at 150, and when the candidate of 100 is due then.
COMES: dict[str, tuple[Block, float]] = {
    "the same again": (replace(BLOCK, held=(held(1),)), 160),
    "another allocation beside it": (replace(BLOCK, held=(held(1), held(2))), 160),
    "its address given to another pod of that name": (replace(BLOCK, held=(held(1, sequence=2),)), 210),
    "another ledger, which counts from one": (replace(BLOCK, published=("rebuilt", 1), held=(held(1),)), 210),
    "the block on another node": (replace(BLOCK, node="b", held=(held(1),)), 210),
}


@pytest.mark.parametrize("row", COMES)
def test_a_candidate_that_is_another_waits_anew(collector: Collector, row: str) -> None:
    block, due = COMES[row]
    collector.put_block(block, 150)
    assert not collector.due(due - 1)
    assert [suspect.held for suspect in collector.due(due)] == [block.held[0]]


def test_a_pod_that_is_back_for_a_moment_ends_the_grace_period(collector: Collector, pods: dict[str, PodState]) -> None:
    pods["ns/pod-1"] = PodState("u1", "a")
    collector.pod_changed("ns/pod-1", 150)
    del pods["ns/pod-1"]
    collector.pod_changed("ns/pod-1", 151)
    assert not collector.due(210)
    assert collector.due(211)


def test_what_a_live_reading_finds_decides(collector: Collector) -> None:
    (suspect,) = collector.due(160)
    assert suspect.condemned(PodState("u1", "a")) is None
    release = suspect.condemned(None)
    assert release is not None
    assert (release.address, release.sequence, release.epoch) == (held(1).address, 1, "ledger")


REPORTS = st.tuples(st.integers(0, 4), st.lists(st.integers(0, 15), max_size=3), st.booleans())


@given(st.lists(REPORTS, max_size=20))
def test_what_pods_report_is_known_whenever_it_is_asked(reports: list[tuple[int, list[int], bool]]) -> None:
    state, said = State(), dict[int, list[int]]()
    for pod, values, ask in reports:
        state.put_reports(f"ns/{pod}", tuple(Address(4, value) for value in values))
        said[pod] = values
        for text in ("0.0.0.0/29", "0.0.0.8/30", "0.0.0.15/32") if ask else ():
            whole = parse(text)
            assert state.is_reported(whole) == any(Address(4, v).within(whole) for values in said.values() for v in values)
