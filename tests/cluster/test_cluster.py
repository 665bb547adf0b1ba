"""A real cluster: pods on every node, with addresses of their node's blocks, reach each other; and nothing is left of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster, _mounts, _shims, why_not
from tests.cluster.deploy import wait
from tests.cluster.images import BUSYBOX
from tests.cluster.network import NAMESPACES
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
    three.kubectl.run("delete", "deployment", "many")


def test_a_pod_made_again_while_the_old_one_runs(three: Cluster) -> None:
    three.kubectl.apply(workload("StatefulSet", "one", 1))
    wait("it runs", lambda: running(three, "one", 1), 60)
    (old,) = pods(three, "one")
    three.kubectl.run("delete", "pod", "one-0", "--force", "--grace-period=0")
    wait(
        "a new one runs",
        lambda: running(three, "one", 1) and pods(three, "one")[0]["metadata"]["uid"] != old["metadata"]["uid"],
        60,
    )
    (new,) = pods(three, "one")
    assert not set(addresses(old)) & set(addresses(new))
    wait("the old one's addresses are back", lambda: set(published(three)) == set(addresses(new)), 60)
    three.kubectl.run("delete", "statefulset", "one")
    wait("all are back", lambda: published(three) == {}, 60)


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
