"""AddressSets: their chunks stay small, and stay as they are while others change."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.policy.compiling import CHUNK, Objects, drop, put
from tests.policy.oracle import Object
from tortie.api.compiled import AddressSetSpec
from tortie.policy import sets
from tortie.policy.compiler import Compiler
from tortie.policy.policies import ALL_PODS
from tortie.policy.sets import AddressSet, SetKey

pytestmark = pytest.mark.usefixtures("small_chunks")


# Many come, then some go and come: what hypothesis draws alone seldom grows.
STEPS = st.integers(0, 40).flatmap(
    lambda n: st.lists(st.tuples(st.integers(0, max(n, 1)), st.booleans()), max_size=60).map(
        lambda later: [(member, False) for member in range(n)] + later
    )
)


@given(STEPS, st.lists(st.integers(0, 99), max_size=5))
def test_the_chunks_hold_what_was_added_more_often_than_discarded(steps: list[tuple[int, bool]], taken: list[int]) -> None:
    one, held = AddressSet(SetKey(ALL_PODS)), dict[str, AddressSetSpec]()
    members: Counter[str] = Counter()
    for number, (member, away) in enumerate([*steps, *((m, True) for m in range(40))]):
        address = f"10.0.0.{member}"
        if not away:
            one.add(address)
            members[address] += 1
        elif members[address]:
            one.discard(address)
            members[address] -= 1
        if number in taken or number >= len(steps):
            for name, chunk in one.take():
                if chunk is None:
                    held.pop(name, None)  # it may have come and gone since the last time
                else:
                    held[name] = chunk
            assert sorted(a for chunk in held.values() for a in chunk.addresses) == sorted(+members)
            assert set(held) == set(one.names()) == {f"{one.name}-{n}" for n in range(held[f"{one.name}-0"].chunks or 0)}
            assert all(len(chunk.addresses) <= CHUNK for chunk in held.values())
            assert len(held) <= max(1, 4 * len(+members) // CHUNK + 1)


def read(held: dict[str, AddressSetSpec], name: str) -> set[str] | None:
    """What an agent holds the set to be; None while it isn't whole."""
    first = held.get(f"{name}-0")
    if first is None:
        return None
    chunks = [held.get(f"{name}-{n}") for n in range(first.chunks or 0)]
    return None if None in chunks else {member for chunk in chunks if chunk for member in chunk.addresses}


# Members that come and go between one taking and the next, in any order, some of them back again.
BATCHES = st.tuples(
    st.integers(0, 40),
    st.lists(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12), st.booleans()), max_size=6), max_size=6),
)


# Members and the chunk of each, however they came to lie so.
PLACES = st.dictionaries(st.integers(0, 7), st.integers(0, 3), max_size=8)


def lying(places: dict[int, int]) -> dict[str, AddressSetSpec]:
    count = max(places.values(), default=0) + 1
    chunks = [tuple(f"10.0.0.{member}" for member, at in sorted(places.items()) if at == chunk) for chunk in range(count)]
    return {f"s-{n}": AddressSetSpec("s", n, chunk, count if n == 0 else None) for n, chunk in enumerate(chunks)}


@given(st.none() | PLACES, PLACES, st.randoms(use_true_random=False))
def test_no_step_from_one_form_to_any_other_leaves_a_member_out(
    before: dict[int, int] | None, after: dict[int, int], random: Random
) -> None:
    known, wanted = lying(before) if before is not None else {}, lying(after)
    stay, either = (before or {}).keys() & after.keys(), (before or {}).keys() | after.keys()
    held = dict(known)
    for step in sets.steps(known, wanted):
        for name, chunk in random.sample(step, len(step)):
            if chunk is None:
                del held[name]
            else:
                held[name] = chunk
            now = read(held, "s")
            if now is not None:  # else an agent keeps what it had
                assert {f"10.0.0.{n}" for n in stay} <= now <= {f"10.0.0.{n}" for n in either}
    assert held == wanted


