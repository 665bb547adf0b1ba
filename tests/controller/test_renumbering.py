"""A pool is replaced while pods run, with real agents: the old one drains and goes, and never before its last pod."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.acting import AgentNode, agent_nodes
from tests.agent.namespaces import needs_root, run
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import Operators, active, blocks, condition, node, pool, status
from tests.controller.test_leaks import published

pytestmark = needs_root
OLD, NEW = "10.1.0.0/24", "10.9.0.0/24"


@pytest.fixture
def pair(control_plane: ControlPlane, cluster: Kubectl, operators: Operators, tmp_path: Path) -> Iterator[list[AgentNode]]:
    """Two nodes with two pods each, all of the old pool."""
    operators("--grace-period", "0")
    cluster.apply(pool("old", cidr=OLD), node("a"), node("b"))
    with agent_nodes("ab", control_plane, tmp_path, 5, "--cooldown", "0.2") as agents:
        wait("blocks", lambda: len(active(cluster, "a")) == len(active(cluster, "b")) == 1)
        for agent in agents:
            agent.start()
        got = {agent.add(number)[0] for agent in agents for number in range(2)}
        wait("all are published", lambda: published(cluster) == got)
        yield agents


def pools(cluster: Kubectl) -> set[str]:
    return {found["metadata"]["name"] for found in cluster.get("ippools")["items"]}


def owners(cluster: Kubectl, name: str) -> set[str]:
    return {b["spec"]["affinity"]["node"] for b in blocks(cluster) if b["spec"]["pool"]["name"] == name}


def test_disabled_another_added_and_pods_rolled_the_old_pool_goes(pair: list[AgentNode], cluster: Kubectl) -> None:
    a, b = pair
    cluster.apply(pool("new", cidr=NEW))
    wait("each node has a block of the new one", lambda: owners(cluster, "new") == {"a", "b"})
    cluster.apply(pool("old", cidr=OLD, disabled=True))
    wait("the old one gives nothing", lambda: condition(cluster, "old") == ("False", "Disabled"))
    wait("the agents know", lambda: all(takes_new(agent) for agent in pair))
    for number in range(2):
        assert owners(cluster, "old") == {"a", "b"}
        roll(a, number)
    wait("the first node's old block is gone, unasked", lambda: owners(cluster, "old") == {"b"})
    roll(b, 0)
    cluster.run("delete", "ippool", "old", "--wait=false")
    wait("it says that it waits", lambda: condition(cluster, "old") == ("False", "Deleting"))
    wait("and for how many", lambda: "1 addresses are still in use" in str(status(cluster, "old")["conditions"]))
    wait("the last block is asked back", lambda: any("cede" in block["spec"] for block in blocks(cluster, node="b")))
    assert (pools(cluster), owners(cluster, "old")) == ({"old", "new"}, {"b"})
    assert b.cni("CHECK", 1) is None, "its pod goes on"
    roll(b, 1)
    wait("the old pool is gone", lambda: pools(cluster) == {"new"})
    assert owners(cluster, "old") == set()
    wait("every pod is published", lambda: len(published(cluster)) == 4)
    assert all(address.startswith("10.9.") for address in published(cluster))


def takes_new(agent: AgentNode) -> bool:
    """Whether the next pod's address is of the new pool."""
    (address,) = agent.add(4)
    agent.cni("DEL", 4)
    wait("the link is gone", lambda: "eth0" not in run(["ip", "-br", "link"], agent.pods[4]))
    return address.startswith("10.9.")


def roll(agent: AgentNode, number: int) -> None:
    """Replace a pod, the new one before the old one."""
    (address,) = agent.add(number + 2)
    assert address.startswith("10.9.")
    agent.cni("DEL", number)


def test_a_pool_that_is_deleted_with_pods_in_it_waits_for_them(pair: list[AgentNode], cluster: Kubectl) -> None:
    """Undisabled, and without another one: its pods keep their addresses, and it says so until the last is gone."""
    a, b = pair
    cluster.run("delete", "ippool", "old", "--wait=false")
    wait("it says that it waits", lambda: condition(cluster, "old") == ("False", "Deleting"))
    wait("and for how many", lambda: "4 addresses are still in use" in str(status(cluster, "old")["conditions"]))
    a.cni("DEL", 0)
    a.cni("DEL", 1)
    b.cni("DEL", 0)
    wait("the first node's block is gone", lambda: owners(cluster, "old") == {"b"})
    wait("one is left", lambda: "1 addresses are still in use" in str(status(cluster, "old")["conditions"]))
    assert pools(cluster) == {"old"}
    b.cni("DEL", 1)
    wait("it is gone", lambda: pools(cluster) == set())
