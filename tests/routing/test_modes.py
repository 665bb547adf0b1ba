"""Who reaches whom, and how, on a real cluster of two subnets: by each of the pools' modes.

What is on the wire is counted where the nodes' links meet: packets that are encapsulated, and pods' packets as they are.
"""

import subprocess
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import pytest

from tests.cluster.cluster import Cluster, why_not
from tests.cluster.deploy import NAMESPACE, rolled_out, wait
from tests.routing.traffic import FAMILIES, agents, answered, arrives, ask, pods, talking, travels

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
    with talking(four) as lost:
        ask(four.kubectl, after)
        wait("packets travel otherwise", lambda: travels(four, after), 60)
    assert lost == {}


def test_no_packet_is_lost_while_agents_start_anew(four: Cluster) -> None:
    ask(four.kubectl, {"vxlanMode": "CrossSubnet"})
    wait("packets travel so", lambda: travels(four, {"vxlanMode": "CrossSubnet"}), 60)
    with talking(four) as lost:
        old = agents(four.kubectl)
        four.kubectl.run("delete", "pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=agent", "--wait=false")
        wait("others are there", lambda: rolled_out(four.kubectl, 4) and not old & agents(four.kubectl), 120)
    assert lost == {}


WORLD = {4: "203.0.113.9", 6: "2001:db8:9::9"}


@pytest.fixture
def world(four: Cluster) -> Iterator[None]:
    """Two addresses behind the router, which knows no way back to pods: they answer only what comes from a node."""
    enter = four.network.hub.enter
    for one in WORLD.values():
        subprocess.run([*enter, "ip", "addr", "add", one, "dev", "lo"], check=True)
    yield
    for one in WORLD.values():
        prefix = 128 if ":" in one else 32
        subprocess.run([*enter, "ip", "addr", "del", f"{one}/{prefix}", "dev", "lo"], check=True)
    ask(four.kubectl, {"natOutgoing": False})


@pytest.mark.usefixtures("world")
def test_what_leaves_the_pools_has_the_node_s_address_where_they_ask_for_it(four: Cluster) -> None:
    ask(four.kubectl, {"vxlanMode": "CrossSubnet", "natOutgoing": True})
    wait("the world answers all pods", lambda: from_world(four) == set(product(pods(four.kubectl), FAMILIES)), 60)
    arrives(four, "plain", "vxlan")  # counted by the pods' own addresses, so what stays inside keeps them
    ask(four.kubectl, {"natOutgoing": False})
    wait("the world answers none", lambda: from_world(four) == set(), 60)


def from_world(cluster: Cluster) -> set[tuple[str, int]]:
    """Return which pods the world answers, and in which family."""
    return answered(
        cluster,
        {(pod, family): (its[family], WORLD[family]) for pod, its in pods(cluster.kubectl).items() for family in FAMILIES},
    )
