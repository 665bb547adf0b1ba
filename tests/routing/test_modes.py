"""Who reaches whom, and how, on a real cluster of two subnets: by each of the pools' modes.

What is on the wire is counted where the nodes' links meet: packets that are encapsulated, and pods' packets as they are.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from tests.cluster.cluster import Cluster, why_not
from tests.cluster.deploy import NAMESPACE, rolled_out, wait
from tests.routing.traffic import FAMILIES, PAIRS, agents, arrives, ask, talk, travels

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")


class Mode(NamedTuple):
    """What is asked of both pools, and how packets travel inside of a subnet and between two: "" is not at all."""

    spec: dict[str, Any]
    near: str
    far: str


MODES = {
    "direct": Mode({"vxlanMode": "Never"}, "plain", ""),
    "VXLAN always": Mode({"vxlanMode": "Always"}, "vxlan", "vxlan"),
    "VXLAN across subnets": Mode({"vxlanMode": "CrossSubnet"}, "plain", "vxlan"),
    "direct again": Mode({"vxlanMode": "Never"}, "plain", ""),
}


@pytest.mark.parametrize("row", MODES)
def test_all_pairs(four: Cluster, row: str) -> None:
    mode = MODES[row]
    ask(four.kubectl, mode.spec)
    arrives(four, mode.near, mode.far)


# What is done while pods talk, behind what was asked before.
WHILE = {
    "VXLAN to direct, where nodes share a subnet": ({"vxlanMode": "Always"}, {"vxlanMode": "CrossSubnet"}),
    "direct to VXLAN": ({"vxlanMode": "CrossSubnet"}, {"vxlanMode": "Always"}),
}


@pytest.mark.parametrize("row", WHILE)
def test_no_packet_is_lost_while_the_mode_changes(four: Cluster, row: str) -> None:
    before, after = WHILE[row]
    ask(four.kubectl, before)
    wait("packets travel so", lambda: travels(four, before), 60)
    with ThreadPoolExecutor(len(PAIRS) * len(FAMILIES)) as threads:
        talking = talk(four, threads)
        ask(four.kubectl, after)
        wait("packets travel otherwise", lambda: travels(four, after), 60)
        assert not any(one.done() for one in talking), "they talk all the while"
        assert [one.result() for one in talking] == ["0% packet loss"] * len(talking)


def test_no_packet_is_lost_while_agents_start_anew(four: Cluster) -> None:
    ask(four.kubectl, {"vxlanMode": "CrossSubnet"})
    wait("packets travel so", lambda: travels(four, {"vxlanMode": "CrossSubnet"}), 60)
    with ThreadPoolExecutor(len(PAIRS) * len(FAMILIES)) as threads:
        talking = talk(four, threads)
        old = agents(four.kubectl)
        four.kubectl.run("delete", "pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=agent", "--wait=false")
        wait("others are there", lambda: rolled_out(four.kubectl, 4) and not old & agents(four.kubectl), 120)
        assert [one.result() for one in talking] == ["0% packet loss"] * len(talking)
