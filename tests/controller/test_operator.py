"""The operator as its own process, with the chart's rights, against a real API server; the tests play the agents."""

import json
from typing import Any

from tests.cluster.deploy import wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import API, Operators, active, blocks, condition, node, pool, publish, status


def test_nodes_get_blocks_of_both_families_and_a_network(cluster: Kubectl, operators: Operators) -> None:
    operators()
    cluster.apply(pool(), pool("six", cidr="fd00::/64"), node("a"), node("b"))
    for name in ("a", "b"):
        wait("blocks", lambda name=name: len(active(cluster, name)) == 2)  # type: ignore[misc]
        # A pool that is seen after the node is on the list after the others.
        wait("they are listed", lambda name=name: listed(cluster, name) == sorted(active(cluster, name)))  # type: ignore[misc]


def listed(cluster: Kubectl, name: str) -> list[str]:
    """Return the blocks that a NodeNetwork lists."""
    networks = {one["metadata"]["name"]: one for one in cluster.get("nodenetworks")["items"]}
    return sorted(block["cidr"] for block in networks[name]["spec"]["blocks"]) if name in networks else []


def test_the_next_block_and_the_counts_follow_what_agents_publish(cluster: Kubectl, operators: Operators) -> None:
    operators()
    cluster.apply(pool(), node("a"))
    wait("a block", lambda: len(active(cluster, "a")) == 1)
    name = blocks(cluster)[0]["metadata"]["name"]
    publish(cluster, name, free=10, allocations=[{"address": f"10.1.0.{i}", "sequence": i} for i in range(54)])
    wait("the next block", lambda: len(active(cluster, "a")) == 2)
    wait("true counts of blocks", lambda: status(cluster).get("blocks") == {"total": 1024, "assigned": 2, "free": 1022})
    wait("true counts of addresses", lambda: status(cluster)["addresses"]["allocated"] == 54)


def test_max_blocks_per_host(cluster: Kubectl, operators: Operators) -> None:
    operators()
    limit = {"apiVersion": API, "kind": "IPAMConfiguration", "metadata": {"name": "default"}, "spec": {"maxBlocksPerHost": 1}}
    cluster.apply(limit, pool(), node("a"))
    wait("a block", lambda: len(active(cluster, "a")) == 1)
    publish(cluster, blocks(cluster)[0]["metadata"]["name"], free=0)
    cluster.apply(node("b"))
    wait("a block of the node that came after", lambda: len(active(cluster, "b")) == 1)
    assert len(active(cluster, "a")) == 1


def test_a_reservation_holds(cluster: Kubectl, operators: Operators) -> None:
    operators()
    reservation = {"apiVersion": API, "kind": "IPReservation", "metadata": {"name": "r"}}
    cluster.apply({**reservation, "spec": {"reservedCIDRs": ["10.1.0.0/26", "10.1.0.65"]}})
    cluster.apply(pool(), node("a"))
    wait("a block", lambda: active(cluster, "a") == ["10.1.0.64/26"])
    assert blocks(cluster)[0]["spec"]["reserved"] == ["10.1.0.65/32"]


def test_a_node_that_left_gives_its_blocks_back(cluster: Kubectl, operators: Operators) -> None:
    operators("--reclaim-delay", "1")
    cluster.apply(pool(), node("a"))
    wait("a block", lambda: len(active(cluster, "a")) == 1)
    cluster.run("delete", "node", "a")
    wait("no block", lambda: blocks(cluster) == [])
    wait("no NodeNetwork", lambda: cluster.get("nodenetworks")["items"] == [])


def test_changed_labels_ask_a_block_back_and_the_agent_gives_it(cluster: Kubectl, operators: Operators) -> None:
    operators()
    cluster.apply(pool(nodeSelector="!has(drain)"), node("a"))
    wait("a block", lambda: len(active(cluster, "a")) == 1)
    name = blocks(cluster)[0]["metadata"]["name"]
    cluster.apply(node("a", drain="now"))
    wait("asked back", lambda: blocks(cluster)[0]["spec"].get("cede") == "10.1.0.0/26")
    publish(cluster, name, ceded="10.1.0.0/26", free=0)
    wait("deleted", lambda: blocks(cluster) == [])


