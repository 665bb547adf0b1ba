"""A real API server for these tests, and a namespace of its own for each of them."""

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.cluster.control_plane import ControlPlane
from tortie.kube.client import Client
from tortie.kube.resource import Resource

NAMESPACES = Resource("", "v1", "namespaces")


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.fixture
async def client(plane: ControlPlane) -> AsyncIterator[Client]:
    async with Client.connect(str(plane.kubeconfig)) as client:
        yield client


@pytest.fixture
async def namespace(client: Client) -> str:
    name = f"t-{uuid.uuid4().hex[:10]}"
    await client.create(NAMESPACES.path(), {"metadata": {"name": name}})
    return name
