"""Installed as people install it: the built image, the chart, its rights; upgraded while pods talk."""

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster import image
from tests.cluster.assets import find
from tests.cluster.cluster import Cluster, why_not
from tests.cluster.demo import pod, run_everywhere
from tests.cluster.deploy import NAMESPACE, rolled_out, wait
from tests.cluster.node import Node
from tortie.agent.forwarding import COPY_METRIC
from tortie.agent.install import CONFLIST, LAST_CONFLIST, PLUGIN
from tortie.agent.wire import VXLAN

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

TAG = "next"  # of the release that is upgraded to


@pytest.fixture(scope="module")
def two() -> Iterator[Cluster]:
    with Cluster(2) as cluster:
        yield cluster


def test_installed_on_nodes_that_have_nothing_pods_reach_each_other(two: Cluster) -> None:
    assert not two.is_ready()
    two.install()
    wait("pods can be made", lambda: bool(two.kubectl.get("serviceaccounts")["items"]))
    two.kubectl.apply(*(pod(node.name) for node in two.nodes))
    wait("they run", lambda: run_everywhere(two.kubectl), 60)
    for one in two.kubectl.get("pods")["items"]:
        for address in one["status"]["podIPs"]:
            two.kubectl.run("exec", "pod-on-node-1", "--", "ping", "-c", "1", "-W", "5", address["ip"])


def test_upgraded_while_pods_talk_no_packet_is_lost_and_every_new_pod_starts(two: Cluster) -> None:
    wait("it is rolled out", lambda: rolled_out(two.kubectl, 2), 60)
    target = two.kubectl.get("pod", "pod-on-node-2")["status"]["podIP"]
    kubectl = [str(find("kubectl")), "--kubeconfig", str(two.plane.kubeconfig)]
    command = ["exec", "pod-on-node-1", "--", "ping", "-i", "0.01", "-w", "600", target]
    before = set(agents_and_operators(two))
    for node in two.nodes:
        node.ctr("images", "tag", image.name(), f"docker.io/library/tortie:{TAG}")
    with subprocess.Popen([*kubectl, *command], stdout=subprocess.PIPE, text=True) as pinging:
        two.install(f"image.tag={TAG}", "agent.extraEnv[0].name=RELEASE", "agent.extraEnv[0].value=two")
        more = [pod(node.name) for node in two.nodes for _ in range(3)]
        for number, one in enumerate(more):
            one["metadata"]["name"] += f"-{number}"
        two.kubectl.apply(*more)
        wait("it is rolled out", lambda: rolled_out(two.kubectl, 2), 120)
        wait("they run", lambda: run_everywhere(two.kubectl), 120)
        two.kubectl.run("exec", "pod-on-node-1", "--", "killall", "-INT", "ping")
        said, _ = pinging.communicate(timeout=30)
    assert " 0% packet loss" in said, said[-500:]
    running = agents_and_operators(two)
    assert len(running) == 4
    assert not before & running.keys(), "all are new"
    for container in running.values():
        assert container["image"] == f"tortie:{TAG}"
    assert sum({"name": "RELEASE", "value": "two"} in container["env"] for container in running.values()) == 2
    assert not any(LAST_CONFLIST in files(node) for node in two.nodes)


def test_a_restart_is_no_uninstallation(two: Cluster) -> None:
    before = set(agents_and_operators(two))
    two.kubectl.run("rollout", "restart", "-n", NAMESPACE, "daemonset/tortie-agent")
    wait("it is rolled out", lambda: rolled_out(two.kubectl, 2), 240)
    assert len(agents_and_operators(two).keys() - before) == 2
    for one in two.nodes:
        assert {CONFLIST, PLUGIN} <= set(files(one))
        assert LAST_CONFLIST not in files(one)


def test_uninstalled_pods_keep_their_network_and_the_last_one_s_deletion_leaves_nothing(two: Cluster) -> None:
    """Node 1 has pods, node 2 has none any more: there the agent cleans up by itself."""
    node = two.nodes
    gone = [one["metadata"]["name"] for one in two.kubectl.get("pods")["items"] if one["spec"]["nodeName"] == "node-2"]
    two.kubectl.run("delete", "pod", *gone, "--wait")
    left = [one["metadata"]["name"] for one in two.kubectl.get("pods")["items"]]
    for name in (one["metadata"]["name"] for one in two.kubectl.get("ippools")["items"]):
        two.kubectl.run("patch", "ippool", name, "--type=merge", "-p", '{"spec":{"vxlanMode":"Always"}}')
    wait("both nodes have a tunnel", lambda: all(VXLAN in shell(one, "ip -o link") for one in node), 60)
    for one, other in zip(node, reversed(node), strict=True):  # as while BIRD starts anew
        shell(one, f"ip route add 198.51.100.0/26 via {other.place.address4} proto 201 metric {COPY_METRIC}")
    two.kubectl.helm("uninstall", "tortie", "--namespace", NAMESPACE)
    wait("the agents are gone", lambda: not two.kubectl.get("pods", "-n", NAMESPACE)["items"], 60)
    assert files(node[1]) == []
    assert PLUGIN in files(node[0])
    assert [VXLAN in shell(one, "ip -o link") for one in node] == [True, False]
    first, second = (two.kubectl.get("pod", name)["status"]["podIP"] for name in left[:2])
    two.kubectl.run("exec", left[0], "--", "ping", "-c", "1", "-W", "5", second)
    assert first != second
    two.kubectl.run("delete", "pod", *left[2:], "--wait", "--timeout=60s")
    assert LAST_CONFLIST in files(node[0])
    two.kubectl.run("delete", "pod", *left[:2], "--wait", "--timeout=60s")  # both at once: each may be the last
    wait("nothing is left there", lambda: files(node[0]) == [], 60)
    for one in node:
        assert shell(one, "ip route show proto 201; ip -6 route show proto 201; ip -o link show group 1953460852") == ""
        assert VXLAN not in shell(one, "ip -o link")
    assert len(two.kubectl.get("ippools")["items"]) == 2, "the CRDs and their objects stay"


def agents_and_operators(two: Cluster) -> dict[str, dict[str, Any]]:
    """Return the container of each of Tortie's pods that isn't being deleted, by the pod's uid."""
    pods = two.kubectl.get("pods", "-n", NAMESPACE)["items"]
    alive = [one for one in pods if "deletionTimestamp" not in one["metadata"]]
    return {one["metadata"]["uid"]: one["spec"]["containers"][0] for one in alive}


def shell(node: Node, script: str) -> str:
    """Return what a script prints on a node."""
    return subprocess.run([*node.enter, "sh", "-c", script], capture_output=True, text=True, check=True, timeout=30).stdout


def files(node: Node) -> list[str]:
    """Return the names of Tortie's files on a node; cni.lock is the runtime's own, and two plugins are everybody's."""
    folders = "/opt/cni/bin /etc/cni/net.d /var/lib/tortie /run/tortie"
    theirs = " ".join(f"! -name {name}" for name in ("'.*'", "cni.lock", "loopback", "portmap"))
    found = shell(node, f"find {folders} -mindepth 1 ! -type l {theirs} 2>/dev/null || true").split()
    return sorted({path.rsplit("/", 1)[-1] for path in found if not path.endswith("/deferred")})
