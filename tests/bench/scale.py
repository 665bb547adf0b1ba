"""Figures of the operator as a process, on a real API server: thousands of nodes join; a start with blocks, or pods, there."""

import asyncio
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import install, start_operator
from tests.cluster.kubectl import Kubectl
from tests.cluster.ports import HeldPort
from tests.scraped import Scraped
from tortie.kube.client import ApiError, Client, connect

NODES = 5000
BLOCKS = 20000
POD_NODES, PODS_EACH = 1000, 20
API = "tortie.dev/v1alpha1"
BASE = f"/apis/{API}"
# Nodes of a real cluster carry images, conditions and annotations: about 10 KB.
PADDING = "x" * 9500
# Pods carry volumes, probes, environment and managed fields: about 5 KB.
POD_PADDING = "x" * 4000


class TookTooLong(RuntimeError):
    """What is measured didn't come about within ten minutes."""


def join_5000_nodes() -> dict[str, float]:
    """Return the seconds from the first Node's creation until each has a block and a NodeNetwork, and the peak MB."""
    with _leading() as (plane, operator):
        took = asyncio.run(_join(plane))
        return {"join_5000_nodes": took, "join_5000_nodes_rss": _peak_mb(operator)}


def cold_start_20000_blocks() -> dict[str, float]:
    """Return the seconds from the process's start until ready, with 20,000 half-full blocks and 5,000 Nodes of 10 KB."""
    with ControlPlane() as plane:
        install(Kubectl(plane.kubeconfig))
        asyncio.run(_fill(plane))
        before = _settled(plane, NODES)
        with _cold(plane, lambda: _is_ready(plane)) as (took, operator):
            time.sleep(3)  # long enough for a status or a block to be written wrongly
            written = sum(1 for a, b in zip(before, asyncio.run(_versions(plane)), strict=True) if a != b)
            return {"cold_start_20000_blocks": took, "cold_start_20000_blocks_written": written,
                    "cold_start_20000_blocks_rss": _peak_mb(operator)}  # fmt: skip


def cold_start_20000_pods() -> dict[str, float]:
    """Return the seconds from the process's start until ready and all that is leaked found, with 20,000 Pods of 5 KB.

    They run on 1,000 Nodes, each of which publishes the addresses of its 20. One in ten is leaked.
    """
    port = HeldPort()
    port.release()
    with ControlPlane() as plane:
        install(Kubectl(plane.kubeconfig))
        leaked = asyncio.run(_fill_with_pods(plane))
        before = _settled(plane, POD_NODES)

        def judged() -> bool:
            return _is_ready(plane) and _suspects(port.number) == leaked

        with _cold(plane, judged, "--health-port", str(port.number)) as (took, operator):
            time.sleep(1)
            assert _suspects(port.number) == leaked, "it stays so"
            assert asyncio.run(_versions(plane)) == before, "nothing is written before the grace period is over"
            return {"cold_start_20000_pods": took, "cold_start_20000_pods_rss": _peak_mb(operator)}


def _settled(plane: ControlPlane, nodes: int) -> list[str]:
    """Let an operator write what is missing once (finalizer, status, NodeNetworks), end it, and return all versions."""
    first = start_operator(plane)
    try:
        asyncio.run(_quiet(plane, nodes))
    finally:
        first.kill()
        first.wait()
    Kubectl(plane.kubeconfig).run("delete", "lease", "-n", "tortie-system", "--all")
    plane.log("operator").unlink()
    return asyncio.run(_versions(plane))


@contextmanager
def _cold(plane: ControlPlane, holds: Callable[[], bool], *options: str) -> Iterator[tuple[float, subprocess.Popen[bytes]]]:
    """Start an operator; give the seconds until something holds, and the process."""
    start = time.monotonic()
    operator = start_operator(plane, options=options)
    try:
        _until(holds)
        yield time.monotonic() - start, operator
    finally:
        operator.kill()
        operator.wait()


def _is_ready(plane: ControlPlane) -> bool:
    return "ready:" in plane.log("operator").read_text()


