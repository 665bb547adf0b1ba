"""What one node enforces, from the compiled objects that it was sent, in whatever order they come. Pure.

Whole or closed: what refers waits for what it refers to. A set is used once all its chunks are there, a RuleSet once its
sets are, an endpoint's rules once its RuleSets are. Until then the last whole state holds; where there is none, nothing
passes. An object that leaves one watch keeps its last state while it is needed, until the other watch has it: a change of
labels (`tortie.policy.delivery`) is seen by both watches, in any order.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, Literal, TypeVar

from tortie.api.compiled import AddressSet, EndpointGroup, NodePolicy, NodePolicyStatus, PolicyError, RuleSet
from tortie.api.policy import ERRORS_MAX, STATED_MAX, WAITING_MAX
from tortie.policy.delivery import COMPILED_AT

Source = Literal["own", "wide", "kept"]
Names = tuple[str, ...]
K = TypeVar("K", bound=Hashable)
T = TypeVar("T", RuleSet, AddressSet)


@dataclass(slots=True)
class Changes:
    """What is enforced otherwise since the last time.

    Attributes:
        rule_sets: By name; None: no endpoint has it any more.
        added: Addresses that came, by set.
        removed: Addresses that went, by set.
        forgotten: Sets that no rule names any more; before `added`, which may hold one that came again.
        endpoints: The RuleSets that hold for each, by uid, in order; None: it is no more.
        restated: Whether the status may be another; what a set holds is not in it.
    """

    rule_sets: dict[str, RuleSet | None] = field(default_factory=dict)
    added: dict[str, set[str]] = field(default_factory=dict)
    removed: dict[str, set[str]] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    endpoints: dict[str, Names | None] = field(default_factory=dict)
    restated: bool = False

    @property
    def is_for_the_kernel(self) -> bool:
        """Whether anything is to be enforced otherwise."""
        return bool(self.rule_sets or self.added or self.removed or self.forgotten or self.endpoints)


class _Sources(Generic[K, T]):
    """What each watch has of each object, and which of these holds; `kept` is what an earlier agent had."""

    def __init__(self) -> None:
        self._seen: dict[K, dict[Source, T]] = {}

    def put(self, source: Source, key: K, item: T) -> bool:
        """Take a version; whether its watch went back in time, as after an etcd was restored from a backup."""
        seen = self._seen.setdefault(key, {})
        old = seen.get(source)
        seen[source] = item
        return old is not None and _precedes(item, old)

    def drop(self, source: Source, key: K) -> None:
        """Take that a watch has it no more."""
        seen = self._seen.get(key, {})
        seen.pop(source, None)
        if not seen:
            self._seen.pop(key, None)

    def drop_all(self, source: Source) -> list[K]:
        """Take that a source has nothing any more; return what it had."""
        had = [key for key, seen in self._seen.items() if source in seen]
        for key in had:
            self.drop(source, key)
        return had

    def newest(self, key: K, held: T | None = None) -> T | None:
        """Return the newest of what the watches have and what is held already: one watch may lag behind the other."""
        for item in self._seen.get(key, {}).values():
            if held is None or _precedes(held, item):
                held = item
        return held


def _precedes(one: RuleSet | AddressSet, other: RuleSet | AddressSet) -> bool:
    """Whether one version is older; of two objects of a name, the one made later counts, whatever its version says."""
    a, b = one.metadata, other.metadata
    if a.uid != b.uid and a.creation_timestamp != b.creation_timestamp:
        return a.creation_timestamp < b.creation_timestamp
    return _number(a.resource_version) < _number(b.resource_version)


def _number(version: str) -> int:
    return int(version) if version.isdigit() else 0


@dataclass(slots=True)
class _Set:
    """A set that is needed: its chunks, and of these what is enforced."""

    uses: int = 0
    whole: bool = False  # it was, once: it has a last whole state
    chunks: dict[int, AddressSet] = field(default_factory=dict)
    dirty: set[int] = field(default_factory=set)
    applied: dict[int, Names] = field(default_factory=dict)
    addresses: Counter[str] = field(default_factory=Counter)  # in how many chunks each is: it may move between two

    def is_whole(self) -> bool:
        """Whether all the chunks are there that chunk 0 speaks of."""
        first = self.chunks.get(0)
        count = (first.spec.chunks or 1) if first else 0
        return first is not None and len(self.chunks) >= count and all(n in self.chunks for n in range(count))


@dataclass(slots=True)
class _RuleSet:
    """A RuleSet that is needed: as it is now, as it is enforced, and the sets that are missing between the two."""

    uses: int = 0
    current: RuleSet | None = None
    enforced: RuleSet | None = None
    missing: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Group:
    """Endpoints that are to have the same RuleSets, and those of these that can't be enforced yet."""

    endpoints: set[str]
    missing: set[str]