@given(BATCHES, st.randoms(use_true_random=False))
def test_no_write_leaves_a_member_out(batches: tuple[int, list[list[tuple[int, int, bool]]]], random: Random) -> None:
    one, held = AddressSet(SetKey(ALL_PODS)), dict[str, AddressSetSpec]()
    members: set[int] = set()
    for steps in [[(0, batches[0], False)], *batches[1], [(0, 41, True)]]:
        before = {f"10.0.0.{n}" for n in members}
        for start, count, away in steps:
            for member in range(start, start + count):
                if away == (member in members):
                    (one.discard if away else one.add)(f"10.0.0.{member}")
                    members ^= {member}
        after = {f"10.0.0.{n}" for n in members}
        written = list(one.take())
        any_order = [change for change in written if change[1] is not None and change[1].chunk]
        assert written[: len(any_order)] == any_order
        random.shuffle(any_order)
        for name, chunk in [*any_order, *written[len(any_order) :]]:
            if chunk is None:
                del held[name]
            else:
                held[name] = chunk
            now = read(held, one.name)
            assert now is not None or not before
            assert now is None or before & after <= now <= before | after
        assert read(held, one.name) == after
        assert set(held) == set(one.names())


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)), st.integers(41, 50))
def test_one_address_more_is_one_chunk_written(members: set[int], gone: set[int], new: int) -> None:
    one = AddressSet(SetKey(ALL_PODS))
    for member in members:
        one.add(f"10.0.0.{member}")
    for member in members & gone:
        one.discard(f"10.0.0.{member}")
    before = {name for name, chunk in one.take() if chunk is not None}
    one.add(f"10.0.0.{new}")
    written = dict(one.take())
    # A chunk that begins is told in chunk 0, which says how many there are.
    assert set(written) - before in (set(), {f"{one.name}-{len(before)}"})
    assert len(written) == (1 if set(written) <= before else 2)


def pod(name: str, **labels: str) -> Object:
    spec = {"nodeName": "n1", "containers": []}
    return {"metadata": {"namespace": "a", "name": name, "uid": f"uid-{name}", "labels": labels}, "spec": spec}


POLICY: Object = {
    "metadata": {"namespace": "a", "name": "from-web"},
    "spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]},
}


def crowd(count: int) -> tuple[Compiler, Objects]:
    """Pods with one address each, and a policy that names them as peers."""
    compiler, objects = Compiler(), Objects()
    for n in range(count):
        put(compiler, "pods", pod(f"p{n}", app="web"))
    claims = {f"10.0.0.{n}": f"uid-p{n}" for n in range(count)}
    put(compiler, "blocks", {"name": "block", "node": "n1", "claims": claims})
    put(compiler, "networkpolicies", POLICY)
    objects.write(compiler.take())
    return compiler, objects


def test_a_set_that_shrinks_and_is_dropped_leaves_no_chunk() -> None:
    compiler, objects = crowd(20)
    assert len(objects.address_sets) == 5
    for n in range(1, 20):
        drop(compiler, "pods", pod(f"p{n}"))
    drop(compiler, "networkpolicies", POLICY)
    objects.write(compiler.take())
    assert objects.address_sets == {}


def test_a_label_that_a_set_does_not_ask_for_leaves_it_as_it_is() -> None:
    """Taken out and put in again, the address would move to another chunk, and be in none of them for a moment."""
    compiler, _ = crowd(20)
    put(compiler, "pods", pod("p0", app="web", color="red"))
    assert compiler.take().address_sets == {}


def test_an_empty_set_is_shared_as_a_full_one_is() -> None:
    compiler, objects = crowd(0)
    other = {**POLICY, "metadata": {"namespace": "a", "name": "too"}, "spec": {**POLICY["spec"], "policyTypes": ["Ingress"]}}
    other["spec"]["podSelector"] = {"matchLabels": {"app": "db"}}
    put(compiler, "networkpolicies", other)
    objects.write(compiler.take())
    drop(compiler, "networkpolicies", POLICY)
    put(compiler, "pods", pod("p0", app="web"))
    put(compiler, "blocks", {"name": "block", "node": "n1", "claims": {"10.0.0.0": "uid-p0"}})
    objects.write(compiler.take())
    assert list(objects.sets().values()) == [["10.0.0.0"]]
    drop(compiler, "networkpolicies", other)
    objects.write(compiler.take())
    assert objects.address_sets == {}


def test_a_set_that_passes_from_one_policy_to_another_stays_as_it_is() -> None:
    compiler, _ = crowd(20)
    for n in range(0, 20, 2):
        drop(compiler, "pods", pod(f"p{n}"))
    compiler.take()  # made anew, the set would lie in chunks otherwise
    subject = {"podSelector": {"matchLabels": {"app": "web"}}}
    put(compiler, "networkpolicies", {"metadata": {"namespace": "a", "name": "too"}, "spec": {**POLICY["spec"], **subject}})
    drop(compiler, "networkpolicies", POLICY)
    assert compiler.take().address_sets == {}
