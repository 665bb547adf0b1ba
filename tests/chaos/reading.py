"""Reads what the auditor judges: the nodes' and pods' kernels with iproute2, pods and blocks through the API."""

import json
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from tests.chaos.containers import containers
from tests.chaos.judgement import Address, Allocation, Block, Facts, Kernel, Pod, Route, Sandbox
from tests.cluster.cluster import Cluster
from tests.cluster.kubectl import Kubectl, Refused
from tests.cluster.node import Node

_GROUP = "1953460852"  # of Tortie's links
# How many pods of a node ask, one after the other.
_ASKING = 3
_SECONDS = 60.0  # for what takes one or two; a loaded machine may be slow
# Arguments: pairs of an id and a process. A namespace that goes meanwhile is left out.
_LINKS_OF_PODS = """
while [ $# -gt 0 ]; do
    said=$(nsenter --net=/proc/$2/ns/net ip -j address show 2>/dev/null) && echo "$1 $said"
    shift 2
done
"""
# Arguments: addresses. Those that don't answer twice are printed.
_PING = """
for one in "$@"; do
    { busybox ping -c 1 -W 3 $one || busybox ping -c 1 -W 3 $one; } >/dev/null 2>&1 || echo $one &
done
wait
"""


def kernels(nodes: Iterable[Node]) -> dict[str, Kernel]:
    """Return what the kernels have now."""
    return {node.name: _kernel(node) for node in nodes}


def objects(kubectl: Kubectl, *options: str) -> tuple[tuple[Pod, ...], tuple[Block, ...]]:
    """Return pods and blocks; raises Refused."""
    pods, blocks = (kubectl.get(kind, "-A", *options)["items"] for kind in ("pods", "ipamblocks"))
    return tuple(map(_pod, pods)), tuple(map(_block, blocks))


def glance(cluster: Cluster) -> Facts:
    """Return what can be read while things happen: no pod is asked for an answer, and the API may be away."""
    try:
        pods, blocks = objects(cluster.kubectl, "--request-timeout=3s")
    except Refused:
        pods, blocks = (), ()
    return Facts(pods, blocks, kernels(cluster.nodes))


def read(cluster: Cluster) -> Facts:
    """Return everything; raises Refused."""
    facts = Facts(*objects(cluster.kubectl), kernels(cluster.nodes))
    return replace(facts, silent=frozenset(_silent(cluster, facts)))


def _silent(cluster: Cluster, facts: Facts) -> Iterator[tuple[str, Address]]:
    """Ask every pod from pods of each other node; yield those that don't answer, and the node from which.

    Whom one doesn't reach is asked by the next one, because it may be the asking pod that hears no answers.
    """
    targets = defaultdict[str, list[str]](list)
    for pod in facts.pods:
        if pod.lives:
            targets[pod.node].extend(map(str, pod.addresses))
    running = {pod.uid for pod in facts.pods if pod.lives and pod.phase == "Running"}
    for node in cluster.nodes:
        asking = [one.pid for one in containers(node) if one.uid in running and not one.name][:_ASKING]
        silent = [address for name, addresses in targets.items() if name != node.name for address in addresses]
        for pid in asking:
            if silent:
                silent = _run(["nsenter", f"--net=/proc/{pid}/ns/net", "sh", "-c", _PING, "sh", *silent]).split()
        yield from ((node.name, ip_address(one)) for one in silent if asking)


def _kernel(node: Node) -> Kernel:
    sandboxes = {one.id: one for one in containers(node) if not one.name and _has_its_own(one.pid, node)}
    pairs = [part for one in sandboxes.values() for part in (one.id, str(one.pid))]
    lines = _run(["sh", "-c", _LINKS_OF_PODS, "sh", *pairs]).splitlines()
    said = {key: json.loads(links) for key, _, links in (line.partition(" ") for line in lines)}
    links = json.loads(_run([*node.enter, "ip", "-j", "link", "show"]))
    return Kernel(
        tuple(_sandbox(key, sandboxes[key].pod, sandboxes[key].uid, links) for key, links in said.items()),
        {link["ifindex"]: link["ifname"] for link in links if _is_a_pod_s(link)},
        frozenset(_routes(node)),
    )


def _has_its_own(pid: int, node: Node) -> bool:
    """Whether a process has a network namespace of its own, not the node's."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return not Path(f"/proc/{pid}/ns/net").samefile(node.place.path)
    return False


def _is_a_pod_s(link: dict[str, Any]) -> bool:
    return bool(link["ifname"].startswith("cali")) or link.get("group") == _GROUP


def _sandbox(key: str, pod: str, uid: str, links: list[dict[str, Any]]) -> Sandbox:
    eth0 = next((link for link in links if link["ifname"] == "eth0"), None)
    if eth0 is None or eth0.get("link_index") is None:
        return Sandbox(key, pod, uid)
    addresses = (ip_address(one["local"]) for one in eth0["addr_info"] if one["scope"] == "global")
    return Sandbox(key, pod, uid, eth0["link_index"], frozenset(addresses))


def _routes(node: Node) -> Iterator[Route]:
    for family in ("-4", "-6"):
        for route in json.loads(_run([*node.enter, "ip", family, "-j", "route", "show"])):
            link, to = route.get("dev", ""), route["dst"]
            if link.startswith("cali") and "/" not in to and to != "default":
                yield Route(ip_address(to), link)


def _pod(item: dict[str, Any]) -> Pod:
    meta, spec, status = item["metadata"], item["spec"], item["status"]
    return Pod(
        f"{meta['namespace']}/{meta['name']}", meta["uid"], spec.get("nodeName", ""), status.get("phase", ""),
        tuple(ip_address(one["ip"]) for one in status.get("podIPs", ())), "deletionTimestamp" in meta,
        bool(spec.get("hostNetwork")),
    )  # fmt: skip


def _block(item: dict[str, Any]) -> Block:
    spec = item["spec"]
    return Block(
        item["metadata"]["name"], ip_network(spec["cidr"]), spec["affinity"]["node"], bool(spec.get("active")),
        tuple(map(ip_network, spec.get("without", ()))),
        tuple(map(_allocation, (item.get("status") or {}).get("allocations", ()))),
    )  # fmt: skip


def _allocation(item: dict[str, Any]) -> Allocation:
    pod = f"{item.get('namespace', '')}/{item['pod']}" if item.get("pod") else ""
    return Allocation(ip_address(item["address"]), pod, item.get("uid", ""))


def _run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_SECONDS).stdout
