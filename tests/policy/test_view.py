"""What a node enforces from the objects that its watches see: the same in the end for every order, and never less between."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tortie.api.compiled import (
    AddressSet,
    AddressSetSpec,
    CompiledMetadata,
    Endpoint,
    EndpointGroup,
    NodePolicy,
    NodePolicySpec,
    Rule,
    RuleSet,
    RuleSetSpec,
)
from tortie.api.lean import Metadata
from tortie.api.policy import STATED_MAX
from tortie.policy.delivery import COMPILED_AT
from tortie.policy.view import Source, View

NOW = datetime(2026, 1, 1, 12, 0, 1, tzinfo=UTC)
EARLIER, LATER = "2026-01-01T12:00:00.250000Z", "2026-01-01T12:00:09.000000Z"


def rule_set(name: str, version: int, *peers: str, uid: str = "u", compiled: str = EARLIER) -> RuleSet:
    meta = CompiledMetadata(
        name=name, uid=uid, resource_version=str(version), generation=version, annotations={COMPILED_AT: compiled}
    )
    return RuleSet(meta, RuleSetSpec("Namespace", rules=(Rule("Ingress", "Accept", peers=peers),)))


def chunk(name: str, number: int, version: int, *addresses: str, chunks: int | None = None, uid: str = "u") -> AddressSet:
    meta = Metadata(name=f"{name}-{number}", uid=uid, resource_version=str(version))
    return AddressSet(meta, AddressSetSpec(name, number, addresses, chunks))


def policy(generation: int, *, uid: str = "u", endpoints: dict[str, tuple[str, ...]]) -> NodePolicy:
    meta = CompiledMetadata(
        name="n", uid=uid, resource_version=str(generation), generation=generation, annotations={COMPILED_AT: EARLIER}
    )
    groups = tuple(EndpointGroup((Endpoint("ns", one, one),), names) for one, names in endpoints.items())
    return NodePolicy(meta, NodePolicySpec(groups))


@dataclass
class Kernel:
    """What would be enforced by one who applies each of the changes."""

    rule_sets: dict[str, RuleSet] = field(default_factory=dict)
    sets: dict[str, set[str]] = field(default_factory=dict)
    endpoints: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def apply(self, view: View) -> None:
        changes = view.take()
        for name in changes.forgotten:
            self.sets.pop(name, None)
        for name, added in changes.added.items():
            assert added.isdisjoint(self.sets.setdefault(name, set()))
            self.sets[name] |= added
        for name, removed in changes.removed.items():
            assert removed <= self.sets[name]
            self.sets[name] -= removed
        _apply(self.rule_sets, changes.rule_sets)
        _apply(self.endpoints, changes.endpoints)


def _apply(to: dict[str, Any], changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        if value is None:
            to.pop(name, None)
        else:
            to[name] = value


Event = tuple[str, Any, Any]


def tell(view: View, event: Event) -> None:
    """Tell of (what, watch, object), as a watch says it."""
    match event:
        case "policy", _, item:
            view.put_node_policy(item)
        case "put", source, RuleSet() as item:
            view.put_rule_set(source, item)
        case "drop", source, RuleSet() as item:
            view.drop_rule_set(source, item)
        case "put", source, AddressSet() as item:
            view.put_chunk(source, item)
        case "again", source, (old, new):
            view.put_chunk(source, new, old)
        case "drop", source, AddressSet() as item:
            view.drop_chunk(source, item)


def put(item: Any, source: Source = "own") -> Event:
    return "put", source, item


def drop(item: Any, source: Source = "own") -> Event:
    return "drop", source, item


def again(old: AddressSet, new: AddressSet, source: Source = "own") -> Event:
    return "again", source, (old, new)


def says(generation: int, **endpoints: tuple[str, ...]) -> Event:
    return "policy", "", policy(generation, endpoints=endpoints)


R1, S1 = rule_set("r", 1, "s"), chunk("s", 0, 1, "10.0.0.1", chunks=1)
WHOLE: list[Event] = [says(1, a=("r",)), put(R1), put(S1)]
OPEN, CLOSED = {"r": 1}, None
# Name: events; then what holds for endpoint a, what is in set s, what waits, which generation is realized.
ROWS: dict[str, tuple[list[Event], Any, set[str] | None, tuple[str, ...], int]] = {
    "all there": (WHOLE, OPEN, {"10.0.0.1"}, (), 1),
    "the NodePolicy before its RuleSet": (WHOLE[:1], CLOSED, None, ("r",), 0),
    "the RuleSet before its set": (WHOLE[:2], CLOSED, None, ("s",), 0),
    "everything before the NodePolicy": ([*WHOLE[1:], WHOLE[0]], OPEN, {"10.0.0.1"}, (), 1),
    "an endpoint without rules": ([says(1, a=())], {}, None, (), 1),
    "chunk 0 before chunk 1": ([*WHOLE[:2], put(chunk("s", 0, 1, "10.0.0.1", chunks=2))], CLOSED, None, ("s",), 0),
    "chunk 1 before chunk 0": ([*WHOLE[:2], put(chunk("s", 1, 1, "10.0.0.1"))], CLOSED, None, ("s",), 0),
    "a set that grows: chunk 0 first": (
        [*WHOLE, again(S1, chunk("s", 0, 2, "10.0.0.2", chunks=2))], OPEN, {"10.0.0.1"}, (), 1,
    ),
    "a set that grows: whole": (
        [*WHOLE, again(S1, chunk("s", 0, 2, "10.0.0.2", chunks=2)), put(chunk("s", 1, 3, "10.0.0.3"))],
        OPEN, {"10.0.0.2", "10.0.0.3"}, (), 1,
    ),
    "a merge of chunks: the last is dropped late": (
        [
            *WHOLE, again(S1, chunk("s", 0, 2, chunks=2)), put(chunk("s", 1, 3, "10.0.0.3")),
            again(S1, chunk("s", 0, 4, "10.0.0.3", chunks=1)), drop(chunk("s", 1, 3, "10.0.0.3")),
        ],
        OPEN, {"10.0.0.3"}, (), 1,
    ),
    "a merge of chunks: the last is dropped first": (
        [
            *WHOLE, again(S1, chunk("s", 0, 2, chunks=2)), put(chunk("s", 1, 3, "10.0.0.3")),
            drop(chunk("s", 1, 3, "10.0.0.3")),
        ],
        OPEN, {"10.0.0.3"}, (), 1,
    ),
    "a set that shrinks: its last chunk is still there": (
        [
            *WHOLE, again(S1, chunk("s", 0, 2, chunks=2)), put(chunk("s", 1, 3, "10.0.0.9")),
            again(S1, chunk("s", 0, 4, "10.0.0.3", chunks=1)),
        ],
        OPEN, {"10.0.0.3"}, (), 1,
    ),
    "a set that grows again: its last chunk was always there": (
        [
            *WHOLE, again(S1, chunk("s", 0, 2, chunks=2)), put(chunk("s", 1, 3, "10.0.0.9")),
            again(S1, chunk("s", 0, 4, chunks=1)), again(S1, chunk("s", 0, 5, chunks=2)),
        ],
        OPEN, {"10.0.0.9"}, (), 1,
    ),
    "a chunk beyond the last changes": (
        [
            *WHOLE, put(chunk("s", 1, 3, "10.0.0.9")), again(S1, chunk("s", 1, 4, "10.0.0.8")),
        ],
        OPEN, {"10.0.0.1"}, (), 1,
    ),
    "a removal applies at once": ([*WHOLE, again(S1, chunk("s", 0, 2, chunks=1))], OPEN, set(), (), 1),
    "a switch of labels: deleted first": ([*WHOLE, drop(R1), drop(S1)], OPEN, {"10.0.0.1"}, (), 1),
    "a switch of labels: added first": (
        [*WHOLE, put(rule_set("r", 2, "s"), "wide"), put(chunk("s", 0, 2, "10.0.0.2", chunks=1), "wide")],
        {"r": 2}, {"10.0.0.2"}, (), 1,
    ),
    "a switch of labels: the old watch lags": (
        [*WHOLE, put(rule_set("r", 3, "s"), "wide"), put(rule_set("r", 2, "s"))], {"r": 3}, {"10.0.0.1"}, (), 1,
    ),
    "a switch of labels: the new watch lags": (
        [*WHOLE, put(rule_set("r", 3, "s")), drop(rule_set("r", 3, "s")), put(rule_set("r", 2, "s"), "wide")],
        {"r": 3}, {"10.0.0.1"}, (), 1,
    ),
    "a RuleSet that names a set which isn't there": ([*WHOLE, put(rule_set("r", 2, "t"))], OPEN, {"10.0.0.1"}, ("t",), 1),
    "a RuleSet deleted and made again": (
        [*WHOLE, drop(R1), put(rule_set("r", 5, "s", uid="v"))], {"r": 5}, {"10.0.0.1"}, (), 1,
    ),
    "a NodePolicy that names a RuleSet which isn't there": (
        [*WHOLE, says(2, a=("r", "q")), drop(R1), drop(S1)], OPEN, {"10.0.0.1"}, ("q",), 1,
    ),
    "a new endpoint beside an old one": ([*WHOLE, says(2, a=("r",), b=("q",))], OPEN, {"10.0.0.1"}, ("q",), 1),
    "an endpoint that goes takes its rules along": ([*WHOLE, says(2)], CLOSED, None, (), 2),
    "a NodePolicy deleted": ([*WHOLE, ("policy", "", None)], OPEN, {"10.0.0.1"}, (), -1),
    "a NodePolicy deleted and made again": (
        [*WHOLE, ("policy", "", None), ("policy", "", policy(1, uid="v", endpoints={"a": ("r",)}))], OPEN, {"10.0.0.1"}, (), 1,
    ),
    "an etcd restored from a backup": (
        [*WHOLE, says(2, a=("q",)), put(rule_set("r", 9, "s")), put(rule_set("r", 4, "s")), says(1, a=("r",))],
        {"r": 4}, {"10.0.0.1"}, (), 1,
    ),
    "what is needed no more is forgotten": ([*WHOLE, says(2), drop(R1), says(3, a=("r",))], CLOSED, None, ("r",), 2),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_order(row: str) -> None:
    events, rules, addresses, waiting, generation = ROWS[row]
    view, kernel, said = View(), Kernel(), None
    for event in events:
        tell(view, event)
        kernel.apply(view)
        said = view.status(NOW, {})
    assert view.rule_sets_of("a") == rules
    assert view.addresses("s") == addresses
    assert view.waiting == waiting
    assert (said.realized_generation if said else -1) == generation
    check(view, kernel)


def check(view: View, kernel: Kernel) -> None:
    """What the changes add up to is what the view says, and nothing is enforced whose sets aren't whole."""
    assert kernel.rule_sets.keys() == view.generations.keys()
    assert all(view.rule_sets_of(uid) is not None for uid in kernel.endpoints)
    for uid, names in kernel.endpoints.items():
        assert list(view.rule_sets_of(uid) or ()) == list(names)
        assert kernel.rule_sets.keys() >= set(names)
    for one in kernel.rule_sets.values():
        for rule in one.spec.rules:
            assert kernel.sets.keys() >= set(rule.peers or ())
    for name, addresses in kernel.sets.items():
        assert view.addresses(name) == frozenset(addresses)


