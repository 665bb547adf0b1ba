"""Pods that talk from their first instruction: not one packet arrives where a policy forbids it, whatever else happens.

Each pod's namespace sends to one address without pause, from before its link is there until after it is gone.
"""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.agent.acting import AgentNode, Failed
from tests.agent.namespaces import namespaces, needs_root
from tests.agent.packets import inside
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import active, node, pool
from tests.controller.policies import CLUSTER_POLICIES, DEFINITION, app, namespace, pod
from tests.controller.test_policies import finalize
from tests.kube.watching import eventually
from tortie.agent.cni import TRY_LATER
from tortie.agent.knowledge import PODS
from tortie.api import lean
from tortie.kube.client import Client

pytestmark = needs_root
COUNT = 500 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 24
AT_ONCE, PORT = 4, 8080
TALK = 200  # packets that a pod sends in its life, at least

ADMITS_WEB = {
    "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "db", "namespace": "shop"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "db"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}],
    },
}  # fmt: skip
DENIES_OTHERS = {
    "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": "db"},
    "spec": {"tier": "Admin", "priority": 1, "subject": app("db"), "ingress": [{"action": "Deny", "from": [app("other")]}]},
}  # fmt: skip


class Race:
    """A node with the pod db, which gets packets, and pods that are made and try."""

    def __init__(self, agent: AgentNode, cluster: Kubectl, client: Client, operator: Any) -> None:
        self.agent, self.cluster, self.client, self.operator = agent, cluster, client, operator
        cluster.apply(pod("db", "a"))
        self.target = self.add(0, "db", self.uid("db"))
        self._server = inside(agent.pods[0], lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._server.bind((self.target, PORT))
        self._server.setblocking(False)
        self.free = list(range(1, 1 + AT_ONCE))
        self.made = 0
        self.early = True  # whether pods talk before their ADD returns, as no process of theirs can

    def begin(self, policy: str) -> None:
        """Let a policy hold. The sets of all nodes hold a denied pod's address a moment after its ADD was confirmed."""
        self.cluster.apply(POLICIES[policy])
        self.early = policy == "NetworkPolicy"

    def close(self) -> None:
        self._server.close()

    def uid(self, name: str) -> str:
        return str(self.cluster.get("pod", "-n", "shop", name)["metadata"]["uid"])

    def arrived(self) -> int:
        """How many packets came since the last time."""
        count = 0
        with suppress(BlockingIOError):
            while self._server.recv(16):
                count += 1
        return count

    async def create(self, name: str) -> str:
        """Make a Pod; return its uid."""
        made = await self.client.create(PODS.path(namespace="shop"), pod(name, "a"), into=lean.Labelled)
        return made.metadata.uid

    async def run(self, names: list[str], known: dict[str, str] | None = None) -> int:
        """Let these pods come, talk and go; return how many came."""
        before, limit = self.made, asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> None:
            async with limit:
                where = self.free.pop()
                try:
                    uid = known[name] if known else await self.create(name)
                    await asyncio.to_thread(self._live, where, name, uid)
                finally:
                    self.free.append(where)

        await asyncio.gather(*map(one, names))
        return self.made - before

    def _live(self, where: int, name: str, uid: str) -> None:
        talks = talking(self.agent.pods[where], self.target)
        with ExitStack() as stack:
            sent = stack.enter_context(talks) if self.early else lambda: 0
            try:
                self.add(where, name, uid)
            except Failed as failed:
                if failed.code != TRY_LATER:
                    raise
            else:
                self.made += 1
                sent = sent if self.early else stack.enter_context(talks)
                enough = sent() + TALK
                wait(f"{name} has talked", lambda: sent() >= enough)
            self.agent.cni("DEL", where, name)

    def add(self, where: int, name: str, uid: str) -> str:
        agent = replace(self.agent, named={where: name})
        return str(agent.cni("ADD", where, name, uid=uid)["ips"][0]["address"].partition("/")[0])


@contextmanager
def talking(namespace: str, target: str) -> Iterator[Callable[[], int]]:
    """Send to a target without pause; the function says how many packets have left."""
    over, count = threading.Event(), 0

    def talk() -> None:
        nonlocal count
        with inside(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
            while not over.is_set():
                try:
                    sender.sendto(b"packet", (target, PORT))
                    count += 1
                except OSError:  # there is no way yet, or any more
                    over.wait(0.001)

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield lambda: count
    finally:
        over.set()
        thread.join()


@pytest.fixture
async def race(
    control_plane: ControlPlane, cluster: Kubectl, operators: Callable[..., Any], tmp_path: Path
) -> AsyncIterator[Race]:
    cluster.apply(DEFINITION)
    cluster.run("wait", "crd", CLUSTER_POLICIES, "--for=condition=Established")
    operator = operators()
    cluster.apply(pool(blockSize=22), node("a"), namespace("shop"))
    wait("a block", lambda: len(active(cluster, "a")) == 1)
    options = ("--policy-gate", "Closed", "--cooldown", "1")
    async with Client.connect(str(control_plane.kubeconfig)) as client:
        with (
            namespaces(2 + AT_ONCE) as (path, *places),
            closing(AgentNode("a", control_plane, tmp_path, path, places, options, namespace="shop")) as agent,
        ):
            agent.start()
            with closing(Race(agent, cluster, client, operator)) as made:
                yield made
    cluster.run("delete", "pods,networkpolicies", "--all", "-A", "--grace-period=0", "--force")
    cluster.run("delete", "crd", CLUSTER_POLICIES, "--ignore-not-found")
    cluster.run("delete", "namespace", "shop", "--wait=false")
    finalize(cluster, "shop")


def is_enforced(cluster: Kubectl) -> bool:
    """Whether the node enforces what there is, and that is a RuleSet."""
    found = cluster.get("nodepolicy", "a")
    said = found.get("status", {})
    return bool(said.get("ruleSets")) and said.get("realizedGeneration") == found["metadata"]["generation"]


POLICIES = {"NetworkPolicy": ADMITS_WEB, "Deny by the fresh pod's label": DENIES_OTHERS}


def names(first: int = 0) -> list[str]:
    return [f"other-{number}" for number in range(first, first + COUNT)]


@pytest.mark.parametrize("policy", POLICIES)
async def test_not_one_packet_arrives(race: Race, policy: str) -> None:
    race.begin(policy)
    await asyncio.to_thread(wait, "it is enforced", lambda: is_enforced(race.cluster))
    assert await race.run(names()) == COUNT
    assert race.arrived() == 0
    with talking(race.agent.pods[1], race.target):  # what may talk does arrive
        await asyncio.to_thread(race.add, 1, "web-0", await race.create("web-0"))
        await eventually(lambda: race.arrived() > 0)


@pytest.mark.parametrize("policy", POLICIES)
async def test_while_the_operator_is_killed_and_started(race: Race, operators: Callable[..., Any], policy: str) -> None:
    race.begin(policy)
    await asyncio.to_thread(wait, "it is enforced", lambda: is_enforced(race.cluster))
    made = asyncio.create_task(race.run(names()))
    await eventually(lambda: race.made >= COUNT // 4)
    race.operator.kill()
    race.operator.wait()
    await eventually(lambda: race.made >= COUNT // 4 + 1 or len(race.free) < AT_ONCE)
    operators()
    await made
    assert race.arrived() == 0


@pytest.mark.parametrize("policy", POLICIES)
async def test_with_the_api_server_away_and_the_agent_started_anew(
    race: Race, control_plane: ControlPlane, policy: str
) -> None:
    """What the operator had named starts where nobody has to confirm it."""
    race.begin(policy)
    known = {name: await race.create(name) for name in names()}
    last = list(known.values())[-1]
    await asyncio.to_thread(wait, "all are named", lambda: last in race.cluster.run("get", "nodepolicy", "a", "-o", "yaml"))
    await asyncio.to_thread(wait, "it is enforced", lambda: is_enforced(race.cluster))
    control_plane.kill("kube-apiserver")
    try:
        race.agent.kill()
        await asyncio.to_thread(race.agent.start)
        few = dict(list(known.items())[: COUNT if policy == "NetworkPolicy" else AT_ONCE])
        assert await race.run(list(few), few) == (COUNT if policy == "NetworkPolicy" else 0)
        assert race.arrived() == 0
    finally:
        control_plane.start("kube-apiserver")
        control_plane.wait_ready()
