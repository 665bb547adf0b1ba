"""A stream through crashes, pauses and refusals of a real API server and its etcd."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.kube.watching import CONFIG_MAPS, Record, change, drop, eventually, put, put_many, running, stream_of
from tortie.kube.backoff import BackoffSettings
from tortie.kube.client import Client
from tortie.kube.errors import ApiError, Conflict, NotFound
from tortie.kube.resource import Resource
from tortie.kube.stream import StreamSettings

QUICK = StreamSettings(page=20, backoff=BackoffSettings(0.05, 0.5))
IMPATIENT = StreamSettings(idle=2.0, watch=(600, 600), backoff=BackoffSettings(0.05, 0.5))


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    """One of its own for each test: what these do to it should meet no other."""
    with ControlPlane() as plane:
        yield plane


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> "Lines":
    caplog.set_level("WARNING", "tortie.kube")
    return Lines(caplog)


class Lines:
    """What the log says of lost streams."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def of(self, what: str) -> list[str]:
        return [message for message in self._caplog.messages if f"stream {what}" in message]

    def are_one_each_way(self) -> None:
        assert (len(self.of("lost")), len(self.of("back"))) == (1, 1), self._caplog.messages
        assert not any(record.exc_info for record in self._caplog.records)


@asynccontextmanager
async def busy_people(client: Client, namespace: str) -> AsyncIterator[None]:
    """Create, change and delete without end, whether or not the API server answers."""
    numbers = iter(range(1_000_000))

    async def work() -> None:
        while True:
            number = next(numbers)
            try:
                await put(client, namespace, f"w{number}")
                await change(client, namespace, f"w{number}", "changed")
                if number % 3:
                    await drop(client, namespace, f"w{number}")
            except (Conflict, NotFound):
                pass
            except ApiError:
                await asyncio.sleep(0.05)

    tasks = [asyncio.create_task(work()) for _ in range(3)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def names_on_server(client: Client, namespace: str) -> set[str]:
    record = Record()
    fresh = stream_of(client, namespace, record)
    async with running(fresh):
        await fresh.synced.wait()
    return record.names


async def restarted(plane: ControlPlane, part: str) -> None:
    plane.start(part)
    await asyncio.to_thread(plane.wait_ready)


async def test_api_server_killed_and_started_no_event_lost(
    plane: ControlPlane, client: Client, namespace: str, lines: Lines
) -> None:
    record = Record()
    stream = stream_of(client, namespace, record, QUICK)
    async with running(stream):
        await stream.synced.wait()
        async with busy_people(client, namespace):
            await eventually(lambda: len(record.changes) > 50)
            plane.kill("kube-apiserver")
            await eventually(lambda: lines.of("lost"))
            await restarted(plane, "kube-apiserver")
            before = len(record.changes)
            await eventually(lambda: len(record.changes) > before + 50)
        await put(client, namespace, "last")
        await eventually(lambda: "last" in record.names)
        assert record.names == await names_on_server(client, namespace)
        await eventually(lambda: lines.of("back"))
    lines.are_one_each_way()
    assert f"{CONFIG_MAPS.path(namespace=namespace)}: stream lost: the API server gave no answer" in lines.of("lost")[0]


async def test_deletions_while_the_stream_was_away(plane: ControlPlane, client: Client, namespace: str, lines: Lines) -> None:
    """The stream sleeps through a whole life of the API server; what was deleted then is said after it."""
    record = Record()
    await put_many(client, namespace, [f"n{number}" for number in range(50)])
    stream = stream_of(client, namespace, record, QUICK)
    async with running(stream):
        await stream.synced.wait()
    await asyncio.gather(*(drop(client, namespace, f"n{number}") for number in range(0, 50, 2)))
    plane.kill("kube-apiserver")
    async with running(stream):
        await eventually(lambda: lines.of("lost"))
        await restarted(plane, "kube-apiserver")
        await eventually(lambda: lines.of("back"))
        await eventually(lambda: len(record.names) == 25)
    assert record.names == {f"n{number}" for number in range(1, 50, 2)}
    lines.are_one_each_way()


async def test_etcd_restart(plane: ControlPlane, client: Client, namespace: str) -> None:
    record = Record()
    stream = stream_of(client, namespace, record, QUICK)
    async with running(stream):
        await stream.synced.wait()
        async with busy_people(client, namespace):
            await eventually(lambda: len(record.changes) > 50)
            plane.kill("etcd")
            await restarted(plane, "etcd")
            before = len(record.changes)
            await eventually(lambda: len(record.changes) > before + 50)
        await put(client, namespace, "last")
        await eventually(lambda: "last" in record.names)
        assert record.names == await names_on_server(client, namespace)


async def test_paused_api_server(plane: ControlPlane, client: Client, namespace: str, lines: Lines) -> None:
    """It neither answers nor hangs up; silence tells."""
    record = Record()
    stream = stream_of(client, namespace, record, IMPATIENT)
    async with running(stream):
        await stream.synced.wait()
        await put(client, namespace, "a")
        await eventually(lambda: record.names == {"a"})
        plane.pause("kube-apiserver")
        await eventually(lambda: lines.of("lost"))
        plane.resume("kube-apiserver")
        await put(client, namespace, "b")
        await eventually(lambda: record.names == {"a", "b"})
        await eventually(lambda: lines.of("back"))  # said after the events that came with it
    lines.are_one_each_way()
    assert "resumed where it was" in lines.of("back")[0]


async def test_started_before_the_api_server(plane: ControlPlane, client: Client, namespace: str, lines: Lines) -> None:
    await put(client, namespace, "a")
    plane.kill("kube-apiserver")
    record, relists = Record(), []
    stream = stream_of(client, namespace, record, QUICK, on_relist=lambda: relists.append(1))
    async with running(stream):
        await eventually(lambda: lines.of("lost"))
        assert not stream.synced.is_set()
        await restarted(plane, "kube-apiserver")
        await stream.synced.wait()
        await eventually(lambda: lines.of("back"))
    assert (record.words(), relists) == (["+a"], [])
    lines.are_one_each_way()
    assert "listed, 1 changed and 0 removed of 1" in lines.of("back")[0]


async def test_a_right_taken_and_given_back(plane: ControlPlane, client: Client, namespace: str, lines: Lines) -> None:
    accounts = Resource("", "v1", "serviceaccounts", namespaced=True)
    roles = Resource("rbac.authorization.k8s.io", "v1", "clusterroles")
    bindings = Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings")
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]}
    binding = {
        "metadata": {"name": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": namespace},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": namespace}],
    }
    await client.create(accounts.path(namespace=namespace), {"metadata": {"name": "reader"}})
    await put(client, namespace, "a")
    kubeconfig = await asyncio.to_thread(plane.kubeconfig_for_service_account, namespace, "reader")
    record = Record()
    async with Client.connect(str(kubeconfig)) as reader:
        stream = stream_of(reader, namespace, record, QUICK)
        async with running(stream):
            await eventually(lambda: lines.of("lost"))
            await client.create(roles.path(), {"metadata": {"name": namespace}, "rules": [rule]})
            await client.create(bindings.path(), binding)
            await eventually(lambda: record.names == {"a"})
            await eventually(lambda: lines.of("back"))
    lines.are_one_each_way()
    assert 'cannot list resource "configmaps" in API group ""' in lines.of("lost")[0]
    assert "grant this right in the ClusterRole" in lines.of("lost")[0]


