"""Commands in containers, as far as the API server decides: what it refuses, and how. A real node answers in tests/cli."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cluster.control_plane import ControlPlane
from tortie.kube.client import Client, ClientSettings
from tortie.kube.errors import Forbidden, NotFound, Unauthorized, Unreachable
from tortie.kube.exec import PODS, KubeletUnreachable, execute
from tortie.kube.resource import Resource

ACCOUNTS = Resource("", "v1", "serviceaccounts", namespaced=True)
NODES = Resource("", "v1", "nodes")


async def run(client: Client, namespace: str, pod: str = "none") -> bytes:
    return await execute(client, namespace, pod, "one", ["true"])


async def known_as(plane: ControlPlane, client: Client, namespace: str) -> Path:
    """Return the kubeconfig of somebody whom the API server knows, and who has no right."""
    await client.create(ACCOUNTS.path(namespace=namespace), {"metadata": {"name": "poor"}})
    return await asyncio.to_thread(plane.kubeconfig_for_service_account, namespace, "poor")


def changed(kubeconfig: Path, to: Path, part: str, **values: Any) -> str:
    """Write a kubeconfig with other values for its cluster or its user; return its path."""
    config = msgspec.json.decode(kubeconfig.read_bytes())
    config[f"{part}s"][0][part] |= values
    to.write_bytes(msgspec.json.encode(config))
    return str(to)


async def test_a_pod_that_is_not_there_is_named(client: Client, namespace: str) -> None:
    with pytest.raises(NotFound, match='pods "none" not found'):
        await run(client, namespace)


async def test_a_missing_right_is_named(plane: ControlPlane, client: Client, namespace: str) -> None:
    async with Client.connect(str(await known_as(plane, client, namespace))) as poor:
        with pytest.raises(Forbidden, match=r'cannot get resource "pods/exec".*; grant this right'):
            await run(poor, namespace)


async def test_who_is_not_known_reads_the_credentials_again(
    plane: ControlPlane, client: Client, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig = changed(await known_as(plane, client, namespace), tmp_path / "stale", "user", token="stale")
    async with Client.connect(kubeconfig) as unknown:
        told = list[bool]()
        monkeypatch.setattr(unknown.credentials, "refused", lambda: told.append(True))
        with pytest.raises(Unauthorized):
            await run(unknown, namespace)
    assert told == [True]


async def test_a_node_that_is_away_is_told_from_an_api_server_that_is(client: Client, namespace: str) -> None:
    await client.create(ACCOUNTS.path(namespace=namespace), {"metadata": {"name": "default"}})
    await client.create(NODES.path(), {"metadata": {"name": namespace}})
    deaf = {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}
    await client.patch(NODES.path(namespace, subresource="status"), {"status": deaf})
    spec = {"nodeName": namespace, "containers": [{"name": "one", "image": "none"}], "automountServiceAccountToken": False}
    await client.create(PODS.path(namespace=namespace), {"metadata": {"name": "a"}, "spec": spec})
    said = rf"the API server can't reach the kubelet of pod {namespace}/a: .*connection refused.* is that node up"
    try:
        with pytest.raises(KubeletUnreachable, match=said):
            await run(client, namespace, "a")
    finally:
        await client.delete(NODES.path(namespace))


async def test_a_silent_server_is_given_up(plane: ControlPlane, namespace: str) -> None:
    async with Client.connect(str(plane.kubeconfig), settings=ClientSettings(request=0.5)) as client:
        plane.pause("kube-apiserver")
        try:
            async with asyncio.timeout(5):
                with pytest.raises(Unreachable, match="gave no answer"):
                    await run(client, namespace)
        finally:
            plane.resume("kube-apiserver")


async def test_the_server_s_certificate_has_the_name_that_the_kubeconfig_says(
    plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    kubeconfig = changed(plane.kubeconfig, tmp_path / "named", "cluster", **{"tls-server-name": "nobody.test"})
    async with Client.connect(kubeconfig) as client:
        with pytest.raises(Unreachable, match=r"nobody\.test"):
            await run(client, namespace)
