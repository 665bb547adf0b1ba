"""What a pod's address and wire cost: ADD and DEL through the real plugin and agent, in real namespaces; the ledger alone."""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

from tests.agent.acting import AgentNode
from tests.agent.namespaces import namespaces
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import install, start_operator, wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import active, node, pool
from tortie.addressing.allocator import OwnBlock
from tortie.addressing.ranges import parse
from tortie.addressing.wants import Wanted
from tortie.agent.ledger import Ledger, Link

_PODS = 100  # one after another
_PARALLEL, _AT_ONCE = 200, 8
_ALLOCATIONS, _WAITING = 4096, 64


@contextmanager
def served(pods: int, *pools: dict[str, object], options: tuple[str, ...] = ()) -> Iterator[AgentNode]:
    """Give a node whose agent serves, with one large block of each pool and so many namespaces for pods.

    Their Pods are there, unless the agent has `options`: then whoever asks makes them.
    """
    if os.geteuid() != 0:
        raise RuntimeError("network namespaces need root")
    with tempfile.TemporaryDirectory() as folder, ControlPlane() as plane:
        kubectl = Kubectl(plane.kubeconfig)
        install(kubectl)
        plane.processes["operator"] = start_operator(plane)
        kubectl.apply(*pools, node("a"), *(pod_object(number) for number in range(0 if options else pods)))
        wait("the node's blocks", lambda: len(active(kubectl, "a")) == len(pools))
        with (
            namespaces(pods + 1) as (path, *places),
            closing(AgentNode("a", plane, Path(folder), path, places, options)) as agent,
        ):
            agent.start()
            agent.add(0, "first")  # what is made once is made
            agent.cni("DEL", 0, "first")
            agent.named = {number: f"pod-{number}" for number in range(pods)}
            yield agent


def pod_object(number: int) -> dict[str, object]:
    """Return a Pod object: the agent looks at its annotations, as for real pods."""
    spec = {"nodeName": "a", "containers": [{"name": "c", "image": "none"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{number}", "namespace": "default"}, "spec": spec}


def _timed(agent: AgentNode, command: str, pod: int) -> float:
    start = time.perf_counter()
    agent.cni(command, pod)
    return (time.perf_counter() - start) * 1000


def one_after_another() -> dict[str, float]:
    """Return the times of ADD and DEL in ms, and the agent's memory with that many pods in MB."""
    with served(_PODS, pool(blockSize=22)) as agent:
        adds = sorted(_timed(agent, "ADD", pod) for pod in range(_PODS))
        rss = _rss(agent.running[-1].pid)
        dels = [_timed(agent, "DEL", pod) for pod in range(_PODS)]
    return {
        "cni_add_p50": statistics.median(adds), "cni_add_p99": adds[int(_PODS * 0.99) - 1],
        "cni_del_p50": statistics.median(dels), "agent_rss_100_pods": rss,
    }  # fmt: skip


def in_parallel() -> dict[str, float]:
    """Return how many ADDs a second, eight at once, of IPv4 and of both families."""
    six = pool("six", cidr="fd00::/64", blockSize=118)
    with served(_PARALLEL, pool(blockSize=22)) as agent:
        four = _rate(agent)
    with served(_PARALLEL, pool(blockSize=22), six) as agent:
        dual = _rate(agent)
    return {"cni_add_rate_8": four, "cni_add_rate_8_dual": dual}


def _rate(agent: AgentNode) -> float:
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        start = time.perf_counter()
        list(threads.map(agent.add, range(_PARALLEL)))
        return _PARALLEL / (time.perf_counter() - start)


def _rss(pid: int) -> float:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024 / 1e6


def ledger() -> dict[str, float]:
    """Return how many durable allocations a second, 64 waiting."""
    return {"ledger_rate_64": asyncio.run(_ledger())}


async def _ledger() -> float:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.db")
        await ledger.put_block(OwnBlock("block", parse("10.0.0.0/20"), "pool"))
        wanted, numbers = [Wanted(4, frozenset({"pool"}))], iter(range(_ALLOCATIONS))

        async def one() -> None:
            for number in numbers:
                await ledger.allocate(Link(f"cali{number:011x}", f"container-{number}", "eth0", "/run/netns/x"), wanted)

        start = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(_WAITING)))
        taken = time.perf_counter() - start
        await ledger.close()
    return _ALLOCATIONS / taken
