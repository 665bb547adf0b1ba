"""Calico's objects translated: every field is carried or named, and what comes out is what our declaration takes."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tortie.api.bgp import FilterRule
from tortie.api.calico import TARGETS, Translation, translate
from tortie.api.calico_losses import SPEAKERS, Finding, text
from tortie.api.kinds import KINDS
from tortie.controller.status import unsupported
from tortie.routing import peering

MODELS = {kind.model_fields["kind"].default: kind for kind in KINDS}
V1, V3 = "crd.projectcalico.org/v1", "projectcalico.org/v3"


def calico(kind: str, spec: Any = None, name: str = "default", *, version: str = V3, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec or {}}


def only(translation: Translation) -> dict[str, Any]:
    (one,) = translation.objects
    return one


def said(translation: Translation, *levels: str) -> list[str]:
    return [f"{f.level} {f.about} {f.field}: {f.message}" for f in translation.findings if not levels or f.level in levels]


# Every field of Calico's specs, from api/pkg/apis/projectcalico/v3/*.go and api/config/crd of 2026 (3.32), with a value, and
# what becomes of it: kept (as it is), loss or note (kept or not, but named), or what it is turned into.
Row = tuple[Any, str]
POOL: dict[str, Row] = {
    "cidr": ("10.1.0.0/16", "kept"),
    "blockSize": (28, "kept"),
    "ipipMode": ("Always", "kept"),
    "vxlanMode": ("CrossSubnet", "kept"),
    "natOutgoing": (True, "kept"),
    "disabled": (True, "kept"),
    "disableBGPExport": (True, "note"),
    "nodeSelector": ("has(rack)", "kept"),
    "namespaceSelector": ("team == 'a'", "kept"),
    "allowedUses": (["Workload", "Tunnel", "LoadBalancer"], "loss"),
    "assignmentMode": ("Manual", "kept"),
    "ipip": ({"enabled": True, "mode": "always"}, "note"),
    "nat-outgoing": (True, "note"),
}
RESERVATION: dict[str, Row] = {"reservedCIDRs": (["10.1.0.0/28", "fd00::1/128"], "kept")}
IPAM: dict[str, Row] = {
    "strictAffinity": (False, "note"),
    "autoAllocateBlocks": (False, "loss"),
    "maxBlocksPerHost": (20, "kept"),
    "kubeVirtVMAddressPersistence": ("Enabled", "loss"),
    "minIPReclaimAgeSeconds": (60, "loss"),
}
CONFIGURATION: dict[str, Row] = {
    "logSeverityScreen": ("Info", "kept"),
    "nodeToNodeMeshEnabled": (False, "kept"),
    "asNumber": (64512, "kept"),
    "serviceLoadBalancerIPs": ([{"cidr": "1.2.3.0/24"}], "kept"),
    "serviceExternalIPs": ([{"cidr": "1.2.4.0/24"}], "kept"),
    "serviceClusterIPs": ([{"cidr": "10.96.0.0/12"}], "kept"),
    "serviceLoadBalancerAggregation": ("Disabled", "kept"),
    "communities": ([{"name": "a", "value": "64512:10"}], "kept"),
    "prefixAdvertisements": ([{"cidr": "10.1.0.0/16", "communities": ["a"]}], "kept"),
    "listenPort": (178, "kept"),
    "bindMode": ("NodeIP", "kept"),
    "ignoredInterfaces": (["docker0"], "kept"),
    "nodeMeshPassword": ({"secretKeyRef": {"name": "s", "key": "k", "optional": True}}, "note"),
    "nodeMeshMaxRestartTime": ("2m0s", "kept"),
    "nodeMeshFailureDetectionMode": ("BFDIfDirectlyConnected", "kept"),
    "localWorkloadPeeringIPV4": ("169.254.1.2", "loss"),
    "localWorkloadPeeringIPV6": ("fe80::1", "loss"),
    "programClusterRoutes": ("Enabled", "note"),
}
PEER: dict[str, Row] = {
    "node": ("a", "kept"),
    "nodeSelector": ("all()", "kept"),
    "peerIP": ("10.0.0.1:1179", "kept"),
    "asNumber": ("1.10", "kept"),
    "localASNumber": (64513, "kept"),
    "peerSelector": ("rr == 'true'", "kept"),
    "localWorkloadSelector": ("app == 'router'", "loss"),
    "keepOriginalNextHop": (True, "kept"),
    "nextHopMode": ("Self", "kept"),
    "password": ({"secretKeyRef": {"name": "s", "key": "k"}}, "note"),
    "sourceAddress": ("None", "kept"),
    "maxRestartTime": ("2m0s", "kept"),
    "failureDetectionMode": ("BFDIfDirectlyConnected", "kept"),
    "numAllowedLocalASNumbers": (1, "kept"),
    "ttlSecurity": (1, "kept"),
    "reachableBy": ("10.0.0.254", "kept"),
    "reversePeering": ("Manual", "kept"),
    "filters": (["f"], "kept"),
    "keepaliveTime": ("3s", "loss"),
}
FILTER_RULE = {
    "action": "Accept", "cidr": "10.1.0.0/16", "matchOperator": "In", "prefixLength": {"min": 16, "max": 24},
    "source": "RemotePeers", "interface": "eth*", "peerType": "eBGP", "communities": {"values": ["64512:10"]},
    "asPathPrefix": [64512], "priority": 100,
    "operations": [{"addCommunity": {"value": "1:2"}}, {"prependASPath": {"prefix": [1]}}, {"setPriority": {"value": 5}}],
}  # fmt: skip
FILTER: dict[str, Row] = {field: ([FILTER_RULE], "kept") for field in ("exportV4", "importV4", "exportV6", "importV6")}
FIELDS = {
    "IPPool": POOL, "IPReservation": RESERVATION, "IPAMConfiguration": IPAM, "IPAMConfig": IPAM,
    "BGPConfiguration": CONFIGURATION, "BGPPeer": PEER, "BGPFilter": FILTER,
}  # fmt: skip
ALL = [(kind, field) for kind, rows in FIELDS.items() for field in rows]


@pytest.mark.parametrize(("kind", "field"), ALL, ids=lambda part: part)
def test_every_field_is_carried_or_named(kind: str, field: str) -> None:
    value, fate = FIELDS[kind][field]
    spec = {"cidr": "10.1.0.0/16", field: value} if kind == "IPPool" else {field: value}
    translation = translate([calico(kind, spec)], enable_pools=True)
    named = {f.level for f in translation.findings if f.field == f"spec.{field}"}
    if fate == "kept":
        assert not named
        assert only(translation)["spec"] == spec
    else:
        assert fate in named, said(translation)


def test_every_field_of_ours_is_calicos() -> None:
    """The rows above name at least what our declaration has: a field that is new here needs a row."""
    for kind, rows in FIELDS.items():
        spec: Any = TARGETS[kind].model_fields["spec"].annotation
        assert {field.alias for field in spec.model_fields.values()} <= set(rows), kind
    assert {field.alias for field in FilterRule.model_fields.values()} == set(FILTER_RULE)


CHANGED: dict[str, tuple[str, dict[str, Any], dict[str, Any], list[str]]] = {
    "what is empty is unset": (
        "BGPPeer",
        {"peerIP": "10.0.0.1", "asNumber": 0, "node": "", "filters": [], "password": None, "ttlSecurity": 0},
        {"peerIP": "10.0.0.1", "ttlSecurity": 0},
        [],
    ),
    "IP in IP in the first API's form": (
        "IPPool",
        {"cidr": "10.1.0.0/16", "ipip": {"enabled": True, "mode": "cross-subnet"}, "ipipMode": "Never"},
        {"cidr": "10.1.0.0/16", "ipipMode": "CrossSubnet"},
        [
            "note IPPool/default spec.ipipMode: Never gives way to ipip, as in Calico",
            "note IPPool/default spec.ipip: is ipipMode: CrossSubnet now",
        ],
    ),
    "IP in IP of the first API, off": (
        "IPPool",
        {"cidr": "10.1.0.0/16", "ipip": {"mode": "always"}, "ipipMode": "Always"},
        {"cidr": "10.1.0.0/16", "ipipMode": "Never"},
        [
            "note IPPool/default spec.ipipMode: Always gives way to ipip, as in Calico",
            "note IPPool/default spec.ipip: is ipipMode: Never now",
        ],
    ),
    "IP in IP of the first API, empty": (
        "IPPool",
        {"cidr": "10.1.0.0/16", "ipip": {}, "ipipMode": ""},
        {"cidr": "10.1.0.0/16", "ipipMode": "Never"},
        ["note IPPool/default spec.ipip: is ipipMode: Never now"],
    ),
    "NAT in the first API's form": (
        "IPPool",
        {"cidr": "10.1.0.0/16", "nat-outgoing": True, "natOutgoing": False},
        {"cidr": "10.1.0.0/16", "natOutgoing": True},
        ["note IPPool/default spec.nat-outgoing: is natOutgoing: true now"],
    ),
    "no tunnel in a pool for namespaces": (
        "IPPool",
        {"cidr": "10.1.0.0/16", "namespaceSelector": "all()", "allowedUses": ["Workload", "Tunnel"]},
        {"cidr": "10.1.0.0/16", "namespaceSelector": "all()", "allowedUses": ["Workload"]},
        [
            "note IPPool/default spec.allowedUses: without Tunnel: a tunnel belongs to no namespace, and the pool is for some"
            " of them"
        ],
    ),
    "host bits": (
        "IPPool",
        {"cidr": "10.1.2.3/16"},
        {"cidr": "10.1.0.0/16"},
        ["note IPPool/default spec.cidr: 10.1.2.3/16 is 10.1.0.0/16 now, written by its first address"],
    ),
    "too many blocks": (
        "IPAMConfig",
        {"strictAffinity": True, "autoAllocateBlocks": True, "maxBlocksPerHost": 2147483647},
        {"strictAffinity": True, "autoAllocateBlocks": True, "maxBlocksPerHost": 1_000_000},
        ["note IPAMConfiguration/default spec.maxBlocksPerHost: 2147483647: more than 1024 counts as 1024"],
    ),
    "a severity in another case": ("BGPConfiguration", {"logSeverityScreen": "warning"}, {"logSeverityScreen": "Warning"}, []),
    "a severity that we don't have": (
        "BGPConfiguration",
        {"logSeverityScreen": "Trace"},
        {"logSeverityScreen": "Debug"},
        ["note BGPConfiguration/default spec.logSeverityScreen: Trace is Debug now"],
    ),
    "nothing persists": (
        "IPAMConfiguration",
        {"kubeVirtVMAddressPersistence": "Disabled", "minIPReclaimAgeSeconds": 30},
        {},
        [
            "note IPAMConfiguration/default spec.kubeVirtVMAddressPersistence: Disabled: is not kept; a virtual machine that"
            " moves gets another address",
            "note IPAMConfiguration/default spec.minIPReclaimAgeSeconds: 30: is not kept; a released address rests 30 s here",
        ],
    ),
}


@pytest.mark.parametrize("row", CHANGED)
def test_changed(row: str) -> None:
    kind, spec, expected, notes = CHANGED[row]
    translation = translate([calico(kind, spec)], enable_pools=True)
    assert only(translation)["spec"] == expected
    assert said(translation, "note") == notes


WAY_OUT = "; correct it in Calico, or leave it out here and write it by hand"
REFUSED: dict[str, tuple[Any, list[str]]] = {
    "a text for a number": (
        calico("IPPool", {"cidr": "10.1.0.0/16", "blockSize": "26"}),
        ["refused IPPool/default spec.blockSize: must be a valid integer; it is 26"],
    ),
    "a field that must be there": (calico("IPPool", {"blockSize": 26}), ["refused IPPool/default spec.cidr: Field required"]),
    "an AS number that is a list": (
        calico("BGPPeer", {"asNumber": [1]}),
        ["refused BGPPeer/default spec.asNumber: must be a valid integer; it is [1]"],
    ),
    "deep inside": (
        calico("BGPFilter", {"importV4": [{"action": "Accept"}, {"action": "Drop"}]}),
        ["refused BGPFilter/default spec.importV4[1].action: must be 'Accept' or 'Reject'; it is Drop"],
    ),
    "a spec that is none": (
        calico("BGPPeer", "all"),
        ["refused BGPPeer/default spec: must be an object; it is all"],
    ),
    "no name": (calico("BGPPeer", {}, ""), ["refused BGPPeer metadata.name: there is none"]),
    "no metadata": ({"apiVersion": V3, "kind": "IPPool", "metadata": None}, ["refused IPPool metadata.name: there is none"]),
}


@pytest.mark.parametrize("row", REFUSED)
def test_refused_by_name_and_the_others_go_on(row: str) -> None:
    bad, expected = REFUSED[row]
    translation = translate([bad, calico("IPReservation", {"reservedCIDRs": ["10.1.0.7"]}, "r")])
    assert said(translation, "refused") == [line + WAY_OUT for line in expected]
    assert [one["kind"] for one in translation.objects] == ["IPReservation"]


UNKEPT: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a policy": (
        calico("NetworkPolicy", {}, "default.web", version=V1, namespace="shop"),
        [
            "loss NetworkPolicy/shop/default.web : is not kept: Tortie knows none of Calico's own policies, so what it alone"
            " forbids is allowed; write a NetworkPolicy"
        ],
    ),
    "a global policy": (
        calico("GlobalNetworkPolicy", {}, "deny"),
        [
            "loss GlobalNetworkPolicy/deny : is not kept: Tortie knows none of Calico's own policies, so what it alone forbids"
            " is allowed; write a NetworkPolicy"
        ],
    ),
    "a staged one": (
        calico("StagedGlobalNetworkPolicy", {}, "s"),
        ["loss StagedGlobalNetworkPolicy/s : is not kept: Tortie has no staged policies"],
    ),
    "a user's tier": (calico("Tier", {}, "security"), ["loss Tier/security : is not kept: Tortie has no tiers of policies"]),
    "Calico's tier": (calico("Tier", {}, "default"), []),
    "a host endpoint": (
        calico("HostEndpoint", {}, "h"),
        ["loss HostEndpoint/h : is not kept: Tortie doesn't protect nodes' own interfaces"],
    ),
    "a set": (
        calico("GlobalNetworkSet", {}, "s"),
        ["loss GlobalNetworkSet/s : is not kept: Tortie has no sets of addresses for policies"],
    ),
    "a kind that is new": (calico("Marvel", {}, "m"), ["loss Marvel/m : is not kept: Tortie has no such kind"]),
    "what Calico's programs keep": (calico("KubeControllersConfiguration", {"etcdV3CompactionPeriod": "10m"}), []),
    "another one's object": ({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}}, []),
    "Kubernetes' policy": (
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "d", "namespace": "n"}},
        ["note NetworkPolicy.networking.k8s.io : 1 in the cluster: Tortie enforces them, too"],
    ),
    "a policy of Kubernetes for administrators": (
        {"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": "d"}},
        ["note ClusterNetworkPolicy.policy.networking.k8s.io : 1 in the cluster: Tortie enforces them, too"],
    ),
    "one of before": (
        {"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy", "metadata": {"name": "d"}},
        [
            "loss AdminNetworkPolicy.policy.networking.k8s.io : 1 in the cluster: Tortie enforces none of these; write"
            " ClusterNetworkPolicies in their place"
        ],
    ),
    "a node that reflects routes": (
        {
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "n", "annotations": {"projectcalico.org/RouteReflectorClusterID": "244.0.0.1"}},
        },
        [
            "note Node/n bgp.routeReflectorClusterID: is an annotation of the Node here: kubectl annotate node n"
            " tortie.dev/route-reflector-cluster-id=244.0.0.1"
        ],
    ),
    "a node as calicoctl shows it": (
        calico("Node", {"bgp": {"asNumber": 64513, "ipv4Address": "10.0.0.1/24"}}, "n"),
        ["note Node/n bgp.asNumber: is an annotation of the Node here: kubectl annotate node n tortie.dev/as-number=64513"],
    ),
    "an annotation that no shell should run": (
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "annotations": {"projectcalico.org/ASNumber": "1; ls"}}},
        ["note Node/n bgp.asNumber: is an annotation of the Node here: kubectl annotate node n 'tortie.dev/as-number=1; ls'"],
    ),
    "a node that runs Windows": (
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": {"kubernetes.io/os": "windows"}}},
        ["loss Node/n : runs Windows: Tortie runs on Linux nodes only"],
    ),
    "addresses in use": (
        calico("IPAMBlock", {"allocations": [0, None, 1, None]}, "10-1-0-0-30", version=V1),
        ["loss IPAMBlock : 2 addresses in use: a pod keeps its address only until it is made again"],
    ),
    "a block without any": (calico("IPAMBlock", {"allocations": [None]}, "b", version=V1), []),
    "an IPAM configuration that Calico doesn't heed": (
        calico("IPAMConfig", {"strictAffinity": True, "autoAllocateBlocks": True}, "other", version=V1),
        ["note IPAMConfiguration/other metadata.name: is left out: Calico heeds only the one named default"],
    ),
    "a pool that is being deleted": (
        calico("IPPool", {"cidr": "10.1.0.0/16"}, "p", deletionTimestamp="2026-01-01T00:00:00Z"),
        ["note IPPool/p : is left out: it is being deleted"],
    ),
}  # fmt: skip


def test_annotations_of_a_speaker_are_those_that_nodes_read() -> None:
    assert [ours for *_, ours in SPEAKERS] == [peering.AS_NUMBER, peering.CLUSTER_ID]


@pytest.mark.parametrize("row", UNKEPT)
def test_what_is_not_kept_is_named(row: str) -> None:
    one, expected = UNKEPT[row]
    translation = translate([one])
    assert said(translation) == expected
    assert not translation.objects


FELIX: dict[str, tuple[dict[str, Any], list[str]]] = {
    "what Calico writes itself": (
        {"bpfLogLevel": "", "floatingIPs": "Disabled", "vxlanVNI": 4096, "bpfEnabled": False, "wireguardEnabled": False},
        [],
    ),
    "eBPF": (
        {"bpfEnabled": True, "bpfExternalServiceMode": "DSR"},
        [
            "loss FelixConfiguration/default spec.bpfEnabled: true: Tortie has no eBPF mode: kube-proxy must serve Services"
            " again before Calico goes",
            "note FelixConfiguration/default : settings of Felix itself are left out: bpfExternalServiceMode",
        ],
    ),
    "WireGuard": (
        {"wireguardEnabled": True, "wireguardListeningPort": 51820},
        [
            "loss FelixConfiguration/default spec.wireguardEnabled: true: Tortie has no WireGuard: what is encrypted between"
            " nodes today, won't be",
            "note FelixConfiguration/default : settings of Felix itself are left out: wireguardListeningPort",
        ],
    ),
    "its logs and its health": (
        {"logSeverityScreen": "Debug", "healthPort": 9099, "reportingInterval": "0s"},
        [
            "note FelixConfiguration/default : settings of Felix itself are left out: logSeverityScreen, healthPort,"
            " reportingInterval"
        ],
    ),
    "what pods are allowed": (
        {"natPortRange": "1024:2048", "workloadSourceSpoofing": "Any"},
        [
            "loss FelixConfiguration/default spec.natPortRange: 1024:2048: Tortie has no such setting",
            "loss FelixConfiguration/default spec.workloadSourceSpoofing: Any: Tortie has no such permission for pods",
        ],
    ),
    "Windows": (
        {"windowsManageFirewallRules": "Enabled"},
        ["loss FelixConfiguration/default spec.windowsManageFirewallRules: Enabled: Tortie runs on Linux nodes only"],
    ),
}


@pytest.mark.parametrize("row", FELIX)
def test_felix(row: str) -> None:
    spec, expected = FELIX[row]
    assert said(translate([calico("FelixConfiguration", spec)])) == expected


def test_a_pool_is_disabled_until_calico_is_gone() -> None:
    pool = calico("IPPool", {"cidr": "10.1.0.0/16"})
    translation = translate([pool])
    assert only(translation)["spec"]["disabled"] is True
    assert said(translation) == [
        "note IPPool/default spec.disabled: true until Calico is gone: both would give out the same addresses"
    ]
    assert "disabled" not in only(translate([pool], enable_pools=True))["spec"]


def test_labels_and_annotations_are_the_users() -> None:
    stored = {
        "labels": {"team": "a", "app.kubernetes.io/managed-by": "tigera-operator"},
        "annotations": {"why": "b", "projectcalico.org/x": "y"},
        "creationTimestamp": None,
        "uid": "u",
    }
    annotations = {
        "projectcalico.org/metadata": json.dumps(stored),
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        "old": "c",
    }
    pool = calico("IPPool", {"cidr": "10.1.0.0/16", "disabled": True}, version=V1, annotations=annotations, uid="u")
    pool |= {"status": {"conditions": []}}
    pool["metadata"] |= {"resourceVersion": "7", "managedFields": [{}], "ownerReferences": [{}], "finalizers": ["f"]}
    translation = translate([pool])
    assert only(translation) == {
        "apiVersion": "tortie.dev/v1alpha1",
        "kind": "IPPool",
        "metadata": {"name": "default", "labels": {"team": "a"}, "annotations": {"old": "c", "why": "b"}},
        "spec": {"cidr": "10.1.0.0/16", "disabled": True},
    }
    assert said(translation) == [
        "note IPPool/default metadata: says who manages Calico's object, and is left out: app.kubernetes.io/managed-by"
    ]


def test_metadata_that_is_no_json_is_named() -> None:
    pool = calico("IPPool", {"cidr": "10.1.0.0/16", "disabled": True}, annotations={"projectcalico.org/metadata": "{"})
    assert said(translate([pool])) == [
        "note IPPool/default metadata.annotations[projectcalico.org/metadata]: isn't JSON: the labels and annotations in it are"
        " left out"
    ]


def test_the_same_object_twice_is_one_and_two_that_differ_are_named() -> None:
    pool = calico("IPPool", {"cidr": "10.1.0.0/16"})
    assert len(translate([pool, copy.deepcopy(pool)]).objects) == 1
    translation = translate([pool, calico("IPPool", {"cidr": "10.2.0.0/16"})])
    assert only(translation)["spec"]["cidr"] == "10.1.0.0/16"
    assert said(translation, "refused") == [
        f"refused IPPool/default : stands here twice, with different values, and only the first is taken{WAY_OUT}"
    ]


def test_pools_come_last_and_losses_first() -> None:
    objects = [
        calico("IPPool", {"cidr": "10.1.0.0/16"}),
        calico("BGPPeer", {"localWorkloadSelector": "all()"}),
        calico("IPReservation", {"reservedCIDRs": ["10.1.0.1"]}),
    ]
    translation = translate(objects)
    assert [one["kind"] for one in translation.objects] == ["IPReservation", "BGPPeer", "IPPool"]
    assert [finding.level for finding in translation.findings] == ["loss", "note"]


MODES = st.sampled_from(["Never", "Always", "CrossSubnet"])
POOLS = st.fixed_dictionaries(
    {"cidr": st.just("10.1.0.0/16")},
    optional={
        "ipipMode": MODES,
        "vxlanMode": MODES,
        "natOutgoing": st.booleans(),
        "allowedUses": st.lists(st.sampled_from(["Workload", "Tunnel", "LoadBalancer"]), unique=True),
    },
)


@given(POOLS)
def test_what_the_operator_calls_unsupported_is_a_loss(spec: dict[str, Any]) -> None:
    losses = [finding for finding in translate([calico("IPPool", spec)]).findings if finding.level == "loss"]
    assert bool(losses) == bool(unsupported(spec))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**33) | st.sampled_from(["", "Never", "Enabled", "10.1.0.0/16", "x", "2m"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["cidr", "action", "name", "x"]), inner),
    max_leaves=4,
)


@st.composite
def specs(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A kind and a spec whose fields are Calico's or unknown, each with the value of its row or any."""
    kind = draw(st.sampled_from(sorted(FIELDS)))
    fields = draw(st.lists(st.sampled_from([*FIELDS[kind], "unknown"]), unique=True))
    return kind, {
        field: draw(st.just(FIELDS[kind][field][0]) | VALUES if field in FIELDS[kind] else VALUES) for field in fields
    }


