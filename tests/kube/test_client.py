"""Requests against a real API server: what comes back, and which exception when it doesn't."""

import asyncio
import socket
from pathlib import Path

import msgspec
import pytest

from tests.cluster.control_plane import ControlPlane
from tests.kube.watching import CONFIG_MAPS, ConfigMap, change, put
from tortie.kube.client import Client, ClientSettings
from tortie.kube.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    NoCredentials,
    NotFound,
    Unauthorized,
    Undecodable,
    Unreachable,
)
from tortie.kube.resource import Resource

SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", namespaced=True)


async def test_create_get_replace_patch_delete(client: Client, namespace: str) -> None:
    path = CONFIG_MAPS.path("a", namespace=namespace)
    created = await put(client, namespace, "a", "1")
    assert (created.metadata.name, created.data) == ("a", {"value": "1"})
    assert await client.get(path, into=ConfigMap) == created
    assert msgspec.json.decode(await client.get(path))["data"] == {"value": "1"}
    body = {"metadata": {"name": "a", "resourceVersion": created.metadata.resource_version}, "data": {"value": "2"}}
    replaced = await client.replace(path, body, into=ConfigMap)
    patched = await client.patch(path, {"data": {"more": "3", "value": None}}, into=ConfigMap)
    assert (replaced.data, patched.data) == ({"value": "2"}, {"more": "3"})
    await client.delete(path)
    with pytest.raises(NotFound, match=r'configmaps "a" not found @ GET /api/v1/namespaces/'):
        await client.get(path)


async def test_a_stale_version_is_a_conflict(client: Client, namespace: str) -> None:
    old = await put(client, namespace, "a")
    await change(client, namespace, "a", "newer")
    path, precondition = CONFIG_MAPS.path("a", namespace=namespace), {"resourceVersion": old.metadata.resource_version}
    with pytest.raises(Conflict):
        await client.replace(path, {"metadata": {"name": "a", **precondition}})
    with pytest.raises(Conflict):
        await client.patch(path, {"metadata": precondition, "data": {"value": "mine"}})


async def test_delete_preconditions(client: Client, namespace: str) -> None:
    old = await put(client, namespace, "a")
    new = await change(client, namespace, "a", "newer")
    path = CONFIG_MAPS.path("a", namespace=namespace)
    with pytest.raises(Conflict):
        await client.delete(path, uid=old.metadata.uid, version=old.metadata.resource_version)
    with pytest.raises(Conflict):
        await client.delete(path, uid="00000000-0000-0000-0000-000000000000", version=new.metadata.resource_version)
    await client.delete(path, uid=new.metadata.uid, version=new.metadata.resource_version)
    with pytest.raises(NotFound):
        await client.delete(path)


async def test_creating_twice(client: Client, namespace: str) -> None:
    await put(client, namespace, "a")
    with pytest.raises(AlreadyExists, match="already exists"):
        await put(client, namespace, "a")


async def test_an_object_that_breaks_a_rule(client: Client, namespace: str) -> None:
    with pytest.raises(Invalid, match="RFC 1123"):
        await put(client, namespace, "No Such Name")


async def test_an_answer_of_another_form(client: Client, namespace: str) -> None:
    await put(client, namespace, "a", "text")

    class Numbers(msgspec.Struct):
        data: dict[str, int]

    with pytest.raises(Undecodable, match=r"Expected `int`, got `str`.* @ GET "):
        await client.get(CONFIG_MAPS.path("a", namespace=namespace), into=Numbers)


async def test_a_missing_right_is_named(plane: ControlPlane, client: Client, namespace: str) -> None:
    await client.create(SERVICE_ACCOUNTS.path(namespace=namespace), {"metadata": {"name": "poor"}})
    kubeconfig = await asyncio.to_thread(plane.kubeconfig_for_service_account, namespace, "poor")
    async with Client.connect(str(kubeconfig)) as poor:
        with pytest.raises(Forbidden, match=r'cannot list resource "configmaps".*; grant this right'):
            await poor.list_page(CONFIG_MAPS.path(namespace=namespace))


async def test_an_unknown_token(plane: ControlPlane, client: Client, namespace: str) -> None:
    await client.create(SERVICE_ACCOUNTS.path(namespace=namespace), {"metadata": {"name": "unknown"}})
    kubeconfig = await asyncio.to_thread(plane.kubeconfig_for_service_account, namespace, "unknown")
    config = msgspec.json.decode(kubeconfig.read_bytes())
    config["users"][0]["user"]["token"] += "x"
    kubeconfig.write_bytes(msgspec.json.encode(config))
    async with Client.connect(str(kubeconfig)) as unknown:
        with pytest.raises(Unauthorized, match="has the token or the client certificate expired"):
            await unknown.list_page(CONFIG_MAPS.path(namespace=namespace))


async def test_nobody_listens(plane: ControlPlane, tmp_path: Path) -> None:
    config = msgspec.json.decode(plane.kubeconfig.read_bytes())
    path = tmp_path / "nobody.kubeconfig"
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{deaf.getsockname()[1]}"
        path.write_bytes(msgspec.json.encode(config))
        async with Client.connect(str(path)) as nobody:
            with pytest.raises(Unreachable, match=r"Connect.* @ GET /version on https://127.*; is the API server up"):
                await nobody.request("GET", "/version")


async def test_a_silent_server_is_given_up(plane: ControlPlane) -> None:
    async with Client.connect(str(plane.kubeconfig), settings=ClientSettings(request=0.5)) as client:
        await client.request("GET", "/version")
        plane.pause("kube-apiserver")
        try:
            with pytest.raises(Unreachable):
                await client.request("GET", "/version")
        finally:
            plane.resume("kube-apiserver")
        await client.request("GET", "/version")


async def test_pages_are_of_one_version(client: Client, namespace: str) -> None:
    for name in "abc":
        await put(client, namespace, name)
    path = CONFIG_MAPS.path(namespace=namespace)
    first = msgspec.json.decode(await client.list_page(path, limit=2))
    await put(client, namespace, "d")
    second = msgspec.json.decode(await client.list_page(path, limit=2, continue_=first["metadata"]["continue"]))
    assert [item["metadata"]["name"] for item in first["items"] + second["items"]] == ["a", "b", "c"]
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


async def test_no_credentials_say_where_they_were_looked_for() -> None:
    with pytest.raises(NoCredentials, match=r"there is no such kubeconfig @ /no/such/file; give --kubeconfig"):
        async with Client.connect("/no/such/file"):
            pass


async def test_an_unknown_context_is_named(plane: ControlPlane) -> None:
    with pytest.raises(NoCredentials, match="elsewhere"):
        async with Client.connect(str(plane.kubeconfig), "elsewhere"):
            pass
