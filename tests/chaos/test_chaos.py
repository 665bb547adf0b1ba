"""The auditor on a real cluster, with faults planted by hand; then the run itself, in its short form."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.chaos.__main__ import conclude
from tests.chaos.containers import containers
from tests.chaos.judgement import Finding, audit
from tests.chaos.reading import read
from tests.chaos.run import last_audit, prepare, run, settle
from tests.chaos.schedule import DEPLOYMENTS
from tests.cluster.cluster import Cluster, why_not
from tests.cluster.node import Node

needs_nodes = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
SEED = 1
# `make nightly` has ten minutes of it, on one more node.
SECONDS, NODES = (600.0, 3) if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else (75.0, 2)

Found = tuple[str, str, str]  # kind, what, where
VICTIM, OTHER = "store-0-0", "store-0-1"


@pytest.fixture(scope="module")
def prepared() -> Iterator[Cluster]:
    with Cluster(NODES) as cluster:
        prepare(cluster)
        yield cluster


class Place:
    """Where a pod is, and how to change its network and its node's behind Tortie's back."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        pod = cluster.kubectl.get("pod", name)
        self.addresses = [one["ip"] for one in pod["status"]["podIPs"]]
        self.name, self.node = f"default/{name}", pod["spec"]["nodeName"]
        self._node: Node = next(node for node in cluster.nodes if node.name == self.node)
        self._pid = next(one.pid for one in containers(self._node) if (one.uid, one.name) == (pod["metadata"]["uid"], ""))

    def inside(self, *command: str) -> str:
        return _run(["nsenter", f"--net=/proc/{self._pid}/ns/net", *command])

    def outside(self, *command: str) -> str:
        return _run([*self._node.enter, *command])


def _run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


@contextmanager
def a_route_is_deleted(_cluster: Cluster, pod: Place) -> Iterator[set[Found]]:
    route = pod.outside("ip", "route", "show", pod.addresses[0]).split()
    pod.outside("ip", "route", "del", *route)
    try:
        yield {("dead", pod.name, pod.node)}
    finally:
        pod.outside("ip", "route", "add", *route)


@contextmanager
def an_address_is_removed_from_a_pod(_cluster: Cluster, pod: Place) -> Iterator[set[Found]]:
    pod.inside("ip", "address", "del", f"{pod.addresses[1]}/128", "dev", "eth0")
    try:
        yield {("dead", pod.name, pod.node), ("leak", pod.addresses[1], pod.node)}
    finally:
        pod.inside("ip", "address", "add", f"{pod.addresses[1]}/128", "dev", "eth0", "nodad", "noprefixroute")


@contextmanager
def a_pod_does_not_answer(_cluster: Cluster, pod: Place) -> Iterator[set[Found]]:
    pod.inside("nft", "table ip deaf { chain input { type filter hook input priority 0; drop; }; }")
    try:
        yield {("dead", pod.name, pod.node)}
    finally:
        pod.inside("nft", "delete table ip deaf")


@contextmanager
def an_allocation_has_no_pod(cluster: Cluster, pod: Place) -> Iterator[set[Found]]:
    blocks = cluster.kubectl.get("ipamblocks")["items"]
    block = next(b for b in blocks if any(a["address"] == pod.addresses[0] for a in b["status"]["allocations"]))
    there = {a["address"] for a in block["status"]["allocations"]}
    first = ip_address(block["spec"]["cidr"].partition("/")[0])
    address = next(one for one in (str(first + n) for n in range(8)) if one not in there)
    planted = {"address": address, "sequence": 1, "namespace": "default", "pod": "ghost", "uid": "gone"}

    def say(allocations: list[dict[str, object]]) -> None:
        patch = json.dumps({"status": {"allocations": allocations}})
        cluster.kubectl.run(
            "patch", "ipamblock", block["metadata"]["name"], "--subresource=status", "--type=merge", "-p", patch
        )

    try:
        say([*block["status"]["allocations"], planted])
        yield {("leak", address, pod.node)}
    finally:
        say(block["status"]["allocations"])


@contextmanager
def a_link_has_no_pod(_cluster: Cluster, pod: Place) -> Iterator[set[Found]]:
    pod.outside("ip", "link", "add", "cali0123456789a", "type", "veth", "peer", "name", "stray")
    try:
        yield {("leak", "cali0123456789a", pod.node)}
    finally:
        pod.outside("ip", "link", "del", "cali0123456789a")


@contextmanager
def a_route_has_no_pod(_cluster: Cluster, pod: Place) -> Iterator[set[Found]]:
    link = pod.outside("ip", "route", "show", pod.addresses[0]).split()[2]
    pod.outside("ip", "route", "add", "192.0.2.1", "dev", link)
    try:
        yield {("leak", "192.0.2.1", pod.node)}
    finally:
        pod.outside("ip", "route", "del", "192.0.2.1", "dev", link)


@contextmanager
def two_pods_have_one_address(cluster: Cluster, pod: Place) -> Iterator[set[Found]]:
    other = Place(cluster, OTHER)
    other.inside("ip", "address", "add", f"{pod.addresses[0]}/32", "dev", "eth0")
    where = ", ".join(sorted({pod.node, other.node}))
    try:
        yield {("duplicate", pod.addresses[0], where)}
    finally:
        other.inside("ip", "address", "del", f"{pod.addresses[0]}/32", "dev", "eth0")


PLANTS: tuple[Callable[[Cluster, Place], AbstractContextManager[set[Found]]], ...] = (
    a_route_is_deleted, an_address_is_removed_from_a_pod, a_pod_does_not_answer, an_allocation_has_no_pod, a_link_has_no_pod,
    a_route_has_no_pod, two_pods_have_one_address,
)  # fmt: skip


@needs_nodes
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found_and_nothing_else(
    prepared: Cluster, plant: Callable[[Cluster, Place], AbstractContextManager[set[Found]]]
) -> None:
    assert last_audit(prepared) == []
    with plant(prepared, Place(prepared, VICTIM)) as planted:
        assert {finding[:3] for finding in audit(read(prepared))} == planted
    assert last_audit(prepared) == []


@needs_nodes
def test_a_part_that_ended_by_itself_is_started_again_while_things_settle(prepared: Cluster) -> None:
    controllers = prepared.plane.processes["kube-controller-manager"]
    controllers.kill()
    controllers.wait()
    prepared.kubectl.run("scale", "deployment", DEPLOYMENTS[0], "--replicas=2")
    assert settle(prepared) == []


@needs_nodes
def test_nothing_is_wrong_after_a_run(prepared: Cluster) -> None:
    assert run(prepared, SEED, SECONDS) == []


def test_the_exit_status_is_0_only_if_nothing_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    conclude([], "make chaos SEED=7", None)
    with pytest.raises(SystemExit) as ended:
        conclude([Finding("leak", "cali1", "node-1", "a pod's link, without a pod")], "make chaos SEED=7", Path("build"))
    assert ended.value.code == "tortie: 1 found; the logs are in build; again: make chaos SEED=7"
    assert capsys.readouterr().out == "leak: cali1 on node-1: a pod's link, without a pod\n"
