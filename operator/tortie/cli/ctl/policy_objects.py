"""What policies are about, read from manifests or from a cluster."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import click
import msgspec

from tortie.api.lean import Block, Labelled, Node
from tortie.api.policy_input import (
    ClusterNetworkPolicy,
    ClusterNetworkPolicySpec,
    NetworkPolicy,
    NetworkPolicySpec,
    Pod,
)
from tortie.cli.ctl.cluster import NODES, PODS, Cluster, Object, list_lean, ours
from tortie.cli.ctl.files import read
from tortie.cli.ctl.paths import NAMESPACES
from tortie.kube.client import Client
from tortie.kube.errors import NotFound
from tortie.kube.resource import Resource
from tortie.kube.wire import Object as Lean
from tortie.policy.facts import claims, pod_facts
from tortie.policy.refusals import Kind, misfit, refusals, unknown
from tortie.policy.world import Objects, PodKey

NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", namespaced=True)
CLUSTER_NETWORK_POLICIES = Resource("policy.networking.k8s.io", "v1alpha2", "clusternetworkpolicies")
BLOCKS = ours("ipamblocks")

# The kinds that count, each with its apiVersion.
_KINDS: dict[str, tuple[str, type[Kind]]] = {
    "Pod": (PODS.api_version, Pod),
    "Namespace": (NAMESPACES.api_version, Labelled),
    "Node": (NODES.api_version, Node),
    "NetworkPolicy": (NETWORK_POLICIES.api_version, NetworkPolicy),
    "ClusterNetworkPolicy": (CLUSTER_NETWORK_POLICIES.api_version, ClusterNetworkPolicy),
}
# A field of them that is written wrongly would let through more, or less, than it seems.
_SPECS = {"NetworkPolicy": NetworkPolicySpec, "ClusterNetworkPolicy": ClusterNetworkPolicySpec}
_NAMESPACED = ("Pod", "NetworkPolicy")
_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob")
_SHOWN = 20  # refusals at once

L = TypeVar("L", bound=Lean)


def from_files(path: str) -> Objects:
    """Return what a file or a folder holds; raises ClickException with all that the API server would refuse."""
    objects, refused, unexpanded, ignored = Objects(), list[str](), list[str](), list[str]()
    seen: dict[tuple[str, str, str], str] = {}
    for where, one in read(path):
        kind, title = one["kind"], _title(one)
        if kind in _WORKLOADS:
            unexpanded.append(title)
        elif kind in _KINDS and one.get("apiVersion") in (None, _KINDS[kind][0]):
            try:
                wrong = list(_take(objects, one, where, seen))
            except RecursionError:
                wrong = ["it is nested too deeply, or holds itself; write it without YAML's & and *"]
            refused += [f"{where}: {title}: {why}" for why in wrong]
        elif not kind or kind.endswith("NetworkPolicy"):
            ignored.append(f"{title} ({one.get('apiVersion')})" if kind else where)
    if refused:
        more = [f"and {len(refused) - _SHOWN} more"] if len(refused) > _SHOWN else []
        raise click.ClickException(
            "\n  ".join(["what the API server would refuse can't be asked about", *refused[:_SHOWN], *more])
        )
    if unexpanded:
        warn(f"no pods are made of {', '.join(unexpanded)}: only Pods count; kubectl get pods -o yaml writes those that run")
    if ignored:
        versions = ", ".join(f"{kind} of {version}" for kind, (version, _) in _KINDS.items() if kind.endswith("Policy"))
        warn(f"not read: {', '.join(ignored)}; policies are {versions}")
    return objects


def warn(text: str) -> None:
    """Say what a person should know, beside the answer."""
    click.echo(f"Warning: {text}", err=True)


def _title(one: Object) -> str:
    meta = one.get("metadata")
    meta = meta if isinstance(meta, Mapping) else {}
    return " ".join(filter(None, [one["kind"], "/".join(str(meta[key]) for key in ("namespace", "name") if meta.get(key))]))


def _take(objects: Objects, one: Object, where: str, seen: dict[tuple[str, str, str], str]) -> Iterator[str]:
    """Put an object among the others; yield what the API server would refuse of it, and then it isn't there."""
    kind = one["kind"]
    version, form = _KINDS[kind]
    if one.get("apiVersion") is None:
        yield f"apiVersion is missing; write apiVersion: {version}"
    body = _without_nulls(one)
    if kind in _NAMESPACED and isinstance(body.get("metadata"), dict):
        body["metadata"].setdefault("namespace", "default")  # as kubectl does
    if kind == "Pod" and isinstance(body.get("status"), dict) and "podIP" in body["status"]:
        body["status"].setdefault("podIPs", [{"ip": body["status"]["podIP"]}])
    if kind in _SPECS:
        yield from unknown(body.get("spec"), _SPECS[kind], "spec")
    try:
        found = msgspec.convert(body, form)
    except msgspec.ValidationError as error:
        yield misfit(error)
        return
    wrong = list(refusals(found))
    if wrong:
        yield from wrong
        return
    key = kind, found.metadata.namespace, found.metadata.name
    if key in seen:
        warn(f"{_title(one)} is in {seen[key]} and in {where}; the second one counts, as for kubectl apply")
    seen[key] = where
    put(objects, found)


