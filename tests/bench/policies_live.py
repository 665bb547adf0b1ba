"""Figures of policies on a real API server: a leading operator, and hundreds of hollow nodes that watch and report."""

import asyncio
import os
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from tests.bench.scale import API, BASE, TookTooLong, _each, _peak_mb, _pool
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import install, start_operator
from tests.cluster.kubectl import Kubectl
from tests.cluster.ports import HeldPort
from tests.controller.policies import DEFINITION
from tests.scraped import Scraped
from tortie.agent.hollow import OTHERS, WATCHES, HollowNodes, raise_limit
from tortie.agent.policies import Realizer
from tortie.kube.client import Client, ClientSettings
from tortie.kube.errors import TooManyRequests
from tortie.policy.delivery import WIDE
from tortie.policy.view import Changes

NODES, PODS, POLICIES = 500, 10_000, 1_000
WATCHERS = 2_000
FEW = 20  # nodes at most that a policy for few concerns
PODS_PATH, POLICIES_PATH = "/api/v1/namespaces/default/pods", "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
CLUSTER_PATH = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies"
COMPILED = ("rule_set", "address_set", "node_policy")

Seen = Callable[[str, Changes], bool]


class Counting(Client):
    """A client that counts what watches send."""

    received = 0

    @asynccontextmanager
    async def watch(self, path: str, *, idle: float, **query: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """As of any client."""
        async with super().watch(path, idle=idle, **query) as chunks:
            yield self._counted(chunks)

    async def _counted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            Counting.received += len(chunk)
            yield chunk


class Watched(HollowNodes):
    """Hollow nodes that say when each has what."""

    def __init__(self, client: Client, names: list[str]) -> None:
        self._awaited: tuple[Seen, set[str], asyncio.Event] | None = None
        self.statuses = 0
        super().__init__(client, names)

    async def until(self, nodes: set[str], sees: Seen, cause: Callable[[], Awaitable[object]]) -> float:
        """Return the seconds from before `cause` until each of the nodes sees what it should."""
        event = asyncio.Event()
        self._awaited = sees, set(nodes), event
        start = time.monotonic()
        await cause()
        await asyncio.wait_for(event.wait(), 60)
        return time.monotonic() - start

    def _realizer(self, name: str) -> Realizer:
        async def realize(changes: Changes) -> Mapping[str, str]:
            if self._awaited is not None:
                sees, waiting, event = self._awaited
                if name in waiting and sees(name, changes):
                    waiting.discard(name)
                    if not waiting:
                        event.set()
            return {}

        return realize

    def _done(self, key: Any, error: Any) -> None:
        self.statuses += error is None
        super()._done(key, error)


def live() -> dict[str, float]:
    """Return the figures of 500 nodes, 10,000 pods and 1,000 policies."""
    port = HeldPort()
    port.release()
    with ControlPlane() as plane:
        kubectl = Kubectl(plane.kubeconfig)
        install(kubectl)
        kubectl.apply(_pool(), DEFINITION)
        return asyncio.run(_live(plane, port.number))


async def _live(plane: ControlPlane, port: int) -> dict[str, float]:
    raise_limit(NODES)
    settings = ClientSettings(connections=WATCHES * NODES + OTHERS)
    async with Counting.connect(str(plane.kubeconfig), settings=settings) as client, asyncio.TaskGroup() as tasks:
        names = [f"hollow-{number}" for number in range(NODES)]
        nodes = Watched(client, names)
        running = tasks.create_task(nodes.run())
        await _until(lambda: nodes.watching == NODES)
        await _each(lambda i=i: client.create(PODS_PATH, _pod(i)) for i in range(PODS))  # type: ignore[misc]
        await _each(lambda i=i: client.create(POLICIES_PATH, _policy(f"p-{i}", _app(i), _app(i + 1))) for i in range(POLICIES))  # type: ignore[misc]
        with _operator(plane, port):
            await _publish_all(client)
            await _until(lambda: _is_right(port))
        await client.request("DELETE", f"{BASE}/rulesets")
        await client.request("DELETE", f"{BASE}/addresssets")
        await client.request("DELETE", f"{BASE}/nodepolicies")
        start = time.monotonic()
        with _operator(plane, port) as operator:
            await _until(lambda: _is_right(port))
            figures = {"policy_cold_start": time.monotonic() - start}
            await _until(lambda: not nodes.writing)
            figures |= await _realized(client, nodes)
            figures |= await _known(client, nodes)
            figures |= await _writes(client, nodes, port)
            figures["policy_operator_rss"] = _peak_mb(operator)
        running.cancel()
    return figures


async def _realized(client: Client, nodes: Watched) -> dict[str, float]:
    """One policy after another, for few nodes and for all."""

    def sees(_node: str, changes: Changes) -> bool:
        return bool(changes.endpoints)

    async def once(name: str, selector: dict[str, str], concerned: set[str]) -> float:
        took = await nodes.until(concerned, sees, lambda: client.create(POLICIES_PATH, _policy(name, selector, _app(0))))
        await nodes.until(concerned, sees, lambda: client.delete(f"{POLICIES_PATH}/{name}"))
        return took * 1000

    async def once_for_all(name: str) -> float:
        await _until(lambda: not nodes.writing)
        return await once(name, {}, set(nodes.watches))

    few = [await once(f"few-{n}", {"few": str(n % FEW + 1)}, _few(n % FEW + 1)) for n in range(100)]
    every = [await once_for_all(f"all-{n}") for n in range(10)]
    return {
        "policy_realized_p50": statistics.median(few), "policy_realized_p99": sorted(few)[-1],
        "policy_realized_all_p99": max(every),
    }  # fmt: skip


async def _known(client: Client, nodes: Watched) -> dict[str, float]:
    """Pods come, five a second; then one in a set that all nodes use."""

    async def once(number: int, concerned: set[str]) -> float:
        node, name = f"hollow-{number % NODES}", f"new-{number}"
        await nodes.until({node}, lambda _, changes: bool(changes.endpoints), lambda: _make(client, name, node, _app(number)))
        publish = await _publication(client, name, node)
        address = publish[1]
        took = await nodes.until(
            concerned, lambda _, changes: any(address in added for added in changes.added.values()), publish[0]
        )
        return took * 1000

    # Whoever has pods of the app before admits this one.
    every = []
    for number in range(NODES, NODES + 100):
        start = time.monotonic()
        peers = {f"hollow-{i % NODES}" for i in range((number - 1) * 10, number * 10)}
        every.append(await once(number, peers))
        await asyncio.sleep(max(0.0, 0.2 - (time.monotonic() - start)))
    body = _policy("all", {}, {"peer": "all"})
    everybody = set(nodes.watches)
    await nodes.until(everybody, lambda _, changes: bool(changes.endpoints), lambda: client.create(POLICIES_PATH, body))
    sent = [await _sent_for_one_more(client, nodes, number) for number in range(20)]
    return {
        "address_known_p50": statistics.median(every), "address_known_p99": sorted(every)[-1],
        "bytes_per_pod_event": statistics.median(sent),
    }  # fmt: skip


async def _sent_for_one_more(client: Client, nodes: Watched, number: int) -> int:
    """Return the bytes that all nodes together get when a pod more is in a set that all use."""
    name, node = f"peer-{number}", f"hollow-{number}"
    await nodes.until({node}, lambda _, changes: bool(changes.endpoints), lambda: _make(client, name, node, {"peer": "all"}))
    await _until(lambda: not nodes.writing)
    publish, address = await _publication(client, name, node)
    before = Counting.received
    sees: Seen = lambda _, changes: any(address in added for added in changes.added.values())  # noqa: E731
    await nodes.until(set(nodes.watches), sees, publish)
    return Counting.received - before


async def _writes(client: Client, nodes: Watched, port: int) -> dict[str, float]:
    """Count what the operator writes when a policy for everybody changes, and all parts when pods come and go."""
    everybody = set(nodes.watches)
    for protocol in ("tcp", "udp"):
        body = {
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": "all"},
            "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "egress": [
                {"action": "Deny", "to": [{"networks": ["192.0.2.0/24"]}],
                 "protocols": [{protocol: {"destinationPort": {"number": 9}}}]},
            ]},
        }  # fmt: skip
        before = _written(port, COMPILED)
        if protocol == "tcp":
            cause: Callable[[], Awaitable[object]] = lambda b=body: client.create(CLUSTER_PATH, b)  # type: ignore[misc] # noqa: E731
        else:
            cause = lambda b=body: client.patch(f"{CLUSTER_PATH}/all", {"spec": b["spec"]})  # type: ignore[misc] # noqa: E731
        await nodes.until(everybody, lambda _, changes: bool(changes.rule_sets), cause)
        await _until(lambda: _is_right(port))
        changed = _written(port, COMPILED) - before
    await _until(lambda: not nodes.writing)
    count, before, statuses = 200, _written(port, ("rule_set", "node_policy")), nodes.statuses
    for step in ("made", "deleted"):
        for number in range(count):
            start, node, name = time.monotonic(), f"hollow-{number * 7 % NODES}", f"short-{number}"
            if step == "made":
                await _make(client, name, node, _app(number))
                publish, _ = await _publication(client, name, node)
                await publish()
            else:
                await client.request("DELETE", f"{PODS_PATH}/{name}", {"gracePeriodSeconds": 0})
                await _unpublish(client, name, node)
            await asyncio.sleep(max(0.0, 0.05 - (time.monotonic() - start)))
    await _until(lambda: _is_right(port) and not nodes.writing)
    operator = _written(port, ("rule_set", "node_policy")) - before
    return {
        "policy_all_pods_writes": changed,
        "writes_per_pod": (operator + nodes.statuses - statuses) / count + 2,  # and two of the block's status
    }


