"""Policies, pods, namespaces and nodes in; RuleSets, AddressSets and NodePolicies out, as far as they changed.

NetworkPolicies of one namespace that select the same pods are one RuleSet, because their rules add up: a rule that ten
thousand of them say is written once. A ClusterNetworkPolicy is one RuleSet, because its order counts.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from tortie.addressing.allocator import address
from tortie.addressing.ranges import Range
from tortie.api.compiled import (
    AddressSetSpec,
    Endpoint,
    EndpointGroup,
    NodePolicySpec,
    RuleSetSpec,
)
from tortie.policy.bundles import Bundle, Draft, bundle_key, order
from tortie.policy.index import Group, Index, Match, PodPort
from tortie.policy.labels import matches
from tortie.policy.parts import part_name, split
from tortie.policy.policies import CidrPeer, NamedPort, NodePeer, PodPeer, Policy
from tortie.policy.sets import AddressSet, SetKey


class PodFacts(NamedTuple):
    """A pod, as far as policies matter. `uid` is the one that the runtime knows it by: a static pod's is another in the API."""

    namespace: str
    name: str
    uid: str
    node: str
    labels: tuple[tuple[str, str], ...]
    ports: tuple[PodPort, ...] = ()
    host_network: bool = False
    ended: bool = False

    @property
    def counts(self) -> bool:
        """Whether it is an endpoint, and a peer by its labels."""
        return bool(self.node) and not self.host_network and not self.ended


class Claim(NamedTuple):
    """An address that a block publishes, and the uid of the pod that has it. It lies in the block."""

    address: str
    uid: str


class Changes(NamedTuple):
    """What is another now, by name; None for what is no more.

    `address_sets` are in an order in which they can be written one by one (see `AddressSet.take`); all of a set's are to be
    written before those of the next Changes.
    """

    rule_sets: dict[str, RuleSetSpec | None]
    address_sets: dict[str, AddressSetSpec | None]
    node_policies: dict[str, NodePolicySpec | None]


class _Pod:
    __slots__ = ("addresses", "facts", "group")

    def __init__(self, facts: PodFacts, group: Group) -> None:
        self.facts, self.group = facts, group
        self.addresses: tuple[str, ...] = ()


