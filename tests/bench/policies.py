"""What it costs to compile policies: Antrea's large-scale workloads, from the watch's JSON to objects as specs.

Each is compiled in a process of its own, which reads the events of a file one by one: what they cost to make isn't counted.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import msgspec

from tortie.addressing.allocator import address
from tortie.addressing.ranges import parse
from tortie.api import lean, policy_input
from tortie.controller.collection import collect_seldom
from tortie.policy.compiler import Changes, Claim, Compiler
from tortie.policy.facts import node_addresses, pod_facts
from tortie.policy.policies import cluster_network_policy, network_policy

Object = dict[str, Any]
Event = tuple[str, Object]
NODES = 1000


def compiled(name: str) -> dict[str, float]:
    """Return the seconds and the peak MB of the process that compiles this workload."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.writelines(f"{kind} {json.dumps(made)}\n" for kind, made in _events(name))
        file.flush()
        done = subprocess.run([sys.executable, "-m", __name__, file.name], capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    print(f"{name}: {figures.pop('cpu'):.2f} s of CPU", file=sys.stderr)
    return {f"policy_compile_{name}": figures["seconds"], f"policy_compile_{name}_rss": figures["rss"]}


def _events(name: str) -> Iterator[Event]:
    """Yield a workload's events: nodes, then pods and policies as they come, then the blocks that publish the addresses."""
    for n in range(NODES):
        addresses = [{"type": "InternalIP", "address": f"192.168.{n >> 8}.{n & 255}"}]
        yield "Node", {"metadata": {"name": f"node-{n}", "labels": {"kubernetes.io/hostname": f"node-{n}"}},
                       "status": {"addresses": addresses}}  # fmt: skip
    pods: list[list[Object]] = [[] for _ in range(NODES)]
    count = 0
    for kind, made in WORKLOADS[name]():
        if kind == "Pod":
            made["spec"]["nodeName"] = f"node-{count % NODES}"
            pods[count % NODES].append(made["metadata"])
            count += 1
        yield kind, made
    for n, held in enumerate(pods):
        for start in range(0, len(held), 64):
            yield "IPAMBlock", _block(n, start // 64, held[start : start + 64])


def _block(node: int, number: int, pods: list[Object]) -> Object:
    first = IPv4Address((10 << 24) + (node << 2 | number) * 64)
    listed = [
        {"address": str(first + n), "sequence": n, "namespace": pod["namespace"], "pod": pod["name"], "uid": pod["uid"]}
        for n, pod in enumerate(pods)
    ]
    return {
        "metadata": {"name": f"block-{node}-{number}", "uid": f"block-{node}-{number}"},
        "spec": {"cidr": f"{first}/26", "pool": {"name": "pool", "uid": "u"}, "affinity": {"node": f"node-{node}", "uid": "u"}},
        "status": {"allocations": listed, "sequence": 64, "epoch": "e"},
    }


def _pod(namespace: str, name: str, **labels: str) -> Event:
    metadata = {"name": name, "namespace": namespace, "uid": f"{namespace}-{name}", "labels": labels, "resourceVersion": "1"}
    spec = {"containers": [{"name": "app", "image": "registry.k8s.io/pause:3.10", "resources": {}}], "restartPolicy": "Always"}
    return "Pod", {"metadata": metadata, "spec": spec, "status": {"phase": "Running"}}


def _namespace(name: str, **labels: str) -> Event:
    return "Namespace", {"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, **labels}}}


def _deny_all(namespace: str) -> Event:
    spec = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    return "NetworkPolicy", {"metadata": {"name": "deny-all", "namespace": namespace}, "spec": spec}


def _admit(namespace: str, name: str, subject: Object, peer: Object) -> Event:
    spec = {"podSelector": {"matchLabels": subject}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": peer}}]}]}  # fmt: skip
    return "NetworkPolicy", {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def _scale(group: int) -> dict[str, str]:
    return {f"app-{group}": f"scale-{group}"}


def _namespaces(count: int, pods: int, groups: int) -> Iterator[Event]:
    """Namespaces whose pods are of so many groups, each of which admits itself alone."""
    for n in range(count):
        name = f"ns-{n}"
        yield _namespace(name)
        for k in range(pods):
            yield _pod(name, f"pod-{k}", **_scale(1 + k % groups))
        yield _deny_all(name)
        for group in range(1, groups + 1):
            yield _admit(name, f"app-{group}", _scale(group), _scale(group))


def _one_namespace() -> Iterator[Event]:
    yield _namespace("ns")
    for k in range(10_000):
        yield _pod("ns", f"pod-{k}", **_scale(1))
    for k in range(10_000):
        yield _admit("ns", f"policy-{k}", _scale(1), _scale(1))


def _policy_per_pod() -> Iterator[Event]:
    yield _namespace("ns")
    for k in range(10_000):
        yield _pod("ns", f"pod-{k}", **_scale(k))
    for k in range(10_000):
        yield _admit("ns", f"policy-{k}", _scale(k), _scale(k ^ 1))


def _cluster_scoped() -> Iterator[Event]:
    """Each policy is about ten pods of one namespace; its peers are ten pods of each of ten namespaces."""
    for n in range(1000):
        yield _namespace(f"ns-{n}", purpose=f"purpose-{n % 100}")
        for k in range(100):
            yield _pod(f"ns-{n}", f"pod-{k}", app=f"app-{k % 10}")
    for k in range(10_000):
        app = {"podSelector": {"matchLabels": {"app": f"app-{k // 1000}"}}}
        subject = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": f"ns-{k % 1000}"}}, **app}
        peer = {"namespaceSelector": {"matchLabels": {"purpose": f"purpose-{k % 100}"}}, **app}
        spec = {"tier": "Admin", "priority": k % 1000, "subject": {"pods": subject},
                "ingress": [{"action": "Accept", "from": [{"pods": peer}]}]}  # fmt: skip
        yield "ClusterNetworkPolicy", {"metadata": {"name": f"policy-{k}"}, "spec": spec}


WORKLOADS: dict[str, Callable[[], Iterator[Event]]] = {
    "small_namespaces": partial(_namespaces, 25_000, 4, 2),
    "large_namespaces": partial(_namespaces, 100, 1000, 100),
    "one_namespace": _one_namespace,
    "policy_per_pod": _policy_per_pod,
    "cluster_scoped": _cluster_scoped,
}

# In the process that compiles.


_PODS = msgspec.json.Decoder(policy_input.Pod)
_NETWORK_POLICIES = msgspec.json.Decoder(policy_input.NetworkPolicy)
_CLUSTER_POLICIES = msgspec.json.Decoder(policy_input.ClusterNetworkPolicy)
_NAMESPACES = msgspec.json.Decoder(lean.Labelled)
_NODES = msgspec.json.Decoder(lean.Node)
_BLOCKS = msgspec.json.Decoder(lean.Block)


def _compile(path: Path) -> Changes:
    compiler = Compiler()
    with path.open("rb") as file:
        for line in file:
            kind, _, body = line.partition(b" ")
            match kind:
                case b"Pod":
                    compiler.put_pod(pod_facts(_PODS.decode(body)))
                case b"NetworkPolicy":
                    compiler.put_policy(network_policy(_NETWORK_POLICIES.decode(body)))
                case b"ClusterNetworkPolicy":
                    compiler.put_policy(cluster_network_policy(_CLUSTER_POLICIES.decode(body)))
                case b"Namespace":
                    meta = _NAMESPACES.decode(body).metadata
                    compiler.put_namespace(meta.name, meta.labels)
                case b"Node":
                    node = _NODES.decode(body)
                    compiler.put_node(node.metadata.name, node.metadata.labels, node_addresses(node))
                case b"IPAMBlock":
                    block = _BLOCKS.decode(body)
                    whole = parse(block.spec.cidr)
                    inside = (one for one in block.status.allocations if address(one.address).within(whole))
                    claims = [Claim(one.address, one.uid) for one in inside]
                    compiler.put_block(block.metadata.name, block.spec.affinity.node, claims)
    return compiler.take()


def _main(path: Path) -> None:
    collect_seldom()  # as the operator's process does
    wall, cpu = time.perf_counter(), time.process_time()
    made = _compile(path)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert made.rule_sets
    assert made.address_sets
    assert len(made.node_policies) == NODES
    # Not getrusage's: that is of the process that forked this one, too.
    peak = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"seconds": wall, "cpu": cpu, "rss": int(peak) / 1024}))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
