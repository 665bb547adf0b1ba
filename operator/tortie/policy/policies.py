"""NetworkPolicy and ClusterNetworkPolicy in one form: whom they are about, and their rules in order.

What an API object leaves out is said here, once: defaults of policyTypes and protocols, nil against empty.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from tortie.addressing.ranges import Range, merge, parse, without
from tortie.api.compiled import Action, Direction, Tier
from tortie.api.meta import LOG_DENIALS
from tortie.api.policy_input import (
    ClusterNetworkPolicy,
    ClusterProtocol,
    ClusterRule,
    EgressRule,
    IngressRule,
    IPBlock,
    LabelSelector,
    LogAnnotations,
    NetworkPolicy,
    NetworkPolicyPeer,
    NetworkPolicyPort,
    PodsPeer,
    ProtocolPorts,
)
from tortie.policy.labels import EVERYTHING, BadSelector, Selector, canonical

PORT_MAX = 65535
PROTOCOLS = ("TCP", "UDP", "SCTP")


# Structs, not tuples: all nodes are not the same as no addresses, though both are one empty tuple.


class PodPeer(msgspec.Struct, frozen=True, order=True):
    """Pods by labels, in one namespace, or (None) in those that a selector takes."""

    namespace: str | None
    namespaces: Selector
    pods: Selector


ALL_PODS = PodPeer(None, EVERYTHING, EVERYTHING)


class NodePeer(msgspec.Struct, frozen=True):
    """Nodes by labels."""

    nodes: Selector


class CidrPeer(msgspec.Struct, frozen=True):
    """Addresses, as disjoint ranges."""

    ranges: tuple[Range, ...]


Peer = PodPeer | NodePeer | CidrPeer


class Ports(msgspec.Struct, frozen=True):
    """Destination ports of a protocol, both ends included."""

    protocol: str
    first: int = 0
    last: int = PORT_MAX


class NamedPort(msgspec.Struct, frozen=True):
    """A port by the name that the destination pod gives it; of any protocol where that is None."""

    name: str
    protocol: str | None


Door = Ports | NamedPort


class Rule(msgspec.Struct, frozen=True):
    """One rule: None means any peer, any port; () means none, so such a rule never matches."""

    direction: Direction
    action: Action
    peers: tuple[Peer, ...] | None
    ports: tuple[Door, ...] | None
    label: str  # as people find it: ingress[0], or its name


class Policy(msgspec.Struct, frozen=True):
    """A policy. `key` is its kind, namespace and name.

    Attributes:
        problems: What of it can't be kept.
        remarks: What is wrong besides: all of it is kept.
        log: Whether what is denied by it is logged.
    """

    key: tuple[str, str, str]
    tier: Tier
    priority: int
    subject: PodPeer
    isolates: frozenset[Direction]
    rules: tuple[Rule, ...]
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    log: bool = False

    @property
    def name(self) -> str:
        """As people say it."""
        kind, namespace, name = self.key
        return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


def network_policy(policy: NetworkPolicy) -> Policy:
    """Return a NetworkPolicy's meaning. What can't be read allows nothing, and is named in `problems`."""
    meta, spec = policy.metadata, policy.spec
    problems: list[str] = []
    # The API server sets it where it is missing or empty; a file may lack it.
    types = spec.policy_types or (("Ingress", "Egress") if spec.egress else ("Ingress",))
    isolates = _ISOLATES[("Ingress" in types, "Egress" in types)]
    rules: list[Rule] = []
    if spec.ingress and "Ingress" in isolates:
        rules += [_rule(meta.namespace, "Ingress", n, one, problems) for n, one in enumerate(spec.ingress)]
    if spec.egress and "Egress" in isolates:
        rules += [_rule(meta.namespace, "Egress", n, one, problems) for n, one in enumerate(spec.egress)]
    try:
        subject = PodPeer(meta.namespace, EVERYTHING, canonical(spec.pod_selector))
    except BadSelector as error:
        problems.append(f"spec.podSelector.{error}; it selects every pod of the namespace until that is mended")
        subject = PodPeer(meta.namespace, EVERYTHING, EVERYTHING)
    key = ("NetworkPolicy", meta.namespace, meta.name)
    log, remarks = logs(meta.annotations)
    return Policy(key, "Namespace", 0, subject, isolates, tuple(rules), tuple(problems), remarks, log)


def logs(annotations: LogAnnotations) -> tuple[bool, tuple[str, ...]]:
    """Return whether denials are to be logged, and what is wrong with what is said about that."""
    said = annotations.log_denials
    if said in ("", "true", "false"):
        return said == "true", ()
    return False, (f'metadata.annotations: {LOG_DENIALS} is {said!r}, and not "true" or "false"; denials aren\'t logged',)


# By whether each direction is named.
_ISOLATES: Mapping[tuple[bool, bool], frozenset[Direction]] = {
    (False, False): frozenset(), (True, False): frozenset(("Ingress",)), (False, True): frozenset(("Egress",)),
    (True, True): frozenset(("Ingress", "Egress")),
}  # fmt: skip


def _rule(namespace: str, direction: Direction, number: int, one: IngressRule | EgressRule, problems: list[str]) -> Rule:
    label = f"{direction.lower()}[{number}]"
    peers = one.from_ if isinstance(one, IngressRule) else one.to
    # An empty list of peers, or of ports, is any, as a missing one is (networking.k8s.io/v1).
    found = _peers(namespace, peers, f"spec.{label}", problems) if peers else None
    doors = _doors(one.ports, f"spec.{label}", problems) if one.ports else None
    return Rule(direction, "Accept", found, doors, label)


def _peers(namespace: str, peers: Iterable[NetworkPolicyPeer], where: str, problems: list[str]) -> tuple[Peer, ...]:
    found: list[Peer] = []
    blocks: list[Range] = []
    for one in peers:
        try:
            if one.ip_block is not None:
                blocks += _ranges(one.ip_block)
            elif one.namespace_selector is not None:
                pods = canonical(one.pod_selector) if one.pod_selector else EVERYTHING
                found.append(PodPeer(None, canonical(one.namespace_selector), pods))
            elif one.pod_selector is not None:
                found.append(PodPeer(namespace, EVERYTHING, canonical(one.pod_selector)))
            else:
                problems.append(f"{where}: a peer of an unknown kind; it allows nobody")
        except ValueError as error:
            problems.append(f"{where}: {error}; this peer allows nobody")
    if blocks:
        found.append(CidrPeer(tuple(merge(blocks))))
    return tuple(dict.fromkeys(found))


def _ranges(block: IPBlock) -> Iterator[Range]:
    return without(parse(block.cidr), map(parse, block.except_))


def _doors(ports: Iterable[NetworkPolicyPort], where: str, problems: list[str]) -> tuple[Door, ...]:
    found: list[Door] = []
    for one in ports:
        protocol = one.protocol or "TCP"
        if protocol not in PROTOCOLS:
            problems.append(f"{where}: protocol {protocol!r} is none of {', '.join(PROTOCOLS)}; it opens nothing")
        elif one.port is None:
            found.append(Ports(protocol))
        elif isinstance(one.port, str):
            found.append(NamedPort(one.port, protocol))
        else:
            found.append(Ports(protocol, one.port, one.end_port or one.port))
    return tuple(found)


def cluster_network_policy(policy: ClusterNetworkPolicy) -> Policy:
    """Return a ClusterNetworkPolicy's meaning. What can't be read fails closed, and is named in `problems`."""
    meta, spec = policy.metadata, policy.spec
    problems: list[str] = []
    tier: Tier = "Baseline" if spec.tier == "Baseline" else "Admin"
    rules = [
        rule
        for direction, listed in (("Ingress", spec.ingress), ("Egress", spec.egress))
        for number, one in enumerate(listed)
        for rule in _cluster_rules("Ingress" if direction == "Ingress" else "Egress", number, one, problems)
    ]
    try:
        if spec.subject.namespaces is not None:
            subject = PodPeer(None, canonical(spec.subject.namespaces), EVERYTHING)
        elif spec.subject.pods is not None:
            subject = _pods(spec.subject.pods)
        else:
            raise BadSelector("neither namespaces nor pods")  # noqa: TRY301 - said as the other reasons are
    except BadSelector as error:
        problems.append(f"spec.subject: {error}; it is about every pod until that is mended")
        subject = ALL_PODS
    key = ("ClusterNetworkPolicy", "", meta.name)
    log, remarks = logs(meta.annotations)
    return Policy(key, tier, spec.priority, subject, frozenset(), tuple(rules), tuple(problems), remarks, log)


def _cluster_rules(direction: Direction, number: int, one: ClusterRule, problems: list[str]) -> Iterator[Rule]:
    where = f"spec.{direction.lower()}[{number}]"
    label = f"{direction.lower()}[{number}]" + (f" {one.name}" if one.name else "")
    action: Action = "Deny" if one.action not in ("Accept", "Pass") else "Accept" if one.action == "Accept" else "Pass"
    if one.action not in ("Accept", "Deny", "Pass"):
        problems.append(f"{where}: action {one.action!r} is none of Accept, Deny, Pass; it denies")
    peers, ports, unknown = list[Peer](), list[Door](), list[str]()
    for peer in one.from_ if direction == "Ingress" else one.to:
        try:
            peers.append(_cluster_peer(peer, direction))
        except ValueError as error:
            unknown.append(str(error))
    for protocol in one.protocols or ():
        try:
            ports += _cluster_ports(protocol)
        except ValueError as error:
            unknown.append(str(error))
    does = "it accepts nothing" if action == "Accept" else "it denies everything"
    problems += [f"{where}: {why}; {does} until that is mended" for why in unknown]
    if not unknown:
        yield Rule(direction, action, tuple(dict.fromkeys(peers)), tuple(ports) if one.protocols else None, label)
    elif action != "Accept":  # a Pass must not leave the tier with what may be to be denied
        yield Rule(direction, "Deny", None, None, label)


def _cluster_ports(one: ClusterProtocol) -> Iterator[Door]:
    named = {"TCP": one.tcp, "UDP": one.udp, "SCTP": one.sctp}
    found = [(name, ports) for name, ports in named.items() if ports is not None]
    for name, ports in found:
        yield _range(name, ports)
    if one.destination_named_port:
        yield NamedPort(one.destination_named_port, None)
    elif not found:
        raise ValueError("a protocol of an unknown kind can't be kept")


def _range(protocol: str, ports: ProtocolPorts) -> Ports:
    door = ports.destination_port
    if door is None:
        return Ports(protocol)
    if door.range is not None:
        return Ports(protocol, door.range.start, door.range.end)
    if door.number is not None:
        return Ports(protocol, door.number, door.number)
    raise ValueError("a destinationPort of an unknown kind can't be kept")


def _cluster_peer(peer: Mapping[str, Any], direction: Direction) -> Peer:
    """Return one peer; raises ValueError with what is unknown about it."""
    kind, value = next(iter(peer.items()), ("", None))
    try:
        match kind:
            case "namespaces":
                return PodPeer(None, canonical(msgspec.convert(value, LabelSelector)), EVERYTHING)
            case "pods":
                return _pods(msgspec.convert(value, PodsPeer))
            case "nodes" if direction == "Egress":
                return NodePeer(canonical(msgspec.convert(value, LabelSelector)))
            case "networks" if direction == "Egress":
                return CidrPeer(tuple(merge(map(parse, msgspec.convert(value, list[str])))))
    except msgspec.ValidationError as error:
        raise ValueError(f"peer {kind}: {error}") from error
    raise ValueError(f"a peer of kind {kind or 'none'!r} can't be kept")


def _pods(pods: PodsPeer) -> PodPeer:
    return PodPeer(None, canonical(pods.namespace_selector), canonical(pods.pod_selector))
