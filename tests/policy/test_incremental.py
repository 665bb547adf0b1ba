"""Whatever came in whatever order: what is written in the end is what a compiler that starts now would write."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.policy import clusters
from tests.policy.clusters import NAMESPACES, NODES, PODS
from tests.policy.compiling import CHUNK, Objects, drop, fresh, put
from tests.policy.oracle import Object
from tortie.policy import sets
from tortie.policy.compiler import Compiler

EXAMPLES = 10_000 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 300
pytestmark = pytest.mark.usefixtures("small_chunks", "small_rule_sets")


UIDS = st.sampled_from([*(f"uid-{n}" for n in range(PODS)), "hash-0"])
ADDRESSES = st.sampled_from(
    [f"10.0.{n}.{i}" for n in (1, 2) for i in range(6)] + [f"fd00::{n}:{i}" for n in (1, 2) for i in range(2)]
)


def blocks(name: str) -> st.SearchStrategy[Object]:
    """What a block publishes: whoever's addresses, because agents may lie."""
    claims = st.dictionaries(ADDRESSES, UIDS, max_size=8)
    return clusters.objects(name=st.just(name), node=st.sampled_from(NODES), claims=claims)


# Each object that there may be, by kind and name; policies come and go most.
WORLD: dict[tuple[str, str], st.SearchStrategy[Object]] = {
    **{("namespaces", name): clusters.namespaces(name) for name in NAMESPACES},
    **{("nodes", name): clusters.nodes(name) for name in NODES},
    **{("pods", f"p{n}"): clusters.pods(n, "ab"[n % 2]) for n in range(PODS)},
    **{("blocks", f"block-{n}"): blocks(f"block-{n}") for n in range(2)},
    **{("networkpolicies", f"{ns}/np{n}"): clusters.network_policies(ns, f"np{n}") for ns in "ab" for n in range(3)},
    **{("clusternetworkpolicies", f"cnp{n}"): clusters.cluster_network_policies(f"cnp{n}") for n in range(3)},
}
EVENT = st.one_of([st.tuples(st.just(key), st.none() | some | some, st.booleans()) for key, some in WORLD.items()])
# Hypothesis makes short lists unless they must be long.
EVENTS = st.sampled_from([0, 20, 40]).flatmap(lambda least: st.lists(EVENT, min_size=least, max_size=least + 20))


@given(EVENTS)
@settings(max_examples=EXAMPLES)
def test_the_past_makes_no_difference(events: list[tuple[tuple[str, str], Object | None, bool]]) -> None:
    compiler, objects = Compiler(), Objects()
    world: dict[tuple[str, str], Object] = {}
    for key, new, taken in events:
        if new is not None:
            put(compiler, key[0], new)
            world[key] = new
        elif key in world:
            drop(compiler, key[0], world.pop(key))
        if taken:
            objects.write(compiler.take())
            assert_whole(objects)
    objects.write(compiler.take())
    assert_whole(objects)
    expected = fresh({kind: [one for (k, _), one in world.items() if k == kind] for kind, _ in WORLD})
    assert objects.rule_sets == expected.rule_sets
    assert objects.node_policies == expected.node_policies
    assert objects.sets() == expected.sets()


def assert_whole(objects: Objects) -> None:
    """Chunks are named by their number, all there, none too large; every set and RuleSet that is named is there."""
    numbers: dict[str, set[int]] = {}
    for name, chunk in objects.address_sets.items():
        assert name == sets.chunk_name(chunk.set, chunk.chunk)
        assert len(chunk.addresses) <= CHUNK
        numbers.setdefault(chunk.set, set()).add(chunk.chunk)
    for name, found in numbers.items():
        assert found == set(range(objects.address_sets[sets.chunk_name(name, 0)].chunks or 0))
    for members in objects.sets().values():
        assert len(members) == len(set(members))
    named = {peer for one in objects.rule_sets.values() for rule in one.rules for peer in rule.peers or ()}
    assert named == set(numbers)
    listed = {name for one in objects.node_policies.values() for group in one.groups for name in group.rule_sets}
    assert listed <= set(objects.rule_sets)
