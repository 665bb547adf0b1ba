"""What there is of an installation, gathered once, and what of it is a problem. `problems` is pure."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from tortie.cli.ctl.agents import daemonset_of, is_ready, left_out, pods_of
from tortie.cli.ctl.cluster import LEASES, NODES, Object, list_all, ours
from tortie.kube.client import Client, NotFound

LEASE = "tortie-operator"
# A pool with less left than this is worth a word before pods wait.
_SCARCE = 0.1
# Seconds within which a block becomes active, when nothing is in its way.
_INERT = timedelta(seconds=60)
# How far the clocks of the operator's node and of this machine may be apart.
_CLOCKS = timedelta(seconds=30)
# Names of nodes in one row; a fault of all nodes is one problem.
_NAMES = 5


class _OnNode(NamedTuple):
    """A problem of one node."""

    node: str
    what: str
    remedy: str


class Problem(NamedTuple):
    """Something that a person should do something about."""

    where: str
    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Overview:
    """The objects of an installation, as the API server has them."""

    namespace: str
    operators: tuple[Object, ...]
    agents: tuple[Object, ...]
    lease: Object | None
    nodes: tuple[Object, ...]
    pools: tuple[Object, ...]
    blocks: tuple[Object, ...]
    networks: tuple[Object, ...]
    daemonset: Object | None = None

    @property
    def expected(self) -> list[Object]:
        """The nodes that should have an agent: the DaemonSet may leave some out, by its nodeSelector or for their taints."""
        left = left_out((node["metadata"]["name"] for node in self.nodes), self.agents, self.daemonset)
        return [node for node in self.nodes if node["metadata"]["name"] not in left]

    @property
    def leader(self) -> str:
        """The replica that holds the lease, "" where none does."""
        return str((self.lease or {}).get("spec", {}).get("holderIdentity") or "")


async def gather(client: Client, namespace: str) -> Overview:
    """Read all of it; raises ApiError."""
    try:
        lease = json.loads(await client.get(LEASES.path(LEASE, namespace=namespace)))
    except NotFound:
        lease = None
    return Overview(
        namespace=namespace,
        pools=tuple(await list_all(client, ours("ippools"))),
        operators=tuple(await pods_of(client, namespace, "operator")),
        agents=tuple(await pods_of(client, namespace, "agent")),
        lease=lease,
        nodes=tuple(await list_all(client, NODES)),
        blocks=tuple(await list_all(client, ours("ipamblocks"))),
        networks=tuple(await list_all(client, ours("nodenetworks"))),
        daemonset=await daemonset_of(client, namespace),
    )


def problems(seen: Overview, now: datetime) -> list[Problem]:
    """Return what is wrong, the parts of Tortie first."""
    parts = (_none(seen), _operator(seen, now), _together(_agents(seen)), _images(seen), _pools(seen),
             _together(_nodes(seen)), _blocks(seen, now))  # fmt: skip
    return [problem for part in parts for problem in part]


def troubled(seen: Overview) -> set[str]:
    """Return the nodes that have a problem."""
    return {one.node for one in (*_agents(seen), *_nodes(seen))}


def _together(found: Iterable[_OnNode]) -> Iterator[Problem]:
    """Yield a problem once, however many nodes have it; what to do is said of the first of them."""
    alike = dict[str, list[_OnNode]]()
    for one in found:
        alike.setdefault(one.what, []).append(one)
    for what, those in alike.items():
        names = ", ".join(one.node for one in those[:_NAMES])
        more = f" and {len(those) - _NAMES} more" if len(those) > _NAMES else ""
        yield Problem(f"{'node' if len(those) == 1 else 'nodes'} {names}{more}", what, those[0].remedy)


def _none(seen: Overview) -> Iterator[Problem]:
    if not seen.operators and not seen.agents:
        yield Problem(
            "parts",
            f"no operator and no agent is in namespace {seen.namespace}",
            "tortiectl status -n NAMESPACE, if in another",
        )


def _operator(seen: Overview, now: datetime) -> Iterator[Problem]:
    look = f"kubectl describe pods -n {seen.namespace} -l app.kubernetes.io/component=operator"
    if not any(map(is_ready, seen.operators)):
        yield Problem("operator", "none is ready: no node gets a block, and no pool's status is true", look)
    spec = (seen.lease or {}).get("spec", {})
    renewed = _time(spec.get("renewTime"))
    if not seen.leader or renewed is None or now - renewed > _lasts(spec) + _CLOCKS:
        yield Problem("operator", "none leads", f"kubectl logs -n {seen.namespace} deployment/tortie-operator")


def _lasts(lease: Mapping[str, int]) -> timedelta:
    return timedelta(seconds=lease.get("leaseDurationSeconds", 15))


def _agents(seen: Overview) -> Iterator[_OnNode]:
    served = {agent["spec"].get("nodeName") for agent in seen.agents if is_ready(agent)}
    for node in seen.expected:
        name = node["metadata"]["name"]
        if name not in served:
            look = f"kubectl get pods -n {seen.namespace} -o wide --field-selector spec.nodeName={name}"
            yield _OnNode(name, "no agent is ready there: its pods don't start", look)


def _images(seen: Overview) -> Iterator[Problem]:
    images = {pod["spec"]["containers"][0]["image"] for pod in (*seen.operators, *seen.agents)}
    if len(images) > 1:
        wait = f"if no upgrade is under way: kubectl rollout status -n {seen.namespace} daemonset/tortie-agent"
        yield Problem("parts", f"several versions run: {', '.join(sorted(images))}", wait)


def _pools(seen: Overview) -> Iterator[Problem]:
    if not seen.pools:
        yield Problem("pools", "there is none, so no pod gets an address", "kubectl apply -f docs/samples/ippool.yaml")
    for pool in seen.pools:
        where, counts = f"IPPool {pool['metadata']['name']}", (pool.get("status") or {}).get("addresses") or {}
        yield from _conditions(where, f"kubectl describe ippool {pool['metadata']['name']}", pool)
        capacity, available = counts.get("capacity", 0), counts.get("available", 0)
        if capacity and available < capacity * _SCARCE:
            yield Problem(where, f"{available} of {capacity} addresses are left", "add a pool: docs/pools.md says how")


def _is_ahead(pool: Object) -> bool:
    """Whether nodes get blocks of a pool before a pod asks."""
    return pool["spec"].get("assignmentMode", "Automatic") == "Automatic" and not pool["spec"].get("namespaceSelector")


def _nodes(seen: Overview) -> Iterator[_OnNode]:
    owners = {block["spec"]["affinity"]["node"] for block in seen.blocks if block["spec"].get("active")}
    for node in seen.expected if any(map(_is_ahead, seen.pools)) else ():
        name = node["metadata"]["name"]
        if name not in owners:
            look = "kubectl get ippools -o wide: is one enabled, with free blocks, whose nodeSelector takes the node?"
            yield _OnNode(name, "it has no block, so its pods wait for an address", look)
    for network in seen.networks:
        name = network["metadata"]["name"]
        for one in _conditions("", f"tortiectl node status {name}", network):
            yield _OnNode(name, one.what, one.remedy)


def _blocks(seen: Overview, now: datetime) -> Iterator[Problem]:
    for block in seen.blocks:
        made = _time(block["metadata"]["creationTimestamp"])
        if not block["spec"].get("active") and made is not None and now - made > _INERT:
            where = f"IPAMBlock {block['metadata']['name']}"
            yield Problem(where, "it isn't active after a minute: does another one overlap it?", "tortiectl ipam check")


def _conditions(where: str, look: str, thing: Object) -> Iterator[Problem]:
    said: Iterable[Object] = (thing.get("status") or {}).get("conditions") or ()
    for one in said:
        if one["status"] == "False":
            yield Problem(where, f"{one['type']} is False ({one['reason']}): {one['message']}", look)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None
