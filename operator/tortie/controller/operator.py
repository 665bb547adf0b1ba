"""The leading operator: events change the state, the planner says what should be, the writer makes the API match."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from typing import Any

from tortie.addressing import planner, ranges
from tortie.addressing.planner import Change, Create, Delays, Delete, DeleteNetwork, Timers, Update, WriteNetwork
from tortie.addressing.state import State
from tortie.api import lean
from tortie.api.block import SESSIONS_UP, IPAMBlock, NodeNetwork
from tortie.api.meta import API_VERSION, GROUP, VERSION
from tortie.api.policy_input import Pod
from tortie.controller import metrics, translate
from tortie.controller.leaks import PODS, Leaks
from tortie.controller.manifests import CONFIGURATIONS, POOLS, RESERVATIONS, WRITTEN_BY_PEOPLE, Manifests
from tortie.controller.policies import Known, Policies
from tortie.controller.reporter import Reporter
from tortie.controller.settings import Settings
from tortie.kube.client import ApiError, Client
from tortie.kube.errors import Conflict, NotFound, NotLeading, TooManyRequests, Unreachable
from tortie.kube.events import EventPoster, Reference
from tortie.kube.resource import Resource
from tortie.kube.stream import Stream
from tortie.kube.writer import Writer

_log = logging.getLogger(__name__)

NODES = Resource("", "v1", "nodes")
BLOCKS = Resource(GROUP, VERSION, IPAMBlock.plural)
NETWORKS = Resource(GROUP, VERSION, NodeNetwork.plural)
# Events of one burst are planned together after this many seconds.
SETTLE = 0.02
# No news: the decision was too old and is made anew, the server asks to wait, or the streams say that it is away.
_EXPECTED = (Conflict, NotFound, NotLeading, TooManyRequests, Unreachable)


class Operator:
    """One term of leading. `holds` says whether the lease is still ours; nothing is written otherwise."""

    def __init__(self, client: Client, settings: Settings, holds: Callable[[], bool]) -> None:
        self.ready = asyncio.Event()
        self._client, self._settings, self._holds = client, settings, holds
        self._state, self._timers = State(), Timers()
        self._delays = Delays(settings.reclaim_delay, settings.grace_period)
        self._wake = asyncio.Event()
        self._writer = Writer(holds, self._done)
        self._used: dict[Hashable, str] = {}  # the version that the last write of a key was decided on
        self._skipped: dict[Hashable, str] = {}  # keys that were busy when a change was due, with their node
        self._blocks: dict[str, lean.Block] = {}  # as they were seen last, if they could be read
        self._manifests = Manifests(client, self._on_manifest)
        self._events = EventPoster(client, "tortie-operator", gate=holds)
        self._reporter = Reporter(client, self._manifests, self._state, self._events, self._submit)
        pods = Stream(client, PODS.path(), Pod, self._on_pod)
        self._leaks = Leaks(client, self._state, self._events, settings.leak_grace, pods.store, wake=self._wake.set)
        nodes = Stream(client, NODES.path(), lean.Node, self._on_node, self._manifests.reread)
        blocks = Stream(client, BLOCKS.path(), lean.Block, self._on_block)
        self._policies = Policies(client, holds, self._events, Known(pods.store, nodes.store, self._blocks))
        self._networks = Stream(client, NETWORKS.path(), lean.Network, self._on_network)
        self._streams: tuple[Stream[Any], ...] = (
            nodes,
            blocks,
            self._networks,
            pods,
        )
        self.take = self._manifests.take  # for what Kopf sees
        candidates = self._leaks.collector.since
        streams: tuple[Stream[Any], ...] = (*self._streams, *self._policies.streams)
        self.known = metrics.Known(
            self._state, self._reporter.invalid, streams, self._pending, candidates, self._policies.node_policies
        )

    async def run(self) -> None:
        """Serve until cancelled."""
        async with self._writer, self._events, asyncio.TaskGroup() as tasks:
            for stream in self._streams:
                tasks.create_task(stream.run())
            tasks.create_task(self._policies.run(self._synced))
            await self._manifests.read_all()
            await self._synced()
            self.ready.set()
            state = self._state
            _log.info("ready: %d nodes, %d blocks, %d pools", len(state.nodes), len(state.blocks), len(state.pools))
            await self._make_default_pools()
            tasks.create_task(self._plan_forever())
            tasks.create_task(self._reporter.run())
            tasks.create_task(self._manifests.read_forever())
            tasks.create_task(self._leaks.run(lambda: not any(stream.is_lost for stream in self._streams)))

    async def _synced(self) -> None:
        for stream in self._streams:
            await stream.synced.wait()

    def _pending(self) -> int:
        return len(self._writer) + self._policies.pending()

    def _on_manifest(self, kind: str, name: str) -> None:
        if kind == POOLS:
            self._take_pool(name)
        elif kind == RESERVATIONS:
            self._take_reservations()
        elif kind == CONFIGURATIONS:
            spec = self._manifests.of[kind].get("default", {}).get("spec", {})
            self._state.put_max_blocks(int(spec.get("maxBlocksPerHost", 0)))
        self._wake.set()

    def _take_pool(self, name: str) -> None:
        body = self._manifests.of[POOLS].get(name)
        self._reporter.invalid.pop(name, None)
        if body is None:
            self._state.drop_pool(name)
            return
        try:
            self._state.put_pool(translate.pool(body))
        except translate.Invalid as error:
            self._reporter.invalid[name] = str(error)
            self._state.drop_pool(name)

    def _take_reservations(self) -> None:
        held = []
        for name, body in self._manifests.of[RESERVATIONS].items():
            for cidr in body.get("spec", {}).get("reservedCIDRs", ()):
                try:
                    held.append(ranges.parse(cidr))
                except ValueError as error:
                    _log.error("IPReservation %s: spec.reservedCIDRs: %s; it is left out", name, error)
        self._state.put_reservations(held)

    def _on_node(self, old: lean.Node | None, new: lean.Node | None) -> None:
        if new is not None:
            self._state.put_node(translate.node(new))
        elif old is not None:
            self._state.drop_node(old.metadata.name)
        self._policies.on_node(old, new)
        self._wake.set()

    def _on_block(self, old: lean.Block | None, new: lean.Block | None) -> None:
        if new is not None:
            try:
                block = translate.block(new)
            except ValueError as error:
                _log.error("IPAMBlock %s: spec: %s; it is left out", new.metadata.name, error)
                return
            self._state.put_block(block)
            self._blocks[block.name] = new
            self._leaks.put_block(block)
            self._policies.on_block(old, new)
        elif old is not None:
            self._state.drop_block(old.metadata.name)
            self._leaks.drop_block(old.metadata.name)
            self._used.pop(("block", old.metadata.name), None)
            self._blocks.pop(old.metadata.name, None)
            self._policies.on_block(old, None)
        self._wake.set()

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        self._leaks.on_pod(old, new)
        self._policies.on_pod(old, new)

    def _on_network(self, old: lean.Network | None, new: lean.Network | None) -> None:
        if old is not None and new is not None:
            self._tell_sessions(old, new)
        if new is not None:
            blocks = tuple(b.name for b in new.spec.blocks)
            self._state.put_network(new.metadata.name, blocks, frozenset(new.status.pools), frozenset(new.status.short))
        elif old is not None:
            self._state.drop_network(old.metadata.name)
        self._wake.set()

    def _tell_sessions(self, old: lean.Network, new: lean.Network) -> None:
        """Post an Event when a node's BGP sessions stay down, and when they are up again."""
        before, now = (next((c for c in one.status.conditions if c.type == SESSIONS_UP), None) for one in (old, new))
        if now is None or (before.status if before else "True") == now.status:
            return
        about = Reference(API_VERSION, "NodeNetwork", new.metadata.name, new.metadata.uid)
        self._events.post(
            about, "Normal" if now.status == "True" else "Warning", now.reason, f"{new.metadata.name}: {now.message}"
        )

    async def _plan_forever(self) -> None:
        while True:
            due = self._timers.next_due()
            delay = None if due is None else max(0.0, due - time.monotonic())
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            await asyncio.sleep(SETTLE)
            self._wake.clear()
            if self._timers.passed(time.monotonic()):
                self._state.mark_all()
            dirty, self._state.dirty = self._state.dirty, set()
            with metrics.plan_measured():
                changes = planner.plan(self._state, self._timers, self._delays, time.monotonic(), dirty)
            for change in changes:
                self._write(change)

    def _write(self, change: Change) -> None:
        """Start the write of one change."""
        match change:
            case Create(block):
                self._state.put_block(block)
                body = translate.block_body(block)
                self._submit(("block", block.name), lambda: self._client.create(BLOCKS.path(), body), node=block.node)
            case Update(block):
                path, patch = BLOCKS.path(block.name), translate.block_patch(block)
                self._submit(("block", block.name), lambda: self._client.patch(path, patch), block.version, block.node)
            case Delete(block, reason):
                _log.info("IPAMBlock %s of node %s is deleted: %s", block.name, block.node, reason)
                path, key = BLOCKS.path(block.name), ("block", block.name)
                delete = lambda: self._client.delete(path, uid=block.uid, version=block.version)  # noqa: E731
                self._submit(key, delete, block.version, block.node)
            case WriteNetwork(node, names):
                self._submit(("network", node), lambda: self._write_network(node, names), node=node)
            case DeleteNetwork(node):
                self._submit(("network", node), lambda: self._client.delete(NETWORKS.path(node)), node=node)

    def _submit(self, key: tuple[str, ...], write: Callable[[], Awaitable[object]], version: str = "", node: str = "") -> None:
        """Start a write, once for the version that it was decided on; what is busy is planned again when that is done."""
        if version and self._used.get(key) == version:
            return  # written already; the stream will show it
        if self._writer.busy(key):
            self._skipped[key] = node
            return
        if version:
            self._used[key] = version
        self._writer.submit(key, write)

    def _done(self, key: Hashable, error: ApiError | None) -> None:
        """Plan again what failed, or what was due while its object was busy."""
        assert isinstance(key, tuple)
        metrics.count_write(key[0], error)
        node = self._skipped.pop(key, "")
        if error is not None:
            self._used.pop(key, None)
            node = self._undo(key) or node
            if not isinstance(error, _EXPECTED) and not any(stream.is_lost for stream in self._streams):
                _log.error("%s can't be written: %s; trying again", " ".join(key), error)
        if node:
            self._state.dirty.add(node)
            self._wake.set()

    def _undo(self, key: tuple[str, ...]) -> str:
        """Forget the block whose creation failed; return the node of what failed, if it has one."""
        kind, *_, name = key
        if kind == "network":
            seen = self._networks.store.get(name)
            self._on_network(None, seen) if seen else self._state.drop_network(name)
            return name
        block = self._state.blocks.get(name) if kind == "block" else None
        if block is None:
            return ""
        if block.provisional:
            self._state.drop_block(name)
        return block.node

    async def _write_network(self, node: str, names: tuple[str, ...]) -> None:
        body = translate.network_body(node, [self._state.blocks[n] for n in names if n in self._state.blocks])
        self._state.networks[node] = names  # so that it isn't planned again before the stream shows it
        if node in self._networks.store:
            await self._client.patch(NETWORKS.path(node), {"spec": body["spec"]})
        else:
            await self._client.create(NETWORKS.path(), body)

    async def _make_default_pools(self) -> None:
        if self._manifests.of[POOLS]:
            return
        for cidr in self._settings.default_pools:
            name = f"default-ipv{ranges.parse(cidr).family}-ippool"
            body = {"apiVersion": API_VERSION, "kind": "IPPool", "metadata": {"name": name}, "spec": {"cidr": cidr}}
            try:
                await self._client.create(WRITTEN_BY_PEOPLE[POOLS].path(), body)
            except ApiError as error:
                _log.error("default pool %s could not be made; make it by kubectl apply: %s", cidr, error)
