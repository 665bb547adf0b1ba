"""What the API server would refuse of policies and of whom they are about: for manifests that no API server has seen.

Each is a sentence: the field, the value, the way out. What the API server takes and policies can't keep is not here, but in
`Policy.problems`.
"""

import re
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Union, get_args, get_origin

import msgspec

from tortie.addressing.allocator import address
from tortie.addressing.ranges import parse
from tortie.api.lean import Labelled, Node
from tortie.api.policy_input import (
    ClusterNetworkPolicy,
    ClusterProtocol,
    ClusterRule,
    IPBlock,
    LabelSelector,
    NetworkPolicy,
    NetworkPolicyPeer,
    NetworkPolicyPort,
    Pod,
    PodsPeer,
)
from tortie.policy.policies import PORT_MAX, PROTOCOLS

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
_OPERATORS = {"In": True, "NotIn": True, "Exists": False, "DoesNotExist": False}  # and whether it takes values
_MOST = 25  # rules of a ClusterNetworkPolicy in a direction, peers of a rule, networks of a peer
_PRIORITIES = range(1001)

Kind = NetworkPolicy | ClusterNetworkPolicy | Pod | Labelled | Node


def refusals(one: Kind) -> Iterator[str]:
    """Yield what would be refused of an object whose fields have the right types."""
    if len(one.metadata.name) > 253 or not _NAME.fullmatch(one.metadata.name):
        yield f"metadata.name: {one.metadata.name!r} is no name; use lower-case letters, digits, - and ."
    yield from _labels("metadata.labels", one.metadata.labels)
    if isinstance(one, NetworkPolicy):
        yield from _network_policy(one)
    elif isinstance(one, ClusterNetworkPolicy):
        yield from _cluster_network_policy(one)
    elif isinstance(one, Pod):
        for number, ip in enumerate(one.status.pod_ips):
            yield from _ip(f"status.podIPs[{number}].ip", ip.ip)
    elif isinstance(one, Node):
        for number, listed in enumerate(one.status.addresses):
            if listed.type in ("InternalIP", "ExternalIP"):
                yield from _ip(f"status.addresses[{number}].address", listed.address)


def unknown(value: Any, kind: Any, where: str = "") -> Iterator[str]:
    """Yield the fields that a kind doesn't have: one that is written wrongly would be as one that is missing."""
    if get_origin(kind) in (Union, types.UnionType):
        (kind, *_) = [one for one in get_args(kind) if one is not type(None)]
    if get_origin(kind) is tuple and isinstance(value, list):
        for number, one in enumerate(value):
            yield from unknown(one, get_args(kind)[0], f"{where}[{number}]")
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(value, Mapping):
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
        for key, one in value.items():
            path = f"{where}.{key}" if where else str(key)
            if key not in fields:
                yield f"{path} is no field; there {'are' if len(fields) > 1 else 'is'} {', '.join(fields)}"
            else:
                yield from unknown(one, fields[key], path)


def _labels(where: str, found: Mapping[str, str]) -> Iterator[str]:
    for key, value in found.items():
        yield from _key(where, key)
        yield from _value(f"{where}.{key}", value)


def _key(where: str, key: str) -> Iterator[str]:
    prefix, slash, rest = key.rpartition("/")
    if not _LABEL.fullmatch(rest) or (slash and not _NAME.fullmatch(prefix)):
        yield f"{where}: {key!r} is no label's key; write NAME or DOMAIN/NAME, of letters, digits, -, _ and ."


def _value(where: str, value: str) -> Iterator[str]:
    if value and not _LABEL.fullmatch(value):
        yield f"{where}: {value!r} is no label's value; use at most 63 letters, digits, -, _ and ."


def _ip(where: str, value: str) -> Iterator[str]:
    try:
        address(value)
    except ValueError:
        yield f"{where}: {value!r} is no IP address; write one such as 10.1.0.7, or leave it out"


def _cidr(where: str, value: str) -> Iterator[str]:
    try:
        if "/" in value and parse(value):
            return
    except ValueError:
        pass
    yield f"{where}: {value!r} is no CIDR; write one such as 10.0.0.0/8 or fd00::/64"


def _one_of(where: str, value: str, among: Iterable[str]) -> Iterator[str]:
    if value not in among:
        yield f"{where}: {value!r} is none of {', '.join(among)}"