NAMES, SETS, UIDS = ("r", "q", "p"), ("s", "t"), ("a", "b")
ADDRESSES = st.frozensets(st.sampled_from(("10.0.0.1", "10.0.0.2", "10.0.0.3")))
WATCHES = st.sampled_from((("own",), ("wide",)))
WRITES = st.one_of(
    st.tuples(st.just("rule_set"), st.sampled_from(NAMES), st.frozensets(st.sampled_from(SETS)), WATCHES),
    st.tuples(
        st.just("chunk"), st.tuples(st.sampled_from(SETS), st.integers(0, 2)), st.tuples(ADDRESSES, st.integers(1, 3)), WATCHES
    ),
    st.tuples(st.just("delete"), st.sampled_from((*NAMES, *((one, n) for one in SETS for n in range(3)))), st.none(), WATCHES),
    st.tuples(
        st.just("policy"),
        st.dictionaries(st.sampled_from(UIDS), st.lists(st.sampled_from(NAMES), unique=True, max_size=3).map(tuple)),
        st.none(),
        WATCHES,
    ),
)


class Server:
    """An API server as five watches see it: each has its own events, in order."""

    def __init__(self) -> None:
        self.version = 0
        self.objects: dict[Any, tuple[Any, tuple[str, ...]]] = {}
        self.policy: NodePolicy | None = None
        self.events: dict[tuple[str, str], list[Event]] = {}

    def write(self, what: str, key: Any, value: Any, watches: tuple[str, ...]) -> None:
        self.version += 1
        match what:
            case "policy":
                self.policy = policy(self.version, endpoints=key)
                self._say("policy", "", ("policy", "", self.policy))
            case "rule_set":
                self._put(key, rule_set(key, self.version, *sorted(value), uid=self._uid(key)), watches)
            case "chunk":
                (name, number), (addresses, chunks) = key, value
                count = chunks if number == 0 else None
                self._put(key, chunk(name, number, self.version, *sorted(addresses), chunks=count, uid=self._uid(key)), watches)
            case "delete":
                self._put(key, None, ())

    def _uid(self, key: Any) -> str:
        return self.objects[key][0].metadata.uid if key in self.objects else str(self.version)

    def _put(self, key: Any, item: Any, watches: tuple[str, ...]) -> None:
        old, before = self.objects.pop(key, (None, ()))
        if item is not None:
            self.objects[key] = item, watches
        for watch in before:
            if watch not in watches:
                self._say(type(old).__name__, watch, ("drop", watch, old))
        for watch in watches:
            is_chunk = isinstance(item, AddressSet) and watch in before
            self._say(type(item).__name__, watch, ("again", watch, (old, item)) if is_chunk else ("put", watch, item))

    def _say(self, kind: str, watch: str, event: Event) -> None:
        self.events.setdefault((kind, watch), []).append(event)

    def complete(self, watches: list[tuple[str, ...]]) -> None:
        """Write whatever is missing: every set is whole, with one chunk more than it had, and every RuleSet is there."""
        for number, name in enumerate(SETS):
            for one in range(3):
                if (name, one) not in self.objects or one == 0:
                    self.write("chunk", (name, one), (frozenset({f"10.1.{number}.{one}"}), 3), watches[number])
        for number, name in enumerate(NAMES):
            if name not in self.objects:
                self.write("rule_set", name, frozenset(SETS), watches[number])
        if self.policy is None:
            self.write("policy", {"a": ("r",)}, None, ())