async def test_etcd_restored_from_a_backup(
    plane: ControlPlane, client: Client, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """History goes back: what came after the backup is gone, and the stream must not wait for versions to return."""
    record = Record()
    await put(client, namespace, "before")
    for part in ("kube-apiserver", "etcd"):
        plane.stop(part)
    shutil.copytree(plane.folder / "etcd", plane.folder / "backup")
    plane.start("etcd")
    await restarted(plane, "kube-apiserver")
    stream = stream_of(client, namespace, record, StreamSettings(watch=(3, 3), backoff=BackoffSettings(0.05, 0.2)))
    async with running(stream):
        await stream.synced.wait()
        await put_many(client, namespace, [f"after{number}" for number in range(300)])
        await eventually(lambda: len(record.names) == 301)
        for part in ("kube-apiserver", "etcd"):
            plane.stop(part)
        shutil.rmtree(plane.folder / "etcd")
        (plane.folder / "backup").rename(plane.folder / "etcd")
        plane.start("etcd")
        await restarted(plane, "kube-apiserver")
        await eventually(lambda: record.names == {"before"})
    assert "restored from a backup? taking it as it is" in caplog.text


async def test_restored_between_two_watches(client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No request failed, so nobody knows of an outage; but the watch from the future says nothing."""
    record, begun, watch = Record(), list[str](), client.watch

    def from_the_future(path: str, **params: Any) -> Any:
        if len(begun) == 1:
            params["resourceVersion"] = str(int(params["resourceVersion"]) + 1_000_000)
            stream._advance(params["resourceVersion"])
        begun.append(params["resourceVersion"])
        return watch(path, **params)

    monkeypatch.setattr(client, "watch", from_the_future)
    await put(client, namespace, "before")
    stream = stream_of(client, namespace, record, StreamSettings(watch=(1, 1), backoff=BackoffSettings(0.05, 0.2)))
    async with running(stream):
        await eventually(lambda: len(begun) >= 2)
        await put(client, namespace, "after")
        await eventually(lambda: record.names == {"before", "after"}, seconds=20)
