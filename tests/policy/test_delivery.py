"""Labels by which compiled objects reach the nodes that use them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tortie.api.compiled import EndpointGroup, NodePolicySpec, Rule, RuleSetSpec
from tortie.policy import delivery
from tortie.policy.delivery import NARROW_BELOW, SPARE, WIDE, WIDE_ABOVE, Delivery, labels, node_label

ALL = frozenset((WIDE,))


def some(count: int, first: int = 0) -> frozenset[str]:
    return frozenset(node_label(f"n{number}") for number in range(first, first + count))


TABLE: dict[str, tuple[frozenset[str], frozenset[str], frozenset[str]]] = {  # needed, now, then
    "nobody": (some(0), some(0), some(0)),
    "one": (some(1), some(0), some(1)),
    "one that left stays": (some(1), some(2), some(2)),
    "all that left stay while they are few": (some(0), some(SPARE), some(SPARE)),
    "too many left": (some(1), some(SPARE + 3), some(1)),
    "as many as may be": (some(WIDE_ABOVE), some(0), some(WIDE_ABOVE)),
    "one more": (some(WIDE_ABOVE + 1), some(WIDE_ABOVE), ALL),
    "still for all": (some(NARROW_BELOW + 1), ALL, ALL),
    "few again": (some(NARROW_BELOW), ALL, some(NARROW_BELOW)),
    "those that left don't make it wide": (some(WIDE_ABOVE), some(WIDE_ABOVE, 1), some(WIDE_ABOVE)),
}


@pytest.mark.parametrize("row", TABLE)
def test_labels(row: str) -> None:
    needed, now, then = TABLE[row]
    assert labels(needed, now) == then
    assert labels(needed, then) == then, "nothing changes unless need changes"


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 100), st.booleans())
def test_whoever_needs_an_object_gets_it(count: int, before: int, first: int, wide: bool) -> None:
    needed, now = some(count), ALL if wide else some(before, first)
    then = labels(needed, now)
    assert then == ALL or needed <= then
    assert len(then) <= WIDE_ABOVE


def test_a_label_s_key_is_short_enough_for_any_node() -> None:
    prefix, _, name = node_label("n" * 253).partition("/")
    assert len(prefix) <= 253
    assert len(name) <= 63


def policy(*names: str) -> NodePolicySpec:
    return NodePolicySpec((EndpointGroup((), names),)) if names else NodePolicySpec()


def rules(*sets: str) -> RuleSetSpec:
    return RuleSetSpec("Namespace", rules=(Rule("Ingress", "Accept", sets),))


NODES, NAMES, SETS = [f"n{number}" for number in range(6)], ["x", "y", "z"], ["s", "t"]
EVENTS = st.one_of(
    st.tuples(st.just("node"), st.sampled_from(NODES), st.none() | st.sets(st.sampled_from(NAMES))),
    st.tuples(st.just("rule"), st.sampled_from(NAMES), st.none() | st.sets(st.sampled_from(SETS))),
)


@given(st.lists(EVENTS, max_size=30))
def test_after_any_events_every_user_has_what_it_uses(events: list[tuple[str, str, set[str] | None]]) -> None:
    told, uses, names = Delivery(), dict[str, set[str]](), dict[str, set[str]]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "WIDE_ABOVE", 4)
        patch.setattr(delivery, "NARROW_BELOW", 2)
        for kind, name, what in events:
            held = uses if kind == "node" else names
            held.pop(name, None)
            if what is not None:
                held[name] = what
            if kind == "node":
                told.put_node_policy(name, policy(*what) if what is not None else None)
            else:
                told.put_rule_set(name, rules(*what) if what is not None else None)
            told.take()
            for rule_set, sets in names.items():
                users = frozenset(node_label(node) for node, used in uses.items() if rule_set in used)
                for key in (("rule_set", rule_set), *(("address_set", one) for one in sets)):
                    now = told.labels_of(key)
                    assert now == ALL or users <= now, key


def test_a_set_that_comes_to_a_rule_set_for_all_is_for_all() -> None:
    told = Delivery()
    told.put_rule_set("x", rules())
    for number in range(WIDE_ABOVE + 1):
        told.put_node_policy(f"n{number}", policy("x"))
    assert told.take() == [("rule_set", "x")]
    told.put_rule_set("x", rules("s"))
    assert told.take() == [("address_set", "s")]
    assert told.labels_of(("address_set", "s")) == ALL
    told.put_rule_set("y", rules("s"))
    assert told.take() == [], "nobody uses the other one"
