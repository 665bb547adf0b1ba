"""Two replicas and their lease: whoever dies, stops or wakes late, no two blocks overlap and no node stays without."""

import asyncio
import signal
import subprocess
from typing import Any

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import Operators, active, blocks, node, overlaps, owners, pool
from tortie.controller.operator import BLOCKS, Operator
from tortie.controller.settings import Settings
from tortie.kube.client import Client

SHORT = ("--lease-duration", "5", "--reclaim-delay", "1")


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_leaders_killed_again_and_again_while_nodes_join_and_leave(cluster: Kubectl, operators: Operators) -> None:
    cluster.apply(pool())
    left: set[str] = set()
    for round_ in range(4):
        leader, standby = operators(*SHORT), operators(*SHORT)
        cluster.apply(*(node(f"n{round_}-{i}") for i in range(10)))
        wait("some block", lambda r=round_: any(name.startswith(f"n{r}") for name in owners(cluster)), 60)  # type: ignore[misc]
        leaving = {f"n{round_}-{i}" for i in range(3)}
        cluster.run("delete", "node", *leaving)
        left |= leaving
        end(leader)
        end(standby)
    operators(*SHORT)
    names = {f"n{r}-{i}" for r in range(4) for i in range(10)} - left
    wait("every node has a block, and none that left", lambda: owners(cluster) == names, 60)
    assert overlaps(cluster) == []


def replace_pool(cluster: Kubectl, size: int) -> None:
    """Delete the pool and make it again with blocks of another size; its agents give back what they have."""
    cluster.run("delete", "ippool", "pool", "--wait=false")
    for block in blocks(cluster):
        cluster.run("delete", "ipamblock", block["metadata"]["name"], "--ignore-not-found")
    wait("the pool is gone", lambda: cluster.get("ippools")["items"] == [], 60)
    cluster.apply(pool(blockSize=size))


def test_a_leader_that_was_stopped_wakes_up_and_does_no_harm(
    control_plane: ControlPlane, cluster: Kubectl, operators: Operators
) -> None:
    stopped = operators(*SHORT)
    cluster.apply(pool(), node("a"))
    wait("a block", lambda: len(active(cluster, "a")) == 1)
    operators(*SHORT)
    stopped.send_signal(signal.SIGSTOP)
    try:
        cluster.apply(*(node(f"n{i}") for i in range(20)))
        wait("the standby leads", lambda: len(owners(cluster)) == 21, 60)
        replace_pool(cluster, 28)
        wait("new blocks", lambda: len(owners(cluster)) == 21, 60)
    finally:
        stopped.send_signal(signal.SIGCONT)
    wait("it knows that it doesn't lead", lambda: stopped.poll() is not None)
    assert overlaps(cluster) == []
    assert {b["spec"]["cidr"].rpartition("/")[2] for b in blocks(cluster)} == {"28"}
    assert "Traceback" not in control_plane.log("operator").read_text()


class Late(Client):
    """A leader's connection that stands still between deciding on a block and writing it."""

    decided: asyncio.Event
    go_on: asyncio.Event
    written: asyncio.Event

    async def create(self, path: str, body: Any, *, into: Any = None) -> Any:
        if path == BLOCKS.path() and not self.go_on.is_set():
            self.decided.set()
            await self.go_on.wait()
            try:
                return await super().create(path, body, into=into)
            finally:
                self.written.set()
        return await super().create(path, body, into=into)


@pytest.mark.parametrize("size", [24, 28])
async def test_a_block_decided_before_and_written_after_the_pool_was_replaced(
    control_plane: ControlPlane, cluster: Kubectl, operators: Operators, size: int
) -> None:
    """The worst case: the stale leader looked at its lease just before it stopped, and its write arrives long after."""
    async with Late.connect(str(control_plane.kubeconfig)) as client:
        client.decided, client.go_on, client.written = asyncio.Event(), asyncio.Event(), asyncio.Event()
        cluster.apply(pool(), node("a"))
        stale = asyncio.create_task(Operator(client, Settings(), lambda: not client.go_on.is_set()).run())
        async with asyncio.timeout(60):
            await client.decided.wait()
        await asyncio.to_thread(replace_and_serve, cluster, operators, size)
        client.go_on.set()
        async with asyncio.timeout(60):
            await client.written.wait()
        await asyncio.to_thread(wait, "one block, of the new size", lambda: sizes(cluster) == [str(size)], 60)
        stale.cancel()
        await asyncio.gather(stale, return_exceptions=True)
    assert overlaps(cluster) == []
    assert len(active(cluster, "a")) == 1


def replace_and_serve(cluster: Kubectl, operators: Operators, size: int) -> None:
    cluster.run("delete", "ippool", "pool", "--wait=false")
    operators()
    wait("the old pool is gone", lambda: cluster.get("ippools")["items"] == [], 60)
    cluster.apply(pool(blockSize=size))
    wait("a block of the new pool", lambda: len(active(cluster, "a")) == 1)


def sizes(cluster: Kubectl) -> list[str]:
    return [b["spec"]["cidr"].rpartition("/")[2] for b in blocks(cluster)]
