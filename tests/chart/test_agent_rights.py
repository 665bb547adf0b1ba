"""An agent writes what is its own node's, and a stolen token of node A does nothing to node B."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import NAMESPACE
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import API, node
from tortie.kube.client import ApiError, Client, connect

BLOCK: dict[str, Any] = {"cidr": "10.1.0.0/26", "pool": {"name": "pool", "uid": "u"}, "active": True}


PATHS = {kind: f"/apis/{API}/{kind}" for kind in ("ipamblocks", "nodenetworks", "nodepolicies")} | {"nodes": "/api/v1/nodes"}


@pytest.fixture
async def agent(control_plane: ControlPlane, cluster: Kubectl) -> AsyncIterator[Client]:
    """A client with the token of node a's agent, where both nodes have a block and a NodeNetwork."""
    cluster.apply(node("a"), node("b"))
    for name in ("a", "b"):
        affinity = {"affinity": {"node": name, "uid": "u"}}
        cluster.apply(
            {"apiVersion": API, "kind": "IPAMBlock", "metadata": {"name": f"block-{name}"}, "spec": {**BLOCK, **affinity}},
            {"apiVersion": API, "kind": "NodeNetwork", "metadata": {"name": name}, "spec": {"blocks": []}},
            {"apiVersion": API, "kind": "NodePolicy", "metadata": {"name": name}, "spec": {}},
        )
    config = control_plane.kubeconfig_for_service_account(NAMESPACE, "tortie-agent", node="a")
    async with connect(str(config)) as client:
        for _ in range(200):  # a policy is in force a moment after it was made
            if await refuses(client):
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("the policy is not in force after 10 s")
        yield client


async def refuses(client: Client) -> bool:
    try:
        await patch(client, "nodenetworks", "b", {"status": {"addresses": []}})
    except ApiError:
        return True
    return False


async def patch(client: Client, kind: str, name: str, body: dict[str, Any], subresource: str = "/status") -> None:
    await client.patch(f"{PATHS[kind]}/{name}{subresource}", body)


async def write(client: Client, kind: str, name: str, body: dict[str, Any]) -> None:
    """Write a status as the agent does: that of a NodePolicy is replaced."""
    if kind != "nodepolicies":
        await patch(client, kind, name, body)
        return
    listed = msgspec.json.decode(await client.list_page(PATHS[kind]))["items"]
    (version,) = (one["metadata"]["resourceVersion"] for one in listed if one["metadata"]["name"] == name)
    meta = {"name": name, "resourceVersion": version}
    await client.replace(f"{PATHS[kind]}/{name}/status", {"apiVersion": API, "kind": "NodePolicy", "metadata": meta, **body})


STATUS = {"status": {"free": 3}}
AVAILABLE = {"type": "NetworkUnavailable", "status": "False", "reason": "Up", "message": "up"}
ALLOWED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "its block's status": ("ipamblocks", "block-a", STATUS),
    "its network's status": ("nodenetworks", "a", {"status": {"addresses": ["10.0.0.1"]}}),
    "its policy": ("nodepolicies", "a", {"status": {"closed": 1}}),
    "its Node's condition": ("nodes", "a", {"status": {"conditions": [AVAILABLE]}}),
}
REFUSED: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "another's block": ("ipamblocks", "block-b", STATUS, "agent of node a may not write ipamblocks of node b"),
    "another's network": ("nodenetworks", "b", {"status": {}}, "agent of node a may not write nodenetworks of node b"),
    "another's policy": ("nodepolicies", "b", {"status": {}}, "agent of node a may not write nodepolicies of node b"),
    "another's Node": ("nodes", "b", {"status": {"conditions": [AVAILABLE]}}, "agent of node a may not write nodes of node b"),
    "more of its Node": ("nodes", "a", {"status": {"capacity": {"cpu": "1"}}}, "no more of its Node than"),
    "another condition": (
        "nodes",
        "a",
        {"status": {"conditions": [{**AVAILABLE, "type": "Ready"}]}},
        "no more of its Node than",
    ),
    "its Node's labels": ("nodes", "a", {"metadata": {"labels": {"x": "y"}}}, "status alone, not metadata"),
}


@pytest.mark.parametrize("row", ALLOWED)
async def test_allowed(agent: Client, row: str) -> None:
    kind, name, body = ALLOWED[row]
    await write(agent, kind, name, body)


@pytest.mark.parametrize("row", REFUSED)
async def test_refused(agent: Client, row: str) -> None:
    kind, name, body, words = REFUSED[row]
    with pytest.raises(ApiError, match=words):
        await write(agent, kind, name, body)


async def test_what_the_operator_says_is_not_the_agents(agent: Client) -> None:
    with pytest.raises(ApiError, match="cannot patch resource"):
        await patch(agent, "ipamblocks", "block-a", {"spec": {"active": False}}, subresource="")


@pytest.mark.usefixtures("agent")
async def test_a_token_without_a_node(control_plane: ControlPlane) -> None:
    config = control_plane.kubeconfig_for_service_account(NAMESPACE, "tortie-agent")
    async with connect(str(config)) as loose:
        with pytest.raises(ApiError, match="bound to no node"):
            await patch(loose, "ipamblocks", "block-a", STATUS)
