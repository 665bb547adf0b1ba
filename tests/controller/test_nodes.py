"""Nodes that go, come back, or whose agent is dead: which blocks return, and which never do."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.agent.acting import AgentNode
from tests.agent.namespaces import namespaces, needs_root
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import Operators, active, blocks, node, pool
from tests.controller.test_leaks import asked_back, pod, published


def machine(name: str, ident: str) -> dict[str, Any]:
    return {**node(name), "status": {"nodeInfo": {"machineID": ident}}}


def report(cluster: Kubectl, name: str, address: str) -> None:
    """Have a pod report an address, as its kubelet does."""
    status = json.dumps({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}})
    cluster.run("patch", "pod", name, "--subresource=status", "--type=merge", "-p", status)


@pytest.fixture
def pods(cluster: Kubectl) -> Iterator[None]:
    yield
    cluster.run("delete", "pods", "--all", "--force", "--grace-period=0")


@pytest.mark.usefixtures("pods")
def test_no_block_returns_in_which_a_pod_still_reports_its_address(cluster: Kubectl, operators: Operators) -> None:
    operators("--reclaim-delay", "0")
    cluster.apply(pool(), node("a"), node("b"), pod("lives", "a"))
    wait("blocks", lambda: len(active(cluster, "a")) == len(active(cluster, "b")) == 1)
    (kept,) = active(cluster, "a")
    report(cluster, "lives", kept.partition("/")[0])
    cluster.run("delete", "node", "a")
    cluster.run("delete", "node", "b")
    wait("the other's is gone", lambda: blocks(cluster, node="b") == [])
    assert active(cluster, "a") == [kept]
    cluster.run("patch", "pod", "lives", "--subresource=status", "--type=merge", "-p", '{"status":{"phase":"Failed"}}')
    wait("its own, when the pod has ended", lambda: blocks(cluster) == [])


@pytest.mark.usefixtures("pods")
def test_a_range_that_is_nobody_s_is_given_to_nobody_while_a_pod_reports_an_address_of_it(
    cluster: Kubectl, operators: Operators
) -> None:
    cluster.apply(pod("lives", "gone"))
    report(cluster, "lives", "10.1.0.7")
    operators()
    cluster.apply(pool(cidr="10.1.0.0/25"), node("a"), node("b"))
    wait("the other half is given", lambda: len(active(cluster, "a") + active(cluster, "b")) == 1)
    assert {b["spec"]["cidr"] for b in blocks(cluster)} == {"10.1.0.64/26"}
    cluster.run("delete", "pod", "lives", "--force", "--grace-period=0")
    wait("so is this one", lambda: len(active(cluster, "a")) == len(active(cluster, "b")) == 1)


def test_the_same_machine_under_another_uid_keeps_its_blocks(cluster: Kubectl, operators: Operators) -> None:
    operators("--reclaim-delay", "60")
    cluster.apply(pool(), machine("a", "m1"))
    wait("a block", lambda: len(active(cluster, "a")) == 1)
    before = blocks(cluster)[0]
    cluster.run("delete", "node", "a")
    cluster.apply(machine("a", "m1"))
    uid = cluster.get("node", "a")["metadata"]["uid"]
    wait("the new uid stands in its block", lambda: blocks(cluster)[0]["spec"]["affinity"]["uid"] == uid)
    (after,) = blocks(cluster)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["active"]


def test_another_machine_of_the_same_name_gets_none_of_the_blocks(cluster: Kubectl, operators: Operators) -> None:
    operators("--reclaim-delay", "3")
    cluster.apply(pool(), machine("a", "m1"))
    wait("a block", lambda: len(active(cluster, "a")) == 1)
    (old,) = blocks(cluster)
    cluster.run("delete", "node", "a")
    cluster.apply(machine("a", "m2"))
    uid = cluster.get("node", "a")["metadata"]["uid"]
    wait("a block of its own", lambda: [b["spec"]["active"] for b in blocks(cluster, uid=uid)] == [True])
    (own,) = blocks(cluster, uid=uid)
    assert own["spec"]["cidr"] != old["spec"]["cidr"]
    wait("the other machine's goes", lambda: [b["metadata"]["uid"] for b in blocks(cluster)] == [own["metadata"]["uid"]])
    wait("it is told of its own", lambda: listed(cluster, "a") == [own["spec"]["cidr"]])


def listed(cluster: Kubectl, name: str) -> list[str]:
    return [block["cidr"] for block in cluster.get("nodenetwork", name)["spec"]["blocks"]]


@needs_root
@pytest.mark.usefixtures("pods")
def test_while_an_agent_is_dead_nothing_of_its_node_is_freed(
    control_plane: ControlPlane, cluster: Kubectl, operators: Operators, tmp_path: Path
) -> None:
    """Everything is due at once, and it is asked for; but the node is there, and says nothing."""
    operators("--leak-grace", "0", "--grace-period", "0", "--reclaim-delay", "0")
    cluster.apply(pool(), node("a"), node("b"), pod("first", "a"), pod("second", "a"))
    wait("blocks", lambda: len(active(cluster, "a")) == len(active(cluster, "b")) == 1)
    with namespaces(3) as (path, *places), closing(AgentNode("a", control_plane, tmp_path, path, places)) as agent:
        agent.named = {0: "first", 1: "second"}
        agent.start()
        (first,), (second,) = agent.add(0), agent.add(1)
        wait("both are published", lambda: published(cluster) == {first, second})
        agent.kill()
        cluster.run("delete", "pod", "first", "--force", "--grace-period=0")
        wait("it is asked to free it", lambda: asked_back(cluster) == [first])
        cluster.run("patch", "ippool", "pool", "--type=merge", "-p", '{"spec":{"nodeSelector":"!has(x)"}}')
        cluster.apply(node("a", x=""))
        wait("its block is asked back", lambda: "cede" in blocks(cluster, node="a")[0]["spec"])
        cluster.run("delete", "node", "b")
        wait("another's is deleted", lambda: blocks(cluster, node="b") == [])
        (block,) = blocks(cluster, node="a")
        assert {one["address"] for one in block["status"]["allocations"]} == {first, second}
        agent.start()
        agent.cni("DEL", 0)
        wait("the agent frees what is free", lambda: published(cluster) == {second})