def _suspects(port: int) -> float | None:
    """Return how many allocations the operator takes for leaked."""
    return Scraped.of(f"127.0.0.1:{port}").value("tortie_operator_leak_suspects")


@contextmanager
def _leading() -> Iterator[tuple[ControlPlane, subprocess.Popen[bytes]]]:
    """Run a control plane with a pool and an operator that leads."""
    with ControlPlane() as plane:
        kubectl = Kubectl(plane.kubeconfig)
        install(kubectl)
        kubectl.apply(_pool())
        operator = start_operator(plane)
        try:
            _until(lambda: _is_ready(plane))
            yield plane, operator
        finally:
            operator.kill()
            operator.wait()


def _pool() -> dict[str, Any]:
    return {"apiVersion": API, "kind": "IPPool", "metadata": {"name": "pool"}, "spec": {"cidr": "10.0.0.0/8"}}


def _node(index: int, padding: str = "") -> dict[str, Any]:
    meta = {"name": f"node-{index:05}", "annotations": {"padding": padding}}
    return {"apiVersion": "v1", "kind": "Node", "metadata": meta}


async def _each(writes: Iterable[Callable[[], Awaitable[object]]], at_once: int = 32) -> None:
    """Do all writes, `at_once` of them at a time."""
    waiting = iter(writes)

    async def work() -> None:
        for write in waiting:
            await write()

    await asyncio.gather(*(work() for _ in range(at_once)))


async def _join(plane: ControlPlane) -> float:
    async with connect(str(plane.kubeconfig)) as client:
        start = time.monotonic()
        await _each(lambda i=i: client.create("/api/v1/nodes", _node(i)) for i in range(NODES))  # type: ignore[misc]
        deadline = start + 600
        while not await _joined(client, NODES):
            if time.monotonic() > deadline:
                raise TookTooLong(plane.log("operator").read_text()[-1000:])
            await asyncio.sleep(0.5)
        return time.monotonic() - start


async def _joined(client: Client, nodes: int) -> bool:
    try:
        networks = msgspec.json.decode(await client.get(f"{BASE}/nodenetworks"))["items"]
    except ApiError:  # right after a CRD is made, its storage takes a moment
        return False
    return len(networks) == nodes and all(n["spec"].get("blocks") for n in networks)


async def _fill(plane: ControlPlane) -> None:
    """Make the pool, the Nodes and the blocks, four a node, half of each block's addresses in use."""
    async with connect(str(plane.kubeconfig)) as client:
        Kubectl(plane.kubeconfig).apply(_pool())
        pool = msgspec.json.decode(await client.get(f"{BASE}/ippools/pool"))
        uids: dict[int, str] = {}

        async def node(index: int) -> None:
            made = msgspec.json.decode(await client.create("/api/v1/nodes", _node(index, PADDING)))
            uids[index] = made["metadata"]["uid"]

        async def block(index: int) -> None:
            body = _block(index, pool["metadata"]["uid"], index % NODES, uids[index % NODES])
            await client.create(f"{BASE}/ipamblocks", body)
            path = f"{BASE}/ipamblocks/{body['metadata']['name']}/status"
            await client.patch(path, {"status": _half_full(index)})

        await _each(lambda i=i: node(i) for i in range(NODES))  # type: ignore[misc]
        await _each(lambda i=i: block(i) for i in range(BLOCKS))  # type: ignore[misc]


async def _fill_with_pods(plane: ControlPlane) -> int:
    """Make the pool, the Nodes with a block each, and their pods; return how many of the allocations are leaked."""
    async with connect(str(plane.kubeconfig)) as client:
        Kubectl(plane.kubeconfig).apply(_pool())
        pool = msgspec.json.decode(await client.get(f"{BASE}/ippools/pool"))["metadata"]["uid"]
        await _each(lambda i=i: _node_with_pods(client, i, pool) for i in range(POD_NODES))  # type: ignore[misc]
    return POD_NODES * PODS_EACH // 10


