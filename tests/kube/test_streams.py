"""Streams run while somebody wants them, and no longer."""

import asyncio
from typing import Any, cast

import pytest

from tests.kube.watching import eventually
from tortie.kube.stream import Stream
from tortie.kube.streams import Streams


class Counted:
    """In place of a stream: whether it runs."""

    def __init__(self) -> None:
        self.runs, self.times, self.fails = False, 0, asyncio.Event()

    async def run(self) -> None:
        self.runs, self.times = True, self.times + 1
        try:
            await self.fails.wait()
            raise ValueError("a mistake of ours")
        finally:
            self.runs = False


class Made:
    def __init__(self) -> None:
        self.all: dict[str, Counted] = {}
        self.streams = Streams(self._make)

    def _make(self, name: str) -> Stream[Any]:
        self.all[name] = Counted()
        return cast("Stream[Any]", self.all[name])

    def running(self) -> set[str]:
        return {name for name, one in self.all.items() if one.runs}


async def test_those_that_are_wanted_run_and_no_others() -> None:
    made = Made()
    task = asyncio.create_task(made.streams.run())
    for wanted in ({"a", "b"}, {"b", "c"}, set(), {"a"}):
        made.streams.want(wanted)
        await eventually(lambda wanted=wanted: made.running() == wanted)  # type: ignore[misc]
    assert made.all["b"].times == 1, "what stays wanted goes on"
    first = made.all["a"]
    made.streams.want({"a"})
    assert made.all["a"] is first
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert made.running() == set()


async def test_what_a_stream_raises_is_raised() -> None:
    made = Made()
    made.streams.want({"a", "b"})
    task = asyncio.create_task(made.streams.run())
    await eventually(lambda: made.running() == {"a", "b"})
    made.all["a"].fails.set()
    with pytest.raises(ValueError, match="a mistake of ours"):
        await task
    assert made.running() == set()