def watchers() -> dict[str, float]:
    """Return the API server's CPU time for one change of a chunk that 2,000 nodes get."""
    with ControlPlane() as plane:
        install(Kubectl(plane.kubeconfig))
        return {"watchers_2000_event": asyncio.run(_watchers(plane))}


async def _watchers(plane: ControlPlane) -> float:
    raise_limit(WATCHERS)
    settings = ClientSettings(connections=WATCHES * WATCHERS + OTHERS)
    server = plane.processes["kube-apiserver"].pid
    async with Client.connect(str(plane.kubeconfig), settings=settings) as client, asyncio.TaskGroup() as tasks:
        nodes = Watched(client, [f"hollow-{number}" for number in range(WATCHERS)])
        running = tasks.create_task(nodes.run())
        await _until(lambda: nodes.watching == WATCHERS)
        addresses = [f"10.0.{n}.{m}" for n in range(2) for m in range(64)]
        rules = {"tier": "Namespace", "rules": [{"direction": "Ingress", "action": "Accept", "peers": ["s"]}]}
        meta = {"labels": {WIDE: ""}}
        chunk = {"set": "s", "chunk": 0, "chunks": 1, "addresses": addresses}
        await client.create(
            f"{BASE}/rulesets", {"apiVersion": API, "kind": "RuleSet", "metadata": {"name": "r", **meta}, "spec": rules}
        )
        await client.create(
            f"{BASE}/addresssets", {"apiVersion": API, "kind": "AddressSet", "metadata": {"name": "s-0", **meta}, "spec": chunk}
        )
        for name in nodes.watches:
            endpoints = [{"namespace": "default", "name": "x", "uid": name}]
            spec = {"groups": [{"endpoints": endpoints, "ruleSets": ["r"]}]}
            await client.create(
                f"{BASE}/nodepolicies", {"apiVersion": API, "kind": "NodePolicy", "metadata": {"name": name}, "spec": spec}
            )
        await _until(lambda: not nodes.writing)
        before, events = _cpu(server), 20
        for number in range(events):
            new = f"10.1.0.{number}"
            body = {"spec": {"addresses": [*addresses, new]}}
            await nodes.until(
                set(nodes.watches), lambda _, changes, a=new: any(a in added for added in changes.added.values()),  # type: ignore[misc]
                lambda b=body: client.patch(f"{BASE}/addresssets/s-0", b),  # type: ignore[misc]
            )  # fmt: skip
        took = (_cpu(server) - before) / events * 1000
        running.cancel()
    return took


