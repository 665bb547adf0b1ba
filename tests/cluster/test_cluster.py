"""A real cluster: pods on every node, with addresses of their node's blocks, reach each other; and nothing is left of it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.chaos.containers import containers
from tests.cluster.cluster import Cluster, _mounts, _shims, why_not
from tests.cluster.deploy import wait
from tests.cluster.images import BUSYBOX
from tests.cluster.network import NAMESPACES
from tests.cluster.node import Node
from tortie.addressing.allocator import address
from tortie.addressing.ranges import parse

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")


@pytest.fixture(scope="module")
def three() -> Iterator[Cluster]:
    with Cluster(3) as cluster:
        yield cluster.install()


def workload(kind: str, name: str, replicas: int) -> dict[str, Any]:
    container = {"name": "c", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "100000"]}
    spread = [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
               "labelSelector": {"matchLabels": {"app": name}}}]  # fmt: skip
    pod = {"terminationGracePeriodSeconds": 0, "containers": [container], "topologySpreadConstraints": spread}
    template = {"metadata": {"labels": {"app": name}}, "spec": pod}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    more = {"serviceName": name} if kind == "StatefulSet" else {}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": {**spec, **more}}


def pods(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.kubectl.get("pods", "-l", f"app={name}")["items"]
    return found


def running(cluster: Cluster, name: str, count: int) -> bool:
    ready = [p for p in pods(cluster, name) if p["status"]["phase"] == "Running" and "deletionTimestamp" not in p["metadata"]]
    return len(ready) == count == len(pods(cluster, name))


def addresses(pod: dict[str, Any]) -> list[str]:
    return [one["ip"] for one in pod["status"]["podIPs"]]


def published(cluster: Cluster) -> dict[str, str]:
    """Return the published allocations: address to node."""
    blocks = cluster.kubectl.get("ipamblocks")["items"]
    return {a["address"]: b["spec"]["affinity"]["node"] for b in blocks for a in b.get("status", {}).get("allocations", ())}


def test_sixty_pods_reach_each_other_and_leave_nothing(three: Cluster) -> None:
    three.kubectl.apply(workload("Deployment", "many", 60))
    wait("60 pods run", lambda: running(three, "many", 60), 180)
    found = pods(three, "many")
    every = [one for pod in found for one in addresses(pod)]
    assert len(every) == len(set(every)) == 120
    blocks = {parse(b["spec"]["cidr"]): b["spec"]["affinity"]["node"] for b in three.kubectl.get("ipamblocks")["items"]}
    for pod in found:
        for one in addresses(pod):
            assert [node for block, node in blocks.items() if address(one).within(block)] == [pod["spec"]["nodeName"]]
    wait("all of them are published", lambda: set(published(three)) == set(every))
    targets = " ".join(every)
    script = f'for a in {targets}; do ping -c 1 -W 3 $a >/dev/null || echo "$a does not answer"; done'
    assert [three.kubectl.run("exec", pod["metadata"]["name"], "--", "sh", "-c", script) for pod in found] == [""] * 60
    for replicas in (0, 60) * 5 + (0,):
        three.kubectl.run("scale", "deployment", "many", f"--replicas={replicas}")
        wait(f"{replicas} pods run", lambda replicas=replicas: running(three, "many", replicas), 180)  # type: ignore[misc]
    wait("nothing is published any more", lambda: published(three) == {})
    for node in three.nodes:
        look = [*node.enter, "sh", "-c", "ip route; ip -6 route; ip link"]
        assert " cali" not in subprocess.run(look, capture_output=True, text=True, check=True).stdout
    three.kubectl.run("delete", "deployment", "many")


class Stubborn(NamedTuple):
    """A pod of a StatefulSet that can't be ended while its shim is stopped: a kubelet gives a pod that is gone 2 s at most."""

    pod: dict[str, Any]
    shim: int


@pytest.fixture
def stubborn(three: Cluster) -> Iterator[Stubborn]:
    three.kubectl.apply(workload("StatefulSet", "one", 1))
    wait("it runs", lambda: running(three, "one", 1), 60)
    (pod,) = pods(three, "one")
    pid = next(one.pid for one in containers(node_of(three, pod)) if one.uid == pod["metadata"]["uid"])
    shim = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(shim, signal.SIGSTOP)
    yield Stubborn(pod, shim)
    with suppress(ProcessLookupError):  # it has ended
        os.kill(shim, signal.SIGCONT)
    three.kubectl.run("delete", "statefulset", "one")
    wait("all addresses are back", lambda: published(three) == {}, 60)


def node_of(cluster: Cluster, pod: dict[str, Any]) -> Node:
    return next(node for node in cluster.nodes if node.name == pod["spec"]["nodeName"])


def test_a_pod_made_again_while_the_old_one_runs(three: Cluster, stubborn: Stubborn) -> None:
    """The first one's object is gone at once, its process only when its shim goes on."""
    old, shim = stubborn
    three.kubectl.run("delete", "pod", "one-0", "--force", "--grace-period=0")
    wait(
        "a new one runs",
        lambda: running(three, "one", 1) and pods(three, "one")[0]["metadata"]["uid"] != old["metadata"]["uid"],
        60,
    )
    (new,) = pods(three, "one")
    assert not set(addresses(old)) & set(addresses(new))
    show = [*node_of(three, old).enter, "ip", "route", "show", "proto", "201"]
    routes = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    assert f"{addresses(old)[0]} dev cali" in routes, "the old one still has its link"
    os.kill(shim, signal.SIGCONT)
    wait("the old one's addresses are back", lambda: set(published(three)) == set(addresses(new)), 60)


def test_a_pod_s_port_on_its_node(three: Cluster) -> None:
    """Served by the plugin portmap, which ours calls where the node has it."""
    server = workload("Deployment", "web", 1)
    (container,) = server["spec"]["template"]["spec"]["containers"]
    container |= {"command": ["httpd", "-f", "-p", "80", "-h", "/etc"], "ports": [{"containerPort": 80, "hostPort": 8081}]}
    three.kubectl.apply(server)
    wait("it runs", lambda: running(three, "web", 1), 60)
    (pod,) = pods(three, "web")
    get = f"import urllib.request as r; print(r.urlopen('http://{pod['status']['hostIP']}:8081/passwd', timeout=10).read())"
    fetch = [sys.executable, "-c", get]
    other = next(node for node in three.nodes if node.name != pod["spec"]["nodeName"])
    done = subprocess.run([*other.enter, *fetch], capture_output=True, text=True, check=False, timeout=30)
    assert "root:x:0:0" in done.stdout, done.stderr
    assert "8081" in rules(node_of(three, pod))
    three.kubectl.run("delete", "deployment", "web")
    wait("its addresses are back", lambda: published(three) == {}, 60)
    assert "8081" not in rules(node_of(three, pod))


def rules(node: Node) -> str:
    return subprocess.run([*node.enter, "nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout


def test_a_cluster_that_crashed_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    with Cluster(1, folder=folder, detached=True) as cluster:
        cluster.install()
        cluster.kubectl.apply(workload("Deployment", "one", 1))
        wait("it runs", lambda: running(cluster, "one", 1), 60)
    for part in ("node-1-containerd", "kube-apiserver"):
        cluster.plane.kill(part)
    Cluster.end(folder)
    for process in cluster.plane.processes.values():
        process.wait()
    assert not _shims(cluster.id)
    assert not _mounts(folder)
    assert not folder.exists()
    assert not list(NAMESPACES.glob(f"{cluster.id}-*"))
