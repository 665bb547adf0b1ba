"""Who may talk to whom, straight from what the Kubernetes API documents: slow, plain, and knowing nothing of the compiler.

It reads objects as the API server holds them, as dicts: {"pods": [...], "namespaces": [...], "nodes": [...],
"networkpolicies": [...], "clusternetworkpolicies": [...]}. It was written before the compiler was read, so that the two
share no mistake; it must stay that way: no import of tortie, and no cleverness.
"""

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, Literal

Object = dict[str, Any]
Cluster = dict[str, list[Object]]
UNKNOWN: Literal["unknown"] = "unknown"


@dataclass(frozen=True)
class Party:
    """One end of a connection: a pod (NAMESPACE/NAME), a node, or neither of them; and its address, if it has one."""

    pod: str = ""
    node: str = ""
    address: str = ""


@dataclass(frozen=True)
class Connection:
    """What is asked about, from the view of one direction: of ingress the target is the subject, of egress the source."""

    direction: Literal["ingress", "egress"]
    source: Party
    target: Party
    protocol: str
    port: int

    @property
    def subject(self) -> Party:
        return self.target if self.direction == "ingress" else self.source

    @property
    def peer(self) -> Party:
        return self.source if self.direction == "ingress" else self.target


def allowed(cluster: Cluster, source: Party, target: Party, protocol: str, port: int) -> bool:
    """Whether a connection to this port of `target` comes about: the source may open it, and the target may be reached."""
    if source.pod and source.pod == target.pod:
        return True  # a pod always reaches itself
    if source.pod and not direction_allows(cluster, Connection("egress", source, target, protocol, port)):
        return False
    if target.pod and source.node and source.node == find_pod(cluster, target.pod)["spec"].get("nodeName"):
        return True  # the kubelet's probes
    return not target.pod or direction_allows(cluster, Connection("ingress", source, target, protocol, port))


def direction_allows(cluster: Cluster, asked: Connection) -> bool:
    """Whether the policies of one direction let the subject talk with its peer: Admin, Namespace, Baseline, else yes."""
    admin = tier_says(cluster, "Admin", asked)
    if admin in ("Accept", "Deny"):
        return admin == "Accept"
    isolating = [p for p in cluster["networkpolicies"] if isolates(cluster, p, asked)]
    if isolating:
        return any(network_policy_allows(cluster, p, asked) for p in isolating)
    return tier_says(cluster, "Baseline", asked) != "Deny"


# Who somebody is.


def name_of(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def find_pod(cluster: Cluster, name: str) -> Object:
    return next(p for p in cluster["pods"] if name_of(p) == name)


def labels_of(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def namespace_labels(cluster: Cluster, namespace: str) -> dict[str, str]:
    return labels_of(next(n for n in cluster["namespaces"] if n["metadata"]["name"] == namespace))


def has_own_network(pod: Object) -> bool:
    """Whether policies can speak of this pod: it isn't its node, and it hasn't ended."""
    ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return not pod["spec"].get("hostNetwork") and not ended


def addresses_of(obj: Object) -> list[str]:
    """The addresses of a pod or a node."""
    status = obj.get("status", {})
    of_node = [a["address"] for a in status.get("addresses", []) if a["type"] in ("InternalIP", "ExternalIP")]
    return of_node + [a["ip"] for a in status.get("podIPs", [])]


def pods_and_nodes(cluster: Cluster) -> list[Party]:
    """Everybody in the cluster, once for each address; a pod without one once."""
    pods = [Party(pod=name_of(p), address=a) for p in cluster["pods"] if has_own_network(p) for a in addresses_of(p) or [""]]
    nodes = [Party(node=n["metadata"]["name"], address=a) for n in cluster["nodes"] for a in addresses_of(n)]
    return pods + nodes


# Selectors: None selects what its place says, an empty one everything.


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """A metav1.LabelSelector: all of its requirements hold."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(requirement_holds(r, labels) for r in selector.get("matchExpressions") or [])


def requirement_holds(requirement: Object, labels: dict[str, str]) -> bool:
    key, values = requirement["key"], requirement.get("values") or []
    match requirement["operator"]:
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            return key not in labels or labels[key] not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    raise AssertionError(requirement)


def in_pods(cluster: Cluster, pods: Object, pod: Object) -> bool:
    """A ClusterNetworkPolicy's {namespaceSelector, podSelector}."""
    return selects(pods.get("namespaceSelector") or {}, namespace_labels(cluster, pod["metadata"]["namespace"])) and selects(
        pods.get("podSelector") or {}, labels_of(pod)
    )


def in_network(cidr: str, address: str) -> bool:
    network, one = ip_network(cidr, strict=False), ip_address(address)
    return network.version == one.version and one in network


# NetworkPolicy, networking.k8s.io/v1.


def policy_types(policy: Object) -> list[str]:
    """spec.policyTypes; without them, Ingress always and Egress if there are rules for it."""
    spec = policy["spec"]
    return spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])


def isolates(cluster: Cluster, policy: Object, asked: Connection) -> bool:
    pod = find_pod(cluster, asked.subject.pod)
    return (
        asked.direction.capitalize() in policy_types(policy)
        and pod["metadata"]["namespace"] == policy["metadata"]["namespace"]
        and selects(policy["spec"].get("podSelector") or {}, labels_of(pod))
    )


def network_policy_allows(cluster: Cluster, policy: Object, asked: Connection) -> bool:
    """Whether one rule of the policy has both the peer and the port."""
    for rule in policy["spec"].get(asked.direction) or []:
        peers = rule.get("from" if asked.direction == "ingress" else "to") or []
        ports = rule.get("ports") or []
        if (not peers or any(is_peer(cluster, policy, p, asked.peer) for p in peers)) and (
            not ports or any(is_port(cluster, p, asked) for p in ports)
        ):
            return True
    return False


