"""Lean msgspec structs for what policies are compiled from: NetworkPolicy, ClusterNetworkPolicy, and whom they speak of."""

from typing import Any

import msgspec

from tortie.api import lean
from tortie.api.lean import Condition, Lean, Metadata
from tortie.api.meta import LOG_DENIALS


class Requirement(Lean, frozen=True):
    """One of a label selector's matchExpressions."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelector(Lean, frozen=True):
    """A metav1.LabelSelector; the empty one selects everything."""

    match_labels: dict[str, str] = msgspec.field(default_factory=dict)
    match_expressions: tuple[Requirement, ...] = ()


class IPBlock(Lean, frozen=True):
    """A peer by CIDR."""

    cidr: str
    except_: tuple[str, ...] = msgspec.field(default=(), name="except")


class NetworkPolicyPeer(Lean, frozen=True):
    """One of `from` or `to`."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = msgspec.field(default=None, name="ipBlock")


class NetworkPolicyPort(Lean, frozen=True):
    """One of `ports`."""

    protocol: str | None = None
    port: int | str | None = None
    end_port: int | None = None


class IngressRule(Lean, frozen=True):
    """One of spec.ingress."""

    from_: tuple[NetworkPolicyPeer, ...] | None = msgspec.field(default=None, name="from")
    ports: tuple[NetworkPolicyPort, ...] | None = None


class EgressRule(Lean, frozen=True):
    """One of spec.egress."""

    to: tuple[NetworkPolicyPeer, ...] | None = None
    ports: tuple[NetworkPolicyPort, ...] | None = None


class NetworkPolicySpec(Lean, frozen=True):
    """spec of a NetworkPolicy."""

    pod_selector: LabelSelector = LabelSelector()
    ingress: tuple[IngressRule, ...] | None = None
    egress: tuple[EgressRule, ...] | None = None
    policy_types: tuple[str, ...] | None = None


class LogAnnotations(Lean, frozen=True):
    """The annotation of a policy, or of a namespace for its NetworkPolicies, that asks for what is denied to be logged."""

    log_denials: str = msgspec.field(default="", name=LOG_DENIALS)


class PolicyMetadata(Metadata, frozen=True):
    """The part of a policy's metadata that counts."""

    annotations: LogAnnotations = LogAnnotations()


class NamespaceMetadata(lean.LabelledMetadata, frozen=True):
    """The part of a Namespace's metadata that policies look at."""

    annotations: LogAnnotations = LogAnnotations()


class Namespace(Lean, frozen=True):
    """A Namespace."""

    metadata: NamespaceMetadata


class NetworkPolicy(Lean, frozen=True):
    """A NetworkPolicy (networking.k8s.io/v1)."""

    metadata: PolicyMetadata
    spec: NetworkPolicySpec = NetworkPolicySpec()


class PodsPeer(Lean, frozen=True):
    """Pods of a ClusterNetworkPolicy's subject or peer."""

    namespace_selector: LabelSelector = LabelSelector()
    pod_selector: LabelSelector = LabelSelector()


class Subject(Lean, frozen=True):
    """Whom a ClusterNetworkPolicy is about: one of the two."""

    namespaces: LabelSelector | None = None
    pods: PodsPeer | None = None


class PortRange(Lean, frozen=True):
    """Ports from `start` to `end`, both included."""

    start: int
    end: int


class DestinationPort(Lean, frozen=True):
    """One of the two."""

    number: int | None = None
    range: PortRange | None = None


class ProtocolPorts(Lean, frozen=True):
    """tcp, udp or sctp of a rule: without a port, every port."""

    destination_port: DestinationPort | None = None


class ClusterProtocol(Lean, frozen=True):
    """One of a rule's protocols."""

    tcp: ProtocolPorts | None = None
    udp: ProtocolPorts | None = None
    sctp: ProtocolPorts | None = None
    destination_named_port: str | None = None


class ClusterRule(Lean, frozen=True):
    """One of spec.ingress or spec.egress; peers are read by hand, because an unknown kind of them must be seen."""

    action: str
    name: str = ""
    from_: tuple[dict[str, Any], ...] = msgspec.field(default=(), name="from")
    to: tuple[dict[str, Any], ...] = ()
    protocols: tuple[ClusterProtocol, ...] | None = None


class ClusterNetworkPolicySpec(Lean, frozen=True):
    """spec of a ClusterNetworkPolicy."""

    tier: str
    priority: int
    subject: Subject
    ingress: tuple[ClusterRule, ...] = ()
    egress: tuple[ClusterRule, ...] = ()


class ClusterMetadata(PolicyMetadata, frozen=True):
    """The part of metadata that tells which form of the policy a condition speaks of."""

    generation: int = 0


class ClusterNetworkPolicyStatus(Lean, frozen=True):
    """status of a ClusterNetworkPolicy."""

    conditions: tuple[Condition, ...] | None = ()


class ClusterNetworkPolicy(Lean, frozen=True):
    """A ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2)."""

    metadata: ClusterMetadata
    spec: ClusterNetworkPolicySpec
    status: ClusterNetworkPolicyStatus = ClusterNetworkPolicyStatus()


class ContainerPort(Lean, frozen=True):
    """One of a container's ports."""

    container_port: int
    name: str = ""
    protocol: str = "TCP"


class Container(Lean, frozen=True):
    """A container, as far as policies name its ports."""

    ports: tuple[ContainerPort, ...] = ()
    restart_policy: str = ""


class PodSpec(lean.PodSpec, frozen=True):
    """spec of a Pod, as far as policies matter."""

    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()


class Pod(lean.Pod, frozen=True):
    """A Pod, as far as its addresses and policies matter."""

    spec: PodSpec = PodSpec()
