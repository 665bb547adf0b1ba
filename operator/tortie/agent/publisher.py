"""What the ledger holds, said in IPAMBlock.status: one write per block and interval, however many pods came."""

import asyncio
import logging
from collections.abc import Hashable
from types import TracebackType
from typing import Self

from tortie.addressing.allocator import Address
from tortie.agent import translate
from tortie.agent.blocks import BLOCKS
from tortie.agent.ledger import Ledger
from tortie.kube.client import ApiError, Client
from tortie.kube.errors import NotFound
from tortie.kube.writer import Writer

_log = logging.getLogger(__name__)

# Seconds between two writes of one block.
INTERVAL = 0.1


class Publisher:
    """Use it as `async with`. What changes is marked; a mark is kept until the API server has it, however long that takes."""

    def __init__(self, client: Client, ledger: Ledger) -> None:
        self._client, self._ledger = client, ledger
        self._writer = Writer(lambda: True, self._done)
        self._due: dict[str, asyncio.TimerHandle] = {}
        self._ripe: dict[str, asyncio.TimerHandle] = {}
        self._dirty: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for timer in (*self._due.values(), *self._ripe.values()):
            timer.cancel()
        await self._writer.close()

    def mark_address(self, changed: Address) -> None:
        """Note that an address came into use or out of it."""
        block = self._ledger.allocator.block_of(changed)
        if block is not None:
            self.mark(block.name)

    def mark(self, name: str) -> None:
        """Note that a block's status is another now."""
        self._dirty.add(name)
        if name not in self._due:
            self._submit(name)

    def _submit(self, name: str) -> None:
        self._due.pop(name, None)
        if name in self._dirty:
            self._dirty.discard(name)
            self._due[name] = asyncio.get_running_loop().call_later(INTERVAL, self._submit, name)
            self._writer.submit(name, lambda: self._write(name))

    async def _write(self, name: str) -> None:
        ledger = self._ledger
        block = next((b for b in ledger.allocator.blocks if b.name == name), None)
        if block is None:
            return
        ceded = await ledger.cede(block)
        sequence = ledger.sequence
        status = translate.block_status(ledger.epoch, sequence, ledger.entries_in(block.range), ledger.free(name), ceded)
        await self._client.patch(BLOCKS.path(name, subresource="status"), {"status": status})
        ledger.published(name, sequence)
        self._look_again(name)

    def _look_again(self, name: str) -> None:
        """Say it when resting addresses can go out again: that changes what is free, and nothing else tells."""
        rests = self._ledger.seconds_to_rest()
        if name in self._ripe:
            self._ripe.pop(name).cancel()
        if rests is not None:
            self._ripe[name] = asyncio.get_running_loop().call_later(rests + INTERVAL, self.mark, name)

    def _done(self, key: Hashable, error: ApiError | None) -> None:
        if error is None or isinstance(error, NotFound):  # a block that is gone needs no status
            return
        if not error.retryable:
            _log.error("IPAMBlock %s: its status can't be written: %s; trying again", key, error)
        self._writer.submit(key, lambda: self._write(str(key)))