async def _node_with_pods(client: Client, node: int, pool: str) -> None:
    made = msgspec.json.decode(await client.create("/api/v1/nodes", _node(node, PADDING)))
    body = _block(node, pool, node, made["metadata"]["uid"])
    held = [await _pod_with_address(client, node, number) for number in range(PODS_EACH)]
    await client.create(f"{BASE}/ipamblocks", body)
    status = {"epoch": "1", "sequence": PODS_EACH, "free": 64 - PODS_EACH, "allocations": held}
    await client.patch(f"{BASE}/ipamblocks/{body['metadata']['name']}/status", {"status": status})


async def _pod_with_address(client: Client, node: int, number: int) -> dict[str, Any]:
    """Make one of a node's pods; return what is published for it. Of ten, nine run, and one leaks: another uid, or ended."""
    prefix, _, last = _start(node).rpartition(".")
    name, address = f"pod-{node:05}-{number}", f"{prefix}.{int(last) + number}"
    spec = {"nodeName": f"node-{node:05}", "containers": [{"name": "c", "image": "none"}]}
    meta = {"name": name, "annotations": {"padding": POD_PADDING}}
    path = "/api/v1/namespaces/default/pods"
    pod = msgspec.json.decode(await client.create(path, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}))
    phase = "Succeeded" if number == 9 else "Running"
    await client.patch(f"{path}/{name}/status", {"status": {"phase": phase, "podIPs": [{"ip": address}], "podIP": address}})
    uid = "of-a-pod-of-before" if number == 19 else pod["metadata"]["uid"]
    return {"address": address, "sequence": number, "namespace": "default", "pod": name, "uid": uid}


def _start(index: int) -> str:
    at = index * 64
    return f"10.{at >> 16 & 255}.{at >> 8 & 255}.{at & 255}"


def _block(index: int, pool: str, node: int, uid: str) -> dict[str, Any]:
    start = _start(index)
    spec = {
        "cidr": f"{start}/26", "pool": {"name": "pool", "uid": pool}, "active": True,
        "affinity": {"node": f"node-{node:05}", "uid": uid, "machineID": ""}, "reserved": [],
    }  # fmt: skip
    meta = {"name": f"{start.replace('.', '-')}-26"}
    return {"apiVersion": API, "kind": "IPAMBlock", "metadata": meta, "spec": spec}


def _half_full(index: int) -> dict[str, Any]:
    prefix, _, last = _start(index).rpartition(".")
    allocations = [
        {"address": f"{prefix}.{int(last) + i}", "sequence": i, "namespace": "default", "pod": f"pod-{index}-{i}",
         "uid": "12345678-1234-1234-1234-123456789012"}
        for i in range(32)
    ]  # fmt: skip
    return {"epoch": "1", "free": 32, "allocations": allocations}


async def _quiet(plane: ControlPlane, nodes: int) -> None:
    """Return when the operator has written all it wants: nothing changed for five seconds, and every node is served."""
    async with connect(str(plane.kubeconfig)) as client:
        while not await _joined(client, nodes):  # noqa: ASYNC110 - another process writes
            await asyncio.sleep(1)
    last: list[str] = []
    while (now := await _versions(plane)) != last:
        last = now
        await asyncio.sleep(5)


async def _versions(plane: ControlPlane) -> list[str]:
    """Return the version of every object that the operator writes, in order."""
    found = []
    async with connect(str(plane.kubeconfig)) as client:
        for kind in ("ippools", "ipamblocks", "nodenetworks"):
            listed = msgspec.json.decode(await client.get(f"{BASE}/{kind}"))
            found += [f"{i['metadata']['name']} {i['metadata']['resourceVersion']}" for i in listed["items"]]
    return found


def _until(holds: Callable[[], bool], seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TookTooLong("the operator is not ready")
        time.sleep(0.05)


def _peak_mb(process: subprocess.Popen[bytes]) -> float:
    """Return the peak of the process's resident memory (proc_pid_status(5), VmHWM)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
