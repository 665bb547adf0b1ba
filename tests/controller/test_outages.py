"""The operator through crashes and restarts of what it talks to: nothing is missed, and it says so in a line each way."""

import signal

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import Operators, active, blocks, node, overlaps, owners, pool


@pytest.mark.parametrize("parts", [("kube-apiserver",), ("etcd",), ("kube-apiserver", "etcd")], ids="+".join)
def test_survives_a_crash(control_plane: ControlPlane, cluster: Kubectl, operators: Operators, parts: tuple[str, ...]) -> None:
    process = operators()
    cluster.apply(pool(), node("a"))
    wait("a block", lambda: len(active(cluster, "a")) == 1)
    before = len(control_plane.log("operator").read_text())
    for part in parts:
        control_plane.kill(part)
    for part in reversed(parts):
        control_plane.start(part)
    control_plane.wait_ready()
    cluster.apply(node("b"), pool("six", cidr="fd00::/64"))
    wait("blocks of the node and the pool that came after", lambda: len(active(cluster, "b")) == 2, 60)

    def said(what: str) -> int:
        return control_plane.log("operator").read_text()[before:].count(f"/api/v1/nodes: stream {what}")

    wait("an outage that is told ends", lambda: said("back") == said("lost") <= 1)
    assert process.poll() is None
    assert "Traceback" not in control_plane.log("operator").read_text()[before:]
    assert overlaps(cluster) == []


def test_what_happened_while_its_watches_expired_is_not_missed(
    control_plane: ControlPlane, cluster: Kubectl, operators: Operators
) -> None:
    """The operator stands still while things come and go; when it goes on, the API server has forgotten the history."""
    process = operators("--lease-duration", "120", "--reclaim-delay", "0")
    cluster.apply(pool(), pool("old", cidr="10.9.0.0/24"), node("a"), node("b"))
    wait("blocks", lambda: len(active(cluster, "a")) == len(active(cluster, "b")) == 2)
    process.send_signal(signal.SIGSTOP)
    try:
        cluster.run("delete", "node", "a")
        cluster.run("delete", "ippool", "old", "--wait=false")
        cluster.apply(node("c"))
        control_plane.kill("kube-apiserver")
        control_plane.start("kube-apiserver")
        control_plane.wait_ready()
    finally:
        process.send_signal(signal.SIGCONT)
    wait("the node that left is gone", lambda: owners(cluster) == {"b", "c"}, 60)
    wait("asked back", lambda: [b["metadata"]["name"] for b in blocks(cluster) if "cede" in b["spec"]] == ["10-9-0-64-26"])
    assert process.poll() is None
    assert "Traceback" not in control_plane.log("operator").read_text()
