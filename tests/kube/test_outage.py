"""One line when a stream is lost, one when it is back."""

import pytest

from tortie.kube.errors import Forbidden, Unreachable
from tortie.kube.outage import Outage

REFUSED = Forbidden('User "a" cannot list resource "pods"', "GET /api/v1/pods")
AWAY = Unreachable("refused", "GET /api/v1/pods")


def test_an_outage_is_two_lines(caplog: pytest.LogCaptureFixture) -> None:
    now = iter([10.0, 11.0, 22.5])
    outage = Outage("/api/v1/pods", lambda: next(now))
    outage.lost(AWAY, "3 objects are known as of version 7")
    outage.lost(AWAY, "3 objects are known as of version 7")
    outage.back("resumed where it was")
    outage.back("resumed where it was")
    assert caplog.messages == [
        f"/api/v1/pods: stream lost: {AWAY}; trying again, 3 objects are known as of version 7",
        "/api/v1/pods: stream back after 12.5 s: resumed where it was",
    ]
    assert not any(record.exc_info for record in caplog.records)


def test_a_right_that_stays_missing_is_said_also_in_the_middle(caplog: pytest.LogCaptureFixture) -> None:
    now = iter([0.0, 1.0, 2.0, 11.0, 12.0])
    outage = Outage("/api/v1/pods", lambda: next(now))
    for error in (AWAY, REFUSED, AWAY, REFUSED, REFUSED):
        outage.lost(error, "")
    assert len(caplog.messages) == 2
    assert 'cannot list resource "pods"' in caplog.messages[1]
    assert "grant this right in the ClusterRole" in caplog.messages[1]


def test_a_server_that_starts_and_refuses_everybody_for_a_moment_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    now = iter([0.0, 1.0, 2.0])
    outage = Outage("/api/v1/pods", lambda: next(now))
    for error in (AWAY, REFUSED, REFUSED):
        outage.lost(error, "")
    assert len(caplog.messages) == 1


def test_a_right_that_is_missing_from_the_start_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    now = iter([0.0, 11.0, 12.0])
    outage = Outage("/api/v1/pods", lambda: next(now))
    for _ in range(3):
        outage.lost(REFUSED, "")
    assert len(caplog.messages) == 1


def test_without_an_outage_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    Outage("/api/v1/pods").back("listed")
    assert caplog.messages == []


def test_refused_is_what_an_api_server_refuses_for_longer_than_it_takes_to_start() -> None:
    now = [0.0]
    outage = Outage("/api/v1/secrets", lambda: now[0])
    outage.lost(AWAY, "")
    now[0] = 30.0
    assert not outage.is_refused, "it is away"
    outage.lost(REFUSED, "")
    assert not outage.is_refused
    now[0] = 41.0
    assert outage.is_refused
    outage.back("listed")
    assert not outage.is_refused