@given(st.lists(WRITES, max_size=25), st.lists(WATCHES, min_size=3, max_size=3), st.randoms(use_true_random=False))
def test_any_interleaving_ends_the_same_and_no_endpoint_loses_its_rules(
    writes: list[Any], watches: list[tuple[str, ...]], random: Any
) -> None:
    server, view, kernel = Server(), View(), Kernel()
    for write in writes:
        server.write(*write)
    server.complete(watches)
    queues = {key: list(events) for key, events in server.events.items()}
    named = set[str]()
    while queues:
        key = random.choice(sorted(queues))
        event = queues[key].pop(0)
        if not queues[key]:
            del queues[key]
        was_open = {uid for uid in UIDS if view.rule_sets_of(uid) is not None}
        if event[0] == "policy":
            named = {one.uid for group in event[2].spec.groups for one in group.endpoints}
        tell(view, event)
        kernel.apply(view)
        assert all(view.rule_sets_of(uid) is not None for uid in was_open & named)
        check(view, kernel)
    assert server.policy is not None
    for group in server.policy.spec.groups:
        for one in group.endpoints:
            generations = {name: server.objects[name][0].metadata.generation for name in group.rule_sets}
            assert view.rule_sets_of(one.uid) == generations
    for name, addresses in kernel.sets.items():
        whole = [server.objects[name, number][0].spec.addresses for number in range(3)]
        assert addresses == {one for part in whole for one in part}
    used = {name for group in server.policy.spec.groups for name in group.rule_sets}
    assert kernel.rule_sets.keys() == used
    peers = {peer for name in used for rule in server.objects[name][0].spec.rules for peer in rule.peers or ()}
    assert kernel.sets.keys() == peers
    said = view.status(NOW, {})
    assert said is not None
    assert (said.realized_generation, said.waiting, said.closed) == (server.policy.metadata.generation, (), 0)


