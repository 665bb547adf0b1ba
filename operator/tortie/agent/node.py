"""The node's part in the pod network: its address said in NodeNetwork.status, its routes to the other nodes' blocks."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterable

from tortie.addressing.allocator import OwnBlock
from tortie.agent.routes import Route, RouteTable, desired
from tortie.api import lean
from tortie.api.meta import GROUP, VERSION
from tortie.kube.client import ApiError, Client
from tortie.kube.resource import Resource
from tortie.kube.stream import Stream

_log = logging.getLogger(__name__)

NETWORKS = Resource(GROUP, VERSION, "nodenetworks")
NODES = Resource("", "v1", "nodes")
STRATEGIC = "application/strategic-merge-patch+json"
# Seconds: changes of a moment are one look at the kernel; what failed, and what others changed, is mended so often.
SETTLE, MEND = 0.05, 10.0


class NodeWatch:
    """Follows Nodes' addresses and NodeNetworks. `listed` is told which blocks the operator says are this node's."""

    def __init__(
        self, client: Client, node: str, own: Callable[[], Iterable[OwnBlock]], listed: Callable[[list[str]], None]
    ) -> None:
        self._client, self._node, self._own, self._listed = client, node, own, listed
        self._networks = Stream(client, NETWORKS.path(), lean.Network, self._on_network)
        self._nodes = Stream(client, NODES.path(), lean.Node, self._on_node, field_selector=f"metadata.name={node}")
        self._wake = asyncio.Event()
        self._said: tuple[str, ...] | None = None
        self._failed: dict[Route, str] = {}

    def wake(self) -> None:
        """Look at everything again: the node's own blocks changed."""
        self._wake.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._networks.run())
            tasks.create_task(self._nodes.run())
            await self._networks.synced.wait()
            while True:
                await self._publish()
                await self._route()
                try:
                    await asyncio.wait_for(self._wake.wait(), MEND)
                except TimeoutError:
                    continue
                await asyncio.sleep(SETTLE)
                self._wake.clear()

    def _on_network(self, _old: lean.Network | None, new: lean.Network | None) -> None:
        if new is not None and new.metadata.name == self._node:
            self._listed([block.name for block in new.spec.blocks])
        self._wake.set()

    def _on_node(self, _old: lean.Node | None, _new: lean.Node | None) -> None:
        self._wake.set()

    async def _route(self) -> None:
        wanted = desired(self._node, (block.range for block in self._own()), self._networks.store.values())
        failed = await asyncio.to_thread(_sync, wanted)
        for route, why in failed.items():
            if route not in self._failed:
                _log.error("route %s could not be set: %s; pods there can't be reached; trying again", route, why)
        self._failed = failed

    async def _publish(self) -> None:
        """Say the node's addresses, and that its network is there."""
        node, network = self._nodes.store.get(self._node), self._networks.store.get(self._node)
        if node is None or network is None:
            return
        addresses = tuple(a.address for a in node.status.addresses if a.type == "InternalIP")[:2]
        if not addresses or addresses == self._said == network.status.addresses:
            return
        try:
            body = {"status": {"addresses": addresses}}
            await self._client.patch(NETWORKS.path(self._node, subresource="status"), body)
            condition = {
                "type": "NetworkUnavailable", "status": "False", "reason": "TortieIsUp",
                "message": "the tortie agent gives addresses to pods on this node",
            }  # fmt: skip
            path, status = NODES.path(self._node, subresource="status"), {"status": {"conditions": [condition]}}
            await self._client.request("PATCH", path, json.dumps(status).encode(), content=STRATEGIC)
            self._said = addresses
            _log.info("node addresses: %s", ", ".join(addresses))
        except ApiError as error:
            _log.warning("the node's addresses can't be said: %s; trying again", error)


def _sync(wanted: set[Route]) -> dict[Route, str]:
    table = RouteTable()
    try:
        return table.sync(wanted)
    finally:
        table.close()