class Compiler:
    """All that is known, compiled. Told of events in any order; `take` returns what they changed."""

    def __init__(self) -> None:
        self._index = Index(self._on_match)
        self._pods: dict[tuple[str, str], _Pod] = {}
        self._by_uid: dict[tuple[str, str], _Pod] = {}  # by node and uid
        self._on_node: dict[str, dict[_Pod, None]] = {}
        self._claims: dict[str, dict[tuple[str, str], tuple[str, ...]]] = {}  # by block
        self._held: dict[tuple[str, str], dict[str, None]] = {}  # addresses, by node and uid
        self._nodes: dict[str, tuple[Mapping[str, str], tuple[str, ...]]] = {}
        self._policies: dict[tuple[str, str, str], Policy] = {}
        self._bundles: dict[tuple[object, ...], Bundle] = {}
        self._bundles_of: dict[Match, dict[Bundle, None]] = {}
        self._port_users: dict[Match, dict[Bundle, None]] = {}
        self._sets: dict[SetKey, AddressSet] = {}
        # By match, and by the port that their pods have, None for all: one name may stand for thousands of numbers.
        self._sets_of: dict[tuple[Match, PodPort | None], dict[AddressSet, None]] = {}
        self._node_sets: dict[AddressSet, None] = {}
        self._logging: set[str] = set()  # namespaces whose policies' denials are logged
        self._lists: dict[Group, tuple[str, ...]] = {}
        self._dirty_bundles: dict[Bundle, None] = {}
        self._dirty_groups: dict[Group, None] = {}
        self._dirty_nodes: dict[str, None] = {}
        self._dirty_sets: dict[AddressSet, None] = {}
        self._idle_sets: dict[AddressSet, None] = {}  # that lost a user

    # Pods

    def put_pod(self, facts: PodFacts) -> None:
        """Take a pod, new or changed."""
        key = facts.namespace, facts.name
        old = self._pods.get(key)
        if old is not None and old.facts == facts:
            return
        pod = _Pod(facts, self._index.group(facts.namespace, facts.labels, facts.ports)) if facts.counts else None
        if pod is not None:  # before the old one leaves: a set that takes both stays as it is
            self._address(pod, tuple(self._held.get((facts.node, facts.uid), ())))
        if old is not None:
            self._leave(old)
        if pod is not None:
            self._pods[key] = self._by_uid[facts.node, facts.uid] = pod
            pod.group.members[pod] = None
            self._on_node.setdefault(facts.node, {})[pod] = None
            self._dirty_nodes[facts.node] = None
            self._dirty_groups[pod.group] = None
        if old is not None and not old.group.members:
            self._forget(old.group)

    def drop_pod(self, namespace: str, name: str) -> None:
        """Forget a pod."""
        old = self._pods.get((namespace, name))
        if old is not None:
            self._leave(old)
            if not old.group.members:
                self._forget(old.group)

    def put_block(self, name: str, node: str, claims: Iterable[Claim]) -> None:
        """Take what a block publishes, new or changed. A claim counts for a pod of that uid on the block's node alone."""
        new = dict[tuple[str, str], tuple[str, ...]]()
        for one in claims:
            new[node, one.uid] = (*new.get((node, one.uid), ()), one.address)
        old = self._claims.get(name, {})
        if new:
            self._claims[name] = new
        else:
            self._claims.pop(name, None)
        for key in [*(key for key in old if key not in new), *new]:
            if old.get(key) == new.get(key):
                continue
            held = self._held.setdefault(key, {})
            for gone in old.get(key, ()):
                held.pop(gone, None)
            held.update(dict.fromkeys(new.get(key, ())))
            pod = self._by_uid.get(key)
            if pod is not None:
                self._address(pod, tuple(held))
            if not held:
                del self._held[key]

    def _leave(self, pod: _Pod) -> None:
        facts = pod.facts
        self._address(pod, ())
        del pod.group.members[pod]
        del self._pods[facts.namespace, facts.name]
        if self._by_uid.get((facts.node, facts.uid)) is pod:
            del self._by_uid[facts.node, facts.uid]
        del self._on_node[facts.node][pod]
        if not self._on_node[facts.node]:
            del self._on_node[facts.node]
        self._dirty_nodes[facts.node] = None

    def _forget(self, group: Group) -> None:
        self._index.leave(group)
        self._lists.pop(group, None)
        self._dirty_groups.pop(group, None)

    def _address(self, pod: _Pod, addresses: tuple[str, ...]) -> None:
        old, pod.addresses = pod.addresses, addresses
        if old == addresses:
            return
        for match in pod.group.matches:
            for one in self._taking(match, pod.group):
                for new in addresses:
                    if new not in old and _within(one.key, new):
                        one.add(new)
                for gone in old:
                    if gone not in addresses and _within(one.key, gone):
                        one.discard(gone)
                self._dirty_sets[one] = None
                if one.denies:  # the addresses are to be confirmed
                    self._dirty_nodes[pod.facts.node] = None

    # Namespaces and nodes

    def put_namespace(self, name: str, labels: Mapping[str, str], *, log: bool = False) -> None:
        """Take a namespace, new or changed; `log`: whether what its NetworkPolicies deny is logged.

        Before it is known no pod of it is an endpoint: what selects it isn't known.
        """
        self._log_in(name, log=log)
        if not self._index.knows(name):
            self._mark_nodes_of(name)
        self._index.put_namespace(name, labels)

    def drop_namespace(self, name: str) -> None:
        """Forget a namespace: nothing that selects namespaces takes it, and no pod of it is an endpoint any more."""
        self._log_in(name, log=False)
        self._mark_nodes_of(name)
        self._index.drop_namespace(name)

    def _log_in(self, namespace: str, *, log: bool) -> None:
        if log == (namespace in self._logging):
            return
        (self._logging.add if log else self._logging.discard)(namespace)
        mine = (bundle for bundle in self._bundles.values() if bundle.namespace == namespace)
        self._dirty_bundles.update(dict.fromkeys(mine))

    def _mark_nodes_of(self, namespace: str) -> None:
        for group in self._index.groups_in(namespace):
            self._dirty_nodes.update((pod.facts.node, None) for pod in group.members)

    def put_node(self, name: str, labels: Mapping[str, str], addresses: tuple[str, ...]) -> None:
        """Take a node, new or changed."""
        if name not in self._nodes:
            self._dirty_nodes[name] = None
        self._set_node(name, (labels, addresses))

    def drop_node(self, name: str) -> None:
        """Forget a node; what its pods enforce there is forgotten when the last of them is gone."""
        self._set_node(name, None)
        self._dirty_nodes[name] = None

    def _set_node(self, name: str, new: tuple[Mapping[str, str], tuple[str, ...]] | None) -> None:
        old = self._nodes.pop(name, None)
        if new is not None:
            self._nodes[name] = new
        if old == new:
            return
        for one in self._node_sets:
            assert isinstance(one.key.peer, NodePeer)
            for change, node in ((one.add, new), (one.discard, old)):
                if node is not None and matches(one.key.peer.nodes, node[0]):
                    for each in node[1]:
                        change(each)
                    self._dirty_sets[one] = None

    # Policies

    def put_policy(self, policy: Policy) -> None:
        """Take a policy, new or changed."""
        old = self._policies.get(policy.key)
        if old == policy:
            return
        if old is not None and bundle_key(old) != bundle_key(policy):
            self.drop_policy(policy.key)
        self._policies[policy.key] = policy
        key = bundle_key(policy)
        bundle = self._bundles.get(key)
        if bundle is None:
            match = self._index.match(policy.subject)
            bundle = self._bundles[key] = Bundle(key, policy, match)
            match.users[bundle] = None
            self._bundles_of.setdefault(match, {})[bundle] = None
            self._dirty_groups.update(match.groups)
        if bundle.priority != policy.priority:
            bundle.priority = policy.priority
            self._dirty_groups.update(bundle.match.groups)
        bundle.policies[policy.key] = policy
        self._dirty_bundles[bundle] = None

    def drop_policy(self, key: tuple[str, str, str]) -> None:
        """Forget a policy."""
        policy = self._policies.pop(key, None)
        if policy is None:
            return
        bundle = self._bundles[bundle_key(policy)]
        del bundle.policies[key]
        self._dirty_bundles[bundle] = None

    # What comes out

    def rule_sets_of(self, key: tuple[str, str, str]) -> tuple[str, ...]:
        """Return the names of the RuleSets that a policy is in: several where its subjects call a port differently."""
        variants = self._bundles[bundle_key(self._policies[key])].variants
        return tuple(sorted(name for parts in variants.values() for name in parts))

    def take(self) -> Changes:
        """Return what is another since the last time."""
        rule_sets: dict[str, RuleSetSpec | None] = {}
        while self._dirty_bundles:
            rule_sets.update(self._compile(self._dirty_bundles.popitem()[0]))
        for group in self._dirty_groups:
            self._list(group)
        self._dirty_groups = {}
        address_sets: dict[str, AddressSetSpec | None] = {}
        for one in self._idle_sets:
            if not one.uses:
                address_sets.update((name, None) for name in one.names())
                self._drop_set(one)
        self._idle_sets = {}
        for one in self._dirty_sets:
            address_sets.update(one.take())
        self._dirty_sets = {}
        policies = {name: self._node_policy(name) for name in self._dirty_nodes}
        self._dirty_nodes = {}
        return Changes(rule_sets, address_sets, policies)

    def _list(self, group: Group) -> None:
        """Bring the group's list of RuleSets up to date; its nodes are told when it changed."""
        bundles = [bundle for match in group.matches for bundle in self._bundles_of.get(match, ())]
        bundles.sort(key=order)
        new = tuple(name for bundle in bundles for name in bundle.variants[bundle.resolution(group)])
        if self._lists.get(group) != new:
            self._lists[group] = new
            self._dirty_nodes.update((pod.facts.node, None) for pod in group.members)

    def _node_policy(self, name: str) -> NodePolicySpec | None:
        pods = self._on_node.get(name)
        if pods is None:
            return NodePolicySpec() if name in self._nodes else None
        groups: dict[tuple[bool, tuple[str, ...]], list[Endpoint]] = {}
        confirmed: dict[Group, bool] = {}
        for pod in pods:
            group, facts = pod.group, pod.facts
            if not self._index.knows(facts.namespace):
                continue
            confirm = confirmed.get(group)
            if confirm is None:
                confirm = confirmed[group] = bool(self._denying(group))
            endpoint = Endpoint(facts.namespace, facts.name, facts.uid, pod.addresses if confirm else ())
            groups.setdefault((confirm, self._lists.get(group, ())), []).append(endpoint)
        made = [
            EndpointGroup(tuple(sorted(endpoints, key=_endpoint_order)), rule_sets, confirm)
            for (confirm, rule_sets), endpoints in groups.items()
        ]
        return NodePolicySpec(tuple(sorted(made, key=lambda one: _endpoint_order(one.endpoints[0]))))

    def _denying(self, group: Group) -> list[AddressSet]:
        """Return the sets by which Deny rules name the group's pods as peers."""
        return [one for match in group.matches for one in self._taking(match, group) if one.denies]

    def _taking(self, match: Match, group: Group) -> Iterator[AddressSet]:
        """Yield the sets of a match that take a group which it takes: all, and those of a port that the group has."""
        for port in (None, *group.ports):
            yield from self._sets_of.get((match, port), ())

    def _compile(self, bundle: Bundle) -> Iterator[tuple[str, RuleSetSpec | None]]:
        """Yield the bundle's RuleSets, new or gone."""
        if not bundle.policies:
            self._use(bundle, {}, {})
            self._unbundle(bundle)
            yield from ((name, None) for names in bundle.variants.values() for name in names)
            return
        names = {
            port.name
            for policy in bundle.policies.values()
            for rule in policy.rules
            if rule.direction == "Ingress"
            for port in rule.ports or ()
            if isinstance(port, NamedPort)
        }
        bundle.names = frozenset(names)
        draft = Draft(bundle, self._set, self._index.match, log=bundle.namespace in self._logging)
        wanted = {bundle.resolution(group): None for group in bundle.match.groups} if names else {(): None}
        made = {resolution: split(draft.rule_set(resolution)) for resolution in wanted}
        if names:
            draft.watched[bundle.match] = None
        self._use(bundle, draft.used, draft.watched)
        old, bundle.variants = bundle.variants, {}
        specs: dict[str, RuleSetSpec] = {}
        for resolution, parts in made.items():
            name = bundle.name(resolution)
            bundle.variants[resolution] = [part_name(name, number) for number in range(len(parts))]
            specs.update(zip(bundle.variants[resolution], parts, strict=True))
        if bundle.variants != old:
            self._dirty_groups.update(bundle.match.groups)
        yield from ((name, None) for names in old.values() for name in names if name not in specs)
        yield from specs.items()

    def _set(self, key: SetKey) -> AddressSet:
        return self._sets.get(key) or self._new_set(key)

    def _new_set(self, key: SetKey) -> AddressSet:
        made = self._sets[key] = AddressSet(key)
        self._dirty_sets[made] = None
        peer = key.peer
        if isinstance(peer, CidrPeer):
            for whole in peer.ranges:
                made.add(str(whole))
        elif isinstance(peer, NodePeer):
            self._node_sets[made] = None
            for labels, addresses in self._nodes.values():
                if matches(peer.nodes, labels):
                    for one in addresses:
                        made.add(one)
        else:
            match = self._index.match(peer)
            match.users[made] = None
            self._sets_of.setdefault((match, key.port), {})[made] = None
            for group in match.groups:
                if key.port is None or key.port in group.ports:
                    self._join(made, group, here=True)
        return made

    def _use(self, bundle: Bundle, sets: dict[AddressSet, bool], watched: dict[Match, None]) -> None:
        """Let a bundle name these sets, and hear of these matches, in place of those before."""
        old, bundle.sets = bundle.sets, sets
        past, bundle.watched = bundle.watched, watched
        for match in watched:
            match.users[bundle] = None
            self._port_users.setdefault(match, {})[bundle] = None
        for one, denies in sets.items():
            one.uses += 1
            self._deny(one, denies)
        for one, denies in old.items():
            one.uses -= 1
            self._deny(one, -denies)
            self._idle_sets[one] = None
        for match in past:
            if match not in watched:
                del self._port_users[match][bundle]
                if not self._port_users[match]:
                    del self._port_users[match]
                if match is not bundle.match:
                    match.users.pop(bundle, None)
                    self._index.drop(match)

    def _deny(self, one: AddressSet, by: int) -> None:
        before, one.denies = one.denies, one.denies + by
        if bool(before) != bool(one.denies) and isinstance(one.key.peer, PodPeer):
            for group in self._index.match(one.key.peer).groups:
                self._dirty_nodes.update((pod.facts.node, None) for pod in group.members)

    def _drop_set(self, one: AddressSet) -> None:
        del self._sets[one.key]
        self._dirty_sets.pop(one, None)
        if isinstance(one.key.peer, NodePeer):
            del self._node_sets[one]
        elif isinstance(one.key.peer, PodPeer):
            match = self._index.match(one.key.peer)
            del match.users[one]
            of_port = match, one.key.port
            del self._sets_of[of_port][one]
            if not self._sets_of[of_port]:
                del self._sets_of[of_port]
            self._index.drop(match)

    def _unbundle(self, bundle: Bundle) -> None:
        match = bundle.match
        if self._bundles.get(bundle.key) is bundle:
            del self._bundles[bundle.key]
        del self._bundles_of[match][bundle]
        if not self._bundles_of[match]:
            del self._bundles_of[match]
        match.users.pop(bundle, None)
        self._dirty_groups.update(match.groups)
        self._index.drop(match)

    def _on_match(self, match: Match, group: Group, here: bool) -> None:
        for one in self._taking(match, group):
            self._join(one, group, here=here)
        if match in self._bundles_of and group.members:
            self._dirty_groups[group] = None
        for bundle in self._port_users.get(match, ()):
            if group.ports or bundle.match is match:
                self._dirty_bundles[bundle] = None

    def _join(self, one: AddressSet, group: Group, *, here: bool) -> None:
        change = one.add if here else one.discard
        for pod in group.members:
            for held in pod.addresses:
                if _within(one.key, held):
                    change(held)
                    self._dirty_sets[one] = None
        if one.denies:
            self._dirty_nodes.update((pod.facts.node, None) for pod in group.members)


def _endpoint_order(one: Endpoint) -> tuple[str, str]:
    return one.namespace, one.name


def _within(key: SetKey, one: str) -> bool:
    return key.within is None or _lies_in(one, key.within)


def _lies_in(one: str, ranges: Iterable[Range]) -> bool:
    found = address(one)
    return any(found.within(whole) for whole in ranges)
