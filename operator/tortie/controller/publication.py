"""Compiled objects on the API server: each is made as it should be, and only where it isn't.

Belongs here: what every RuleSet, AddressSet and NodePolicy should be, what it is, and the order of writes.
Does not: what they say (`tortie.policy.compiler`), nor whom they reach (`tortie.policy.delivery`).

The order: the chunks of a set that gain or change before chunk 0, which says how many there are, and that before the
chunks that are no more; what nobody names any more goes after the writes of those that named it. The rest needs no
order, because what refers waits, at the agents, for what it refers to.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Container, Hashable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import msgspec

from tortie.api import lean
from tortie.api.compiled import AddressSet, AddressSetSpec, NodePolicy, NodePolicySpec, RuleSet, RuleSetSpec
from tortie.api.meta import API_VERSION, GROUP, VERSION
from tortie.controller import metrics
from tortie.kube.client import ApiError, Client
from tortie.kube.errors import Conflict, NotFound, NotLeading, TooManyRequests, Unreachable
from tortie.kube.resource import Resource, is_older
from tortie.kube.stream import Stream
from tortie.kube.writer import Writer
from tortie.policy.compiler import Changes
from tortie.policy.delivery import COMPILED_AT, Delivery
from tortie.policy.sets import steps

_log = logging.getLogger(__name__)

# No news: the streams say that the API server is away, and what is another object by now is looked at again.
_EXPECTED = (Conflict, NotFound, NotLeading, TooManyRequests, Unreachable)
# Writes at once. The addresses' writer has its own, so that a burst here holds up no block.
CONCURRENCY = 16

Spec = RuleSetSpec | AddressSetSpec | NodePolicySpec
# What is written one after the other: ("rule_set", its name), ("address_set", a set's name) or ("node_policy", its name).
Key = tuple[str, str]


class _Known(NamedTuple):
    """An object as the API server has it."""

    version: str
    spec: Spec
    labels: frozenset[str]


class _Kind:
    """The objects of one kind: what they should be, and what they are."""

    def __init__(self, name: str, plural: str) -> None:
        self.name, self.resource = name, Resource(GROUP, VERSION, plural)
        self.wanted: dict[str, Spec] = {}
        self.known: dict[str, _Known] = {}

    def differ(self, name: str, labels: frozenset[str]) -> bool:
        wanted, known = self.wanted.get(name), self.known.get(name)
        if wanted is None or known is None:
            return (wanted is None) != (known is None)
        return known.spec != wanted or known.labels != labels


class Publication:
    """Makes the API match what was compiled. `holds` says whether the lease is still ours; nothing is written otherwise.

    Attributes:
        node_policies: NodePolicies as they were last seen, with what agents say of them.
    """

    def __init__(
        self,
        client: Client,
        holds: Callable[[], bool],
        on_status: Callable[[NodePolicy | None, NodePolicy | None], None],
    ) -> None:
        self._client, self._on_status = client, on_status
        self._delivery = Delivery()
        self._kinds = {  # in the order of Changes
            "rule_set": _Kind("RuleSet", "rulesets"),
            "address_set": _Kind("AddressSet", "addresssets"),
            "node_policy": _Kind("NodePolicy", "nodepolicies"),
        }
        self._chunks: dict[str, dict[str, None]] = {}  # names of objects, by set
        self._missing: dict[str, frozenset[str]] = {}  # addresses that a set isn't known to hold yet, by set
        self._lacking: Counter[str] = Counter()  # of how many sets each is missing
        self._unconfirmed: dict[str, dict[str, None]] = {}  # nodes whose NodePolicy leaves an address out for that
        self._compiled: dict[Key, str] = {}
        self._obsolete: list[tuple[set[Key], set[Key]]] = []  # what goes, once these are written
        self._room = asyncio.Semaphore(CONCURRENCY)
        self._began = False
        self.writer = Writer(holds, self._done, CONCURRENCY)
        self._stores: dict[str, Stream[Any]] = {
            kind: Stream(client, self._kinds[kind].resource.path(), of, on_change, partial(self._relisted, kind))
            for kind, of, on_change in (
                ("rule_set", RuleSet, partial(self._see, "rule_set")),
                ("address_set", AddressSet, partial(self._see, "address_set")),
                ("node_policy", NodePolicy, self._on_node_policy),
            )
        }
        self.streams = tuple(self._stores.values())
        self.node_policies: Mapping[str, NodePolicy] = self._stores["node_policy"].store

    def publish(self, changes: Changes, *, whole: bool) -> None:
        """Take what is another now, and start to write it; `whole` changes say all that should be, and the rest goes."""
        before: dict[Key, None] = {}
        if whole:
            kinds = self._kinds.items()
            before = {_key(kind, name): None for kind, every in kinds for name in (*every.known, *every.wanted)}
            self._begin()
        keys = self._take(changes) | before
        keys.update((key, None) for key in self._delivery.take())
        at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        written: dict[Key, None] = {}
        gone = set[Key]()
        for key in keys:
            if not self._is_wanted(key):
                gone.add(key)
            elif not self._is_right(key) or self.writer.busy(key):
                self._compiled[key] = at
                self._note_missing(key)
                written[key] = None
        # NodePolicies last: an agent that hears of a RuleSet before it has it writes its status twice.
        for key in sorted(written, key=lambda key: key[0] == "node_policy"):
            self._start(key)
        self._obsolete.append((set(written), gone))
        self._retire(())

    def _begin(self) -> None:
        """Forget what should be; what is, has labels."""
        self._began, self._delivery = True, Delivery()
        for kind, every in self._kinds.items():
            every.wanted.clear()
            if kind != "node_policy":
                for name, known in every.known.items():
                    self._delivery.seen(_key(kind, name), known.labels)

    def _take(self, changes: Changes) -> dict[Key, None]:
        """Note what everything should be now; return what that concerns."""
        keys: dict[Key, None] = {}
        of_kind: tuple[Mapping[str, Spec | None], ...] = changes
        for kind, changed in zip(self._kinds, of_kind, strict=True):
            wanted = self._kinds[kind].wanted
            for name, spec in changed.items():
                keys[self._place(kind, name)] = None
                if spec is None:
                    wanted.pop(name, None)
                else:
                    wanted[name] = spec
        for node, policy in changes.node_policies.items():
            self._delivery.put_node_policy(node, policy)
        for name, rules in changes.rule_sets.items():
            self._delivery.put_rule_set(name, rules)
        return keys

    def policies_of(self, rule_set: str) -> tuple[str, ...]:
        """Return the policies that a RuleSet stands for; the first ones where there are many."""
        spec = self._kinds["rule_set"].wanted.get(rule_set)
        return spec.policies if isinstance(spec, RuleSetSpec) else ()

    def _place(self, kind: str, name: str) -> Key:
        """Return the key of an object that is wanted or there, and remember of which set a chunk is."""
        key = _key(kind, name)
        if kind == "address_set":
            self._chunks.setdefault(key[1], {})[name] = None
        return key

    def _names(self, key: Key) -> Iterable[str]:
        return self._chunks.get(key[1], ()) if key[0] == "address_set" else (key[1],)

    def _is_wanted(self, key: Key) -> bool:
        return any(name in self._kinds[key[0]].wanted for name in self._names(key))

    def _is_right(self, key: Key) -> bool:
        kind, labels = self._kinds[key[0]], self._delivery.labels_of(key)
        if key[0] == "node_policy":
            known = kind.known.get(key[1])
            return (known and known.spec) == self._to_write(key[0], key[1])
        return not any(kind.differ(name, labels) for name in self._names(key))

    def _to_write(self, kind: str, name: str) -> Spec | None:
        """Return what an object should be now: addresses are confirmed when every set that they belong to holds them."""
        spec = self._kinds[kind].wanted.get(name)
        if not isinstance(spec, NodePolicySpec) or not any(group.confirm for group in spec.groups):
            return spec
        for one in (each for group in spec.groups for endpoint in group.endpoints for each in endpoint.confirmed):
            if one in self._lacking:
                self._unconfirmed.setdefault(one, {})[name] = None
        return _without(spec, self._lacking)

    def _note_missing(self, key: Key) -> None:
        """Note which addresses a set isn't known to hold; while it is being written, nothing is known."""
        if key[0] == "address_set":
            kind, is_still = self._kinds["address_set"], not self.writer.busy(key)
            held, wanted = set[str](), set[str]()
            for name in self._names(key):
                if is_still and name in kind.known:
                    held.update(_addresses(kind.known[name].spec))
                wanted.update(_addresses(kind.wanted.get(name)))
            self._lack(key[1], frozenset(wanted - held))

    def _lack(self, of_set: str, addresses: frozenset[str]) -> None:
        """Note that these are what a set lacks; NodePolicies may confirm what none lacks any more."""
        old = self._missing.pop(of_set, frozenset())
        if addresses:
            self._missing[of_set] = addresses
        self._lacking.update(addresses - old)
        nodes: dict[str, None] = {}
        for one in old - addresses:
            self._lacking[one] -= 1
            if not self._lacking[one]:
                del self._lacking[one]
                nodes.update(self._unconfirmed.pop(one, {}))
        for node in nodes:
            if not self._is_right(("node_policy", node)):
                self._start(("node_policy", node))

    # Writing

    def _start(self, key: Key) -> None:
        self.writer.submit(key, lambda: self._write(key))

    def _done(self, key: Hashable, error: ApiError | None) -> None:
        """Write again what failed; confirm addresses, and let go what nobody names any more, once the sets are written."""
        assert isinstance(key, tuple)
        kind, name = key
        metrics.count_write(kind, error)
        if error is not None and not isinstance(error, _EXPECTED) and not any(stream.is_lost for stream in self.streams):
            _log.error("%s %s can't be written: %s; trying again", self._kinds[kind].name, name, error)
        if isinstance(error, NotLeading):
            return
        if not self._is_right(key):
            if self._is_wanted(key) or not any(key in gone for _, gone in self._obsolete):
                self._note_missing(key)
                self._start(key)
        elif kind == "address_set":
            self._lack(name, frozenset())
        if not self.writer.busy(key):
            self._compiled.pop(key, None)
            if not self._is_wanted(key) and kind == "address_set":
                self._chunks.pop(name, None)
        self._retire((key,))

    def _retire(self, done: Iterable[Key]) -> None:
        """Delete what is obsolete, and still is, when all that was compiled with it is written, or was tried."""
        left = []
        for waiting, gone in self._obsolete:
            waiting.difference_update(done)
            if waiting:
                left.append((waiting, gone))
                continue
            for key in gone:
                if not self._is_wanted(key) and not self._is_right(key):
                    self._delivery.forget(key)
                    self._start(key)
        self._obsolete = left

    async def _write(self, key: Key) -> None:
        """Make what a key stands for as it should be now; a set is written to its end before its next form is."""
        kind = self._kinds[key[0]]
        if key[0] != "address_set":
            await self._make(key, key[1], self._to_write(*key))
            return
        names = list(self._names(key))
        wanted = {name: kind.wanted[name] for name in names if name in kind.wanted}
        known = {name: kind.known[name].spec for name in names if name in kind.known}
        for step in steps(known, wanted):  # type: ignore[arg-type] # chunks all
            ends = await asyncio.gather(*(self._make(key, *one) for one in step), return_exceptions=True)
            for error in ends:
                if error is not None:
                    raise error

    async def _make(self, key: Key, name: str, spec: Spec | None) -> None:
        """Make one object so; nothing is sent if it is."""
        kind = self._kinds[key[0]]
        async with self._room:
            known, labels = kind.known.get(name), self._delivery.labels_of(key)
            if spec is None:
                if known is not None:
                    await self._delete(kind, name)
                return
            if known is not None and known.spec == spec and known.labels == labels:
                return
            labelled = dict.fromkeys(sorted(labels), "")
            meta: dict[str, Any] = {"name": name, "labels": labelled, "annotations": {COMPILED_AT: self._compiled.get(key, "")}}
            body = {"apiVersion": API_VERSION, "kind": kind.name, "metadata": meta, "spec": spec}
            try:
                if known is None:
                    answer = await self._client.create(kind.resource.path(), body)
                else:
                    # Nobody but the operator writes these, so nobody needs to know who wrote which field: half of a small
                    # object is that, until it is cleared (kubernetes.io, Server-Side Apply, "Clearing managedFields").
                    meta |= {"resourceVersion": known.version, "managedFields": [{}]}
                    # Replaced, not patched, which is a fifth less of the API server's work; a status stays as it is.
                    answer = await self._client.replace(kind.resource.path(name), body)
            except NotFound:
                kind.known.pop(name, None)
                raise
            except Conflict:  # what was seen last counts, even if it is older: an etcd may have been restored
                self._take_as_seen(key[0], name)
                raise
            version, seen = msgspec.json.decode(answer, type=lean.Labelled).metadata.resource_version, kind.known.get(name)
            if seen is None or not is_older(version, seen.version):
                kind.known[name] = _Known(version, spec, labels)

    async def _delete(self, kind: _Kind, name: str) -> None:
        with suppress(NotFound):
            await self._client.delete(kind.resource.path(name))
        kind.known.pop(name, None)

    # What the API server shows

    def _on_node_policy(self, old: NodePolicy | None, new: NodePolicy | None) -> None:
        self._see("node_policy", old, new)
        self._on_status(old, new)

    def _relisted(self, kind: str) -> None:
        """Believe a list where it has no object, or is older than the object's last write: an etcd may have been restored.

        If it isn't so, the next write of the object conflicts, and by then its watch has shown it.
        """
        every, stream = self._kinds[kind], self._stores[kind]
        for name, known in list(every.known.items()):
            if name not in stream.store or is_older(stream.resource_version, known.version):
                self._take_as_seen(kind, name)
                self._mend(_key(kind, name))

    def _take_as_seen(self, kind: str, name: str) -> None:
        seen, known = self._stores[kind].store.get(name), self._kinds[kind].known
        if seen is not None:
            known[name] = _known(seen)
        else:
            known.pop(name, None)

    def _see(self, kind: str, old: Any, new: Any) -> None:
        """Take in an object as it is, unless a write's answer told of a newer one; mend what somebody else changed."""
        seen = new or old
        name, every = seen.metadata.name, self._kinds[kind]
        known = every.known.get(name)
        if known is not None and is_older(seen.metadata.resource_version, known.version):
            return
        if new is None:
            every.known.pop(name, None)
        else:
            self._place(kind, name)
            every.known[name] = _known(new)
        self._mend(_key(kind, name))

    def _mend(self, key: Key) -> None:
        """Write again what isn't as it should be any more; what is under way is looked at when it is done."""
        if self._began and not self.writer.busy(key) and self._is_wanted(key) and not self._is_right(key):
            self._note_missing(key)
            self._start(key)


def _key(kind: str, name: str) -> Key:
    return kind, name.rpartition("-")[0] if kind == "address_set" else name


def _known(seen: RuleSet | AddressSet | NodePolicy) -> _Known:
    meta = seen.metadata
    return _Known(meta.resource_version, seen.spec, frozenset(meta.labels))


def _addresses(spec: Spec | None) -> tuple[str, ...]:
    return spec.addresses if isinstance(spec, AddressSetSpec) else ()


def _without(spec: NodePolicySpec, missing: Container[str]) -> NodePolicySpec:
    """Return a NodePolicy that doesn't confirm these addresses."""
    replace = msgspec.structs.replace
    groups = tuple(
        replace(
            group,
            endpoints=tuple(
                replace(one, confirmed=tuple(each for each in one.confirmed if each not in missing)) for one in group.endpoints
            ),
        )
        if group.confirm
        else group
        for group in spec.groups
    )
    return replace(spec, groups=groups)
