"""The writer: coalescing, order, pauses, the gate, and a clean end."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kube.watching import eventually
from tortie.kube.backoff import BackoffSettings
from tortie.kube.errors import ApiError, Conflict, Defect, NotLeading, TooManyRequests, Unreachable
from tortie.kube.writer import Writer, WriterSettings

QUICK = WriterSettings(backoff=BackoffSettings(0.001, 0.01))


class Desk:
    """Writes that wait until they are let go, and a record of what happened."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.done: list[tuple[Hashable, ApiError | None]] = []
        self.open = True
        self.gates: dict[str, asyncio.Event] = {}
        self.on_done: Callable[[Hashable, ApiError | None], None] = lambda _key, _error: None

    def writer(self, concurrency: int = 32, settings: WriterSettings = QUICK) -> Writer:
        return Writer(lambda: self.open, self._done, concurrency, settings=settings)

    def held(self, name: str, *errors: ApiError | Exception) -> Callable[[], Awaitable[None]]:
        """Return a write that ends when `let(name)` is called, failing with one error at each try."""
        gate, left = self.gates.setdefault(name, asyncio.Event()), list(errors)

        async def write() -> None:
            self.began.append(name)
            await gate.wait()
            if left:
                raise left.pop(0)

        return write

    def let(self, *names: str) -> None:
        for name in names:
            self.gates.setdefault(name, asyncio.Event()).set()

    def _done(self, key: Hashable, error: ApiError | None) -> None:
        self.done.append((key, error))
        self.on_done(key, error)

    @property
    def errors(self) -> list[type[ApiError] | None]:
        return [type(error) if error else None for _, error in self.done]


def unreachable() -> Unreachable:
    return Unreachable("refused", "PUT /x")


async def test_coalescing_the_latest_waiting_write_wins() -> None:
    desk = Desk()
    async with desk.writer() as writer:
        assert writer.submit("a", desk.held("a1"))
        await eventually(lambda: desk.began == ["a1"])
        assert not writer.submit("a", desk.held("a2"))
        assert not writer.submit("a", desk.held("a3"))
        desk.let("a1", "a2", "a3")
        await writer.drain()
    assert desk.began == ["a1", "a3"]
    assert desk.done == [("a", None), ("a", None)]


async def test_one_write_per_key_is_under_way() -> None:
    desk = Desk()
    async with desk.writer() as writer:
        writer.submit("a", desk.held("a1"))
        await eventually(lambda: desk.began)
        writer.submit("a", desk.held("a2"))
        writer.submit("b", desk.held("b1"))
        await eventually(lambda: "b1" in desk.began)
        assert desk.began == ["a1", "b1"]
        assert writer.busy("a")
        desk.let("a1")
        await eventually(lambda: "a2" in desk.began)
        desk.let("a2", "b1")
        await writer.drain()
        assert not writer.busy("a")


async def test_concurrency_is_bounded_and_first_come_first_served() -> None:
    desk = Desk()
    async with desk.writer(concurrency=3) as writer:
        for number in range(10):
            writer.submit(number, desk.held(str(number)))
        await eventually(lambda: len(desk.began) == 3)
        assert len(writer) == 10
        for number in range(10):
            desk.let(str(number))
            begun = min(10, number + 4)
            await eventually(lambda begun=begun: len(desk.began) == begun)  # type: ignore[misc]
        await writer.drain()
    assert desk.began == [str(number) for number in range(10)]


async def test_a_failure_is_reported_and_not_repeated() -> None:
    desk = Desk()
    desk.let("a", "b")
    async with desk.writer() as writer:
        writer.submit("a", desk.held("a", unreachable()))
        writer.submit("b", desk.held("b", Conflict("changed", "PUT /b")))
        await writer.drain()
    assert desk.began == ["a", "b"]
    assert desk.errors == [Unreachable, Conflict]


async def test_what_is_submitted_after_a_failure_waits_out_the_pause() -> None:
    desk = Desk()
    desk.let("a1", "a2", "b")
    async with desk.writer(settings=WriterSettings(backoff=BackoffSettings(3600, 3600))) as writer:
        writer.submit("a", desk.held("a1", unreachable()))
        await writer.drain()
        assert writer.submit("a", desk.held("a2"))
        writer.submit("b", desk.held("b"))
        await eventually(lambda: "b" in desk.began)
        assert writer.busy("a")
        assert desk.began == ["a1", "b"]


async def test_backoff_grows_with_failures_and_ends_with_success() -> None:
    desk, pauses = Desk(), []
    desk.let("a")
    async with desk.writer(settings=WriterSettings(backoff=BackoffSettings(0.001, 1))) as writer:
        tries = [unreachable() for _ in range(5)]

        def again(key: Hashable, error: ApiError | None) -> None:
            lane = writer._lanes[key]
            pauses.append(lane.backoff.failures)
            if error:
                writer.submit(key, write)

        desk.on_done = again
        write = desk.held("a", *tries)
        writer.submit("a", write)
        await writer.drain()
        assert not writer._lanes
    assert pauses == [1, 2, 3, 4, 5, 0]


async def test_failures_nobody_cares_about_any_more_are_forgotten() -> None:
    desk = Desk()
    desk.let("a")
    async with desk.writer() as writer:
        writer.submit("a", desk.held("a", unreachable()))
        await eventually(lambda: desk.done and not writer._lanes)


