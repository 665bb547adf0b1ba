"""Services and their endpoints, watched only while BGP is to tell of them.

Belongs here: following them. Does not: which of them a node says (`tortie.routing.services`).
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from tortie.addressing.ranges import Range
from tortie.api.bgp_input import ConfigurationSpec, EndpointSlice, Service
from tortie.kube.client import Client
from tortie.kube.resource import Resource
from tortie.kube.stream import Stream
from tortie.routing import services
from tortie.routing.peering import Problems

SERVICES = Resource("", "v1", "services", namespaced=True)
SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", namespaced=True)


class ServiceWatch:
    """Follows them for one node. `changed` is called when what it says may be something else."""

    def __init__(self, client: Client, node: str) -> None:
        self._client, self._node = client, node
        self.changed: Callable[[], None] = lambda: None
        self._asked = asyncio.Event()
        self._unasked = asyncio.Event()
        self._forget()

    def follow(self, spec: ConfigurationSpec) -> bool:
        """Follow them if a configuration asks for it, else don't; whether all that it asks for is known."""
        if services.ranges(spec):
            self._asked.set()
            self._unasked.clear()
            return all(stream.synced.is_set() for stream in self._streams)
        self._asked.clear()
        self._unasked.set()
        return True

    def said(self, spec: ConfigurationSpec, labels: Mapping[str, str]) -> tuple[set[Range], Problems]:
        """Return what the node says of them, and what is wrong, by where."""
        return services.advertised(spec, list(self._services.store.values()), self._endpoints, labels)

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            await self._asked.wait()
            streams = [asyncio.create_task(stream.run()) for stream in self._streams]
            unasked = asyncio.create_task(self._unasked.wait())
            try:
                done, _ = await asyncio.wait([*streams, unasked], return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # what a stream raised
            finally:
                for task in (*streams, unasked):
                    task.cancel()
                await asyncio.gather(*streams, unasked, return_exceptions=True)
            self._forget()

    def _forget(self) -> None:
        self._endpoints = services.Endpoints(self._node)
        self._services = Stream(self._client, SERVICES.path(), Service, self._on_service)
        slices = Stream(self._client, SLICES.path(), EndpointSlice, self._on_slice)
        self._streams: tuple[Stream[Any], ...] = (self._services, slices)

    def _on_service(self, _old: Service | None, _new: Service | None) -> None:
        self.changed()

    def _on_slice(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        seen = new or old
        if seen and self._endpoints.put(seen.metadata.namespace, seen.metadata.name, new):
            self.changed()
