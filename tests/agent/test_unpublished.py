"""What the publisher says isn't published yet: a change that came while a write was under way, too."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.kube.watching import eventually
from tortie.addressing.allocator import OwnBlock
from tortie.addressing.ranges import parse
from tortie.agent.ledger import Ledger
from tortie.agent.publisher import Publisher
from tortie.kube.errors import NotFound, Unreachable

BLOCK = OwnBlock("block", parse("10.0.0.0/29"), "pool")


class Desk:
    """An API server whose patches wait to be let go, and fail as told."""

    def __init__(self) -> None:
        self.began, self.failures = 0, list[Exception]()
        self.gate = asyncio.Event()

    async def patch(self, _path: str, _body: Any) -> None:
        self.began += 1
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    made = Ledger(tmp_path / "ledger.db")
    await made.put_block(BLOCK)
    yield made
    await made.close()


async def test_a_change_during_a_write_is_not_published_by_it(ledger: Ledger) -> None:
    desk = Desk()
    async with Publisher(desk, ledger, lambda _name: "1") as publisher:  # type: ignore[arg-type]
        publisher.mark("block")
        await eventually(lambda: desk.began == 1)
        first = publisher.unpublished["block"]
        await eventually(lambda: publisher.unpublished["block"] > first)
        publisher.mark("block")
        desk.gate.set()
        desk.gate = asyncio.Event()
        await eventually(lambda: desk.began == 2)
        assert "block" in publisher.unpublished
        desk.gate.set()
        await eventually(lambda: not publisher.unpublished)


async def test_a_write_that_failed_leaves_the_change_as_old_as_it_is(ledger: Ledger) -> None:
    desk = Desk()
    desk.gate.set()
    desk.failures = [Unreachable("away", "PATCH /x")] * 2
    async with Publisher(desk, ledger, lambda _name: "1") as publisher:  # type: ignore[arg-type]
        publisher.mark("block")
        await eventually(lambda: desk.began == 2)
        publisher.mark("block")
        assert publisher.unpublished["block"] > 0.09  # the writer's pause after a failure
        await eventually(lambda: not publisher.unpublished)


async def test_a_block_that_is_gone_needs_no_publication(ledger: Ledger) -> None:
    desk = Desk()
    desk.gate.set()
    desk.failures = [NotFound("gone", "PATCH /x")]
    async with Publisher(desk, ledger, lambda _name: "1") as publisher:  # type: ignore[arg-type]
        publisher.mark("block")
        publisher.mark("never-owned")
        await eventually(lambda: desk.began == 1 and not publisher.unpublished)


async def test_a_block_that_wasn_t_read_yet_isn_t_written(ledger: Ledger) -> None:
    """What stands there tells whether this ledger is an old one: overwritten, nobody would know."""
    desk, versions, asked = Desk(), ["", "1"], list[str]()
    desk.gate.set()

    def version(_name: str) -> str:
        asked.append(versions[min(len(asked), 1)])
        return asked[-1]

    async with Publisher(desk, ledger, version) as publisher:  # type: ignore[arg-type]
        publisher.mark("block")
        await eventually(lambda: asked == [""])
        assert (desk.began, list(publisher.unpublished)) == (0, ["block"])
        publisher.mark("block")  # as when it is read
        await eventually(lambda: not publisher.unpublished)
        assert desk.began == 1
