"""The whole agent as a process: real API server, real operator, real kernel, the real CNI plugin."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.agent.acting import HEALTH_PORT, AgentNode, Failed
from tests.agent.namespaces import namespaces, needs_root, run
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import Operators, active, blocks, node, pool

pytestmark = needs_root


@pytest.fixture
def one(control_plane: ControlPlane, cluster: Kubectl, operators: Operators, tmp_path: Path) -> Iterator[AgentNode]:
    operators()
    cluster.apply(pool(), pool("six", cidr="fd00::/64"), node("a"))
    wait("a block of each family", lambda: len(active(cluster, "a")) == 2)
    with namespaces(5) as (path, *pods), closing(AgentNode("a", control_plane, tmp_path, path, pods)) as made:
        made.start()
        yield made


def published(cluster: Kubectl) -> set[str]:
    return {a["address"] for b in blocks(cluster) for a in b.get("status", {}).get("allocations", ())}


def test_pods_get_addresses_of_the_nodes_blocks_and_reach_each_other(one: AgentNode, cluster: Kubectl) -> None:
    addresses = one.add(0), one.add(1)
    assert addresses == (["10.1.0.0", "fd00::"], ["10.1.0.1", "fd00::1"])
    for target in addresses[1]:
        run(["busybox", "ping", "-c", "1", "-W", "5", target], one.pods[0])
    wait("they are published", lambda: published(cluster) == {a for both in addresses for a in both})


def test_repeated_it_is_the_same(one: AgentNode) -> None:
    assert one.add(0) == one.add(0)
    one.cni("CHECK", 0)


def test_deleted_it_is_gone_and_the_unknown_succeeds(one: AgentNode, cluster: Kubectl) -> None:
    before = run(["ip", "link"], one.path)
    one.add(0)
    one.cni("DEL", 0)
    one.cni("DEL", 0)
    one.cni("DEL", 1, "never-added")
    assert run(["ip", "link"], one.path) == before
    wait("nothing is published", lambda: published(cluster) == set())
    with pytest.raises(Failed, match="no address is on record"):
        one.cni("CHECK", 0)


def test_a_dead_agent_is_waited_for_and_knows_what_it_knew(one: AgentNode) -> None:
    first = one.add(0)
    one.kill()
    with pytest.raises(Failed, match="agent on this node"):
        one.cni("ADD", 1, waitSeconds=0.2)
    one.cni("DEL", 0)
    one.start()
    assert one.add(1) != first
    assert run(["ip", "route", "show", "proto", "201"], one.path).count("scope link") == 1  # the deferred DEL was played


def test_without_an_api_server(one: AgentNode, cluster: Kubectl, control_plane: ControlPlane) -> None:
    one.add(0)
    control_plane.pause("kube-apiserver")
    try:
        one.kill()
        one.start()
        for number in range(50):
            one.add(1, f"short-lived-{number}")
            one.cni("DEL", 1, f"short-lived-{number}")
        last = one.add(2)
    finally:
        control_plane.resume("kube-apiserver")
    wait("it is published", lambda: published(cluster) == {"10.1.0.0", "fd00::", *last})


FIXED: dict[str, tuple[dict[str, str], list[str] | str]] = {
    "Calico's name": ({"cni.projectcalico.org/ipAddrs": '["10.1.0.9"]'}, ["10.1.0.9"]),
    "our name": ({"tortie.dev/ip-addrs": '["10.1.0.9", "fd00::9"]'}, ["10.1.0.9", "fd00::9"]),
    "a pool": ({"cni.projectcalico.org/ipv4pools": '["pool"]'}, ["10.1.0.0", "fd00::"]),
    "elsewhere": ({"tortie.dev/ip-addrs": '["10.1.9.9"]'}, "10.1.9.9 of IPPool pool lies in no block of this node"),
    "no pool": ({"tortie.dev/ipv4-pools": '["fun"]'}, "'fun' is no enabled IPPool of that family"),
    "no list": ({"tortie.dev/ip-addrs": "10.1.0.9"}, "must be a JSON list of texts"),
}


@pytest.mark.parametrize("row", FIXED)
def test_annotations(one: AgentNode, cluster: Kubectl, row: str) -> None:
    annotations, outcome = FIXED[row]
    metadata = {"name": "asking", "namespace": "default", "annotations": annotations}
    spec = {"nodeName": "a", "containers": [{"name": "c", "image": "none"}]}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    one.named[0] = "asking"
    try:
        if isinstance(outcome, str):
            with pytest.raises(Failed, match=outcome):
                one.add(0)
        else:
            assert one.add(0) == outcome
    finally:
        cluster.run("delete", "pod", "asking", "--force", "--grace-period=0")


def test_what_it_says_of_itself(one: AgentNode) -> None:
    one.add(0)
    ask = ["busybox", "wget", "-q", "-O", "-", f"http://127.0.0.1:{HEALTH_PORT}"]
    assert run([*ask[:-1], f"{ask[-1]}/healthz"], one.path) == "ok"
    said = run([*ask[:-1], f"{ask[-1]}/metrics"], one.path)
    assert 'tortie_agent_requests_seconds_count{command="ADD",result="ok"} 1.0' in said
    assert "tortie_agent_addresses_in_use 2.0" in said
    assert 'tortie_agent_addresses_free{block="10-1-0-0-26",pool="pool"} 63.0' in said


def test_gc_frees_what_the_runtime_has_no_more(one: AgentNode) -> None:
    kept, gone = one.add(0), one.add(1)
    attachments: dict[str, Any] = {"cni.dev/valid-attachments": [{"containerID": "container-0", "ifname": "eth0"}]}
    one.cni("GC", 0, **attachments)
    one.cni("CHECK", 0)
    with pytest.raises(Failed):
        one.cni("CHECK", 1)
    assert kept != gone


def test_addresses_go_round(one: AgentNode, cluster: Kubectl) -> None:
    """A pool of one block serves any number of short-lived pods, each address resting in between."""
    cluster.run("patch", "ippool", "pool", "--type=merge", "-p", '{"spec":{"disabled":true}}')
    cluster.apply(pool("small", cidr="10.2.0.0/28", blockSize=28))
    wait("its block", lambda: "10.2.0.0/28" in active(cluster, "a"))
    one.kill()
    one.options = ("--cooldown", "0.2")
    one.start()
    seen = [one.add(0, f"short-lived-{n}")[0] for n in range(40) if one.cni("DEL", 0, f"short-lived-{n - 1}") is None]
    assert set(seen[:16]) == {f"10.2.0.{n}" for n in range(16)}
    assert seen[16:] == (seen[:16] * 2)[:24]


def test_250_pods_and_the_blocks_for_them_come_by_themselves(one: AgentNode, cluster: Kubectl) -> None:
    with namespaces(250) as one.pods:
        for number in range(250):
            one.add(number)
    assert len([cidr for cidr in active(cluster, "a") if "." in cidr]) >= 4
