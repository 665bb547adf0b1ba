"""What of a Calico cluster has no counterpart in Tortie, as findings: policies, Felix's settings, addresses in use.

Kinds, fields and defaults follow Calico's `projectcalico.org/v3` and `crd.projectcalico.org/v1`.
"""

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, get_args

Object = Mapping[str, Any]

# loss: the cluster does it today, and won't. refused: this object can't be written as it is. note: harmless.
Level = Literal["loss", "refused", "note"]


class Finding(NamedTuple):
    """One thing that a person must know before a migration; `name` is empty where it speaks of all objects of a kind."""

    level: Level
    kind: str
    name: str
    field: str
    message: str

    @property
    def about(self) -> str:
        """The object, as `IPPool/name`."""
        return f"{self.kind}/{self.name}" if self.name else self.kind


# What Calico keeps of a node as a BGP speaker, in an annotation of the Node or a field of its own Node; and ours
# (`tortie.routing.peering`).
SPEAKERS = (
    ("projectcalico.org/ASNumber", "asNumber", "tortie.dev/as-number"),
    ("projectcalico.org/RouteReflectorClusterID", "routeReflectorClusterID", "tortie.dev/route-reflector-cluster-id"),
)
CALICO_GROUPS = ("crd.projectcalico.org", "projectcalico.org")

_POLICY = "is not kept: Tortie knows none of Calico's own policies, so what it alone forbids is allowed; write a NetworkPolicy"
_UNKEPT = {
    **dict.fromkeys(("NetworkPolicy", "GlobalNetworkPolicy"), _POLICY),
    **dict.fromkeys(
        ("StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy"),
        "is not kept: Tortie has no staged policies",
    ),
    "Tier": "is not kept: Tortie has no tiers of policies",
    "HostEndpoint": "is not kept: Tortie doesn't protect nodes' own interfaces",
    **dict.fromkeys(("NetworkSet", "GlobalNetworkSet"), "is not kept: Tortie has no sets of addresses for policies"),
    "QoSPolicy": "is not kept: Tortie doesn't mark packets",
}
# Calico makes these itself.
_OWN_TIERS = frozenset({"default", "adminnetworkpolicy", "baselineadminnetworkpolicy", "kube-admin", "kube-baseline"})
# They belong to Calico's programs and say nothing about what a person wants.
_SILENT = frozenset(
    {"KubeControllersConfiguration", "ClusterInformation", "CalicoNodeStatus", "BlockAffinity", "IPAMHandle", "Profile"}
    | {"WorkloadEndpoint", "DatastoreMigration", "LiveMigration"}
)
_KUBERNETES_POLICIES = {
    "networking.k8s.io": frozenset({"NetworkPolicy"}),
    "policy.networking.k8s.io": frozenset({"AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy"}),
}
_ENFORCED = frozenset({"NetworkPolicy", "ClusterNetworkPolicy"})

_FELIX_LOSSES = {
    "bpfEnabled": "Tortie has no eBPF mode: kube-proxy must serve Services again before Calico goes",
    **dict.fromkeys(
        ("wireguardEnabled", "wireguardEnabledV6", "wireguardHostEncryptionEnabled"),
        "Tortie has no WireGuard: what is encrypted between nodes today, won't be",
    ),
    **dict.fromkeys(
        ("ipipMTU", "vxlanMTU", "vxlanMTUV6", "wireguardMTU", "wireguardMTUV6", "mtuIfacePattern"),
        "Tortie takes the pods' MTU from the nodes' links; the chart's value mtu sets another one",
    ),
    "windowsManageFirewallRules": "Tortie runs on Linux nodes only",
    "floatingIPs": "Tortie has no floating addresses",
    "workloadSourceSpoofing": "Tortie has no such permission for pods",
    "awsSrcDstCheck": "Tortie doesn't set it: set it on the instances themselves",
}
_NO_COUNTERPART = "Tortie has no such setting"

# What Felix does unless told otherwise, where that isn't "off".
_FELIX_DEFAULTS = {
    "defaultEndpointToHostAction": "Drop", "awsSrcDstCheck": "DoNothing", "serviceLoopPrevention": "Drop",
    "routeSource": "CalicoIPAM", "ipForwarding": "Enabled", "removeExternalRoutes": True, "ipv6Support": True,
    "useInternalDataplaneDriver": True, "vxlanPort": 4789, "vxlanVNI": 4096, "kubeNodePortRanges": ["30000:32767"],
    "chainInsertMode": "Insert", "deviceRouteProtocol": 80,
}  # fmt: skip
# How Felix itself runs, or how it programs what is a finding of its own (policies, eBPF, WireGuard, pools' encapsulation).
_FELIX_OWN = (
    *("log", "debug", "health", "usageReporting", "prometheus", "reporting", "endpointReporting", "endpointStatus", "go"),
    *("dataplane", "useInternalDataplaneDriver", "feature", "netlink", "iptables", "ipsets", "nftables", "maxIpset", "xdp"),
    *("genericXDP", "interface", "routeRefresh", "routeTable", "chainInsert", "metadata", "openstack", "ipipEnabled"),
    *("vxlanEnabled", "failsafe", "policySync", "bpf", "wireguard", "kubeNodePort", "ipv6Support", "defaultEndpointToHost"),
    *("disableConntrackInvalidCheck", "sidecarAcceleration", "flowLogs", "serviceLoopPrevention", "removeExternalRoutes"),
)