async def test_the_servers_wish_for_time_counts() -> None:
    desk = Desk()
    desk.let("a")
    async with desk.writer() as writer:
        writer.submit("a", desk.held("a", TooManyRequests("busy", "PUT /a", retry_after=3600)))
        await writer.drain()
        pause = writer._lanes["a"].pause
        assert pause is not None
        assert pause.when() - asyncio.get_running_loop().time() > 3000


async def test_with_retry_want_of_an_answer_is_repeated_until_it_works() -> None:
    desk = Desk()
    desk.let("a")
    async with desk.writer(settings=WriterSettings(QUICK.backoff, retry=True)) as writer:
        writer.submit("a", desk.held("a", unreachable(), TooManyRequests("busy", "PUT /a")))
        await writer.drain()
    assert desk.errors == [Unreachable, TooManyRequests, None]


async def test_with_retry_a_conflict_is_reported_and_not_repeated() -> None:
    desk = Desk()
    desk.let("a")
    async with desk.writer(settings=WriterSettings(QUICK.backoff, retry=True)) as writer:
        writer.submit("a", desk.held("a", Conflict("changed", "PUT /a")))
        await writer.drain()
    assert desk.errors == [Conflict]


async def test_with_retry_a_newer_write_takes_the_place_of_the_failed_one() -> None:
    desk = Desk()
    async with desk.writer(settings=WriterSettings(QUICK.backoff, retry=True)) as writer:
        writer.submit("a", desk.held("a1", unreachable()))
        await eventually(lambda: desk.began)
        writer.submit("a", desk.held("a2"))
        desk.let("a1", "a2")
        await writer.drain()
    assert desk.began == ["a1", "a2"]


async def test_gate_is_asked_before_each_write() -> None:
    desk = Desk()
    desk.let("b")
    async with desk.writer(concurrency=1) as writer:
        writer.submit("a", desk.held("a"))
        writer.submit("b", desk.held("b"))
        await eventually(lambda: desk.began == ["a"])
        desk.open = False
        desk.let("a")
        await writer.drain()
    assert desk.began == ["a"]
    assert desk.errors == [None, NotLeading]


async def test_withdrawn_is_not_written() -> None:
    desk = Desk()
    desk.let("a2", "b")
    async with desk.writer(concurrency=1) as writer:
        writer.submit("a", desk.held("a1"))
        writer.submit("b", desk.held("b"))
        await eventually(lambda: desk.began)
        writer.submit("a", desk.held("a2"))
        writer.withdraw("a")
        writer.withdraw("b")
        writer.withdraw("nothing")
        desk.let("a1")
        await writer.drain()
        writer.submit("b", desk.held("b"))
        await writer.drain()
    assert desk.began == ["a1", "b"]


async def test_a_mistake_in_one_write_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    desk.let("a", "b")
    async with desk.writer() as writer:
        writer.submit("a", desk.held("a", ZeroDivisionError("oops")))
        writer.submit("b", desk.held("b"))
        await writer.drain()
    assert set(desk.errors) == {Defect, None}
    assert "this is a mistake in the program" in caplog.text


async def test_a_mistake_in_on_done_does_not_stop_the_writes(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    desk.let("a", "b")

    def fail(key: Hashable, _error: ApiError | None) -> None:
        if key == "a":
            raise ZeroDivisionError

    desk.on_done = fail
    async with desk.writer(concurrency=1) as writer:
        writer.submit("a", desk.held("a"))
        writer.submit("b", desk.held("b"))
        await writer.drain()
    assert desk.began == ["a", "b"]
    assert "on_done failed" in caplog.text


async def test_closing_cancels_what_is_under_way_and_drops_what_waits() -> None:
    desk, ended = Desk(), []

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    writer = desk.writer(concurrency=1)
    writer.submit("a", stubborn)
    writer.submit("b", desk.held("b"))
    await eventually(lambda: writer._tasks)
    await asyncio.sleep(0)
    await writer.close()
    assert ended == ["cancelled"]
    assert (desk.began, desk.done, len(writer)) == ([], [], 0)
    assert not writer.submit("c", desk.held("c"))
    await writer.drain()


def test_no_concurrency_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="nothing could ever be written @ concurrency=0"):
        Writer(lambda: True, lambda _key, _error: None, 0)


STEPS = st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=60)


@given(steps=STEPS, concurrency=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_ordering_per_key_whatever_is_submitted_and_fails(steps: list[tuple[int, bool]], concurrency: int) -> None:
    """The last submission of each key is written last, none overlaps another of its key, and no more are at once."""
    written: dict[int, list[int]] = {}
    under_way: list[int] = []

    async def scenario() -> None:
        tries = WriterSettings(BackoffSettings(0, 0), retry=True)
        async with Writer(lambda: True, lambda _key, _error: None, concurrency, settings=tries) as writer:
            for number, (key, fails) in enumerate(steps):
                writer.submit(key, _write(key, number, fails))
                if number % 3 == 0:
                    await asyncio.sleep(0)
            await writer.drain()
            assert len(writer) == 0

    def _write(key: int, number: int, fails: bool) -> Callable[[], Awaitable[None]]:
        left = [unreachable()] if fails else []

        async def write() -> None:
            assert key not in under_way
            under_way.append(key)
            assert len(under_way) <= concurrency
            await asyncio.sleep(0)
            under_way.remove(key)
            if left:
                raise left.pop()
            written.setdefault(key, []).append(number)

        return write

    asyncio.run(scenario())
    for key, numbers in written.items():
        assert numbers == sorted(numbers)
        assert numbers[-1] == max(number for number, (other, _) in enumerate(steps) if other == key)
    assert set(written) == {key for key, _ in steps}