def is_peer(cluster: Cluster, policy: Object, wanted: Object, peer: Party) -> bool:
    """Whether `wanted`, one of a rule's peers, is this one. Who has no address yet is nobody's peer."""
    if not peer.address:
        return False
    if (block := wanted.get("ipBlock")) is not None:
        return in_network(block["cidr"], peer.address) and not any(
            in_network(e, peer.address) for e in block.get("except") or []
        )
    of_namespaces, of_pods = wanted.get("namespaceSelector"), wanted.get("podSelector")
    if not peer.pod or (of_namespaces is None and of_pods is None):
        return False
    pod = find_pod(cluster, peer.pod)
    if of_namespaces is None and pod["metadata"]["namespace"] != policy["metadata"]["namespace"]:
        return False
    return selects(of_namespaces or {}, namespace_labels(cluster, pod["metadata"]["namespace"])) and selects(
        of_pods or {}, labels_of(pod)
    )


def is_port(cluster: Cluster, wanted: Object, asked: Connection) -> bool:
    """Whether `wanted`, one of a rule's ports, is this one."""
    if (wanted.get("protocol") or "TCP") != asked.protocol:
        return False
    number = wanted.get("port")
    if number is None:
        return True
    if isinstance(number, str):
        return (asked.protocol, asked.port) in named_ports(cluster, number, asked)
    return bool(number <= asked.port <= (wanted.get("endPort") or number))


def named_ports(cluster: Cluster, name: str, asked: Connection) -> set[tuple[str, int]]:
    """What a port's name stands for: always what the pod that is asked calls so; as a peer, it needs an address for that."""
    target = asked.target
    if not target.pod or (target == asked.peer and not target.address):
        return set()
    spec = find_pod(cluster, target.pod)["spec"]
    sidecars = [c for c in spec.get("initContainers") or [] if c.get("restartPolicy") == "Always"]
    ports = [p for c in spec["containers"] + sidecars for p in c.get("ports") or []]
    return {(p.get("protocol") or "TCP", p["containerPort"]) for p in ports if p.get("name") == name}


# ClusterNetworkPolicy, policy.networking.k8s.io/v1alpha2.


def tier_says(cluster: Cluster, tier: str, asked: Connection) -> str | None:
    """The action of the tier's first rule that matches: the lowest priority first, equal ones by name, rules in order."""
    pod = find_pod(cluster, asked.subject.pod)
    policies = [p for p in cluster["clusternetworkpolicies"] if p["spec"]["tier"] == tier and is_subject(cluster, p, pod)]
    for policy in sorted(policies, key=lambda p: (p["spec"]["priority"], p["metadata"]["name"])):
        for rule in policy["spec"].get(asked.direction) or []:
            if (action := rule_says(cluster, rule, asked)) is not None:
                return action
    return None


def is_subject(cluster: Cluster, policy: Object, pod: Object) -> bool:
    subject = policy["spec"]["subject"]
    if (namespaces := subject.get("namespaces")) is not None:
        return selects(namespaces, namespace_labels(cluster, pod["metadata"]["namespace"]))
    return in_pods(cluster, subject["pods"], pod)


def rule_says(cluster: Cluster, rule: Object, asked: Connection) -> str | None:
    """The rule's action if it matches, else None.

    A kind of peer or protocol that isn't known fails closed, and its whole rule with it: Accept matches no traffic, Deny and
    Pass deny everything. So the API says of objects in which an implementation sees none of the fields that it knows.
    """
    peers = [is_cluster_peer(cluster, p, asked) for p in rule.get("from" if asked.direction == "ingress" else "to") or []]
    protocols = [is_protocol(cluster, p, asked) for p in rule.get("protocols") or []]
    if UNKNOWN in peers or UNKNOWN in protocols:
        return None if rule["action"] == "Accept" else "Deny"
    return str(rule["action"]) if True in peers and (True in protocols or not protocols) else None


def is_protocol(cluster: Cluster, wanted: Object, asked: Connection) -> bool | Literal["unknown"]:
    """Whether this is one of a rule's protocols: yes, no, or unknown."""
    match wanted:
        case {"destinationNamedPort": name}:
            return (asked.protocol, asked.port) in named_ports(cluster, name, asked)
        case {"tcp": ports}:
            right = asked.protocol == "TCP"
        case {"udp": ports}:
            right = asked.protocol == "UDP"
        case {"sctp": ports}:
            right = asked.protocol == "SCTP"
        case _:
            return UNKNOWN
    match ports:
        case {"destinationPort": {"number": number}}:
            return right and bool(number == asked.port)
        case {"destinationPort": {"range": {"start": start, "end": end}}}:
            return right and bool(start <= asked.port <= end)
        case {"destinationPort": _}:
            return UNKNOWN
    return right


def is_cluster_peer(cluster: Cluster, wanted: Object, asked: Connection) -> bool | Literal["unknown"]:
    """Whether this is one of a rule's peers: yes, no, or unknown. Who has no address yet is nobody's peer."""
    peer, egress = asked.peer, asked.direction == "egress"
    pod = find_pod(cluster, peer.pod) if peer.pod and peer.address else None
    match wanted:
        case {"namespaces": selector}:
            return pod is not None and selects(selector, namespace_labels(cluster, pod["metadata"]["namespace"]))
        case {"pods": pods}:
            return pod is not None and in_pods(cluster, pods, pod)
        case {"networks": networks} if egress:
            return bool(peer.address) and any(in_network(n, peer.address) for n in networks)
        case {"nodes": selector} if egress:
            return any(n["metadata"]["name"] == peer.node and selects(selector, labels_of(n)) for n in cluster["nodes"])
    return UNKNOWN