def unkept(objects: Iterable[Object]) -> Iterator[Finding]:
    """Yield a finding for everything among `objects` that Tortie has no kind for."""
    policies, in_use = Counter[str](), 0
    for one in objects:
        group, kind = group_of(one), str(one.get("kind"))
        if kind in _KUBERNETES_POLICIES.get(group, ()):
            policies[f"{kind}.{group}"] += 1
        elif kind == "Node":
            yield from _node(one)
        elif group not in CALICO_GROUPS:
            continue
        elif kind == "IPAMBlock":
            in_use += _held(one)
        elif kind == "FelixConfiguration":
            yield from _felix(one)
        else:
            yield from _object(one, kind)
    yield from _policies(policies)
    if in_use:
        message = f"{in_use} addresses in use: a pod keeps its address only until it is made again"
        yield Finding("loss", "IPAMBlock", "", "", message)


def group_of(one: Object) -> str:
    """Return the API group of an object; the core group's name is empty."""
    version = str(one.get("apiVersion", ""))
    return version.partition("/")[0] if "/" in version else ""


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a value that should be a mapping, or an empty one."""
    return value if isinstance(value, Mapping) else {}


def name_of(one: Object) -> str:
    """Return `namespace/name`, or `name` of what has no namespace; empty where there is none."""
    metadata = mapping(one.get("metadata"))
    name = str(metadata.get("name") or "")
    return f"{metadata['namespace']}/{name}" if metadata.get("namespace") else name


def text(value: Any) -> str:
    """Return a value as a person writes it: a text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings, the worst first."""
    return tuple(sorted(findings, key=lambda finding: get_args(Level).index(finding.level)))


def _object(one: Object, kind: str) -> Iterator[Finding]:
    name = name_of(one)
    if kind in _SILENT or (kind == "Tier" and name in _OWN_TIERS):
        return
    yield Finding("loss", kind, name, "", _UNKEPT.get(kind, "is not kept: Tortie has no such kind"))


def _policies(found: Counter[str]) -> Iterator[Finding]:
    for kind, count in sorted(found.items()):
        if kind.partition(".")[0] in _ENFORCED:
            yield Finding("note", kind, "", "", f"{count} in the cluster: Tortie enforces them, too")
        else:
            message = f"{count} in the cluster: Tortie enforces none of these; write ClusterNetworkPolicies in their place"
            yield Finding("loss", kind, "", "", message)


def _held(block: Object) -> int:
    """Return how many addresses of a block are in use: `allocations` holds an index or null for each address."""
    allocations = mapping(block.get("spec")).get("allocations")
    return sum(index is not None for index in allocations) if isinstance(allocations, list) else 0


def _node(node: Object) -> Iterator[Finding]:
    """Yield what Calico keeps of a node: Kubernetes' Node with its annotations, or Calico's own as calicoctl shows it."""
    metadata, name = mapping(node.get("metadata")), name_of(node)
    annotations, bgp = mapping(metadata.get("annotations")), mapping(mapping(node.get("spec")).get("bgp"))
    for its, field, ours in SPEAKERS:
        if value := annotations.get(its) or bgp.get(field):
            command = shlex.join(["kubectl", "annotate", "node", name, f"{ours}={text(value)}"])
            yield Finding("note", "Node", name, f"bgp.{field}", f"is an annotation of the Node here: {command}")
    if mapping(metadata.get("labels")).get("kubernetes.io/os") == "windows":
        yield Finding("loss", "Node", name, "", "runs Windows: Tortie runs on Linux nodes only")


def _felix(configuration: Object) -> Iterator[Finding]:
    own, name = list[str](), name_of(configuration)
    for key, value in mapping(configuration.get("spec")).items():
        field = str(key)
        if not _differs(field, value):
            continue
        if field not in _FELIX_LOSSES and field.startswith(_FELIX_OWN):
            own.append(field)
        else:
            message = f"{text(value)}: {_FELIX_LOSSES.get(field, _NO_COUNTERPART)}"
            yield Finding("loss", "FelixConfiguration", name, f"spec.{field}", message)
    if own:
        yield Finding("note", "FelixConfiguration", name, "", f"settings of Felix itself are left out: {', '.join(own)}")


def _differs(field: str, value: Any) -> bool:
    """Whether Felix does something else with this value than without it; its words are the same in any case."""
    default = _FELIX_DEFAULTS.get(field)
    if isinstance(value, str):
        off = ("", "disabled", "none") if default is None else ("", str(default).lower())
        return value.lower() not in off
    return value is not None and (bool(value) if default is None else value != default)