def test_lag_and_since() -> None:
    view = View()
    for event in WHOLE:
        tell(view, event)
    said = view.status(NOW, {})
    assert said is not None
    assert (said.lag_milliseconds, said.since) == (750, "2026-01-01T12:00:01Z")
    view.put_rule_set("own", rule_set("r", 2, "s", "s", compiled=LATER))
    said = view.status(NOW, {})
    assert said is not None
    assert (said.lag_milliseconds, said.rule_sets) == (0, {"r": 2}), "the operator's clock is ahead"


def test_what_an_earlier_agent_realized_takes_no_time_now() -> None:
    first, second = View(), View()
    for event in WHOLE:
        tell(first, event)
    said = first.status(NOW, {})
    assert said is not None
    before = policy(1, endpoints={"a": ("r",)})
    second.put_node_policy(NodePolicy(before.metadata, before.spec, said))
    for event in WHOLE[1:]:
        tell(second, event)
    assert second.status(datetime(2026, 1, 2, tzinfo=UTC), {}) == said


def test_what_cannot_be_enforced_is_not_realized() -> None:
    view = View()
    for event in WHOLE:
        tell(view, event)
    said = view.status(NOW, {"r": "too many"})
    assert said is not None
    assert (said.realized_generation, said.rule_sets, [one.rule_set for one in said.errors]) == (0, {}, ["r"])