class View:
    """Told of objects as watches see them; `take` says what is enforced otherwise, `status` what to say of it."""

    def __init__(self) -> None:
        self._rule_set_sources = _Sources[str, RuleSet]()
        self._chunk_sources = _Sources[tuple[str, int], AddressSet]()
        self._chunk_numbers: dict[str, Counter[int]] = {}  # by set: in how many watches each chunk is
        self._policy: NodePolicy | None = None
        self._groups: dict[Names, _Group] = {}
        self._endpoints: dict[str, Names] = {}  # what is enforced for each
        self._uses: Counter[Names] = Counter()  # endpoints that have or are to have these
        self._rule_sets: dict[str, _RuleSet] = {}
        self._sets: dict[str, _Set] = {}
        self._waiting_groups: dict[str, dict[Names, None]] = {}  # by RuleSet
        self._waiting_rule_sets: dict[str, dict[str, None]] = {}  # by set
        self._closed: set[str] = set()
        self._behind: set[str] = set()  # RuleSets whose newest form isn't enforced
        self._changes = Changes()
        self._compiled = ""  # when what was realized last was compiled
        self._status = NodePolicyStatus()
        self._said: dict[str, int] = {}  # generations of RuleSets that an earlier agent enforced already
        self.generations: dict[str, int] = {}  # of each RuleSet that is enforced
        # By endpoint, where an ADD waits for that: which of its addresses every set holds that they belong to.
        self.confirmed: Mapping[str, frozenset[str]] = {}

    # --- what the watches say

    def put_rule_set(self, source: Source, item: RuleSet) -> None:
        """Take a RuleSet as a watch has it."""
        name = item.metadata.name
        went_back = self._rule_set_sources.put(source, name, item)
        if needed := self._rule_sets.get(name):
            self._renew(name, self._rule_set_sources.newest(name, None if went_back else needed.current))

    def drop_rule_set(self, source: Source, item: RuleSet) -> None:
        """Take that a watch has a RuleSet no more; if it is needed, its last state stays."""
        self._rule_set_sources.drop(source, item.metadata.name)

    def put_chunk(self, source: Source, item: AddressSet, old: AddressSet | None = None) -> None:
        """Take a chunk as a watch has it; `old` is what this watch had before."""
        name, number = item.spec.set, item.spec.chunk
        went_back = self._chunk_sources.put(source, (name, number), item)
        if old is None:
            self._chunk_numbers.setdefault(name, Counter())[number] += 1
        if needed := self._sets.get(name):
            held = None if went_back else needed.chunks.get(number)
            self._load(name, needed, number, held)
            self._settle_set(name, needed)

    def drop_chunk(self, source: Source, item: AddressSet) -> None:
        """Take that a watch has a chunk no more; if its set still counts it, its last state stays."""
        name, number = item.spec.set, item.spec.chunk
        self._chunk_sources.drop(source, (name, number))
        self._uncount(name, number)
        if needed := self._sets.get(name):
            self._settle_set(name, needed)

    def put_node_policy(self, item: NodePolicy | None) -> None:
        """Take the NodePolicy. None: it was deleted; what is enforced stays until it is made again."""
        self._changes.restated = True
        if item is None:
            self._policy = None
            return
        if self._policy is None or self._policy.metadata.uid != item.metadata.uid:
            # What an earlier agent said: what it realized isn't realized anew, and took no time now.
            said = item.status
            self._status = said if said.realized_generation <= item.metadata.generation else NodePolicyStatus()
            self._said = dict(said.rule_sets)
        if self._policy is None or self._policy.spec != item.spec:
            self._regroup(item.spec.groups)
            asked = (one for group in item.spec.groups if group.confirm for one in group.endpoints)
            self.confirmed = {one.uid: frozenset(one.confirmed) for one in asked}
        self._policy = item

    def drop_kept(self) -> None:
        """Take that all watches gave their lists: what was kept holds no more where these have something else."""
        for name in self._rule_set_sources.drop_all("kept"):
            found = self._rule_set_sources.newest(name)
            if name in self._rule_sets and found is not None:
                self._renew(name, found)
        for name, number in self._chunk_sources.drop_all("kept"):
            self._uncount(name, number)
            if needed := self._sets.get(name):
                self._load(name, needed, number, None)
                self._settle_set(name, needed)

    # --- what it comes to

    def take(self) -> Changes:
        """Return what is enforced otherwise since the last call."""
        taken, self._changes = self._changes, Changes()
        return taken

    def rule_sets_of(self, uid: str) -> dict[str, int] | None:
        """Return the RuleSets that hold for an endpoint, in order, with their generations; None: it is closed."""
        names = self._endpoints.get(uid)
        return None if names is None else {name: self.generations[name] for name in names}

    def addresses(self, name: str) -> frozenset[str] | None:
        """Return what is enforced of a set; None: it is needed by nothing, or never was whole."""
        found = self._sets.get(name)
        return frozenset(found.addresses) if found and found.whole else None

    def known(self) -> frozenset[str]:
        """Return the endpoints for which something is enforced."""
        return frozenset(self._endpoints)

    def needs(self, name: str) -> bool:
        """Whether an endpoint's rules need a RuleSet or a chunk of this name; it may be one that no watch has now."""
        return name in self._rule_sets or name.rpartition("-")[0] in self._sets

    @property
    def waiting(self) -> Names:
        """RuleSets and sets that are named and haven't come whole."""
        absent = {name for name in self._behind if self._rule_sets[name].current is None}
        return tuple(sorted(absent | self._waiting_rule_sets.keys()))

    def status(self, now: datetime, errors: Mapping[str, str]) -> NodePolicyStatus | None:
        """Return what to say of what was taken, `now` that it is enforced but for these RuleSets; None: of no NodePolicy."""
        if self._policy is None:
            return None
        last = self._status
        generation, since, lag = last.realized_generation, last.since, last.lag_milliseconds
        reached = self._policy.metadata.generation
        if not self._behind and not errors and generation != reached:
            generation, since = reached, now.isoformat(timespec="seconds").replace("+00:00", "Z")
            self._compiled = max(self._compiled, self._policy.metadata.annotations.get(COMPILED_AT, ""))
        if self._compiled:
            passed = now - datetime.fromisoformat(self._compiled)
            lag, self._compiled = max(0, passed // timedelta(milliseconds=1)), ""
        enforced = {name: number for name, number in self.generations.items() if name not in errors}
        if len(enforced) > STATED_MAX:
            enforced = {name: enforced[name] for name in sorted(enforced)[:STATED_MAX]}
        wrong = tuple(PolicyError(name, message) for name, message in sorted(errors.items())[:ERRORS_MAX])
        self._status = NodePolicyStatus(generation, since, lag, enforced, self.waiting[:WAITING_MAX], len(self._closed), wrong)
        return self._status

    # --- endpoints

    def _regroup(self, groups: Iterable[EndpointGroup]) -> None:
        wanted: dict[Names, set[str]] = {}
        for group in groups:
            wanted.setdefault(group.rule_sets, set()).update(one.uid for one in group.endpoints)
        old = self._groups
        self._groups = {}
        for names, uids in wanted.items():
            self._use(names, len(uids))
            missing = {name for name in names if self._rule_sets[name].enforced is None}
            self._groups[names] = _Group(uids, missing)
            for name in missing:
                self._waiting_groups.setdefault(name, {})[names] = None
        there = set[str]().union(*wanted.values())
        for uid in [uid for uid in self._endpoints if uid not in there]:
            self._use(self._endpoints.pop(uid), -1)
            self._changes.endpoints[uid] = None
        self._closed = there - self._endpoints.keys()
        for names, new in self._groups.items():
            if not new.missing:
                self._open(names, new)
        for names, gone in old.items():
            if names not in self._groups:
                self._forget_group(names, gone)
            self._use(names, -len(gone.endpoints))

    def _forget_group(self, names: Names, group: _Group) -> None:
        for name in group.missing:
            waiting = self._waiting_groups[name]
            waiting.pop(names, None)
            if not waiting:
                del self._waiting_groups[name]

    def _open(self, names: Names, group: _Group) -> None:
        """Enforce a group's rules, which are whole."""
        for uid in group.endpoints:
            old = self._endpoints.get(uid)
            if old == names:
                continue
            self._use(names, 1)
            self._endpoints[uid] = self._changes.endpoints[uid] = names
            self._closed.discard(uid)
            if old is not None:
                self._use(old, -1)

    def _use(self, names: Names, count: int) -> None:
        """Count endpoints that have or are to have these RuleSets; who counts up first never forgets between."""
        before = self._uses[names]
        self._uses[names] = after = before + count
        if not after:
            del self._uses[names]
        if bool(before) == bool(after):
            return
        for name in dict.fromkeys(names):
            one = self._rule_sets.get(name)
            if one is None:
                one = self._rule_sets[name] = _RuleSet()
                self._behind.add(name)
                self._renew(name, self._rule_set_sources.newest(name))
            one.uses += 1 if after else -1
            if not one.uses:
                self._forget_rule_set(name, one)

    # --- RuleSets

    def _renew(self, name: str, item: RuleSet | None) -> None:
        """Let this be the newest form of a RuleSet that is needed."""
        one = self._rule_sets[name]
        if item is None or item is one.current:
            return
        old, one.current = one.current, item
        self._changes.restated = True
        for peer in one.missing:
            self._stop_waiting(peer, name)
        self._hold(_peers(item))
        self._release(_peers(old))
        one.missing = {peer for peer in _peers(item) if not self._sets[peer].whole}
        for peer in one.missing:
            self._waiting_rule_sets.setdefault(peer, {})[name] = None
        self._behind.add(name)
        if not one.missing:
            self._enforce(name, one)

    def _enforce(self, name: str, one: _RuleSet) -> None:
        """Enforce a RuleSet's newest form, whose sets are whole, and the groups that waited for this."""
        assert one.current is not None
        old, one.enforced = one.enforced, one.current
        self._behind.discard(name)
        self._hold(_peers(one.enforced))
        self._release(_peers(old))
        if old is None or old.spec != one.enforced.spec:
            self._changes.rule_sets[name] = one.enforced
            if self._said.pop(name, None) != one.enforced.metadata.generation:
                self._compiled = max(self._compiled, one.enforced.metadata.annotations.get(COMPILED_AT, ""))
        self.generations[name] = one.enforced.metadata.generation
        self._changes.restated = True
        for names in self._waiting_groups.pop(name, {}):
            group = self._groups[names]
            group.missing.discard(name)
            if not group.missing:
                self._open(names, group)

    def _forget_rule_set(self, name: str, one: _RuleSet) -> None:
        del self._rule_sets[name]
        self._behind.discard(name)
        for peer in one.missing:
            self._stop_waiting(peer, name)
        if one.enforced is not None:
            del self.generations[name]
            self._changes.rule_sets[name] = None
        self._release(_peers(one.current))
        self._release(_peers(one.enforced))

    def _stop_waiting(self, peer: str, rule_set: str) -> None:
        waiting = self._waiting_rule_sets[peer]
        del waiting[rule_set]
        if not waiting:
            del self._waiting_rule_sets[peer]

    # --- sets

    def _hold(self, names: Iterable[str]) -> None:
        for name in names:
            one = self._sets.get(name)
            if one is None:
                one = self._sets[name] = _Set()
                for number in self._chunk_numbers.get(name, ()):
                    self._load(name, one, number, None)
                self._settle_set(name, one)
            one.uses += 1

    def _release(self, names: Iterable[str]) -> None:
        for name in names:
            one = self._sets[name]
            one.uses -= 1
            if not one.uses:
                del self._sets[name]
                if one.whole:
                    self._changes.added.pop(name, None)
                    self._changes.removed.pop(name, None)
                    self._changes.forgotten.add(name)

    def _uncount(self, name: str, number: int) -> None:
        numbers = self._chunk_numbers[name]
        numbers[number] -= 1
        if not numbers[number]:
            del numbers[number]
        if not numbers:
            del self._chunk_numbers[name]

    def _load(self, name: str, one: _Set, number: int, held: AddressSet | None) -> None:
        newest = self._chunk_sources.newest((name, number), held)
        if newest is not None and newest is not one.chunks.get(number):
            one.chunks[number] = newest
            one.dirty.add(number)

    def _settle_set(self, name: str, one: _Set) -> None:
        """Enforce what came, if the set is whole now."""
        if not one.is_whole():
            return
        count = one.chunks[0].spec.chunks or 1
        there = self._chunk_numbers.get(name, ())
        if len(one.chunks) > count:
            for number in [n for n in one.chunks if n >= count and n not in there]:
                del one.chunks[number]
        if len(one.applied) != count:
            one.dirty.update(range(count))
            one.dirty.update(one.applied)
        for number in one.dirty:
            self._apply(name, one, number, one.chunks[number].spec.addresses if number < count else ())
        one.applied = {n: a for n, a in one.applied.items() if n < count} if len(one.applied) > count else one.applied
        one.dirty.clear()
        if not one.whole:
            one.whole = self._changes.restated = True
            self._changes.added.setdefault(name, set())
            for rule_set in self._waiting_rule_sets.pop(name, {}):
                waiting = self._rule_sets[rule_set]
                waiting.missing.discard(name)
                if not waiting.missing:
                    self._enforce(rule_set, waiting)

    def _apply(self, name: str, one: _Set, number: int, new: Names) -> None:
        old = frozenset(one.applied.get(number, ()))
        one.applied[number] = new
        for address in frozenset(new) - old:
            one.addresses[address] += 1
            if one.addresses[address] == 1:
                self._note(name, address, self._changes.added, self._changes.removed)
        for address in old - frozenset(new):
            one.addresses[address] -= 1
            if not one.addresses[address]:
                del one.addresses[address]
                self._note(name, address, self._changes.removed, self._changes.added)

    def _note(self, name: str, address: str, to: dict[str, set[str]], opposite: dict[str, set[str]]) -> None:
        """Note one address; what came and went between two calls of `take` is no change."""
        if address in opposite.get(name, ()):
            opposite[name].discard(address)
        else:
            to.setdefault(name, set()).add(address)


def _peers(item: RuleSet | None) -> frozenset[str]:
    return frozenset(peer for rule in item.spec.rules for peer in rule.peers or ()) if item else frozenset()