def test_an_overlapping_pool_waits_until_the_older_is_gone(cluster: Kubectl, operators: Operators) -> None:
    operators()
    cluster.apply(pool("a-old", cidr="10.1.0.0/16"))
    wait("the older is ours", lambda: condition(cluster, "a-old") == ("True", "Allocatable"))
    cluster.apply(pool("b-young", cidr="10.1.0.0/20"))
    wait("the younger waits", lambda: condition(cluster, "b-young") == ("False", "CIDROverlap"))
    wait("an Event", lambda: "a-old" in cluster.run("get", "events", "-n", "default", "--field-selector=reason=CIDROverlap"))
    cluster.run("delete", "ippool", "a-old")
    wait("the younger is ours", lambda: condition(cluster, "b-young") == ("True", "Allocatable"))


def test_a_deleted_pool_stays_until_its_blocks_are_given_back(cluster: Kubectl, operators: Operators) -> None:
    operators()
    cluster.apply(pool(), node("a"))
    wait("a block", lambda: len(active(cluster, "a")) == 1)
    cluster.run("delete", "ippool", "pool", "--wait=false")
    wait("a condition", lambda: condition(cluster, "pool") == ("False", "Deleting"))
    wait("asked back", lambda: "cede" in blocks(cluster)[0]["spec"])
    publish(cluster, blocks(cluster)[0]["metadata"]["name"], ceded="10.1.0.0/26", free=0)
    wait("the pool is gone", lambda: cluster.get("ippools")["items"] == [])
    assert blocks(cluster) == []


def test_a_pool_that_is_too_small_for_its_nodes_says_so_before_pods_wait(cluster: Kubectl, operators: Operators) -> None:
    operators()
    cluster.apply(pool(cidr="10.1.0.0/25"), node("a"), node("b"))
    wait("two blocks are enough for two", lambda: condition(cluster, "pool", "Sufficient") == ("True", "Sufficient"))
    cluster.apply(node("c", rack="2"))
    wait("not for three", lambda: condition(cluster, "pool", "Sufficient") == ("False", "TooFewBlocks"))
    wait("an Event", lambda: "2 blocks for 3 nodes" in cluster.run("get", "events", "--field-selector=reason=TooFewBlocks"))
    cluster.apply(pool(cidr="10.1.0.0/25", nodeSelector="!has(rack)"))
    wait("the third isn't its own", lambda: condition(cluster, "pool", "Sufficient") == ("True", "Sufficient"))


def test_what_is_not_built_yet_is_said(cluster: Kubectl, operators: Operators) -> None:
    operators()
    cluster.apply(pool(allowedUses=["Workload", "LoadBalancer"]))
    wait("a condition", lambda: condition(cluster, "pool", "Supported") == ("False", "NotBuiltYet"))


# What is said of an object that nodes speak BGP by: the condition's reason, and a part of its message.
SPOKEN: dict[str, tuple[str, str, dict[str, Any], str, str]] = {
    "all well": ("BGPPeer", "tor", {"peerIP": "10.0.0.1"}, "Supported", "nodes follow it"),
    "for pods": ("BGPPeer", "pods", {"localWorkloadSelector": "all()"}, "NotBuiltYet", "localWorkloadSelector"),
    "no peer": ("BGPPeer", "none", {}, "Invalid", "spec: it names nobody to peer with; write peerIP"),
    "no AS": ("BGPPeer", "as", {"peerIP": "10.0.0.1", "asNumber": "70000.1"}, "Invalid", "spec.asNumber: '70000.1' is no AS"),
    "another name": ("BGPConfiguration", "mine", {}, "Invalid", "metadata.name: no node follows 'mine'; name it default"),
    "the default": ("BGPConfiguration", "default", {}, "Supported", "nodes follow it"),
    "no community": (
        "BGPConfiguration", "node.a", {"prefixAdvertisements": [{"cidr": "10.0.0.0/8", "communities": ["x"]}]},
        "Invalid", "spec.prefixAdvertisements",
    ),
    "the mesh of one node": (
        "BGPConfiguration", "node.b", {"nodeToNodeMeshEnabled": False}, "Invalid",
        "spec.nodeToNodeMeshEnabled: it holds for all nodes alike; write it in default alone",
    ),
    "a rule about no range": ("BGPFilter", "in", {"importV4": [{"action": "Accept", "matchOperator": "In"}]}, "Invalid", "[0]"),
}  # fmt: skip


