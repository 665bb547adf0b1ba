"""When BIRD is told of a change."""

from tortie.agent.notice import NOTICE, Notice


def test_what_ends_no_session_is_told_at_once() -> None:
    notice = Notice()
    assert notice.is_over(100.0, disturbs=False)
    assert not notice.is_given


def test_what_ends_sessions_is_told_when_all_have_copies() -> None:
    notice = Notice()
    assert not notice.is_over(100.0, disturbs=True)
    assert notice.is_given
    assert not notice.is_over(100.0 + NOTICE - 0.1, disturbs=True)
    assert notice.is_over(100.0 + NOTICE, disturbs=True)
    assert not notice.is_given


def test_a_change_that_is_taken_back_is_told_at_once() -> None:
    notice = Notice()
    notice.is_over(100.0, disturbs=True)
    assert notice.is_over(100.5, disturbs=False)
    assert not notice.is_given


def test_a_second_change_has_a_notice_of_its_own() -> None:
    notice = Notice()
    notice.is_over(100.0, disturbs=True)
    assert notice.is_over(100.0 + NOTICE, disturbs=True)
    assert not notice.is_over(110.0, disturbs=True)
