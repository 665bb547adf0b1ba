"""The agent's part in policies against a real API server: hollow nodes take what they are sent, and say it."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import API
from tests.kube.watching import eventually
from tortie.agent.hollow import HollowNodes, TooFewFiles, connect, raise_limit
from tortie.agent.policies import PolicyWatch
from tortie.kube.client import Client
from tortie.kube.writer import Writer
from tortie.policy.delivery import WIDE, node_label
from tortie.policy.view import Changes

Object = dict[str, Any]
GROUP = f"/apis/{API}"


def rule_set(name: str, *peers: str, label: str = WIDE) -> Object:
    rules = [{"direction": "Ingress", "action": "Accept", "peers": list(peers)}]
    meta = {"name": name, "labels": {label: ""}}
    return {"apiVersion": API, "kind": "RuleSet", "metadata": meta, "spec": {"tier": "Namespace", "rules": rules}}


def chunk(name: str, *addresses: str, label: str = WIDE) -> Object:
    spec = {"set": name, "chunk": 0, "chunks": 1, "addresses": list(addresses)}
    return {"apiVersion": API, "kind": "AddressSet", "metadata": {"name": f"{name}-0", "labels": {label: ""}}, "spec": spec}


def policy(*rule_sets: str, node: str = "n0") -> Object:
    groups = [{"endpoints": [{"namespace": "ns", "name": "a", "uid": "a"}], "ruleSets": list(rule_sets)}]
    return {"apiVersion": API, "kind": "NodePolicy", "metadata": {"name": node}, "spec": {"groups": groups}}


def said(cluster: Kubectl, node: str = "n0") -> Object:
    found: Object = cluster.get("nodepolicy", node).get("status", {})
    return found


class Running:
    """Two hollow nodes, n0 and n1, and what each was told of sets, in order."""

    def __init__(self, client: Client) -> None:
        self.told: list[tuple[str, str, frozenset[str]]] = []
        self.nodes = HollowNodes(client, ["n0", "n1"], lambda *what: self.told.append(what))


@pytest.fixture
async def hollow(control_plane: ControlPlane, cluster: Kubectl) -> AsyncIterator[Running]:  # noqa: ARG001 - it cleans up afterwards
    async with connect(2, str(control_plane.kubeconfig)) as client:
        running = Running(client)
        task = asyncio.create_task(running.nodes.run())
        await eventually(lambda: running.nodes.watching == 2)
        yield running
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_is_realized_is_said(hollow: Running, cluster: Kubectl) -> None:
    cluster.apply(policy("r"))
    await eventually(lambda: said(cluster).get("waiting") == ["r"])
    assert said(cluster)["closed"] == 1
    cluster.apply(rule_set("r", "s", label=node_label("n0")))
    await eventually(lambda: said(cluster).get("waiting") == ["s"])
    cluster.apply(chunk("s", "10.0.0.1", label=node_label("n0")))
    await eventually(lambda: said(cluster).get("realizedGeneration") == 1)
    assert said(cluster)["ruleSets"] == {"r": 1}
    assert (said(cluster).get("waiting", []), said(cluster).get("closed", 0)) == ([], 0)
    assert hollow.told == [("n0", "s", frozenset({"10.0.0.1"}))]
    ready = {one["type"]: one["status"] for one in cluster.get("node", "n1")["status"]["conditions"]}
    assert ready == {"Ready": "True"}


async def test_a_switch_of_labels_and_a_new_content_of_a_set_write_nothing(hollow: Running, cluster: Kubectl) -> None:
    cluster.apply(policy("r"), rule_set("r", "s"), chunk("s", "10.0.0.1"))
    await eventually(lambda: said(cluster).get("realizedGeneration") == 1)
    await eventually(lambda: not hollow.nodes.writing)
    before = cluster.get("nodepolicy", "n0")["metadata"]["resourceVersion"]
    for kind, name in (("ruleset", "r"), ("addressset", "s-0")):
        cluster.run("label", kind, name, f"{WIDE}-", f"{node_label('n0')}=")
    cluster.apply(chunk("s", "10.0.0.2", label=node_label("n0")))
    await eventually(lambda: hollow.told[-1] == ("n0", "s", frozenset({"10.0.0.2"})))
    cluster.apply(policy("r", node="n1"))  # what only comes later is said later
    await eventually(lambda: said(cluster, "n1").get("waiting") == ["r"] and not hollow.nodes.writing)
    assert cluster.get("nodepolicy", "n0")["metadata"]["resourceVersion"] == before


async def test_a_node_policy_deleted_and_made_again(hollow: Running, cluster: Kubectl) -> None:
    cluster.apply(policy("r"), rule_set("r", "s"), chunk("s", "10.0.0.1"))
    await eventually(lambda: said(cluster).get("realizedGeneration") == 1)
    cluster.run("delete", "nodepolicy", "n0")
    cluster.apply(policy("r"))
    await eventually(lambda: said(cluster).get("ruleSets") == {"r": 1})
    assert hollow.nodes.watches["n0"].view.rule_sets_of("a") == {"r": 1}


@pytest.mark.usefixtures("hollow")
async def test_a_status_that_somebody_overwrote_is_written_again(cluster: Kubectl) -> None:
    cluster.apply(policy("r"), rule_set("r", "s"), chunk("s", "10.0.0.1"))
    await eventually(lambda: said(cluster).get("realizedGeneration") == 1)
    wrong = json.dumps({"status": {"realizedGeneration": 7, "closed": 3, "ruleSets": {"r": None, "q": 1}}})
    cluster.run("patch", "nodepolicy", "n0", "--subresource=status", "--type=merge", "-p", wrong)
    await eventually(lambda: said(cluster).get("ruleSets") == {"r": 1})
    assert (said(cluster)["realizedGeneration"], said(cluster).get("closed", 0)) == (1, 0)


async def test_an_api_server_that_was_away(hollow: Running, control_plane: ControlPlane, cluster: Kubectl) -> None:
    cluster.apply(policy("r"), rule_set("r", "s"), chunk("s", "10.0.0.1"))
    await eventually(lambda: said(cluster).get("realizedGeneration") == 1)
    control_plane.kill("kube-apiserver")
    control_plane.start("kube-apiserver")
    control_plane.wait_ready()
    assert hollow.nodes.watches["n0"].view.rule_sets_of("a") == {"r": 1}
    cluster.apply(rule_set("r", "s", "s"), policy("r", "q"))
    await eventually(lambda: said(cluster).get("waiting") == ["q"] and said(cluster)["ruleSets"] == {"r": 2})


async def test_what_the_kernel_refuses_is_said_until_it_takes_it(control_plane: ControlPlane, cluster: Kubectl) -> None:
    async def realize(_: Changes) -> dict[str, str]:
        return {"r": "too many addresses"} if "10.0.0.1" in (watch.view.addresses("s") or ()) else {}

    async with (
        Client.connect(str(control_plane.kubeconfig)) as client,
        Writer(lambda: True, lambda _key, error: watch.done(error)) as writer,
    ):
        watch = PolicyWatch(client, "n0", realize, writer)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(watch.run())
            cluster.apply(policy("r"), rule_set("r", "s"), chunk("s", "10.0.0.1"))
            await eventually(lambda: said(cluster).get("errors") == [{"ruleSet": "r", "message": "too many addresses"}])
            assert (said(cluster).get("realizedGeneration", 0), said(cluster).get("ruleSets", {})) == (0, {})
            cluster.apply(chunk("s", "10.0.0.2"))
            await eventually(lambda: said(cluster).get("realizedGeneration") == 1)
            assert (said(cluster).get("errors", []), said(cluster)["ruleSets"]) == ([], {"r": 1})
            task.cancel()


async def test_nodes_are_deleted_when_asked(hollow: Running, cluster: Kubectl) -> None:
    await hollow.nodes.delete()
    assert cluster.get("nodes")["items"] == []


def test_more_nodes_than_files() -> None:
    with pytest.raises(TooFewFiles, match=r"5000000160 open files @ RLIMIT_NOFILE"):
        raise_limit(1_000_000_000)
