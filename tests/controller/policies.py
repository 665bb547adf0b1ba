"""What the tests of policies write, and read of them."""

from pathlib import Path
from typing import Any

from tests.cluster.kubectl import Kubectl

Object = dict[str, Any]
DEFINITION = (Path(__file__).parent / "clusternetworkpolicies.yaml").read_text()
CLUSTER_POLICIES = "clusternetworkpolicies.policy.networking.k8s.io"


def namespace(name: str, **labels: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def pod(name: str, where: str, namespace: str = "shop", **spec: Any) -> Object:
    port = {"name": "http", "containerPort": 8080}
    whole = {
        "nodeName": where, "containers": [{"name": "c", "image": "none", "ports": [port]}],
        "terminationGracePeriodSeconds": 0, **spec,
    }  # fmt: skip
    meta = {"name": name, "namespace": namespace, "labels": {"app": name.partition("-")[0]}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": whole}


def admits(name: str, app: str, peer: str, port: int | str = "http", namespace: str = "shop") -> Object:
    spec = {
        "podSelector": {"matchLabels": {"app": app}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": peer}}}], "ports": [{"port": port}]}],
    }
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}


def denies(name: str, peer: Object, priority: int = 10) -> Object:
    spec = {
        "tier": "Admin", "priority": priority, "subject": {"namespaces": {}},
        "egress": [{"name": "none", "action": "Deny", "to": [peer]}],
    }  # fmt: skip
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": name},
        "spec": spec,
    }  # fmt: skip


def app(name: str) -> Object:
    return {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": name}}}}


def condition(cluster: Kubectl, name: str, kind: str) -> Object:
    listed = cluster.get("clusternetworkpolicy", name).get("status", {}).get("conditions", [])
    return next((one for one in listed if one["type"] == kind), {})