def test_what_nodes_speak_bgp_by_is_judged(cluster: Kubectl, operators: Operators) -> None:
    operators()
    objects = [(kind, name, spec) for kind, name, spec, _, _ in SPOKEN.values()]
    cluster.apply(
        *({"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec} for kind, name, spec in objects)
    )

    def said(row: str) -> tuple[str, str]:
        kind, name, *_ = SPOKEN[row]
        found = cluster.get(f"{kind.lower()}s", name).get("status", {}).get("conditions") or [{"reason": "", "message": ""}]
        return found[0]["reason"], found[0]["message"]

    wait("conditions", lambda: {row: said(row)[0] for row in SPOKEN} == {row: one[3] for row, one in SPOKEN.items()})
    assert [row for row, one in SPOKEN.items() if one[4] not in said(row)[1]] == []
    wait("an Event", lambda: "nobody to peer" in cluster.run("get", "events", "--field-selector=involvedObject.kind=BGPPeer"))


def test_sessions_that_stay_down_are_told(cluster: Kubectl, operators: Operators) -> None:
    operators()
    cluster.apply(pool(), node("a"))
    wait("a network", lambda: len(cluster.get("nodenetworks")["items"]) == 1)

    def say(status: str, reason: str) -> None:
        condition = {"type": "BGPSessionsUp", "status": status, "reason": reason, "message": "with node b"}
        body = {"status": {"conditions": [condition | {"lastTransitionTime": "2026-11-30T00:00:00Z"}]}}
        cluster.run("patch", "nodenetwork", "a", "--subresource=status", "--type=merge", "-p", json.dumps(body))

    def told() -> list[tuple[str, str]]:
        events = cluster.get("events", "-n", "default")["items"]
        return [(one["type"], one["reason"]) for one in events if one["involvedObject"]["kind"] == "NodeNetwork"]

    say("True", "BGPSessionsUp")
    say("False", "SessionDown")
    wait("a warning", lambda: told() == [("Warning", "SessionDown")])
    say("True", "BGPSessionsUp")
    wait("and that it is over", lambda: sorted(told()) == [("Normal", "BGPSessionsUp"), ("Warning", "SessionDown")])


def test_a_default_pool_is_made_when_there_is_none(cluster: Kubectl, operators: Operators) -> None:
    operators("--default-pool", "10.9.0.0/16")
    wait("the pool", lambda: condition(cluster, "default-ipv4-ippool") == ("True", "Allocatable"))


def test_a_disabled_pool_gives_no_new_blocks(cluster: Kubectl, operators: Operators) -> None:
    operators()
    cluster.apply(pool(), node("a"))
    wait("a block", lambda: len(active(cluster, "a")) == 1)
    cluster.apply(pool(disabled=True), node("b"), pool("other", cidr="10.2.0.0/24"))
    wait("the condition", lambda: condition(cluster, "pool") == ("False", "Disabled"))
    wait("blocks of the other", lambda: len(active(cluster, "b")) == 1 and len(active(cluster, "a")) == 2)
    assert {b["spec"]["pool"]["name"] for b in blocks(cluster, node="b")} == {"other"}


def test_too_many_blocks_are_asked_back_and_given(cluster: Kubectl, operators: Operators) -> None:
    operators("--grace-period", "0")
    cluster.apply(pool(), node("a"))
    wait("a block", lambda: len(active(cluster, "a")) == 1)
    first = blocks(cluster)[0]["metadata"]["name"]
    publish(cluster, first, free=0, allocations=[{"address": f"10.1.0.{i}", "sequence": i} for i in range(64)])
    wait("the next block", lambda: len(active(cluster, "a")) == 2)
    second = next(b["metadata"]["name"] for b in blocks(cluster) if b["metadata"]["name"] != first)
    publish(cluster, first, free=64, allocations=[])
    publish(cluster, second, free=64, allocations=[])
    wait("one asked back", lambda: sum("cede" in b["spec"] for b in blocks(cluster)) == 1)
    asked = next(b for b in blocks(cluster) if "cede" in b["spec"])
    publish(cluster, asked["metadata"]["name"], ceded=asked["spec"]["cede"], free=0)
    wait("one left", lambda: len(blocks(cluster)) == 1)


def test_status_is_written_only_when_it_changes(cluster: Kubectl, operators: Operators) -> None:
    operators()
    cluster.apply(pool(), node("a"))
    wait("the status", lambda: status(cluster).get("blocks", {}).get("assigned") == 1)
    before = cluster.get("ippool", "pool")["metadata"]["resourceVersion"]
    for name, cidr in (("b", "10.2.0.0/24"), ("c", "10.3.0.0/24")):  # each status of theirs is a whole round of reports
        cluster.apply(pool(name, cidr=cidr, nodeSelector="has(nobody)"))
        wait("another's status", lambda name=name: condition(cluster, name)[0] == "True")  # type: ignore[misc]
    assert cluster.get("ippool", "pool")["metadata"]["resourceVersion"] == before