# What there is


def _app(number: int) -> dict[str, str]:
    return {"app": f"a{number % POLICIES}"}


def _few(count: int) -> set[str]:
    first = count * (count - 1) // 2
    return {f"hollow-{number % NODES}" for number in range(first, first + count)}


def _pod(number: int) -> dict[str, Any]:
    few = next((n for n in range(1, FEW + 1) if n * (n - 1) // 2 <= number < n * (n + 1) // 2), 0)
    labels = {**_app(number // 10), **({"few": str(few)} if few else {})}
    return _body(f"pod-{number}", f"hollow-{number % NODES}", labels)


def _body(name: str, node: str, labels: dict[str, str]) -> dict[str, Any]:
    spec = {"nodeName": node, "containers": [{"name": "c", "image": "none"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def _policy(name: str, subject: dict[str, str], peer: dict[str, str]) -> dict[str, Any]:
    spec = {
        "podSelector": {"matchLabels": subject},
        "ingress": [{"from": [{"podSelector": {"matchLabels": peer}}], "ports": [{"port": 80}]}],
    }  # fmt: skip
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


async def _make(client: Client, name: str, node: str, labels: dict[str, str]) -> None:
    await client.create(PODS_PATH, _body(name, node, labels))


_blocks: dict[str, dict[str, Any]] = {}  # of each node, as this bench, in the agents' place, publishes it


async def _publish_all(client: Client) -> None:
    """Publish an address for each pod."""
    pods = msgspec.json.decode(await client.get(PODS_PATH))["items"]
    found: list[dict[str, Any]] = []

    async def listed() -> bool:
        with suppress(TooManyRequests):  # a kind that was never asked for is being prepared
            found[:] = msgspec.json.decode(await client.get(f"{BASE}/ipamblocks"))["items"]
        return len([one for one in found if one["spec"].get("active")]) == NODES

    deadline = time.monotonic() + 600
    while not await listed():
        if time.monotonic() > deadline:
            raise TookTooLong("not every node has a block")
        await asyncio.sleep(0.5)
    for block in found:
        name = block["metadata"]["name"]
        _blocks[block["spec"]["affinity"]["node"]] = {"name": name, "cidr": block["spec"]["cidr"], "sequence": 0, "held": {}}
    for pod in pods:
        _hold(pod["metadata"]["name"], pod["metadata"]["uid"], pod["spec"]["nodeName"])
    await _each(lambda n=node: _publish(client, n) for node in _blocks)  # type: ignore[misc]


def _hold(name: str, uid: str, node: str) -> str:
    block = _blocks[node]
    prefix, _, last = block["cidr"].partition("/")[0].rpartition(".")
    block["sequence"] += 1
    address = f"{prefix}.{int(last) + (block['sequence'] - 1) % 64}"
    held = {"address": address, "sequence": block["sequence"], "namespace": "default", "pod": name, "uid": uid}
    block["held"][name] = held
    return address


async def _publish(client: Client, node: str) -> None:
    block = _blocks[node]
    status = {
        "epoch": "1", "sequence": block["sequence"], "free": 64 - len(block["held"]),
        "allocations": list(block["held"].values()),
    }  # fmt: skip
    await client.patch(f"{BASE}/ipamblocks/{block['name']}/status", {"status": status})


async def _publication(client: Client, name: str, node: str) -> tuple[Callable[[], Awaitable[object]], str]:
    """Return what publishes the address of a pod, as an ADD does when it answers, and the address."""
    pod = msgspec.json.decode(await client.get(f"{PODS_PATH}/{name}"))
    address = _hold(name, pod["metadata"]["uid"], node)
    return lambda: _publish(client, node), address


async def _unpublish(client: Client, name: str, node: str) -> None:
    del _blocks[node]["held"][name]
    await _publish(client, node)


# The processes


@contextmanager
def _operator(plane: ControlPlane, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run an operator that leads."""
    operator = start_operator(plane, options=("--health-port", str(port)))
    try:
        yield operator
    finally:
        operator.kill()
        operator.wait()
        Kubectl(plane.kubeconfig).run("delete", "lease", "-n", "tortie-system", "--all")


def _is_right(port: int) -> bool:
    """Whether what there is was compiled, and all of it is written."""
    try:
        shown = Scraped.of(f"127.0.0.1:{port}")
    except OSError:
        return False
    compiled = shown.value("tortie_operator_policy_compile_seconds_count") or 0
    return compiled > 0 and shown.value("tortie_operator_writes_pending") == 0


def _written(port: int, kinds: tuple[str, ...]) -> float:
    shown = Scraped.of(f"127.0.0.1:{port}")
    return sum(shown.value("tortie_operator_writes_total", kind=kind, result="ok") or 0 for kind in kinds)


async def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600
    while not await asyncio.to_thread(holds):
        if time.monotonic() > deadline:
            raise TookTooLong("not within ten minutes")
        await asyncio.sleep(0.05)


def _cpu(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
