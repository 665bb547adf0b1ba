"""Policies that are one RuleSet, and what their rules say."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tortie.api.bounds import MAX_SOURCES
from tortie.api.compiled import Action, Direction, Port, Rule, RuleSetSpec, Tier
from tortie.policy.index import Group, Match, PodPort
from tortie.policy.policies import ALL_PODS, PORT_MAX, NamedPort, NodePeer, PodPeer, Policy, Ports
from tortie.policy.policies import Rule as PolicyRule
from tortie.policy.sets import AddressSet, SetKey, digest

_TIERS: dict[Tier, int] = {"Admin": 0, "Namespace": 1, "Baseline": 2}


class Bundle:
    """Policies that are one RuleSet, or one for each way in which their subjects call the ports that they name."""

    __slots__ = ("key", "match", "names", "policies", "priority", "sets", "tier", "variants", "watched")

    def __init__(self, key: tuple[object, ...], policy: Policy, match: Match) -> None:
        self.key, self.tier, self.priority, self.match = key, policy.tier, policy.priority, match
        self.policies: dict[tuple[str, str, str], Policy] = {}
        self.names: frozenset[str] = frozenset()  # of ports, in ingress rules
        self.variants: dict[tuple[PodPort, ...], list[str]] = {}  # names of the parts
        self.sets: dict[AddressSet, bool] = {}  # and whether a rule denies by it
        self.watched: dict[Match, None] = {}  # those whose pods' ports count

    @property
    def namespace(self) -> str | None:
        """Whose NetworkPolicies they are; None: they are ClusterNetworkPolicies."""
        return next(iter(self.policies), ("", "", ""))[1] or None

    def resolution(self, group: Group) -> tuple[PodPort, ...]:
        """Return how a group's pods call the ports that ingress rules name."""
        return tuple(port for port in group.ports if port[0] in self.names) if self.names else ()

    def name(self, resolution: tuple[PodPort, ...]) -> str:
        """Return the name of the RuleSet for such pods."""
        return digest((self.key, resolution) if resolution else self.key)


class Draft:
    """A bundle's rules as they are now. `log`: whether its namespace asks for denials to be logged.

    Attributes:
        used: The sets that rules name, and whether one denies by it.
        watched: Those whose pods' ports count.
    """

    def __init__(
        self, bundle: Bundle, set_of: Callable[[SetKey], AddressSet], match_of: Callable[[PodPeer], Match], *, log: bool
    ) -> None:
        self._bundle, self._set_of, self._match_of = bundle, set_of, match_of
        self._log = log or any(policy.log for policy in bundle.policies.values())
        self.used: dict[AddressSet, bool] = {}
        self.watched: dict[Match, None] = {}

    def rule_set(self, resolution: tuple[PodPort, ...]) -> RuleSetSpec:
        """Return the RuleSet for pods that call their ports so, whatever its size."""
        bundle = self._bundle
        policies = sorted(bundle.policies.values(), key=lambda policy: policy.key)
        isolates: set[Direction] = set()
        rules: dict[tuple[Direction, Action, tuple[str, ...] | None, tuple[Port, ...] | None], list[str]] = {}
        for policy in policies:
            isolates |= policy.isolates
            for rule in policy.rules:
                source = f"{policy.name} {rule.label}"
                for peers, ports in self._parts(rule, resolution):
                    rules.setdefault((rule.direction, rule.action, peers, ports), []).append(source)
        made = tuple(Rule(*key, sources=tuple(sources[:MAX_SOURCES])) for key, sources in rules.items())
        named = tuple(policy.name for policy in policies[:MAX_SOURCES])
        return RuleSetSpec(bundle.tier, bundle.priority, tuple(sorted(isolates)), made, named, self._log)

    def _parts(
        self, rule: PolicyRule, resolution: tuple[PodPort, ...]
    ) -> Iterator[tuple[tuple[str, ...] | None, tuple[Port, ...] | None]]:
        """Yield peers and ports of one rule: more than once where its peers call a port differently."""
        if rule.ports is None:
            yield from ((peers, None) for peers in self._peers(rule))
            return
        numbers = [one for one in rule.ports if isinstance(one, Ports)]
        named = [one for one in rule.ports if isinstance(one, NamedPort)]
        if rule.direction == "Ingress":
            numbers += [Ports(p, n, n) for name, p, n in resolution for one in named if _names(one, name, p)]
        if numbers:
            ports = tuple(sorted(map(_port, dict.fromkeys(numbers)), key=_port_order))
            yield from ((peers, ports) for peers in self._peers(rule))
        if rule.direction == "Egress":
            for one in named:
                yield from self._egress_named(rule, one)

    def _peers(self, rule: PolicyRule) -> Iterator[tuple[str, ...] | None]:
        """Yield the sets of a rule's peers, unless it has none."""
        if rule.peers is None:
            yield None
        elif rule.peers:
            yield self._named_sets(rule, map(SetKey, rule.peers))

    def _egress_named(self, rule: PolicyRule, named: NamedPort) -> Iterator[tuple[tuple[str, ...], tuple[Port, ...]]]:
        """Yield, for each number that destinations give the port, the set of those that do."""
        keys: dict[PodPort, list[SetKey]] = {}
        for peer in (ALL_PODS,) if rule.peers is None else rule.peers:
            if isinstance(peer, NodePeer):
                continue  # a node calls no port by a name
            pods, within = (peer, None) if isinstance(peer, PodPeer) else (ALL_PODS, peer.ranges)
            match = self._match_of(pods)
            self.watched[match] = None
            for port in {port: None for group in match.groups for port in group.ports if _names(named, port[0], port[1])}:
                keys.setdefault(port, []).append(SetKey(pods, port, within))
        for port in sorted(keys):
            yield self._named_sets(rule, keys[port]), (Port(port[1], port[2]),)

    def _named_sets(self, rule: PolicyRule, keys: Iterable[SetKey]) -> tuple[str, ...]:
        names = []
        for key in keys:
            one = self._set_of(key)
            self.used[one] = self.used.get(one, False) or rule.action == "Deny"
            names.append(one.name)
        return tuple(sorted(names))


def bundle_key(policy: Policy) -> tuple[object, ...]:
    """Return what policies of one bundle have in common."""
    return (policy.tier, policy.subject) if policy.tier == "Namespace" else (policy.tier, policy.key, policy.subject)


def order(bundle: Bundle) -> tuple[int, int, Any]:
    """Admin before namespaces before Baseline, by priority; equal ones by name, so that everybody has one order."""
    return _TIERS[bundle.tier], bundle.priority, bundle.key[1]  # of one tier: all subjects, or all policies' keys


def _names(port: NamedPort, name: str, protocol: str) -> bool:
    return port.name == name and port.protocol in (None, protocol)


def _port(one: Ports) -> Port:
    if (one.first, one.last) == (0, PORT_MAX):
        return Port(one.protocol)
    return Port(one.protocol, one.first, None if one.last == one.first else one.last)


def _port_order(one: Port) -> tuple[str, int, int]:
    return one.protocol, one.port or 0, one.end_port or 0
