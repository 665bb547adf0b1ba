"""What the ledger holds, said in IPAMBlock.status: one write per block and interval, however many pods came."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Hashable, Mapping
from types import TracebackType
from typing import Self

from tortie.addressing.allocator import Address, OwnBlock
from tortie.addressing.ranges import Range
from tortie.agent import translate
from tortie.agent.blocks import BLOCKS
from tortie.agent.journal import NotDurable
from tortie.agent.ledger import Ledger
from tortie.kube.client import ApiError, Client
from tortie.kube.errors import Conflict, NotFound
from tortie.kube.writer import Writer

_log = logging.getLogger(__name__)

# Seconds between two writes of one block.
INTERVAL = 0.1


class Publisher:
    """Use it as `async with`. What changes is marked; a mark is kept until the API server has it, however long that takes.

    `version` returns the resource version of a block as it was seen last, "" before that.
    """

    def __init__(self, client: Client, ledger: Ledger, version: Callable[[str], str]) -> None:
        self._client, self._ledger, self._version = client, ledger, version
        self._writer = Writer(lambda: True, self._done)
        self._due: dict[str, asyncio.TimerHandle] = {}
        self._ripe: dict[str, asyncio.TimerHandle] = {}
        self._dirty: set[str] = set()
        self._marks: dict[str, tuple[float, float]] = {}  # by block, its first and last change that the API server hasn't

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for timer in (*self._due.values(), *self._ripe.values()):
            timer.cancel()
        await self._writer.close()

    @property
    def unpublished(self) -> Mapping[str, float]:
        """For how many seconds each block has had a change that the API server doesn't have."""
        now = time.monotonic()
        return {name: now - first for name, (first, _) in self._marks.items()}

    def mark_address(self, changed: Address) -> None:
        """Note that an address came into use or out of it."""
        block = self._ledger.allocator.block_of(changed)
        if block is not None:
            self.mark(block.name)

    def mark(self, name: str) -> None:
        """Note that a block's status is another now."""
        self._dirty.add(name)
        now = time.monotonic()
        self._marks[name] = self._marks.get(name, (now, now))[0], now
        if name not in self._due:
            self._submit(name)

    def _submit(self, name: str) -> None:
        self._due.pop(name, None)
        if name in self._dirty:
            self._dirty.discard(name)
            self._due[name] = asyncio.get_running_loop().call_later(INTERVAL, self._submit, name)
            self._writer.submit(name, lambda: self._write(name))

    async def _write(self, name: str) -> None:
        version = self._version(name)
        if not version:
            return  # what stands there tells whether our ledger is an old one: it is read first, and the block marked again
        ledger, began = self._ledger, time.monotonic()
        block = next((b for b in ledger.allocator.blocks if b.name == name), None)
        if block is None:
            self._marks.pop(name, None)
            return
        ripe = self._next_ripe()  # before this write, because a rest may end meanwhile
        # What is given up is an answer to the very question that was seen: the operator may have taken that back.
        ceded = await self._cede(block)
        sequence = ledger.sequence
        status = translate.block_status(ledger.epoch, sequence, ledger.entries_of(block), ledger.free(name), ceded)
        condition = {"metadata": {"resourceVersion": version}} if ceded else {}
        await self._client.patch(BLOCKS.path(name, subresource="status"), {"status": status, **condition})
        ledger.published(name, sequence)
        self._said(name, began)
        self._look_again(name, ripe)

    async def _cede(self, block: OwnBlock) -> Range | None:
        try:
            return await self._ledger.cede(block)
        except NotDurable as error:
            _log.error("IPAMBlock %s: %s can't be given back: %s", block.name, block.cede, error)
            return None

    def _said(self, name: str, began: float) -> None:
        """Forget the changes that came before a write began."""
        _, last = self._marks.pop(name, (began, began))
        if last > began:
            self._marks[name] = began, last

    def _next_ripe(self) -> float:
        """Return when the next resting address may go out, as monotonic seconds; infinity: none rests."""
        rests = self._ledger.seconds_to_rest()
        return math.inf if rests is None else time.monotonic() + rests

    def _look_again(self, name: str, ripe: float) -> None:
        """Say it when resting addresses can go out again, `ripe` or earlier: what is free, or given up, is more then."""
        ripe = min(ripe, self._next_ripe())
        if name in self._ripe:
            self._ripe.pop(name).cancel()
        if ripe < math.inf:
            delay = max(0.0, ripe - time.monotonic()) + INTERVAL
            self._ripe[name] = asyncio.get_running_loop().call_later(delay, self.mark, name)

    def _done(self, key: Hashable, error: ApiError | None) -> None:
        if isinstance(error, NotFound):  # a block that is gone needs no status
            self._marks.pop(str(key), None)
        if error is None or isinstance(error, NotFound):
            return
        if not error.retryable and not isinstance(error, Conflict):
            _log.error("IPAMBlock %s: its status can't be written: %s; trying again", key, error)
        self._writer.submit(key, lambda: self._write(str(key)))