def is_empty(value: Any) -> bool:
    """Whether Calico takes a value for unset; a list or an object of such values is one, too."""
    if isinstance(value, dict):
        return all(map(is_empty, value.values()))
    return value is None or value in ("", []) or (isinstance(value, int) and value == 0)


@given(specs())
def test_whatever_comes_is_valid_or_named(drawn: tuple[str, dict[str, Any]]) -> None:
    kind, spec = drawn
    before = copy.deepcopy(spec)
    translation = translate([calico(kind, spec)], enable_pools=True)
    assert spec == before
    refused = [finding for finding in translation.findings if finding.level == "refused"]
    assert len(translation.objects) == (0 if refused else 1)
    for wire in translation.objects:
        assert MODELS[wire["kind"]].model_validate_json(json.dumps(wire))
        assert_all_is_carried_or_named(spec, wire["spec"], translation.findings)


def assert_all_is_carried_or_named(spec: dict[str, Any], kept: dict[str, Any], findings: tuple[Finding, ...]) -> None:
    for field, value in spec.items():
        named = [finding for finding in findings if finding.field.startswith(f"spec.{field}")]
        same = kept.get(field) == value or text(kept.get(field)).lower() == text(value).lower()
        assert same or named or is_empty(value) or holds_empty(value), (field, value, kept)


def holds_empty(value: Any) -> bool:
    """Whether something inside is unset, and so may be left out."""
    if isinstance(value, dict):
        return any(is_empty(item) or holds_empty(item) for item in value.values())
    return isinstance(value, list) and any(map(holds_empty, value))


THINGS = st.fixed_dictionaries(
    {
        "apiVersion": st.sampled_from([V1, V3, "v1"]) | VALUES,
        "kind": st.sampled_from([*FIELDS, "Node", "FelixConfiguration"]) | VALUES,
    },
    optional={"metadata": VALUES | st.dictionaries(st.sampled_from(["name", "labels", "annotations"]), VALUES), "spec": VALUES},
)


@given(st.lists(THINGS))
def test_it_never_raises(objects: list[dict[str, Any]]) -> None:
    translate(objects)
