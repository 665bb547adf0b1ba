"""May one talk to another? Computed from the compiled objects alone, as a node enforces them, and explained.

A packet passes if the sender's node lets it out and the receiver's node lets it in. Each walks its pod's RuleSets in order:
Admin rules, first match; then, for a pod that a NetworkPolicy isolates, any rule that accepts; else Baseline rules, first
match; else it passes. A pod always reaches itself, and its own node always reaches it: probes come from there.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tortie.addressing.allocator import Address, address
from tortie.addressing.ranges import Range, parse
from tortie.api.compiled import AddressSetSpec, Direction, EndpointGroup, NodePolicySpec, Port, Rule, RuleSetSpec


class Party(NamedTuple):
    """One side: its address, and the endpoint that it is, if it is one: namespace and name.

    Attributes:
        node_addresses: The addresses of its own node.
    """

    address: Address
    endpoint: tuple[str, str] | None = None
    node_addresses: frozenset[Address] = frozenset()


class Decision(NamedTuple):
    """What one side's node does, and why, for people."""

    allowed: bool
    why: str
    policies: tuple[str, ...] = ()


class Verdict(NamedTuple):
    """Whether it passes, and what each side's node decides."""

    allowed: bool
    egress: Decision
    ingress: Decision


class Compiled:
    """The objects, indexed for questions."""

    def __init__(
        self,
        rule_sets: Mapping[str, RuleSetSpec],
        address_sets: Iterable[AddressSetSpec],
        node_policies: Iterable[NodePolicySpec],
    ) -> None:
        self._rule_sets = rule_sets
        self._single: dict[str, set[Address]] = {}
        self._ranges: dict[str, list[Range]] = {}
        for chunk in address_sets:
            single, ranges = self._single.setdefault(chunk.set, set()), self._ranges.setdefault(chunk.set, [])
            for text in chunk.addresses:
                if "/" in text:
                    ranges.append(parse(text))
                else:
                    single.add(address(text))
        self._groups: dict[tuple[str, str], EndpointGroup] = {
            (endpoint.namespace, endpoint.name): group
            for policy in node_policies
            for group in policy.groups
            for endpoint in group.endpoints
        }

    def verdict(self, source: Party, target: Party, protocol: str, port: int) -> Verdict:
        """Return whether `source` may open a connection to a port of `target`, both of one family."""
        if source.endpoint is not None and source.endpoint == target.endpoint:
            itself = Decision(True, "a pod always reaches itself")
            return Verdict(True, itself, itself)
        egress = self._decide("Egress", source, target.address, protocol, port)
        if source.address in target.node_addresses:
            ingress = Decision(True, "a pod's own node always reaches it")
        else:
            ingress = self._decide("Ingress", target, source.address, protocol, port)
        return Verdict(egress.allowed and ingress.allowed, egress, ingress)

    def rule_sets_of(self, party: Party) -> tuple[str, ...]:
        """Return the names of the RuleSets that hold for a party, in order; none for one that is no endpoint."""
        group = self._groups.get(party.endpoint) if party.endpoint else None
        return group.rule_sets if group else ()

    def rule_set(self, name: str) -> RuleSetSpec:
        """Return a RuleSet."""
        return self._rule_sets[name]

    def ports(self) -> set[Port]:
        """Return the ports that rules name."""
        return {port for one in self._rule_sets.values() for rule in one.rules for port in rule.ports or ()}

    def members(self, name: str, among: Iterable[Address]) -> Iterator[Address]:
        """Yield those of these addresses that a set holds."""
        return (one for one in among if self._has(name, one))

    def _decide(self, direction: Direction, subject: Party, other: Address, protocol: str, port: int) -> Decision:
        group = self._groups.get(subject.endpoint) if subject.endpoint else None
        if group is None:
            return Decision(True, "it is no pod with an address of its own, so no policy is about it")
        packet = Packet(direction, other, protocol, port, self.holds)
        return decide([self._rule_sets[name] for name in group.rule_sets], packet)

    def holds(self, names: Iterable[str], other: Address) -> bool:
        """Whether an address is in one of these sets."""
        return any(self._has(name, other) for name in names)

    def _has(self, name: str, one: Address) -> bool:
        return one in self._single.get(name, ()) or any(one.within(whole) for whole in self._ranges.get(name, ()))


class Packet(NamedTuple):
    """What rules are held against: the first packet of a connection, of which they see one side.

    Attributes:
        direction: Ingress where the subject of the rules receives it.
        other: The other side's address.
        holds: Whether an address is in one of these sets.
    """

    direction: Direction
    other: Address
    protocol: str
    port: int
    holds: Callable[[Iterable[str], Address], bool]

    def among(self, rule_set: RuleSetSpec) -> Iterator[Rule]:
        """Yield the rules that match it, in order."""
        for rule in rule_set.rules:
            if rule.direction == self.direction and opens(rule, self.protocol, self.port) and self._with(rule):
                yield rule

    def _with(self, rule: Rule) -> bool:
        return rule.peers is None or self.holds(rule.peers, self.other)


def decide(rule_sets: Sequence[RuleSetSpec], packet: Packet) -> Decision:
    """Return what a list of RuleSets, in order, says of a packet."""
    for tier in ("Admin", "Baseline"):
        if tier == "Baseline":
            isolating = [one for one in rule_sets if packet.direction in one.isolates]
            if isolating:
                return _isolated(isolating, packet)
        for rule in (rule for one in rule_sets if one.tier == tier for rule in packet.among(one)):
            if rule.action == "Pass":
                break
            return Decision(rule.action == "Accept", f"{rule.action} in tier {tier}", rule.sources)
    return Decision(True, "no policy decides")


def opens(rule: Rule, protocol: str, port: int) -> bool:
    """Whether a rule is about a port."""
    return rule.ports is None or any(covers(one, protocol, port) for one in rule.ports)


def covers(one: Port, protocol: str, port: int) -> bool:
    """Whether a port is one of these."""
    return one.protocol == protocol and (one.port is None or one.port <= port <= (one.end_port or one.port))


def _isolated(rule_sets: list[RuleSetSpec], packet: Packet) -> Decision:
    for rule in (rule for one in rule_sets for rule in packet.among(one)):
        return Decision(True, "Accept", rule.sources)
    policies = tuple(policy for one in rule_sets for policy in one.policies)
    return Decision(False, f"isolated for {packet.direction}, and no rule accepts it", policies)
