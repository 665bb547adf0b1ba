"""Reuse of addresses through an outage of the API server, with the real agent and the real operator."""

from contextlib import closing
from pathlib import Path

import pytest

from tests.agent.acting import AgentNode, Failed
from tests.agent.namespaces import namespaces, needs_root
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import Operators, active, blocks, node, pool
from tests.controller.test_leaks import published

pytestmark = needs_root
EXHAUSTED = "all 4 IPv4 addresses of this node's 1 blocks are in use, reserved or rest"


def test_what_was_released_in_an_outage_goes_out_when_that_is_published_and_settled(
    control_plane: ControlPlane, cluster: Kubectl, operators: Operators, tmp_path: Path
) -> None:
    """Each ADD that fails has waited six times as long as a released address rests."""
    operator = operators("--lease-duration", "3")
    cluster.apply(pool(cidr="10.7.0.0/30", blockSize=30), node("a"))
    wait("a block", lambda: len(active(cluster, "a")) == 1)
    with namespaces(6) as (path, *pods), closing(AgentNode("a", control_plane, tmp_path, path, pods)) as agent:
        agent.options = ("--cooldown", "0.5")
        agent.start()
        got = [agent.add(number)[0] for number in range(4)]
        wait("all are published", lambda: published(cluster) == set(got))
        control_plane.kill("kube-apiserver")
        try:
            agent.cni("DEL", 0)
            with pytest.raises(Failed, match=EXHAUSTED):
                agent.add(4, "in-the-outage", waitSeconds=5)
            operator.kill()
        finally:
            control_plane.start("kube-apiserver")
            control_plane.wait_ready()
        wait("its release is published", lambda: published(cluster) == set(got[1:]))
        with pytest.raises(Failed, match=EXHAUSTED):
            agent.add(4, "not-settled", waitSeconds=5)
        (block,) = blocks(cluster)
        released = block["status"]["sequence"]
        assert block["spec"].get("settled", 0) < released
        operators("--lease-duration", "3")
        assert agent.add(4, "settled", waitSeconds=60) == got[:1]
        (block,) = blocks(cluster)
        assert (block["spec"]["settled"], block["spec"]["settledEpoch"]) == (released, block["status"]["epoch"])
