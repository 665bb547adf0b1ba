"""A kind that a cluster may lack, and get, and lose, while we watch.

Belongs here: following the kind's definition, and its objects while it is served. Does not: what the objects mean.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Generic

from tortie.api.lean import Condition, Lean, Metadata
from tortie.kube.client import Client
from tortie.kube.resource import Resource
from tortie.kube.stream import Stream
from tortie.kube.wire import T

_log = logging.getLogger(__name__)

DEFINITIONS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")


class _Version(Lean, frozen=True):
    name: str
    served: bool = False


class _Spec(Lean, frozen=True):
    versions: tuple[_Version, ...] = ()


class _Status(Lean, frozen=True):
    conditions: tuple[Condition, ...] | None = ()


class Definition(Lean, frozen=True):
    """A CustomResourceDefinition, as far as whether a version is served."""

    metadata: Metadata
    spec: _Spec = _Spec()
    status: _Status = _Status()

    def serves(self, version: str) -> bool:
        """Whether the API server answers for this version now."""
        established = any(one.type == "Established" and one.status == "True" for one in self.status.conditions or ())
        return established and any(one.name == version and one.served for one in self.spec.versions)


class OptionalKind(Generic[T]):
    """The objects of a kind while it is served; when it isn't any more, each of them is a removal.

    Attributes:
        definitions: The stream to run, beside `run`.
        stream: That of the objects; None while the kind isn't served.
        synced: It is known whether the kind is served, and if so the first whole list was delivered.
    """

    def __init__(
        self, client: Client, resource: Resource, kind: type[T], on_change: Callable[[T | None, T | None], None]
    ) -> None:
        name = f"{resource.plural}.{resource.group}"
        self.definitions = Stream(
            client, DEFINITIONS.path(), Definition, self._on_definition, field_selector=f"metadata.name={name}"
        )
        self.stream: Stream[T] | None = None
        self.synced = asyncio.Event()
        self._client, self._resource, self._kind, self._on_change = client, resource, kind, on_change
        self._is_served = False
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Follow the kind for ever."""
        await self.definitions.synced.wait()
        while True:
            self._changed.clear()
            if self._is_served:
                await self._follow()
            else:
                self.synced.set()
                await self._changed.wait()

    async def _follow(self) -> None:
        _log.info("%s are served from now on", self._resource)
        self.stream = stream = Stream(self._client, self._resource.path(), self._kind, self._on_change)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(stream.run()), tasks.create_task(self._say_synced(stream))
            while self._is_served:
                self._changed.clear()
                await self._changed.wait()
            for task in running:
                task.cancel()
        self.stream = None
        if stream.store:
            _log.warning("%s are not served any more; the %d that were are gone", self._resource, len(stream.store))
        for one in stream.store.values():
            self._on_change(one, None)

    async def _say_synced(self, stream: Stream[Any]) -> None:
        await stream.synced.wait()
        self.synced.set()

    def _on_definition(self, _old: Definition | None, new: Definition | None) -> None:
        self._is_served = new is not None and new.serves(self._resource.version)
        self._changed.set()
