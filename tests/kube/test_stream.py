"""Listing and watching a real API server."""

import asyncio
import urllib.request
from typing import Literal

import msgspec
import pytest

from tests.cluster.control_plane import ControlPlane
from tests.kube.watching import (
    CONFIG_MAPS,
    ConfigMap,
    Metadata,
    Record,
    change,
    drop,
    eventually,
    put,
    put_many,
    running,
    stream_of,
)
from tortie.kube.client import Client
from tortie.kube.resource import is_older
from tortie.kube.stream import StreamSettings

# The API server sends a bookmark two seconds before it ends a watch.
SHORT_WATCHES = StreamSettings(watch=(3, 3))


async def test_initial_list_of_many_pages(client: Client, namespace: str) -> None:
    names = [f"n{number:02}" for number in range(25)]
    await put_many(client, namespace, names)
    record, calls = Record(), []
    stream = stream_of(client, namespace, record, StreamSettings(page=4), on_relist=lambda: calls.append(1))
    async with running(stream):
        await stream.synced.wait()
    assert record.words() == [f"+{name}" for name in names]
    assert set(stream.store) == {f"{namespace}/{name}" for name in names}
    assert calls == []


async def test_watch_add_modify_delete(client: Client, namespace: str) -> None:
    record = Record()
    stream = stream_of(client, namespace, record)
    async with running(stream):
        await stream.synced.wait()
        await put(client, namespace, "a", "1")
        changed = await change(client, namespace, "a", "2")
        await put(client, namespace, "b")
        await drop(client, namespace, "a")
        await eventually(lambda: "-a" in record.words())
    assert record.words() == ["+a", "~a", "+b", "-a"]
    assert record.changes[1][1] == changed
    assert set(stream.store) == {f"{namespace}/b"}


async def test_one_that_comes_back_under_its_name_is_another(client: Client, namespace: str) -> None:
    record = Record()
    stream = stream_of(client, namespace, record)
    await put(client, namespace, "a", "1")
    async with running(stream):
        await stream.synced.wait()
    await drop(client, namespace, "a")
    await put(client, namespace, "a", "2")
    stream.resource_version = ""  # list again: the deletion itself was never seen
    async with running(stream):
        await eventually(lambda: len(record.changes) == 3)
    assert record.words() == ["+a", "-a", "+a"]


async def test_bookmark_advances_the_version(client: Client, namespace: str) -> None:
    record, elsewhere = Record(), Record()
    stream = stream_of(client, namespace, record, SHORT_WATCHES)
    async with running(stream):
        await stream.synced.wait()
        before = stream.resource_version
        await put(client, "default", f"bump-{namespace}")
        await eventually(lambda: is_older(before, stream.resource_version))
    assert (record.words(), elsewhere.words()) == ([], [])


