"""Nodes without machines: what many agents would ask of an API server, asked by one process.

Belongs here: the Node objects, and a `PolicyWatch` for each, over one client. Does not: pods' addresses or anything of a
kernel; what is to be enforced is taken as enforced at once.
"""

import asyncio
import logging
import resource
from asyncio import sslproto
from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from tortie.agent.node import NODES
from tortie.agent.policies import PolicyWatch, Realizer
from tortie.kube.client import ApiError, Client, ClientSettings
from tortie.kube.errors import AlreadyExists, NotFound
from tortie.kube.writer import Writer
from tortie.policy.view import Changes

_log = logging.getLogger(__name__)

LABEL = "tortie.dev/hollow"
# Watches of one node, and connections beside these: writes, and what is made in the beginning.
WATCHES, OTHERS = 5, 96
# Files that a process has open beside its connections.
FILES = 64
# Bytes of each TLS connection's buffer. asyncio's own are 256 KB, which is 1.3 MB a node for watches that mostly are silent.
BUFFER = 16 * 1024
# Nodes that are made and list at once: a small API server stays quick for others.
STARTING = 16

OnSet = Callable[[str, str, frozenset[str]], None]


class TooFewFiles(Exception):
    """The system allows fewer open files than the watches need."""


def raise_limit(nodes: int) -> None:
    """Let this process have as many connections as its nodes need, if the system allows it. Raises TooFewFiles."""
    needed = WATCHES * nodes + OTHERS + FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise TooFewFiles(
            f"{nodes} nodes need {needed} open files @ RLIMIT_NOFILE, whose hard limit is {hard}; "
            f"raise it (ulimit -Hn, LimitNOFILE=), or run at most {max(0, hard - OTHERS - FILES) // WATCHES} nodes a process"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


class HollowNodes:
    """Nodes by name. `on_set(node, set, addresses)` is told of each set whenever a node has another content of it."""

    def __init__(self, client: Client, names: Sequence[str], on_set: OnSet | None = None) -> None:
        self._client, self._on_set = client, on_set
        self._writer = Writer(lambda: True, self._done)
        self._starting = asyncio.Semaphore(STARTING)
        self.watching = 0  # nodes whose watches all stand
        self.watches = {name: PolicyWatch(client, name, self._realizer(name), self._writer) for name in names}

    @property
    def writing(self) -> int:
        """How many statuses wait to be written, or are being written."""
        return len(self._writer) + sum(watch.has_news for watch in self.watches.values())

    async def run(self) -> None:
        """Make the Nodes, watch and report for ever."""
        async with self._writer, asyncio.TaskGroup() as group:
            for name, watch in self.watches.items():
                group.create_task(self._live(name, watch))

    async def delete(self) -> None:
        """Delete the Nodes."""
        async with asyncio.TaskGroup() as group:
            for name in self.watches:
                group.create_task(self._delete(name))

    async def _live(self, name: str, watch: PolicyWatch) -> None:
        async with asyncio.TaskGroup() as group:
            async with self._starting:
                await self._make(name)
                group.create_task(watch.run())
                await watch.synced()
            self.watching += 1
            if self.watching % 100 == 0 or self.watching == len(self.watches):
                _log.info("%d of %d nodes watch", self.watching, len(self.watches))

    async def _make(self, name: str) -> None:
        """Make the Node as a kubelet would, unless it is there."""
        with suppress(AlreadyExists):
            await self._client.create(
                NODES.path(), {"metadata": {"name": name, "labels": {LABEL: "", "kubernetes.io/hostname": name}}}
            )
        room = {"cpu": "8", "memory": "32Gi", "pods": "110"}
        ready = {"type": "Ready", "status": "True", "reason": "Hollow", "message": "there is no machine behind it"}
        status: dict[str, Any] = {"capacity": room, "allocatable": room, "conditions": [ready]}
        await self._client.patch(NODES.path(name, subresource="status"), {"status": status})

    async def _delete(self, name: str) -> None:
        async with self._starting:
            with suppress(NotFound):
                await self._client.delete(NODES.path(name))

    def _realizer(self, name: str) -> Realizer:
        async def realize(changes: Changes) -> Mapping[str, str]:
            if self._on_set is not None:
                view = self.watches[name].view
                for one in changes.added.keys() | changes.removed.keys():
                    self._on_set(name, one, view.addresses(one) or frozenset())
            return {}

        return realize

    def _done(self, key: Hashable, error: ApiError | None) -> None:
        self.watches[str(key)].done(error)


@asynccontextmanager
async def connect(nodes: int, kubeconfig: str | None = None) -> AsyncIterator[Client]:
    """Open a client with a connection for each watch of so many nodes. Raises TooFewFiles, NoCredentials."""
    raise_limit(nodes)
    sslproto.SSLProtocol.max_size = BUFFER
    async with Client.connect(kubeconfig, settings=ClientSettings(connections=WATCHES * nodes + OTHERS)) as client:
        yield client


async def run(nodes: int, prefix: str, kubeconfig: str | None, delete: bool) -> None:
    """Be so many nodes until told to end."""
    async with connect(nodes, kubeconfig) as client:
        hollow = HollowNodes(client, [f"{prefix}{number}" for number in range(nodes)])
        try:
            await hollow.run()
        finally:
            if delete:
                await hollow.delete()
                _log.info("%d nodes deleted", nodes)
