"""Leaks, judged by the real operator and freed by the real agent; an exhausted pool is shared down to its last address."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.agent.acting import AgentNode, agent_nodes
from tests.agent.namespaces import namespaces, needs_root, run
from tests.agent.test_metrics import ADDRESS
from tests.agent.test_metrics import said as agent_said
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import Operators, active, blocks, node, pool
from tests.controller.test_metrics import Said, becomes, port, said

__all__ = ["port", "said"]

pytestmark = needs_root


def pod(name: str, where: str) -> dict[str, Any]:
    spec = {"nodeName": where, "containers": [{"name": "c", "image": "none"}], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def published(cluster: Kubectl) -> set[str]:
    return {a["address"] for b in blocks(cluster) for a in b.get("status", {}).get("allocations", ())}


def asked_back(cluster: Kubectl) -> list[str]:
    return [release["address"] for block in blocks(cluster) for release in block["spec"].get("releases", ())]


def events(cluster: Kubectl, reason: str) -> str:
    return cluster.run("get", "events", f"--field-selector=reason={reason}")


@pytest.fixture
def one(control_plane: ControlPlane, cluster: Kubectl, tmp_path: Path) -> Iterator[AgentNode]:
    cluster.apply(pool(), node("a"))
    with namespaces(4) as (path, *pods), closing(AgentNode("a", control_plane, tmp_path, path, pods)) as made:
        made.named, made.options = {0: "first", 1: "second"}, ("--metrics-address", ADDRESS)
        yield made
    cluster.run("delete", "pods", "--all", "--force", "--grace-period=0")


def test_an_address_whose_pod_is_gone_is_freed_and_those_in_use_are_not(
    one: AgentNode, cluster: Kubectl, operators: Operators, said: Said, port: int
) -> None:
    """Each step on its way is a metric, and an Event from where its node is asked."""
    operators("--leak-grace", "3", "--health-port", str(port))
    wait("a block", lambda: len(active(cluster, "a")) == 1)
    one.start()
    cluster.apply(pod("first", "a"), pod("second", "a"))
    (first,), (second,) = one.add(0), one.add(1)
    wait("both are published", lambda: published(cluster) == {first, second})
    asked, freed = said("leaks_total") or 0, said("leaks_freed_total") or 0
    cluster.run("delete", "pod", "first", "--force", "--grace-period=0")
    becomes(said, 1, "leak_suspects")
    wait("the node is asked to free it", lambda: asked_back(cluster) == [first])
    becomes(said, asked + 1, "leaks_total")
    becomes(said, 1, "leaks_unfreed")
    wait("the agent refuses", lambda: agent_said(one, "leaks_refused") == 1)
    assert published(cluster) == {first, second}, "its interface is there: it is in use"
    wait("that is said", lambda: "and node a doesn't free it; an interface there uses it" in events(cluster, "LeakNotFreed"))
    link = next(line.split()[2] for line in run(["ip", "route", "show", first], one.path).splitlines())
    run(["ip", "link", "delete", link], one.path)
    wait("it is freed", lambda: published(cluster) == {second}, 60)
    wait("nothing is asked any more", lambda: asked_back(cluster) == [])
    becomes(said, freed + 1, "leaks_freed_total")
    becomes(said, 0, "leaks_unfreed")
    becomes(said, 0, "leak_suspects")
    assert agent_said(one, "leaks_refused") == 0
    assert f"{first} of pod default/first is leaked" in events(cluster, "AddressLeaked")
    wait("the end is said", lambda: f"{first}, which was leaked" in events(cluster, "LeakFreed"))


def test_a_pool_that_is_exhausted_is_shared_to_the_last_address(
    control_plane: ControlPlane, cluster: Kubectl, operators: Operators, tmp_path: Path
) -> None:
    """Four nodes, a pool of two blocks, and all 32 pods on nodes that had nothing left or never had a block."""
    operators()
    names = ["a", "b", "c", "d"]
    cluster.apply(pool(cidr="10.7.0.0/27", blockSize=28))
    for name in names[:2]:
        cluster.apply(node(name))
    wait("the first two have all of it", lambda: len(active(cluster, "a")) == len(active(cluster, "b")) == 1)
    cluster.apply(node("c"), node("d"))
    with agent_nodes(names, control_plane, tmp_path, 32) as agents:
        for agent in agents:
            agent.start()
        counts = {0: 1, 1: 1, 2: 20, 3: 10}
        asked = [(agents[index], number) for index, count in counts.items() for number in range(count)]
        with ThreadPoolExecutor(8) as threads:
            got = list(threads.map(lambda one: one[0].add(one[1], waitSeconds=90)[0], asked))
        assert len(set(got)) == 32
        wait("all are published", lambda: published(cluster) == set(got))
        wait("nobody waits", lambda: not any(n.get("status", {}).get("short") for n in cluster.get("nodenetworks")["items"]))
