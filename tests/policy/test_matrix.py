"""The whole table at once says what the oracle says of each pair; who stands in for what is missing is like anybody else."""

from typing import Any

import msgspec
from hypothesis import event, given, settings

from tests.policy import oracle
from tests.policy.clusters import CLUSTERS, PROBES
from tests.policy.oracle import Cluster
from tortie.addressing.ranges import Family
from tortie.api.lean import Node
from tortie.api.policy_input import ClusterNetworkPolicy, NetworkPolicy, Pod
from tortie.policy.matrix import Crowd
from tortie.policy.world import Objects, PodKey, World


def objects(cluster: Cluster) -> Objects:
    """The cluster as tortiectl reads it."""
    made = Objects()
    for namespace in cluster["namespaces"]:
        made.namespaces[namespace["metadata"]["name"]] = namespace["metadata"]["labels"]
    for pod in (msgspec.convert(one, Pod) for one in cluster["pods"]):
        made.pods[pod.metadata.namespace, pod.metadata.name] = pod
    for node in (msgspec.convert(one, Node) for one in cluster["nodes"]):
        made.nodes[node.metadata.name] = node
    for policy in (msgspec.convert(one, NetworkPolicy) for one in cluster["networkpolicies"]):
        made.policies["NetworkPolicy", policy.metadata.namespace, policy.metadata.name] = policy
    for wide in (msgspec.convert(one, ClusterNetworkPolicy) for one in cluster["clusternetworkpolicies"]):
        made.policies["ClusterNetworkPolicy", "", wide.metadata.name] = wide
    return made


def completed(cluster: Cluster, world: World) -> Cluster:
    """The cluster with what stands in written down, as if it had always been there."""
    pods, nodes = [], list(cluster["nodes"])
    for pod in cluster["pods"]:
        key = pod["metadata"]["namespace"], pod["metadata"]["name"]
        if key in world.facts:
            status = {**pod["status"], "podIPs": [{"ip": one} for one in world.addresses[key]]}
            pod = {**pod, "spec": {**pod["spec"], "nodeName": world.facts[key].node}, "status": status}  # noqa: PLW2901
        pods.append(pod)
    for name in world.node_addresses.keys() - {node["metadata"]["name"] for node in nodes}:
        addresses: Any = [{"type": "InternalIP", "address": one} for one in world.node_addresses[name]]
        nodes.append({"metadata": {"name": name, "labels": {}}, "status": {"addresses": addresses}})
    return {**cluster, "pods": pods, "nodes": nodes}


def who(world: World, key: PodKey, family: Family) -> oracle.Party:
    address, facts = str(world.parties(key)[family].address), world.facts[key]
    return oracle.Party(node=facts.node, address=address) if facts.host_network else oracle.Party("/".join(key), "", address)


@given(CLUSTERS)
@settings(max_examples=200)
def test_the_table_is_the_oracles(cluster: Cluster) -> None:
    world = World(objects(cluster))
    cluster, keys = completed(cluster, world), list(world.facts)
    crowd = Crowd(world.compiled, [world.parties(key) for key in keys])
    for protocol, port in PROBES:
        reach, split = crowd.rows(protocol, port)
        for row, source in enumerate(keys):
            for column, target in enumerate(keys):
                if source == target:
                    continue
                shared = [f for f in world.parties(source) if f in world.parties(target)]
                says = {oracle.allowed(cluster, who(world, source, f), who(world, target, f), protocol, port) for f in shared}
                assert (reach[row] >> column & 1) == (True in says), (source, target, protocol, port)
                assert (split[row] >> column & 1) == (len(says) == 2), (source, target, protocol, port)
                event(f"says {sorted(says)}")