def test_a_chunk_costs_what_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    view, touched = View(), list[str]()
    names = tuple(f"r{number}" for number in range(200))
    view.put_node_policy(policy(1, endpoints={"a": names}))
    chunks = {name: chunk(f"s-{name}", 0, 1, "10.0.0.1", chunks=1) for name in names}
    for name in names:
        view.put_rule_set("own", rule_set(name, 1, f"s-{name}"))
        view.put_chunk("own", chunks[name])
    view.take()
    settle = View._settle_set

    def watched(self: View, name: str, one: Any) -> None:
        touched.append(name)
        settle(self, name, one)

    monkeypatch.setattr(View, "_settle_set", watched)
    view.put_chunk("own", chunk("s-r7", 0, 2, "10.0.0.2", chunks=1), chunks["r7"])
    changes = view.take()
    assert touched == ["s-r7"]
    assert (changes.added, changes.removed) == ({"s-r7": {"10.0.0.2"}}, {"s-r7": {"10.0.0.1"}})
    assert (changes.rule_sets, changes.endpoints, changes.restated) == ({}, {}, False)


def test_a_status_names_no_more_rule_sets_than_its_object_may() -> None:
    names = tuple(f"r{n:05}" for n in range(STATED_MAX + 1))
    view = View()
    for name in names:
        view.put_rule_set("own", rule_set(name, 1))
    view.put_node_policy(policy(3, endpoints={"pod": names}))
    view.take()
    said = view.status(NOW, {})
    assert said is not None
    assert (said.realized_generation, list(said.rule_sets)) == (3, list(names[:-1]))
