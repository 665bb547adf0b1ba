"""The node's own blocks, followed by name: as NodeNetwork lists them, and as the ledger remembers them.

Each is watched by its name, which the API server indexes: 5,000 agents that watched all blocks would be told of each one
5,000 times.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from tortie.addressing.allocator import OwnBlock
from tortie.agent import translate
from tortie.agent.journal import NotDurable
from tortie.agent.ledger import Ledger
from tortie.api import lean
from tortie.api.meta import GROUP, VERSION
from tortie.kube.client import Client
from tortie.kube.resource import Resource
from tortie.kube.stream import Stream

_log = logging.getLogger(__name__)

BLOCKS = Resource(GROUP, VERSION, "ipamblocks")
# Seconds until what could not be recorded is tried again.
RETRY = 1.0


class OwnBlocks:
    """Brings blocks into the ledger and takes them out. `on_change` is told of each, when the ledger has it."""

    def __init__(self, client: Client, node: str, ledger: Ledger, on_change: Callable[[OwnBlock], None]) -> None:
        self._client, self._node, self._ledger, self._on_change = client, node, ledger, on_change
        self._listed: frozenset[str] = frozenset()
        self._followed: dict[str, asyncio.Task[None]] = {}
        self._confirmed: set[str] = set()  # seen since we run, not only remembered
        self._queue: asyncio.Queue[tuple[str, lean.Block | None]] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._changed.set()

    def list(self, names: Iterable[str]) -> None:
        """Take the names that the node's NodeNetwork lists now."""
        self._listed = frozenset(names)
        self._changed.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._apply_all())
            while True:
                await self._changed.wait()
                self._changed.clear()
                wanted = self._listed | {block.name for block in self._ledger.allocator.blocks}
                for name in wanted - self._followed.keys():
                    self._followed[name] = tasks.create_task(self._follow(name))
                for name in self._followed.keys() - wanted:
                    self._followed.pop(name).cancel()

    async def _follow(self, name: str) -> None:
        def pass_on(_old: lean.Block | None, new: lean.Block | None) -> None:
            self._queue.put_nowait((name, new))

        stream = Stream(self._client, BLOCKS.path(), lean.Block, pass_on, field_selector=f"metadata.name={name}")
        running = asyncio.create_task(stream.run())
        try:
            await stream.synced.wait()
            if name not in stream.store:  # it went while nobody looked
                self._queue.put_nowait((name, None))
            await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _apply_all(self) -> None:
        while True:
            name, seen = await self._queue.get()
            while True:
                try:
                    await self._apply(name, seen)
                    break
                except NotDurable as error:
                    _log.error("IPAMBlock %s: %s; trying again", name, error)
                    await asyncio.sleep(RETRY)
                except ValueError as error:
                    _log.error("IPAMBlock %s: spec: %s; no pod gets an address of it", name, error)
                    break

    async def _apply(self, name: str, seen: lean.Block | None) -> None:
        known = next((block for block in self._ledger.allocator.blocks if block.name == name), None)
        if seen is not None and seen.spec.affinity.node == self._node:
            block = translate.own_block(seen, self._ledger.epoch)
            if block == known and name in self._confirmed:
                return  # its status changed: we did that
            await self._ledger.put_block(block)
            self._confirmed.add(name)
            if known is None:
                _log.info("IPAMBlock %s of IPPool %s: this node owns it", name, block.pool)
            self._on_change(block)
        elif known is not None:
            await self._ledger.drop_block(known)
            self._confirmed.discard(name)
            _log.info("IPAMBlock %s: this node owns it no more", name)
            self._on_change(known)
        self._changed.set()
