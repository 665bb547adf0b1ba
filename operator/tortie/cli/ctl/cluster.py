"""The cluster that is asked: which one, whole lists of objects, and questions to the agents."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import click

from tortie.api.meta import GROUP, VERSION
from tortie.kube.client import ApiError, Client, Undecodable
from tortie.kube.errors import NotFound
from tortie.kube.events import EVENTS
from tortie.kube.exec import PODS
from tortie.kube.lease import LEASES
from tortie.kube.resource import Resource
from tortie.kube.wire import Codec
from tortie.kube.wire import Object as Lean

__all__ = [
    "DAEMONSETS",
    "DEPLOYMENTS",
    "EVENTS",
    "LEASES",
    "NODES",
    "PODS",
    "Cluster",
    "Object",
    "list_all",
    "list_lean",
    "list_path",
    "ours",
]

T = TypeVar("T")
L = TypeVar("L", bound=Lean)
Object = Mapping[str, Any]

NODES = Resource("", "v1", "nodes")
DEPLOYMENTS = Resource("apps", "v1", "deployments", namespaced=True)
DAEMONSETS = Resource("apps", "v1", "daemonsets", namespaced=True)


def ours(plural: str) -> Resource:
    """Return one of our kinds."""
    return Resource(GROUP, VERSION, plural)


class Cluster(NamedTuple):
    """Which cluster is asked, as kubectl names it, and where Tortie is installed there."""

    kubeconfig: str | None
    context: str | None
    namespace: str

    def ask(self, question: Callable[[Client], Awaitable[T]]) -> T:
        """Return the answer of a coroutine that is given a client; what goes wrong is a sentence (ClickException).

        SIGTERM ends it as Ctrl-C does: the coroutine is cancelled, and may clean up.
        """

        async def run() -> T:
            task = asyncio.current_task()
            assert task is not None, "a coroutine that runs is a task's"
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
            async with Client.connect(self.kubeconfig, self.context) as client:
                return await question(client)

        try:
            return asyncio.run(run())
        except asyncio.CancelledError:
            raise SystemExit(128 + signal.SIGTERM) from None  # as a shell says it
        except NotFound as error:
            if f"/apis/{GROUP}/" not in error.where:
                raise click.ClickException(str(error)) from error
            raise click.ClickException(
                f"this cluster has no objects of {GROUP}/{VERSION} ({error.where}): is Tortie installed there?"
                " helm install tortie helm/tortie -n tortie-system --create-namespace; --context chooses another cluster"
            ) from error
        except ApiError as error:
            raise click.ClickException(str(error)) from error


async def list_all(client: Client, resource: Resource, **query: Any) -> list[Object]:
    """Return every object of a kind, as the API server has it now; raises ApiError."""
    return await list_path(client, resource.path(), **query)


async def list_path(client: Client, path: str, **query: Any) -> list[Object]:
    """Return every object of a collection; raises ApiError."""
    items, further = list[Object](), ""
    while True:
        page = json.loads(await client.list_page(path, continue_=further, **query))
        items += page["items"]
        further = page["metadata"].get("continue", "")
        if not further:
            return items


async def list_lean(client: Client, path: str, kind: type[L]) -> list[L]:
    """Return every object of a collection as structs, which take a tenth of the memory; raises ApiError."""
    codec, items, further = Codec(kind), list[L](), ""
    while True:
        page = codec.page(await client.list_page(path, continue_=further))
        for name, why in page.unread:  # one that is left out would count as gone
            raise Undecodable(f"{name}: {why}", f"GET {path}")
        items += page.items
        further = page.continue_
        if not further:
            return items
