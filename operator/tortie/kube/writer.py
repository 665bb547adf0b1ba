"""Writes by key: the latest wins, one at a time for each key, few at once, and none while the gate is closed.

Belongs here: the order and the number of writes, and the pause after a failure.
Does not: what is written, or whether to write it again: the caller is told of a failure, decides anew from what is true
then, and submits that.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tortie.kube.backoff import Backoff, BackoffSettings
from tortie.kube.errors import ApiError, Defect, NotLeading

_log = logging.getLogger(__name__)

Write = Callable[[], Awaitable[object]]

# More doesn't make a small API server faster, and would crowd out others (API priority and fairness).
CONCURRENCY = 32


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """How a writer writes.

    Attributes:
        backoff: Pause of a key after its failures. Default 0.2 to 30 seconds; the server's own wish counts if longer.
        retry: Whether a write that failed for want of an answer is repeated as it is, unless a newer one was submitted
            meanwhile. Default no: what was right before an outage may be wrong after it.
    """

    backoff: BackoffSettings = field(default_factory=lambda: BackoffSettings(first=0.2, longest=30.0))
    retry: bool = False


@dataclass(slots=True)
class _Lane:
    """One key: what waits, whether something is under way, and the pause after a failure."""

    backoff: Backoff
    waiting: Write | None = None
    under_way: bool = False
    queued: bool = False
    pause: asyncio.TimerHandle | None = None

    @property
    def may_start(self) -> bool:
        return self.waiting is not None and not (self.under_way or self.queued or self.pause)

    @property
    def is_forgettable(self) -> bool:
        return self.waiting is None and not (self.under_way or self.pause or self.backoff.failures)


class Writer:
    """Executes what is submitted. Use it as `async with Writer(…)`, or `await close()`, so that nothing outlives it.

    Args:
        gate: Asked right before each write; when it says no, the write is dropped and reported as NotLeading.
        on_done: Told of the end of each try, with the error if it failed. A plain function; it may submit.
        concurrency: Writes under way at once. Default 32; at least 1.
        settings: Pauses and repetition.
    """

    def __init__(
        self,
        gate: Callable[[], bool],
        on_done: Callable[[Hashable, ApiError | None], None],
        concurrency: int = CONCURRENCY,
        *,
        settings: WriterSettings | None = None,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"nothing could ever be written @ concurrency={concurrency}; at least 1")
        self._gate = gate
        self._on_done = on_done
        self._concurrency = concurrency
        self._settings = settings or WriterSettings()
        self._lanes: dict[Hashable, _Lane] = {}
        self._queue: deque[Hashable] = deque()  # keys whose write may start as soon as there is room
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __len__(self) -> int:
        """Return how many writes wait or are under way."""
        return self._waiting + len(self._tasks)

    def busy(self, key: Hashable) -> bool:
        """Whether a write for `key` waits or is under way."""
        lane = self._lanes.get(key)
        return lane is not None and (lane.under_way or lane.waiting is not None)

    def submit(self, key: Hashable, write: Write) -> bool:
        """Let `write` be the next for `key`, in place of any that still waits; whether none is under way before it."""
        if self._closed:
            return False
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(Backoff(self._settings.backoff))
        is_next = not lane.under_way
        self._waiting += lane.waiting is None
        lane.waiting = write
        self._idle.clear()
        self._advance(key, lane)
        return is_next

    def withdraw(self, key: Hashable) -> None:
        """Forget what still waits for `key`; what is under way goes on."""
        lane = self._lanes.get(key)
        if lane and lane.waiting:
            self._take(lane)
            lane.queued = False
            self._forget(key, lane)

    async def drain(self) -> None:
        """Wait until nothing waits and nothing is under way."""
        await self._idle.wait()

    async def close(self) -> None:
        """Drop what waits, cancel what is under way, and wait for its end; submitting does nothing from now on."""
        self._closed = True
        for lane in self._lanes.values():
            if lane.pause:
                lane.pause.cancel()
        self._lanes.clear()
        self._queue.clear()
        self._waiting = 0
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._idle.set()

    def _advance(self, key: Hashable, lane: _Lane) -> None:
        if lane.may_start:
            lane.queued = True
            self._queue.append(key)
        while self._queue and len(self._tasks) < self._concurrency:
            self._start(self._queue.popleft())

    def _start(self, key: Hashable) -> None:
        lane = self._lanes.get(key)
        if lane is None or lane.waiting is None:
            return  # withdrawn; a lane made anew since then has its own place in the queue
        lane.queued, lane.under_way = False, True
        task = asyncio.create_task(self._run(key, lane, self._take(lane)))
        self._tasks.add(task)

    def _take(self, lane: _Lane) -> Write:
        write, lane.waiting = lane.waiting, None
        self._waiting -= 1
        assert write is not None
        return write

    async def _run(self, key: Hashable, lane: _Lane, write: Write) -> None:
        try:
            error = await self._try(key, write)
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.discard(task)
            lane.under_way = False
        if self._closed:
            return
        if error is None:
            lane.backoff.reset()
        else:
            self._rest(key, lane, error, write)
        self._report(key, error)
        self._advance(key, lane)
        self._forget(key, lane)

    async def _try(self, key: Hashable, write: Write) -> ApiError | None:
        if not self._gate():
            return NotLeading("another one leads now, so nothing was sent", str(key))
        try:
            await write()
        except ApiError as error:
            return error
        except Exception as error:  # a mistake in one write must not stop the others
            _log.exception("%s: the write is wrong; this is a mistake in the program", key)
            return Defect(repr(error), str(key))
        return None

    def _rest(self, key: Hashable, lane: _Lane, error: ApiError, write: Write) -> None:
        if self._settings.retry and error.retryable and lane.waiting is None:
            lane.waiting = write
            self._waiting += 1
        delay = max(lane.backoff.next(), error.retry_after)
        lane.pause = asyncio.get_running_loop().call_later(delay, self._rested, key, lane)

    def _rested(self, key: Hashable, lane: _Lane) -> None:
        lane.pause = None
        if lane.waiting is None:  # nobody asked again during the pause: the failures are forgotten
            lane.backoff.reset()
        self._advance(key, lane)
        self._forget(key, lane)

    def _report(self, key: Hashable, error: ApiError | None) -> None:
        try:
            self._on_done(key, error)
        except Exception:  # a mistake in the caller's bookkeeping must not stop the writes
            _log.exception("%s: on_done failed; this is a mistake in the program", key)

    def _forget(self, key: Hashable, lane: _Lane) -> None:
        if lane.is_forgettable and self._lanes.get(key) is lane:
            del self._lanes[key]
        if not self._waiting and not self._tasks:
            self._idle.set()
