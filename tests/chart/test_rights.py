"""The chart's rights are those that operator and agent use: none is missing, and none is for nothing."""

import asyncio
import json
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.agent.acting import AgentNode
from tests.agent.namespaces import namespaces, needs_root, run
from tests.chart.auditing import Right, asked, granted, with_audit
from tests.chart.test_chart import rendered
from tests.cluster.components import COMMAND_LINES
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import NAMESPACE, helm, start_operator, wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import API, active, blocks, condition, node, pool
from tests.controller.policies import CLUSTER_POLICIES, DEFINITION, admits, denies, pod
from tests.controller.policies import condition as condition_of_policy
from tests.kube.watching import eventually
from tortie.agent.policies import PolicyWatch
from tortie.kube.client import Client
from tortie.kube.writer import Writer
from tortie.policy.delivery import node_label
from tortie.policy.view import Changes

BGP = {
    "BGPConfiguration": {"asNumber": 64512},
    "BGPPeer": {"peerIP": "10.0.0.1"},
    "BGPFilter": {},
}
SERVICES = ("services", "endpointslices.discovery.k8s.io")
# Gives a namespace an address, as a node has one.
ADDRESS = (
    "link add eth0 type veth peer name eth1", "link set eth0 up", "link set eth1 up", "addr add 192.0.2.7/24 dev eth0",
)  # fmt: skip


@pytest.fixture
def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlPlane]:
    """A control plane of the test's own, with a log of what service accounts ask, and the chart with its agents' DaemonSet.

    No controller makes pods of it: operator and agent are processes beside the cluster, with the service accounts' tokens.
    """
    monkeypatch.setitem(COMMAND_LINES, "kube-apiserver", with_audit(tmp_path))
    with ControlPlane() as plane:
        helm(Kubectl(plane.kubeconfig), "operator.replicas=0")
        yield plane


@needs_root
def test_the_rights_are_the_ones_used(plane: ControlPlane, tmp_path: Path) -> None:
    kubectl = Kubectl(plane.kubeconfig)
    operator = start_operator(
        plane, options=("--default-pool", "10.1.0.0/16", "--reclaim-delay", "1", "--lease-duration", "3", "--leak-grace", "0")
    )
    plane.processes["operator"] = operator
    kubectl.apply(node("a"), node("b"))
    wait("blocks of the default pool", lambda: all(active(kubectl, name) for name in "ab"))
    live_as_an_agent(plane, kubectl, tmp_path)
    live_as_an_operator(kubectl)
    operator.send_signal(signal.SIGTERM)  # it gives the lease back
    operator.wait(30)
    asyncio.run(enforce_as_an_agent(plane, kubectl))
    rights, requests = list(granted(rendered(tmp_path, "--namespace", NAMESPACE))), asked(tmp_path)
    assert [str(one) for one in sorted(requests) if not any(right.covers(one) for right in rights)] == [], "missing"
    assert [str(right) for right in rights if not any(right.covers(one) for one in requests)] == [], "unused"


async def enforce_as_an_agent(plane: ControlPlane, kubectl: Kubectl) -> None:
    """Node a's policies are watched, and what is realized is said."""
    config = plane.kubeconfig_for_service_account(NAMESPACE, "tortie-agent", node="a")
    async with Client.connect(str(config)) as client, Writer(lambda: True, lambda _key, error: watch.done(error)) as writer:
        watch = PolicyWatch(client, "a", realize_anything, writer)
        task = asyncio.create_task(watch.run())
        await eventually(lambda: is_realized(kubectl.get("nodepolicy", "a")))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def realize_anything(_: Changes) -> dict[str, str]:
    return {}


def is_realized(policy: dict[str, Any]) -> bool:
    return bool(policy.get("status", {}).get("realizedGeneration") == policy["metadata"]["generation"])


