"""What the operator's tests do: write what people write, read what the operator wrote, and play the agents."""

import json
import subprocess
from collections.abc import Callable
from itertools import combinations
from typing import Any

from tests.cluster.kubectl import Kubectl
from tortie.addressing.ranges import parse

Operators = Callable[..., subprocess.Popen[bytes]]
API = "tortie.dev/v1alpha1"


def pool(name: str = "pool", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": API, "kind": "IPPool", "metadata": {"name": name}, "spec": {"cidr": "10.1.0.0/16", **spec}}


def node(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def blocks(cluster: Kubectl, **wanted: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.get("ipamblocks")["items"]
    return [b for b in found if all(b["spec"]["affinity"][k] == v for k, v in wanted.items())]


def active(cluster: Kubectl, name: str) -> list[str]:
    return [b["spec"]["cidr"] for b in blocks(cluster, node=name) if b["spec"]["active"]]


def publish(cluster: Kubectl, block: str, **status: Any) -> None:
    """Say what the agent of the block's node would say."""
    patch = json.dumps({"status": status})
    cluster.run("patch", "ipamblock", block, "--subresource=status", "--type=merge", "-p", patch)


def status(cluster: Kubectl, name: str = "pool") -> dict[str, Any]:
    found: dict[str, Any] = cluster.get("ippool", name).get("status", {})
    return found


def condition(cluster: Kubectl, name: str, kind: str = "Allocatable") -> tuple[str, str]:
    pools = [p for p in cluster.get("ippools")["items"] if p["metadata"]["name"] == name]
    found = [c for p in pools for c in p.get("status", {}).get("conditions", [])]
    return next(((c["status"], c["reason"]) for c in found if c["type"] == kind), ("", ""))


def overlaps(cluster: Kubectl) -> list[tuple[str, str]]:
    """Return the pairs of blocks that have an address in common."""
    found = [(b["metadata"]["name"], parse(b["spec"]["cidr"])) for b in blocks(cluster)]
    return [(one, other) for (one, a), (other, b) in combinations(found, 2) if a.overlaps(b)]


def owners(cluster: Kubectl) -> set[str]:
    """Return the nodes that have an active block."""
    return {b["spec"]["affinity"]["node"] for b in blocks(cluster) if b["spec"]["active"]}
