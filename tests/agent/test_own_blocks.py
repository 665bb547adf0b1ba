"""What the node makes of its blocks as they are shown to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.kube.watching import eventually
from tortie.addressing.allocator import Address
from tortie.agent.blocks import OwnBlocks
from tortie.agent.ledger import InUse, Ledger


class Shelf:
    """An API server that shows one block, as often as it is told."""

    def __init__(self, spec: dict[str, Any], status: dict[str, Any]) -> None:
        pool, affinity = {"name": "pool", "uid": "u"}, {"node": "node", "uid": "n"}
        self.version, self.shown = 1, asyncio.Event()
        self.spec, self.status = {"pool": pool, "affinity": affinity, "active": True, **spec}, status

    def show(self) -> None:
        """Show it once more, as after a write of its status."""
        self.version += 1
        self.shown.set()

    @property
    def block(self) -> dict[str, Any]:
        meta = {"name": "block", "uid": "b", "resourceVersion": str(self.version)}
        return {"metadata": meta, "spec": self.spec, "status": self.status}

    async def list_page(self, _path: str, **_params: Any) -> bytes:
        return msgspec.json.encode({"metadata": {"resourceVersion": str(self.version)}, "items": [self.block]})

    @asynccontextmanager
    async def watch(self, _path: str, **_params: Any) -> AsyncIterator[AsyncIterator[bytes]]:
        yield self._chunks()

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            await self.shown.wait()
            self.shown.clear()
            yield msgspec.json.encode({"type": "MODIFIED", "object": self.block}) + b"\n"


class Seen:
    """The blocks of a node, and the leaks that it was asked to free."""

    def __init__(self, shelf: Shelf, ledger: Ledger) -> None:
        self.asked: list[Address] = []
        self.blocks = OwnBlocks(shelf, ledger, lambda _affinity: True, self._reclaim, lambda _block: None)  # type: ignore[arg-type]

    async def _reclaim(self, one: Address, _epoch: str, _sequence: int) -> None:
        self.asked.append(one)
        raise InUse("an interface uses it")


@asynccontextmanager
async def following(shelf: Shelf, ledger: Ledger) -> AsyncIterator[Seen]:
    seen = Seen(shelf, ledger)
    running = asyncio.create_task(seen.blocks.run())
    try:
        seen.blocks.list(["block"])
        await eventually(lambda: seen.blocks.are_known)
        yield seen
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    made = Ledger(tmp_path / "ledger.db")
    yield made
    await made.close()


async def test_what_may_rest_since_another_ledger_isn_t_given_up(ledger: Ledger) -> None:
    """It counts one address fewer than it offers: that one rests, and it may lie in the part that is asked back."""
    status = {"epoch": "lost", "sequence": 9, "allocations": [], "free": 3}
    async with following(Shelf({"cidr": "10.0.0.0/29", "cede": "10.0.0.4/30"}, status), ledger):
        (block,) = ledger.allocator.blocks
        assert await ledger.cede(block) is None


async def test_a_leak_that_is_in_use_isn_t_looked_at_whenever_the_block_is_written(ledger: Ledger) -> None:
    release = {"address": "10.0.0.1", "sequence": 1, "epoch": ledger.epoch, "reason": "its pod is gone"}
    shelf = Shelf({"cidr": "10.0.0.0/29", "releases": [release]}, {})
    async with following(shelf, ledger) as seen:
        for _ in range(3):
            shelf.show()
            await eventually(lambda: seen.blocks.version("block") == str(shelf.version))
        assert len(seen.asked) == seen.blocks.refused == 1