def _without_nulls(value: Any) -> Any:
    """Return a value without the fields that are null: to the API server such a field is one that is missing."""
    if isinstance(value, Mapping):
        return {_key(key): _without_nulls(one) for key, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


def _key(key: Any) -> str:
    return json.dumps(key) if isinstance(key, bool) else str(key)  # YAML reads the key no as a truth value


def put(objects: Objects, one: Kind) -> None:
    """Put an object among the others, in place of one of its name."""
    meta = one.metadata
    if isinstance(one, Pod):
        objects.pods[meta.namespace, meta.name] = one
    elif isinstance(one, Node):
        objects.nodes[meta.name] = one
    elif isinstance(one, Labelled):
        objects.namespaces[meta.name] = meta.labels
    else:
        objects.policies[type(one).__name__, meta.namespace, meta.name] = one


def from_cluster(cluster: Cluster) -> Objects:
    """Return what a cluster has now; raises ClickException."""
    return cluster.ask(gather)


async def gather(client: Client) -> Objects:
    """Return what a cluster has now; raises ApiError."""
    objects = Objects()
    found: list[Kind] = [
        *await list_lean(client, NAMESPACES.path(), Labelled),
        *await list_lean(client, NODES.path(), Node),
        *await list_lean(client, PODS.path(), Pod),
        *await list_lean(client, NETWORK_POLICIES.path(), NetworkPolicy),
        *await _if_served(client, CLUSTER_NETWORK_POLICIES, ClusterNetworkPolicy),
    ]
    for one in found:
        put(objects, one)
    objects.published.update(_published(objects.pods, await _if_served(client, BLOCKS, Block)))
    return objects


async def _if_served(client: Client, resource: Resource, form: type[L]) -> list[L]:
    try:
        return await list_lean(client, resource.path(), form)
    except NotFound:
        return []


def _published(pods: Mapping[PodKey, Pod], blocks: list[Block]) -> dict[PodKey, tuple[str, ...]]:
    """Return what blocks publish and what fits: the address is the block's, and the pod of that uid is on its node."""
    facts = {key: pod_facts(pod) for key, pod in pods.items()}
    whose = {(one.node, one.uid): key for key, one in facts.items() if not one.host_network}
    found: dict[PodKey, tuple[str, ...]] = {}
    for block in blocks:
        try:
            believed, _ = claims(block, lambda namespace, name: pods.get((namespace, name)))
        except ValueError as error:
            warn(f"IPAMBlock {block.metadata.name}: spec: {error}; it is left out")
            continue
        for claim in believed:
            key = whose.get((block.spec.affinity.node, claim.uid))
            if key is not None:
                found[key] = (*found.get(key, ()), claim.address)
    return found
