"""Pods, nodes and blocks as the API server holds them, in the compiler's words. A claim is believed only if it fits."""

from collections.abc import Callable

from tortie.addressing.allocator import address
from tortie.addressing.ranges import parse
from tortie.api.lean import Block, BlockAllocation, Node
from tortie.api.policy_input import Pod
from tortie.policy.compiler import Claim, PodFacts


def pod_facts(pod: Pod) -> PodFacts:
    """Return what policies need to know of a pod."""
    meta, spec = pod.metadata, pod.spec
    # A sidecar is an init container that goes on running; the other ones are over before the pod serves anybody.
    containers = (*spec.containers, *(one for one in spec.init_containers if one.restart_policy == "Always"))
    ports = {(port.name, port.protocol, port.container_port) for one in containers for port in one.ports if port.name}
    return PodFacts(
        meta.namespace,
        meta.name,
        _runtime_uid(pod),
        spec.node_name,
        tuple(sorted(meta.labels.items())),
        tuple(sorted(ports)),
        host_network=spec.host_network,
        ended=pod.status.phase in ("Succeeded", "Failed"),
    )


def _runtime_uid(pod: Pod) -> str:
    """Return the uid that the runtime knows a pod by: a static pod's is a digest, whose mirror in the API has another uid.

    Whoever makes a pod can write that annotation: it is not believed where it could be the uid of another pod.
    """
    said = pod.metadata.annotations.config_hash
    return said if said and "-" not in said else pod.metadata.uid


def node_addresses(node: Node) -> tuple[str, ...]:
    """Return the addresses that traffic of a node may come from; its other entries are names."""
    return tuple(one.address for one in node.status.addresses if one.type in ("InternalIP", "ExternalIP"))


def claims(block: Block, find: Callable[[str, str], Pod | None]) -> tuple[list[Claim], list[str]]:
    """Return what a block says that may be believed, and what of it can't be so, for people; `find` is asked for pods.

    A pod of another node, or of the host's network, has no address here, whatever an agent says. What is said of a pod that
    nobody knows yet stays: it counts once the pod is known, on this node and by this uid. Raises ValueError where spec.cidr
    isn't a CIDR.
    """
    whole, holes = parse(block.spec.cidr), [parse(hole) for hole in block.spec.without]
    found, lies = list[Claim](), list[str]()
    for one in block.status.allocations:
        try:
            where = address(one.address)
        except ValueError:
            lies.append(f"{one.address!r} is no address")
            continue
        if not where.within(whole) or any(where.within(hole) for hole in holes):
            lies.append(f"{one.address} is not in the block")
        elif why := _cannot_be(one, block.spec.affinity.node, find(one.namespace, one.pod)):
            lies.append(f"{one.address} is said to be of pod {one.namespace}/{one.pod}, which {why}")
        else:
            found.append(Claim(one.address, one.uid))
    return found, lies


def _cannot_be(said: BlockAllocation, node: str, pod: Pod | None) -> str:
    if pod is None or pod.metadata.uid != said.uid:
        return ""
    if pod.spec.host_network:
        return "uses its node's own addresses"
    if pod.spec.node_name and pod.spec.node_name != node:
        return f"runs on node {pod.spec.node_name}"
    return ""
