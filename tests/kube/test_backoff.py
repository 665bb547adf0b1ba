"""Delays stay in their bounds, grow, and start anew."""

from hypothesis import given
from hypothesis import strategies as st

from tortie.kube.backoff import Backoff, BackoffSettings


@given(failures=st.integers(1, 200), chance=st.floats(0, 1), first=st.floats(0.001, 5), longest=st.floats(0.001, 60))
def test_backoff_bounds(failures: int, chance: float, first: float, longest: float) -> None:
    backoff = Backoff(BackoffSettings(first, longest), lambda: chance)
    delays = [backoff.next() for _ in range(failures)]
    assert delays == sorted(delays)
    assert all(min(first, longest) / 2 <= delay <= longest for delay in delays)
    assert delays[0] <= first


def test_delays_double_until_the_longest() -> None:
    backoff = Backoff(BackoffSettings(0.1, 1.0), lambda: 1.0)
    assert [round(backoff.next(), 3) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_after_success_the_delays_start_anew() -> None:
    backoff = Backoff(BackoffSettings(0.1, 10), lambda: 1.0)
    for _ in range(5):
        backoff.next()
    backoff.reset()
    assert backoff.next() == 0.1


def test_zero_means_at_once() -> None:
    backoff = Backoff(BackoffSettings(0, 10))
    assert [backoff.next() for _ in range(40)] == [0] * 40