def live_as_an_agent(plane: ControlPlane, kubectl: Kubectl, folder: Path) -> None:
    """A pod comes and goes on node a; a block is asked back and given; it is restarted, then uninstalled."""
    config = plane.kubeconfig_for_service_account(NAMESPACE, "tortie-agent", node="a")
    cni = ("--cni-bin", str(folder / "bin"), "--cni-conf", str(folder / "conf"))
    options = ("--kubeconfig", str(config), "--daemonset", f"{NAMESPACE}/tortie-agent", "--cooldown", "0.1", *cni)
    with namespaces(2) as (path, *pods), closing(AgentNode("a", plane, folder, path, pods, options)) as agent:
        for command in ADDRESS:
            run(["ip", *command.split()], path)
        agent.named = {0: "nobody"}  # a pod that the API server doesn't have: it is looked for, and judged leaked
        agent.start()
        agent.add(0)
        wait("the pod is published", lambda: any(b["status"].get("allocations") for b in blocks(kubectl, node="a")))
        wait("its address is judged leaked", lambda: any(b["spec"].get("releases") for b in blocks(kubectl, node="a")))
        agent.cni("DEL", 0)
        wait("its Node's network is up", lambda: "TortieIsUp" in json.dumps(kubectl.get("node", "a")["status"]))
        kubectl.run("patch", "ippool", "default-ipv4-ippool", "--type=merge", "-p", '{"spec":{"nodeSelector":"!has(drain)"}}')
        kubectl.apply(node("a", drain="now"))
        wait("its block is given back", lambda: blocks(kubectl, node="a") == [])
        kubectl.apply(
            {
                "apiVersion": API, "kind": "BGPConfiguration", "metadata": {"name": "default"},
                "spec": {"serviceClusterIPs": [{"cidr": "10.96.0.0/16"}]},
            }
        )  # fmt: skip
        wait("it follows Services", lambda: {Right("tortie-agent", "watch", kind) for kind in SERVICES} <= asked(folder))
        kubectl.run("delete", "bgpconfiguration", "default")
        wait("and BGP no more", lambda: "bgp" not in kubectl.get("nodenetwork", "a")["status"])
        stop(agent)
        agent.start()
        kubectl.run("delete", "daemonset", "-n", NAMESPACE, "tortie-agent")
        stop(agent)


def stop(agent: AgentNode) -> None:
    """End the agent as the kubelet does."""
    process = agent.running.pop()
    process.terminate()
    process.wait(30)


def live_as_an_operator(kubectl: Kubectl) -> None:
    """A node goes for good; a pool is disabled again and again, and deleted; people write what isn't built yet."""
    kubectl.run("delete", "node", "b")
    wait("the node's blocks are gone", lambda: blocks(kubectl, node="b") == [])
    wait("its network, too", lambda: [n["metadata"]["name"] for n in kubectl.get("nodenetworks")["items"]] == ["a"])
    kubectl.apply(
        *({"apiVersion": API, "kind": kind, "metadata": {"name": "default"}, "spec": spec} for kind, spec in BGP.items())
    )
    wait(
        "conditions of all",
        lambda: (
            kubectl.run("get", "bgpconfigurations,bgppeers,bgpfilters", "-o", "json").count('"type": "Supported"') == len(BGP)
        ),
    )
    for reason in ("Disabled", "Allocatable", "Disabled"):
        kubectl.apply(pool("other", cidr="10.2.0.0/24", nodeSelector="has(none)", disabled=reason == "Disabled"))
        wait(reason, lambda reason=reason: condition(kubectl, "other")[1] == reason)  # type: ignore[misc]
    wait("an Event is counted", lambda: any(e.get("count", 0) > 1 for e in kubectl.get("events", "-n", "default")["items"]))
    kubectl.run("delete", "ippool", "other", "--timeout=30s")
    live_with_policies(kubectl)


def live_with_policies(kubectl: Kubectl) -> None:
    """A policy comes, changes and goes; so does the kind of another, which can't be kept whole."""
    kubectl.apply(pod("db-1", "a", namespace="default"), admits("db", "db", "web", namespace="default"))
    wait("it is compiled", lambda: len(kubectl.get("rulesets,addresssets")["items"]) == 2)
    kubectl.apply(pod("db-2", "c", namespace="default"))  # another node needs what was compiled
    wait("both have its label", lambda: json.dumps(kubectl.get("rulesets,addresssets")).count(node_label("c")) == 2)
    kubectl.run("delete", "networkpolicy", "db")
    wait("nothing is left of it", lambda: kubectl.get("rulesets,addresssets")["items"] == [])
    kubectl.apply(DEFINITION)
    kubectl.run("wait", "crd", CLUSTER_POLICIES, "--for=condition=Established")
    wait("policies are taken", lambda: "names" in kubectl.apply(denies("names", {"domainNames": ["example.org"]})))
    wait("it is refused", lambda: condition_of_policy(kubectl, "names", "Accepted").get("status") == "False")


MISMATCHED = {
    "another verb": Right("a", "delete", "nodes"),
    "another account": Right("b", "list", "nodes"),
    "a subresource": Right("a", "list", "nodes/status"),
    "another group": Right("a", "list", "nodes.tortie.dev"),
}


@pytest.mark.parametrize("row", MISMATCHED)
def test_a_right_is_of_one_account_verb_and_kind(row: str) -> None:
    assert not Right("a", "list", "nodes").covers(MISMATCHED[row])


def test_a_right_of_a_namespace_or_a_name_is_for_that_alone() -> None:
    right = Right("a", "get", "leases", "here", "one")
    assert right.covers(right)
    assert Right("a", "get", "leases").covers(right)
    assert not right.covers(right._replace(namespace="there"))
    assert not right.covers(right._replace(name="two"))
