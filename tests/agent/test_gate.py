"""No pod runs before what holds for it does: the whole agent, its plugin, a real API server, an operator, real packets."""

import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.agent.acting import AgentNode, Failed
from tests.agent.namespaces import namespaces, needs_root, run
from tests.agent.packets import inside
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import active, node, pool
from tests.controller.policies import DEFINITION, admits, app, denies, namespace, pod
from tests.controller.test_policies import finalize

pytestmark = needs_root
WEB, DB, OTHER = 0, 1, 2  # namespaces of pods; the first two are the Pods web and db of the namespace shop


@pytest.fixture
def gated(control_plane: ControlPlane, cluster: Kubectl, operator: object, tmp_path: Path) -> Iterator[AgentNode]:  # noqa: ARG001
    cluster.apply(pool(), node("a"), namespace("shop"), namespace("spare"))
    wait("a block", lambda: len(active(cluster, "a")) == 1)
    options = ("--policy-gate", "Closed", "--policy-gate-exempt", "spare,other")
    with namespaces(5) as (path, *pods), closing(AgentNode("a", control_plane, tmp_path, path, pods, options)) as made:
        made.named, made.namespace = {WEB: "web", DB: "db", OTHER: "other"}, "shop"
        made.start()
        yield made
    cluster.run("delete", "pods,networkpolicies", "--all", "-A", "--grace-period=0", "--force")
    for name in ("shop", "spare"):
        cluster.run("delete", "namespace", name, "--wait=false")
        finalize(cluster, name)


def uid(cluster: Kubectl, name: str) -> str:
    found: str = cluster.get("pod", "-n", "shop", name)["metadata"]["uid"]
    return found


def add(node: AgentNode, cluster: Kubectl, which: int, seconds: float = 10) -> str:
    made = node.cni("ADD", which, uid=uid(cluster, node.named[which]), waitSeconds=seconds)
    return str(made["ips"][0]["address"].partition("/")[0])


def reaches(node: AgentNode, source: int, target: int, address: str, *, denied: bool = False) -> bool:
    """Whether a connection comes about; one that should not is waited for shortly."""
    server = inside(node.pods[target], lambda: socket.create_server((address, 8080)))
    client = inside(node.pods[source], socket.socket)
    with server, client:
        client.settimeout(1 if denied else 10)
        try:
            client.connect((address, 8080))
        except TimeoutError:
            return False
        return True


def test_a_pod_waits_until_it_is_known_what_holds_for_it(gated: AgentNode, cluster: Kubectl) -> None:
    """The Pod is there later than the runtime's call, as no real one is; then it has its address and its rules at once."""
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(gated.cni, "ADD", DB, uid="00000000-0000-0000-0000-000000000000", waitSeconds=4)
        with pytest.raises(Failed) as failed:
            waiting.result()
    assert failed.value.code == 11
    assert re.search(
        r"shop/db: this node's NodePolicy doesn't name the pod \(uid 0+-.*kubectl describe nodepolicy", str(failed.value)
    )
    assert run(["sh", "-c", "ip -o link | grep -c cali || true"], gated.path).strip() == "0"
    cluster.apply(pod("db", "a"), pod("web", "a"), pod("other", "a"), admits("db", "db", "web"))
    target = add(gated, cluster, DB)
    for which in (WEB, OTHER):
        add(gated, cluster, which)
    assert [reaches(gated, WEB, DB, target), reaches(gated, OTHER, DB, target, denied=True)] == [True, False]


def test_who_never_waits(gated: AgentNode) -> None:
    """Pods of exempt namespaces; containers that are no pods."""
    gated.namespace = "spare"
    assert gated.cni("ADD", WEB, uid="unknown", waitSeconds=4)["ips"]
    assert gated.cni("ADD", 3, waitSeconds=4)["ips"]


def test_a_pod_whose_uid_the_runtime_doesn_t_name(gated: AgentNode) -> None:
    with pytest.raises(Failed, match="names no K8S_POD_UID, so no policy can be found"):
        gated.cni("ADD", WEB, waitSeconds=4)


def test_without_an_api_server_known_pods_start_and_others_wait(
    gated: AgentNode, cluster: Kubectl, control_plane: ControlPlane
) -> None:
    """Also after a restart of the agent, and nothing is open meanwhile."""
    cluster.apply(pod("db", "a"), pod("web", "a"), pod("other", "a"), admits("db", "db", "web"))
    target, uids = add(gated, cluster, DB), {which: uid(cluster, gated.named[which]) for which in gated.named}
    gated.cni("ADD", OTHER, uid=uids[OTHER])
    control_plane.kill("kube-apiserver")
    try:
        gated.kill()
        assert not reaches(gated, OTHER, DB, target, denied=True), "no agent: the rules hold"
        gated.start()
        assert not reaches(gated, OTHER, DB, target, denied=True), "an agent that knows nothing new: they hold"
        gated.cni("ADD", WEB, uid=uids[WEB], waitSeconds=20)
        assert not reaches(gated, WEB, DB, target, denied=True), "its address isn't known to be a peer's yet"
        gated.named[3] = "stranger"
        with pytest.raises(Failed, match="this node's NodePolicy doesn't name the pod"):
            gated.cni("ADD", 3, uid="stranger", waitSeconds=4)
    finally:
        control_plane.start("kube-apiserver")
        control_plane.wait_ready()
    wait("it is", lambda: reaches(gated, WEB, DB, target, denied=True))


def test_a_pod_that_a_deny_names_starts_when_its_address_is_known(gated: AgentNode, cluster: Kubectl) -> None:
    cluster.apply(DEFINITION)
    try:
        cluster.run("wait", "crd", "clusternetworkpolicies.policy.networking.k8s.io", "--for=condition=Established")
        cluster.apply(pod("db", "a"), pod("web", "a"), denies("denies", app("web")))
        wait("it is to be confirmed", lambda: "confirm: true" in cluster.run("get", "nodepolicy", "a", "-o", "yaml"))
        add(gated, cluster, DB)
        target = add(gated, cluster, WEB)
        assert not reaches(gated, DB, WEB, target, denied=True)
        assert "confirmed:" in cluster.run("get", "nodepolicy", "a", "-o", "yaml")
    finally:
        cluster.run("delete", "crd", "clusternetworkpolicies.policy.networking.k8s.io")


def test_policies_hold_for_the_pods_of_a_ledger_that_was_lost(gated: AgentNode, cluster: Kubectl) -> None:
    """Whose a link is that is found in the kernel is known from what was published."""
    cluster.apply(pod("db", "a"), pod("other", "a"), admits("db", "db", "web"))
    target = add(gated, cluster, DB)
    add(gated, cluster, OTHER)
    wait("it is published", lambda: target in cluster.run("get", "ipamblocks", "-o", "yaml"))
    gated.kill()
    for file in (gated.folder / "state").glob("ledger.db*"):
        file.unlink()
    gated.start()
    wait("it is known whose the links are", lambda: "the ledger is whole again" in gated.log.read_text())
    assert not reaches(gated, OTHER, DB, target, denied=True)
    gated.kill()
    gated.start()
    assert not reaches(gated, OTHER, DB, target, denied=True), "and after another start"