async def test_watches_that_end_as_announced_lose_nothing(
    client: Client, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    record = Record()
    stream = stream_of(client, namespace, record, StreamSettings(watch=(1, 1)))
    async with running(stream):
        await stream.synced.wait()
        for number in range(60):
            await put(client, namespace, f"n{number:02}")
            await asyncio.sleep(0.05)
        await eventually(lambda: len(record.changes) == 60)
    assert record.words() == [f"+n{number:02}" for number in range(60)]
    assert caplog.messages == []


async def test_selectors(client: Client, namespace: str) -> None:
    record = Record()
    body = {"metadata": {"name": "b", "labels": {"mine": "yes"}}}
    await put(client, namespace, "a")
    await client.create(CONFIG_MAPS.path(namespace=namespace), body)
    stream = stream_of(client, namespace, record, label_selector="mine=yes")
    async with running(stream):
        await stream.synced.wait()
        await put(client, namespace, "c")
        await client.patch(CONFIG_MAPS.path("b", namespace=namespace), {"metadata": {"labels": {"mine": None}}})
        await eventually(lambda: len(record.changes) == 2)
    assert record.words() == ["+b", "-b"]


class OnlyGood(msgspec.Struct):
    """A ConfigMap whose value is "good"; any other doesn't decode."""

    metadata: Metadata
    data: dict[str, Literal["good"]] = {}


async def test_undecodable_object(client: Client, namespace: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is named in the log, its last readable form stays, and all others go on."""
    record = Record()
    for name, value in (("a", "good"), ("b", "bad"), ("c", "good")):
        await put(client, namespace, name, value)
    stream = stream_of(client, namespace, record, kind=OnlyGood)
    async with running(stream):
        await stream.synced.wait()
        assert record.words() == ["+a", "+c"]
        await change(client, namespace, "a", "bad")
        await change(client, namespace, "b", "good")
        await eventually(lambda: "+b" in record.words())
        assert stream.store[f"{namespace}/a"].data == {"value": "good"}
        await drop(client, namespace, "a")
        await eventually(lambda: "-a" in record.words())
    assert record.words() == ["+a", "+c", "+b", "-a"]
    assert [message.split(" can't be read")[0].split("/")[-1] for message in caplog.messages] == ["b:", "a:"]
    assert all("Invalid enum value 'bad' - at `$." in message for message in caplog.messages)
    assert "it is left out" in caplog.messages[0]
    assert "its last readable form stays in use" in caplog.messages[1]


async def test_an_undecodable_object_is_not_taken_for_a_deleted_one(client: Client, namespace: str) -> None:
    record = Record()
    await put(client, namespace, "a", "good")
    stream = stream_of(client, namespace, record, kind=OnlyGood)
    async with running(stream):
        await stream.synced.wait()
    await change(client, namespace, "a", "bad")
    stream.resource_version = ""
    async with running(stream):
        await eventually(lambda: stream.resource_version)
    assert record.words() == ["+a"]


async def test_a_mistake_in_on_change_ends_the_stream(client: Client, namespace: str) -> None:
    def fail(_old: object, _new: object) -> None:
        raise TimeoutError("not the network's")

    await put(client, namespace, "a")
    with pytest.raises(TimeoutError, match="not the network's"):
        await stream_of(client, namespace, fail).run()


def etcd(plane: ControlPlane, call: str, body: dict[str, object]) -> bytes:
    flags = [str(flag) for flag in plane.processes["etcd"].args]  # type: ignore[union-attr]
    url = next(flag.partition("=")[2] for flag in flags if flag.startswith("--listen-client-urls="))
    request = urllib.request.Request(f"{url}/v3/kv/{call}", msgspec.json.encode(body))
    with urllib.request.urlopen(request, timeout=10) as answer:
        return bytes(answer.read())


def compact(plane: ControlPlane) -> None:
    """Let etcd forget all history, and the API server its cache of it."""
    revision = msgspec.json.decode(etcd(plane, "range", {"key": "AA=="}))["header"]["revision"]
    etcd(plane, "compaction", {"revision": revision, "physical": True})
    plane.kill("kube-apiserver")
    plane.start("kube-apiserver")
    plane.wait_ready()


async def test_relist_after_410_delivers_deletions(
    plane: ControlPlane, client: Client, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tortie.kube")
    record, relists = Record(), []
    await put_many(client, namespace, ["a", "b", "c"])
    stream = stream_of(client, namespace, record, on_relist=lambda: relists.append(1))
    async with running(stream):
        await stream.synced.wait()
    began = len(record.changes)
    await drop(client, namespace, "a")
    await change(client, namespace, "b", "new")
    await put(client, namespace, "d")
    compact(plane)
    async with running(stream):
        await eventually(lambda: record.names == {"b", "c", "d"})
        await eventually(lambda: stream.resource_version)
    assert sorted(record.words()[began:]) == ["+d", "-a", "~b"], "only what differs is said"
    assert relists == [1]
    assert "listing again: too old resource version" in caplog.text


async def test_expired_continue_token(
    plane: ControlPlane, client: Client, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The history of the list vanishes between two of its pages: the list starts again and ends whole."""
    caplog.set_level("INFO", "tortie.kube")
    names = [f"n{number:02}" for number in range(20)]
    await put_many(client, namespace, names)
    record, lists = Record(), list[int]()

    def on_change(old: ConfigMap | None, new: ConfigMap | None) -> None:
        record(old, new)
        if not lists:
            lists.append(1)
            plane.request(CONFIG_MAPS.path(namespace="default"), {"metadata": {"name": f"later-{namespace}"}})
            compact(plane)

    stream = stream_of(client, namespace, on_change, StreamSettings(page=5))
    async with running(stream):
        await stream.synced.wait()
    assert record.words() == [f"+{name}" for name in names]
    assert "continue" in caplog.text
