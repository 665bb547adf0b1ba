"""Streams that run only while somebody wants them.

Belongs here: starting and ending them. Does not: what they read (`tortie.kube.stream`).
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from tortie.kube.stream import Stream


class Streams:
    """Streams by name, each made by `make(name)` when it is wanted, and forgotten with its store when it isn't."""

    def __init__(self, make: Callable[[str], Stream[Any]]) -> None:
        self.named: dict[str, Stream[Any]] = {}
        self._make = make
        self._news = asyncio.Event()

    def want(self, names: Iterable[str]) -> None:
        """Have these run, and no others."""
        wanted = set(names)
        if wanted != self.named.keys():
            self.named = {name: self.named.get(name) or self._make(name) for name in sorted(wanted)}
            self._news.set()

    async def run(self) -> None:
        """Serve until cancelled, or until a stream raises."""
        tasks = dict[Stream[Any], asyncio.Task[None]]()
        try:
            while True:
                self._news.clear()
                for stream in tasks.keys() - set(self.named.values()):
                    tasks.pop(stream).cancel()
                tasks |= {stream: asyncio.create_task(stream.run()) for stream in self.named.values() if stream not in tasks}
                news = asyncio.create_task(self._news.wait())
                try:
                    done, _ = await asyncio.wait([*tasks.values(), news], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    news.cancel()
                for task in done - {news}:
                    task.result()
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
