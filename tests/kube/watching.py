"""What these tests watch: ConfigMaps as structs, a record of what a stream said, and waiting without hoping."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from tortie.kube.client import Client
from tortie.kube.resource import Resource
from tortie.kube.stream import Stream, StreamSettings

CONFIG_MAPS = Resource("", "v1", "configmaps", namespaced=True)


class Metadata(msgspec.Struct, rename="camel"):
    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""


class ConfigMap(msgspec.Struct, rename="camel"):
    metadata: Metadata
    data: dict[str, str] = {}


class Record:
    """Every difference that a stream said, and whether they fit together: each starts where the one before ended."""

    def __init__(self) -> None:
        self.changes: list[tuple[ConfigMap | None, ConfigMap | None]] = []
        self.state: dict[str, ConfigMap] = {}

    def __call__(self, old: ConfigMap | None, new: ConfigMap | None) -> None:
        item = new or old
        assert item is not None, "a change of nothing"
        known = self.state.get(item.metadata.name)
        assert known is old, f"{item.metadata.name}: {known} was said before, {old} now"
        assert not (old and new and int(new.metadata.resource_version) <= int(old.metadata.resource_version)), (
            old,
            new,
        )
        self.changes.append((old, new))
        if new is None:
            del self.state[item.metadata.name]
        else:
            self.state[item.metadata.name] = new

    @property
    def names(self) -> set[str]:
        return set(self.state)

    def words(self) -> list[str]:
        """Return the changes in short: +a, ~a, -a."""
        return [
            f"{'+' if old is None else '-' if new is None else '~'}{(new or old).metadata.name}"  # type: ignore[union-attr]
            for old, new in self.changes
        ]


async def eventually(what: Callable[[], object], why: str = "", seconds: float = 60.0) -> None:
    """Return as soon as `what` holds; fail after `seconds`, which only a broken program needs."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"did not happen: {why or what}"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def running(*streams: Stream[Any]) -> AsyncIterator[None]:
    """Run streams; what ends one of them fails the test."""
    tasks = [asyncio.create_task(stream.run()) for stream in streams]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def stream_of(
    client: Client,
    namespace: str,
    record: Callable[[Any, Any], None],
    settings: StreamSettings | None = None,
    **more: Any,
) -> Stream[ConfigMap]:
    kind = more.pop("kind", ConfigMap)
    return Stream(client, CONFIG_MAPS.path(namespace=namespace), kind, record, settings=settings, **more)


async def put(client: Client, namespace: str, name: str, value: str = "") -> ConfigMap:
    """Create a ConfigMap."""
    body = {"metadata": {"name": name}, "data": {"value": value}}
    return await client.create(CONFIG_MAPS.path(namespace=namespace), body, into=ConfigMap)


async def change(client: Client, namespace: str, name: str, value: str) -> ConfigMap:
    """Change a ConfigMap."""
    path = CONFIG_MAPS.path(name, namespace=namespace)
    return await client.patch(path, {"data": {"value": value}}, into=ConfigMap)


async def drop(client: Client, namespace: str, name: str) -> None:
    """Delete a ConfigMap."""
    await client.delete(CONFIG_MAPS.path(name, namespace=namespace))


async def put_many(client: Client, namespace: str, names: list[str]) -> None:
    """Create many at once."""
    await asyncio.gather(*(put(client, namespace, name) for name in names))
