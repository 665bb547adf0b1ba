"""Who waits for news and is asked to end at the very moment when these come, ends."""

import asyncio
from typing import Any

import pytest

from tortie.agent.node import NodeWatch


class Idle(NodeWatch):
    """Finds nothing when it looks."""

    def __init__(self) -> None:
        nothing: Any = None
        super().__init__(nothing, "a", nothing, nothing, nothing, bgp=nothing)
        self.looks = 0
        for stream in (self._networks, self._nodes):
            stream.synced.set()
            stream.run = self._forever  # type: ignore[method-assign]

    async def _forever(self) -> None:
        await asyncio.get_running_loop().create_future()

    async def _detect(self) -> None:
        self.looks += 1

    async def _forward(self) -> None:
        """Find nothing."""

    async def _publish(self) -> None:
        """Find nothing."""

    def _is_awaiting(self) -> bool:
        return False


@pytest.mark.parametrize("turns", range(5))
async def test_news_come_so_many_turns_of_the_loop_before_the_end(turns: int) -> None:
    one = Idle()
    task = asyncio.create_task(one.run())
    while one.looks < 2:  # it has waited once
        await asyncio.sleep(0)
        one.wake()
    await asyncio.sleep(0)
    one.wake()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()
