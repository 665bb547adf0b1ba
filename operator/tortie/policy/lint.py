"""What in policies does nothing, or something else than it seems to: found in what they mean, not in how they are written.

A rule counts as covered only where that follows from the selectors, whatever pods there will be. What selects nobody is as
the cluster is now.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from msgspec import structs

from tortie.addressing.allocator import Address, address
from tortie.api.policy_input import NetworkPolicy
from tortie.policy.facts import node_addresses
from tortie.policy.labels import EVERYTHING, Requirement, Selector, matches
from tortie.policy.policies import (
    ALL_PODS,
    PORT_MAX,
    CidrPeer,
    Door,
    NamedPort,
    NodePeer,
    Peer,
    PodPeer,
    Policy,
    Ports,
    Rule,
)
from tortie.policy.world import NAME_LABEL, PodKey, World

T = TypeVar("T")


class Finding(NamedTuple):
    """Something to look at: of which kind, in which object and field, what it is, and what to do."""

    kind: str
    object: str
    field: str
    what: str
    do: str


def lint(world: World) -> list[Finding]:
    """Return what there is to look at, by object."""
    return sorted(_Lint(world).findings(), key=lambda one: (one.object, one.field))


class _Lint:
    def __init__(self, world: World) -> None:
        self._world = world
        self._selected: dict[PodPeer, list[PodKey]] = {}
        self._holders = _holders(world)

    def findings(self) -> Iterator[Finding]:
        for key, policy in self._world.policies.items():
            for problem in policy.problems + policy.remarks:
                field, _, what = problem.partition(": ")
                yield Finding("problem", policy.name, field, what, "mend the field")
            yield from self._subject(policy)
            for rule in policy.rules:
                yield from self._rule(policy, rule)
            there = self._world.objects.policies[key]
            if isinstance(there, NetworkPolicy):
                yield from _unused(policy, there)
        yield from self._shadowed()
        yield from self._redundant()

    def _pods(self, peer: PodPeer) -> list[PodKey]:
        if peer not in self._selected:
            self._selected[peer] = [
                key
                for key, facts in self._world.facts.items()
                if not facts.host_network
                and (peer.namespace or key[0]) == key[0]
                and matches(peer.namespaces, self._world.namespaces[key[0]])
                and matches(peer.pods, dict(facts.labels))
            ]
        return self._selected[peer]

    def _subject(self, policy: Policy) -> Iterator[Finding]:
        if not self._pods(policy.subject):
            field = "spec.podSelector" if policy.key[0] == "NetworkPolicy" else "spec.subject"
            what = f"it is about {describe(policy.subject)}, and there is none"
            yield Finding("selects-nothing", policy.name, field, what, "correct the selector, or delete the policy")

    def _rule(self, policy: Policy, rule: Rule) -> Iterator[Finding]:
        field = f"spec.{rule.label.split()[0]}"
        side = f"{field}.{'from' if rule.direction == 'Ingress' else 'to'}"
        for peer in rule.peers or ():
            if isinstance(peer, CidrPeer):
                yield from self._block(policy, side, peer)
            elif not self._there(peer):
                what = f"it names {describe(peer)}, and there is none"
                yield Finding("peer-matches-nothing", policy.name, side, what, "correct the selector, or leave the peer out")
        for door in rule.ports or ():
            if isinstance(door, NamedPort) and not self._called(policy, rule, door):
                which = "that it selects" if rule.direction == "Ingress" else "that it names as a peer"
                what = f"no pod {which} calls a port {door.name}" + (f" of {door.protocol}" if door.protocol else "")
                do = "name the port in the pods' containers, or write its number here"
                field_of_ports = "ports" if policy.tier == "Namespace" else "protocols"
                yield Finding("port-unnamed", policy.name, f"{field}.{field_of_ports}", what, do)

    def _there(self, peer: PodPeer | NodePeer) -> bool:
        if isinstance(peer, PodPeer):
            return bool(self._pods(peer))
        nodes = self._world.objects.nodes.values()
        return not nodes or any(matches(peer.nodes, node.metadata.labels) for node in nodes)  # a folder may have none

    def _called(self, policy: Policy, rule: Rule, door: NamedPort) -> bool:
        peers = (policy.subject,) if rule.direction == "Ingress" else rule.peers if rule.peers is not None else (ALL_PODS,)
        # A block's pods may be any.
        where = (one if isinstance(one, PodPeer) else ALL_PODS for one in peers if not isinstance(one, NodePeer))
        ports = (port for one in where for key in self._pods(one) for port in self._world.facts[key].ports)
        return any(name == door.name and door.protocol in (None, protocol) for name, protocol, _ in ports)

    def _block(self, policy: Policy, field: str, peer: CidrPeer) -> Iterator[Finding]:
        inside = [name for one, name in self._holders if any(one.within(whole) for whole in peer.ranges)]
        if inside:
            more = f" and {len(inside) - 1} more" if len(inside) > 1 else ""
            what = f"its CIDRs hold addresses of the cluster: {inside[0]}{more}"
            do = "if they aren't meant, leave their ranges out (except); if they are, select them by labels"
            yield Finding("block-covers-cluster", policy.name, field, what, do)

    # Rules that others make useless

    def _shadowed(self) -> Iterator[Finding]:
        """Yield the rules that an earlier one of a ClusterNetworkPolicy, of the same tier or a higher one, leaves nothing."""
        tiers = {"Admin": 0, "Namespace": 1, "Baseline": 2}
        wide = [one for one in self._world.policies.values() if one.tier != "Namespace"]
        wide.sort(key=lambda one: (tiers[one.tier], one.priority, one.key))
        earlier = [(policy, rule) for policy in wide for rule in policy.rules]
        for policy in self._world.policies.values():
            for rule in policy.rules:
                for first, by in earlier:
                    if first is policy and by is rule:
                        break  # those that follow come later
                    if tiers[first.tier] > tiers[policy.tier]:
                        break
                    same = first.tier == policy.tier
                    if (same or by.action != "Pass") and self._covers(first, by, policy, rule):
                        what = f"it is never reached: {first.name} {by.label} decides first ({by.action})"
                        do = "delete the rule, or have it come first: by its place or its policy's priority"
                        if policy.tier == "Namespace":
                            do = "delete the rule, or ask who administers the cluster"
                        yield Finding("rule-shadowed", policy.name, f"spec.{rule.label.split()[0]}", what, do)
                        break

    def _redundant(self) -> Iterator[Finding]:
        """Yield the rules of NetworkPolicies that another rule, for the same pods or all of the namespace, says already."""
        of: dict[tuple[PodPeer, str], list[tuple[Policy, Rule]]] = {}
        for policy in self._world.policies.values():
            if policy.tier == "Namespace":
                for rule in policy.rules:
                    of.setdefault((policy.subject, rule.direction), []).append((policy, rule))
        for (subject, direction), rules in of.items():
            whole = of.get((structs.replace(subject, pods=EVERYTHING), direction), []) if subject.pods else []
            distinct: dict[tuple[object, object], tuple[Policy, Rule]] = {}
            for policy, rule in rules:
                twin = distinct.setdefault((rule.peers, rule.ports), (policy, rule))
                if twin[1] is not rule:
                    yield _said(policy, rule, *twin)
            for policy, rule in distinct.values():
                others = (one for one in (*whole, *distinct.values()) if one[1] is not rule)
                by = next((one for one in others if self._covers(*one, policy, rule)), None)
                if by is not None:
                    yield _said(policy, rule, *by)

    def _covers(self, first: Policy, by: Rule, policy: Policy, rule: Rule) -> bool:
        """Whether all that a rule is about is what another one is about."""
        if by.direction != rule.direction or rule.peers == () or not self._wider(first.subject, policy.subject):
            return False
        return _all_in(by.peers, rule.peers, self._wider_peer) and _all_in(by.ports, rule.ports, _wider_door)

    def _wider_peer(self, a: Peer, b: Peer) -> bool:
        if isinstance(a, PodPeer) and isinstance(b, PodPeer):
            return self._wider(a, b)
        if isinstance(a, CidrPeer) and isinstance(b, CidrPeer):
            return all(any(whole.contains(part) for whole in a.ranges) for part in b.ranges)
        return isinstance(a, NodePeer) and isinstance(b, NodePeer) and _wider(a.nodes, b.nodes)

    def _wider(self, a: PodPeer, b: PodPeer) -> bool:
        """Whether one takes all pods that the other takes."""
        if not _wider(a.pods, b.pods):
            return False
        if b.namespace is not None:
            return (a.namespace or b.namespace) == b.namespace and matches(a.namespaces, self._labels(b.namespace))
        return a.namespace is None and _wider(a.namespaces, b.namespaces)

    def _labels(self, namespace: str) -> dict[str, str]:
        return {NAME_LABEL: namespace, **self._world.namespaces.get(namespace, {})}


def _said(policy: Policy, rule: Rule, other: Policy, by: Rule) -> Finding:
    what = f"{other.name} {by.label} accepts all of it already"
    return Finding("rule-redundant", policy.name, f"spec.{rule.label}", what, "delete one of the two, or narrow the other one")


def _unused(policy: Policy, there: NetworkPolicy) -> Iterator[Finding]:
    for direction, rules in (("Ingress", there.spec.ingress), ("Egress", there.spec.egress)):
        if rules and direction not in policy.isolates:
            what = f"its rules do nothing: policyTypes has no {direction}"
            field = f"spec.{direction.lower()}"
            yield Finding("rules-unused", policy.name, field, what, f"add {direction} to policyTypes, or delete the rules")


def _holders(world: World) -> list[tuple[Address, str]]:
    """Return the addresses that pods and nodes really have."""
    pods = [
        (address(one), f"pod {'/'.join(key)} ({one})")
        for key, addresses in world.addresses.items()
        if key not in world.invented and not world.facts[key].host_network
        for one in addresses
    ]
    nodes = [
        (address(one), f"node {name} ({one})") for name, node in world.objects.nodes.items() for one in node_addresses(node)
    ]
    return pods + nodes


def _all_in(wide: tuple[T, ...] | None, narrow: tuple[T, ...] | None, wider: Callable[[T, T], bool]) -> bool:
    """Whether each of `narrow` lies in one of `wide`; None is all there are."""
    return wide is None or (narrow is not None and all(any(wider(a, b) for a in wide) for b in narrow))


def _wider_door(a: Door, b: Door) -> bool:
    if isinstance(b, Ports):
        return isinstance(a, Ports) and a.protocol == b.protocol and a.first <= b.first and b.last <= a.last
    if isinstance(a, NamedPort):
        return a.name == b.name and a.protocol in (None, b.protocol)
    return a.protocol == b.protocol and a.first <= 1 and a.last == PORT_MAX


def _wider(a: Selector, b: Selector) -> bool:
    """Whether whatever fulfils `b` fulfils `a`."""
    return all(any(_follows(wanted, known) for known in b) for wanted in a)


def _follows(wanted: Requirement, known: Requirement) -> bool:
    if wanted.key != known.key:
        return False
    match wanted.operator, known.operator:
        case "In", "In":
            return set(known.values) <= set(wanted.values)
        case "NotIn", "NotIn":
            return set(wanted.values) <= set(known.values)
        case "NotIn", "In":
            return not set(wanted.values) & set(known.values)
        case ("NotIn", "DoesNotExist") | ("Exists", "In"):
            return True
    return wanted == known


def describe(peer: PodPeer | NodePeer) -> str:
    """Return a selector for people, as kubectl writes one behind -l."""
    if isinstance(peer, NodePeer):
        return f"nodes with {_selector(peer.nodes)}" if peer.nodes else "every node"
    pods = f"pods with {_selector(peer.pods)}" if peer.pods else "every pod"
    if peer.namespace is not None:
        return f"{pods} in namespace {peer.namespace}"
    return f"{pods} in namespaces with {_selector(peer.namespaces)}" if peer.namespaces else pods


def _selector(selector: Selector) -> str:
    return ",".join(map(_requirement, selector))


def _requirement(one: Requirement) -> str:
    values = ",".join(one.values)
    match one.operator:
        case "In":
            return f"{one.key}={values}" if len(one.values) == 1 else f"{one.key} in ({values})"
        case "NotIn":
            return f"{one.key}!={values}" if len(one.values) == 1 else f"{one.key} notin ({values})"
        case "Exists":
            return one.key
    return f"!{one.key}"
