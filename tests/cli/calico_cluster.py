"""A Calico cluster as its API server shows it: CRDs that take anything, and the objects of a usual installation."""

import json
from typing import Any

from tests.cluster.deploy import is_established, wait
from tests.cluster.kubectl import Kubectl

V1, V3 = ("crd.projectcalico.org", "v1"), ("projectcalico.org", "v3")
KINDS = {
    "ippools": "IPPool", "ipreservations": "IPReservation", "ipamconfigs": "IPAMConfig",
    "bgpconfigurations": "BGPConfiguration", "bgppeers": "BGPPeer", "bgpfilters": "BGPFilter",
    "felixconfigurations": "FelixConfiguration", "ipamblocks": "IPAMBlock",
    "globalnetworkpolicies": "GlobalNetworkPolicy", "kubecontrollersconfigurations": "KubeControllersConfiguration",
}  # fmt: skip
NAMESPACED = {"networkpolicies": "NetworkPolicy"}


def crd(api: tuple[str, str], plural: str, kind: str, *, namespaced: bool = False) -> dict[str, Any]:
    """Return a CRD whose objects may hold anything."""
    group, version = api
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced" if namespaced else "Cluster",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
            "versions": [{"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}],
        },
    }


def install(kubectl: Kubectl, api: tuple[str, str] = V1) -> list[str]:
    """Define Calico's kinds and return the CRDs' names."""
    crds = [crd(api, plural, kind) for plural, kind in KINDS.items()]
    crds += [crd(api, plural, kind, namespaced=True) for plural, kind in NAMESPACED.items()]
    kubectl.apply(*crds)
    names = [one["metadata"]["name"] for one in crds]
    wait("Calico's kinds are served", lambda: all(map(is_established, kubectl.get("crd", *names)["items"])))
    return names


def stored(kind: str, name: str, spec: dict[str, Any], *, api: tuple[str, str] = V1, **metadata: Any) -> dict[str, Any]:
    """Return an object as Calico stores it: what a person gave of metadata is in an annotation."""
    kept = {"projectcalico.org/metadata": json.dumps({"creationTimestamp": None, **metadata})}
    body = {"name": name, "annotations": kept} if api == V1 else {"name": name, **metadata}
    return {"apiVersion": "/".join(api), "kind": kind, "metadata": body, "spec": spec}


USUAL = [
    stored(
        "IPPool",
        "default-ipv4-ippool",
        {
            "cidr": "10.244.0.0/16", "blockSize": 26, "ipipMode": "Never", "vxlanMode": "CrossSubnet", "natOutgoing": True,
            "nodeSelector": "all()", "allowedUses": ["Workload", "Tunnel"], "assignmentMode": "Automatic",
        },
        labels={"team": "net"},
    ),
    stored("IPPool", "old", {"cidr": "10.9.0.0/24", "ipip": {"enabled": False}, "disabled": True}),
    stored("IPReservation", "router", {"reservedCIDRs": ["10.244.0.0/28"]}),
    stored("IPAMConfig", "default", {"strictAffinity": False, "autoAllocateBlocks": True}),
    stored("BGPConfiguration", "default", {"logSeverityScreen": "info", "nodeToNodeMeshEnabled": False, "asNumber": 64512}),
    stored("BGPPeer", "tor", {"peerIP": "192.0.2.1", "asNumber": 64513, "filters": ["in"], "keepaliveTime": "3s"}),
    stored("BGPFilter", "in", {"importV4": [{"action": "Reject", "cidr": "10.0.0.0/8", "matchOperator": "In"}]}),
    stored("FelixConfiguration", "default", {"bpfLogLevel": "", "floatingIPs": "Disabled", "wireguardEnabled": True}),
    stored("IPAMBlock", "10-244-0-0-26", {"cidr": "10.244.0.0/26", "allocations": [0, 1, *[None] * 62]}),
    stored("GlobalNetworkPolicy", "default.deny-all", {"selector": "all()"}),
    stored("KubeControllersConfiguration", "default", {"controllers": {}}),
]  # fmt: skip
# What can be kept without a loss.
HARMLESS = [
    stored("IPPool", "default-ipv4-ippool", {"cidr": "10.244.0.0/16", "nodeSelector": "all()"}, labels={"team": "net"}),
    stored("IPReservation", "router", {"reservedCIDRs": ["10.244.0.0/28"]}),
]
