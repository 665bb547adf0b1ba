"""Services and their endpoints, watched only while BGP is to tell of them.

Belongs here: following them. Does not: which of them a node says (`tortie.routing.services`).
"""

from collections.abc import Callable, Mapping
from typing import Any

from tortie.addressing.ranges import Range
from tortie.api.bgp_input import ConfigurationSpec, EndpointSlice, Service
from tortie.kube.client import Client
from tortie.kube.resource import Resource
from tortie.kube.stream import Stream
from tortie.kube.streams import Streams
from tortie.routing import services
from tortie.routing.written import Problems

SERVICES = Resource("", "v1", "services", namespaced=True)
SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", namespaced=True)


class ServiceWatch:
    """Follows them for one node. `changed` is called when what it says may be something else."""

    def __init__(self, client: Client, node: str) -> None:
        self._client, self._node = client, node
        self.changed: Callable[[], None] = lambda: None
        self._endpoints = services.Endpoints(node)
        self._streams = Streams(self._stream)
        self.run = self._streams.run

    def follow(self, spec: ConfigurationSpec) -> bool:
        """Follow them if a configuration asks for it, else don't; whether all that it asks for is known."""
        self._streams.want((SERVICES.plural, SLICES.plural) if services.ranges(spec) else ())
        return all(stream.synced.is_set() for stream in self._streams.named.values())

    def said(self, spec: ConfigurationSpec, labels: Mapping[str, str]) -> tuple[set[Range], Problems]:
        """Return what the node says of them, and what is wrong, by where."""
        stream = self._streams.named.get(SERVICES.plural)
        return services.advertised(spec, stream.store.values() if stream else (), self._endpoints, labels)

    def _stream(self, plural: str) -> Stream[Any]:
        if plural == SERVICES.plural:
            return Stream(self._client, SERVICES.path(), Service, self._on_service)
        self._endpoints = services.Endpoints(self._node)
        return Stream(self._client, SLICES.path(), EndpointSlice, self._on_slice)

    def _on_service(self, _old: Service | None, _new: Service | None) -> None:
        self.changed()

    def _on_slice(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        seen = new or old
        if seen and self._endpoints.put(seen.metadata.namespace, seen.metadata.name, new):
            self.changed()
