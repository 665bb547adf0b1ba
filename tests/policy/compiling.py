"""Clusters as dicts, fed to the compiler; what comes out, gathered as an API server would hold it."""

from collections.abc import Callable
from typing import Any

import msgspec

from tests.policy import oracle
from tests.policy.oracle import Cluster, Object
from tortie.addressing.allocator import Address, address
from tortie.api import lean, policy_input
from tortie.api.compiled import AddressSetSpec, NodePolicySpec, RuleSetSpec
from tortie.policy.compiler import Changes, Claim, Compiler
from tortie.policy.facts import node_addresses, pod_facts
from tortie.policy.policies import cluster_network_policy, logs, network_policy
from tortie.policy.verdict import Compiled, Party

# The address of a pod that has none yet: in no set and no range.
NOWHERE = Address(4, -1)

# So small that a few addresses are many chunks (`small_chunks`).
CHUNK, MANY = 4, 2


def put(compiler: Compiler, kind: str, seen: Object) -> None:
    """Tell the compiler of an object of this kind, new or changed. A block is {name, node, claims: {address: uid}}."""
    match kind:
        case "pods":
            compiler.put_pod(pod_facts(msgspec.convert(seen, policy_input.Pod)))
        case "namespaces":
            meta = msgspec.convert(seen, policy_input.Namespace).metadata
            compiler.put_namespace(meta.name, meta.labels, log=logs(meta.annotations)[0])
        case "nodes":
            node = msgspec.convert(seen, lean.Node)
            compiler.put_node(node.metadata.name, node.metadata.labels, node_addresses(node))
        case "networkpolicies":
            compiler.put_policy(network_policy(msgspec.convert(seen, policy_input.NetworkPolicy)))
        case "clusternetworkpolicies":
            compiler.put_policy(cluster_network_policy(msgspec.convert(seen, policy_input.ClusterNetworkPolicy)))
        case "blocks":
            compiler.put_block(seen["name"], seen["node"], (Claim(one, uid) for one, uid in seen["claims"].items()))


def drop(compiler: Compiler, kind: str, seen: Object) -> None:
    """Tell the compiler that an object is gone."""
    meta = seen.get("metadata", {})
    forget: dict[str, Callable[[], None]] = {
        "pods": lambda: compiler.drop_pod(meta["namespace"], meta["name"]),
        "namespaces": lambda: compiler.drop_namespace(meta["name"]),
        "nodes": lambda: compiler.drop_node(meta["name"]),
        "networkpolicies": lambda: compiler.drop_policy(("NetworkPolicy", meta["namespace"], meta["name"])),
        "clusternetworkpolicies": lambda: compiler.drop_policy(("ClusterNetworkPolicy", "", meta["name"])),
        "blocks": lambda: compiler.put_block(seen["name"], seen["node"], ()),
    }
    forget[kind]()


def blocks(cluster: Cluster) -> list[Object]:
    """Each node's block, as the pods' addresses say; what host-network and ended pods have is claimed, too, as by a lie."""
    made: dict[str, dict[str, str]] = {}
    for pod in cluster["pods"]:
        meta = pod["metadata"]
        runtime = meta.get("annotations", {}).get("kubernetes.io/config.hash", meta["uid"])
        for one in oracle.addresses_of(pod):
            made.setdefault(pod["spec"]["nodeName"], {}).setdefault(one, runtime)
    return [{"name": f"block-{node}", "node": node, "claims": claims} for node, claims in made.items()]


class Objects:
    """What an API server would hold when each of the compiler's changes is written."""

    def __init__(self) -> None:
        self.rule_sets: dict[str, RuleSetSpec] = {}
        self.address_sets: dict[str, AddressSetSpec] = {}
        self.node_policies: dict[str, NodePolicySpec] = {}

    def write(self, changes: Changes) -> None:
        _write(self.rule_sets, changes.rule_sets)
        _write(self.address_sets, changes.address_sets)
        _write(self.node_policies, changes.node_policies)

    def sets(self) -> dict[str, list[str]]:
        """The members of each set, however they lie in chunks."""
        found: dict[str, list[str]] = {}
        for chunk in self.address_sets.values():
            found.setdefault(chunk.set, []).extend(chunk.addresses)
        return {name: sorted(members) for name, members in found.items()}


def _write(held: dict[str, Any], changed: dict[str, Any]) -> None:
    for name, spec in changed.items():
        if spec is None:
            held.pop(name, None)
        else:
            held[name] = spec


def fresh(world: Cluster) -> Objects:
    """Compile from nothing, in the order of the kinds."""
    compiler, objects = Compiler(), Objects()
    for kind, listed in world.items():
        for one in listed:
            put(compiler, kind, one)
    objects.write(compiler.take())
    return objects


def compiled(cluster: Cluster) -> Compiled:
    objects = fresh({**cluster, "blocks": blocks(cluster)})
    return Compiled(objects.rule_sets, objects.address_sets.values(), objects.node_policies.values())


def party(cluster: Cluster, who: oracle.Party) -> Party:
    """The oracle's party as a verdict wants it."""
    where = address(who.address) if who.address else NOWHERE
    if not who.pod:
        return Party(where)
    pod = oracle.find_pod(cluster, who.pod)
    node = [n for n in cluster["nodes"] if n["metadata"]["name"] == pod["spec"].get("nodeName")]
    own = frozenset(address(one) for found in node for one in oracle.addresses_of(found))
    return Party(where, (pod["metadata"]["namespace"], pod["metadata"]["name"]), own)
