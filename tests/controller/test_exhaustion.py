"""A pool of which nothing is left, with real agents: who is told what, and that it ends by itself."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.agent.acting import AgentNode, Failed, agent_nodes
from tests.agent.namespaces import needs_root
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import Operators, active, condition, node, pool
from tests.controller.test_leaks import pod

pytestmark = needs_root


@pytest.fixture
def pair(control_plane: ControlPlane, cluster: Kubectl, tmp_path: Path) -> Iterator[list[AgentNode]]:
    """Two nodes, and the pool of eight addresses that they share."""
    cluster.apply(pool(cidr="10.7.0.0/29", blockSize=30), node("a"), node("b"))
    with agent_nodes("ab", control_plane, tmp_path, 6, "--cooldown", "0.5") as agents:
        yield agents
    cluster.run("delete", "pods", "--all", "--force", "--grace-period=0")


def events(cluster: Kubectl, kind: str, reason: str) -> list[dict[str, Any]]:
    found = cluster.get("events", f"--field-selector=involvedObject.kind={kind},reason={reason}")["items"]
    return [{"name": e["involvedObject"]["name"], "count": e["count"], "message": e["message"]} for e in found]


def test_the_last_address_is_taken_and_everybody_who_must_know_is_told(
    pair: list[AgentNode], cluster: Kubectl, operators: Operators
) -> None:
    operators()
    a, b = pair
    wait("both have their block", lambda: len(active(cluster, "a")) == len(active(cluster, "b")) == 1)
    for agent in pair:
        agent.start()
    assert len({agent.add(number)[0] for agent in pair for number in range(4)}) == 8
    assert condition(cluster, "pool", "Sufficient") == ("True", "Sufficient"), "nobody waits"
    cluster.apply(pod("late", "a"))
    a.named[4] = a.named[5] = "late"
    said = r"default/late: all .* in use, .* \(pools: pool\); apply another IPPool.*tries again"
    with pytest.raises(Failed, match=said) as failed:
        a.add(4, "first", waitSeconds=5)
    assert failed.value.code == 11
    with ThreadPoolExecutor(1) as thread:
        again = thread.submit(a.add, 5, "second", waitSeconds=90)  # as the runtime does after a while
        wait("its condition", lambda: condition(cluster, "pool", "Sufficient") == ("False", "Exhausted"))
        wait("the pool's Event", lambda: "pods wait on a;" in str(events(cluster, "IPPool", "Exhausted")))
        wait("the node's Event", lambda: "address of IPPool pool" in str(events(cluster, "Node", "AddressesExhausted")))
        assert not again.done()
        b.cni("DEL", 0)
        assert again.result()[0].startswith("10.7.0.")
    wait("its condition is True again", lambda: condition(cluster, "pool", "Sufficient") == ("True", "Sufficient"))
    told = [(event["name"], event["count"]) for event in events(cluster, "Node", "AddressesExhausted")]
    assert told == [("a", 1)], "one Event for both tries"