def _selector(where: str, selector: LabelSelector) -> Iterator[str]:
    yield from _labels(f"{where}.matchLabels", selector.match_labels)
    for number, one in enumerate(selector.match_expressions):
        path = f"{where}.matchExpressions[{number}]"
        yield from _key(f"{path}.key", one.key)
        yield from _one_of(f"{path}.operator", one.operator, _OPERATORS)
        if one.operator in _OPERATORS and bool(one.values) != _OPERATORS[one.operator]:
            yield f"{path}.values: {one.operator} takes {'one value at least' if _OPERATORS[one.operator] else 'none'}"
        for value in one.values:
            yield from _value(f"{path}.values", value)


# NetworkPolicy


def _network_policy(policy: NetworkPolicy) -> Iterator[str]:
    spec = policy.spec
    yield from _selector("spec.podSelector", spec.pod_selector)
    for number, one in enumerate(spec.policy_types or ()):
        yield from _one_of(f"spec.policyTypes[{number}]", one, ("Ingress", "Egress"))
    for number, ingress in enumerate(spec.ingress or ()):
        yield from _rule(f"spec.ingress[{number}]", "from", ingress.from_ or (), ingress.ports or ())
    for number, egress in enumerate(spec.egress or ()):
        yield from _rule(f"spec.egress[{number}]", "to", egress.to or (), egress.ports or ())


def _rule(where: str, side: str, peers: Iterable[NetworkPolicyPeer], ports: Iterable[NetworkPolicyPort]) -> Iterator[str]:
    for number, peer in enumerate(peers):
        yield from _peer(f"{where}.{side}[{number}]", peer)
    for number, port in enumerate(ports):
        yield from _port(f"{where}.ports[{number}]", port)


def _peer(where: str, peer: NetworkPolicyPeer) -> Iterator[str]:
    selectors = {"podSelector": peer.pod_selector, "namespaceSelector": peer.namespace_selector}
    for field, selector in selectors.items():
        if selector is not None:
            yield from _selector(f"{where}.{field}", selector)
    if peer.ip_block is not None:
        if any(selector is not None for selector in selectors.values()):
            yield f"{where}: ipBlock stands beside a selector; make two peers of it"
        yield from _block(f"{where}.ipBlock", peer.ip_block)
    elif all(selector is None for selector in selectors.values()):
        yield f"{where}: it names nobody; write podSelector, namespaceSelector or ipBlock, with {{}} for all"


def _block(where: str, block: IPBlock) -> Iterator[str]:
    wrong = list(_cidr(f"{where}.cidr", block.cidr))
    yield from wrong
    for number, one in enumerate(block.except_):
        path = f"{where}.except[{number}]"
        bad = list(_cidr(path, one))
        yield from bad
        if not bad and not wrong and (parse(one) == parse(block.cidr) or not parse(block.cidr).contains(parse(one))):
            yield f"{path}: {one!r} is no part of {block.cidr}; leave it out, or name a part"


def _port(where: str, one: NetworkPolicyPort) -> Iterator[str]:
    if one.protocol is not None:
        yield from _one_of(f"{where}.protocol", one.protocol, PROTOCOLS)
    if isinstance(one.port, str):
        yield from _port_name(f"{where}.port", one.port)
    elif one.port is not None:
        yield from _number(f"{where}.port", one.port)
    if one.end_port is None:
        return
    yield from _number(f"{where}.endPort", one.end_port)
    if not isinstance(one.port, int):
        yield f"{where}.endPort: {one.end_port} needs a port by number to begin at; write port: NUMBER"
    elif one.end_port < one.port:
        yield f"{where}.endPort: {one.end_port} lies below port {one.port}; swap them"


def _number(where: str, value: int) -> Iterator[str]:
    if not 1 <= value <= PORT_MAX:
        yield f"{where}: {value} is no port; one is 1 to {PORT_MAX}"


def _port_name(where: str, value: str) -> Iterator[str]:
    if not _PORT_NAME.fullmatch(value):
        yield (
            f"{where}: {value!r} is no port's name: at most 15 lower-case letters, digits and -, with a letter;"
            " a number stands without quotes"
        )


# ClusterNetworkPolicy


