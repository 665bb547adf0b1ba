"""When BIRD is told of a change, and how long copies of its routes stay."""

from tortie.addressing.allocator import address
from tortie.addressing.ranges import parse
from tortie.agent.forwarding import Route
from tortie.agent.notice import NOTICE, PATIENCE, STEADY, Notice

BLOCK = parse("10.0.0.64/26")
THERE = {BLOCK: Route(BLOCK, address("192.0.2.2"))}


def test_what_ends_no_session_is_told_at_once() -> None:
    notice = Notice()
    assert notice.is_over(100.0, disturbs=False)
    assert not notice.holds
    assert not notice.is_given


def test_what_ends_sessions_is_told_when_all_have_copies() -> None:
    notice = Notice()
    assert not notice.is_over(100.0, disturbs=True)
    assert notice.holds, "from the first moment"
    assert not notice.is_over(100.0 + NOTICE - 0.1, disturbs=True)
    assert notice.is_over(100.0 + NOTICE, disturbs=True)
    assert notice.holds, "the routes aren't back yet"


def begun() -> Notice:
    notice = Notice()
    notice.is_over(100.0, disturbs=True)
    notice.settle(100.0, THERE, is_current=True)
    assert notice.is_over(100.0 + NOTICE, disturbs=True)
    notice.settle(100.0 + NOTICE, THERE, is_current=False)
    return notice


def test_copies_go_when_the_routes_are_steady() -> None:
    notice = begun()
    notice.settle(103.0, {}, is_current=True)
    notice.settle(104.0, THERE, is_current=True)
    notice.settle(104.0 + STEADY - 0.1, THERE, is_current=True)
    assert notice.holds
    notice.settle(104.0 + STEADY, THERE, is_current=True)
    assert not notice.holds


def test_copies_stay_while_bird_hasn_t_taken_what_it_was_told() -> None:
    notice = begun()
    notice.settle(103.0 + STEADY, THERE, is_current=False)
    assert notice.holds


def test_copies_go_in_the_end() -> None:
    notice, now = begun(), 100.0 + NOTICE
    while now < 100.0 + NOTICE + PATIENCE:
        assert notice.holds
        now += 1
        notice.settle(now, {} if now % 2 else THERE, is_current=True)
    assert not notice.holds


def test_a_change_that_is_taken_back_is_told_at_once() -> None:
    notice = Notice()
    notice.is_over(100.0, disturbs=True)
    assert notice.is_over(100.5, disturbs=False)
    assert not notice.is_given
    assert notice.holds, "others may have been told"


def test_a_second_change_has_a_notice_of_its_own() -> None:
    notice = begun()
    assert not notice.is_over(110.0, disturbs=True)
    notice.settle(110.0, THERE, is_current=True)
    notice.settle(110.0 + NOTICE - 0.1, THERE, is_current=True)
    assert notice.holds