def _cluster_network_policy(policy: ClusterNetworkPolicy) -> Iterator[str]:
    spec = policy.spec
    yield from _one_of("spec.tier", spec.tier, ("Admin", "Baseline"))
    if spec.priority not in _PRIORITIES:
        yield f"spec.priority: {spec.priority} is none of 0 to {_PRIORITIES[-1]}; lower ones go first"
    if (spec.subject.namespaces is None) == (spec.subject.pods is None):
        yield "spec.subject: it takes one of namespaces and pods; write namespaces: {} for every pod"
    if spec.subject.namespaces is not None:
        yield from _selector("spec.subject.namespaces", spec.subject.namespaces)
    if spec.subject.pods is not None:
        yield from _pods("spec.subject.pods", spec.subject.pods)
    for direction, side, rules in (("ingress", "from", spec.ingress), ("egress", "to", spec.egress)):
        yield from _count(f"spec.{direction}", len(rules), 0)
        for number, rule in enumerate(rules):
            yield from _cluster_rule(f"spec.{direction}[{number}]", side, rule)


def _cluster_rule(where: str, side: str, rule: ClusterRule) -> Iterator[str]:
    yield from _one_of(f"{where}.action", rule.action, ("Accept", "Deny", "Pass"))
    peers = rule.from_ if side == "from" else rule.to
    if rule.to if side == "from" else rule.from_:
        yield f"{where}: this direction has no {'to' if side == 'from' else 'from'}; write {side}"
    yield from _count(f"{where}.{side}", len(peers), 1)
    for number, peer in enumerate(peers):
        yield from _cluster_peer(f"{where}.{side}[{number}]", peer)
    for number, protocol in enumerate(rule.protocols or ()):
        yield from _protocol(f"{where}.protocols[{number}]", protocol)


def _cluster_peer(where: str, peer: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the kinds of peers that are known; another fails closed, and is a problem of the policy."""
    if len(peer) != 1:
        yield f"{where}: a peer is of one kind, and this has {', '.join(peer) or 'none'}; make one peer of each"
        return
    ((kind, value),) = peer.items()
    try:
        match kind:
            case "namespaces" | "nodes":
                yield from _selector(f"{where}.{kind}", msgspec.convert(value, LabelSelector))
            case "pods":
                yield from _pods(f"{where}.pods", msgspec.convert(value, PodsPeer))
            case "networks":
                networks = msgspec.convert(value, list[str])
                yield from _count(f"{where}.networks", len(networks), 1)
                for number, one in enumerate(networks):
                    yield from _cidr(f"{where}.networks[{number}]", one)
    except msgspec.ValidationError as error:
        yield f"{where}.{kind}: {misfit(error)}"


def _pods(where: str, pods: PodsPeer) -> Iterator[str]:
    yield from _selector(f"{where}.namespaceSelector", pods.namespace_selector)
    yield from _selector(f"{where}.podSelector", pods.pod_selector)


def _protocol(where: str, one: ClusterProtocol) -> Iterator[str]:
    kinds = {"tcp": one.tcp, "udp": one.udp, "sctp": one.sctp, "destinationNamedPort": one.destination_named_port}
    if len([kind for kind in kinds.values() if kind]) > 1:
        yield f"{where}: it is of one kind, and this has several; make one of each"
    if one.destination_named_port:
        yield from _port_name(f"{where}.destinationNamedPort", one.destination_named_port)
    for protocol in ("tcp", "udp", "sctp"):
        ports = getattr(one, protocol)
        if ports is None or ports.destination_port is None:
            continue
        path = f"{where}.{protocol}.destinationPort"
        number, between = ports.destination_port.number, ports.destination_port.range
        if number is not None:
            yield from _number(f"{path}.number", number)
        if between is not None:
            yield from _number(f"{path}.range.start", between.start)
            yield from _number(f"{path}.range.end", between.end)
            if between.end < between.start:
                yield f"{path}.range.end: {between.end} lies below start {between.start}; swap them"


def _count(where: str, count: int, least: int) -> Iterator[str]:
    if not least <= count <= _MOST:
        yield f"{where}: it has {count}, and may have {least} to {_MOST}"


def misfit(error: msgspec.ValidationError) -> str:
    """Return what a value of the wrong type is, with the field first: as msgspec says it, in our order."""
    said, _, where = str(error).partition(" - at `$")
    said = said.replace("Expected", "expected").replace("Object missing", "missing")
    return f"{where.strip('`.')}: {said}" if where else said
