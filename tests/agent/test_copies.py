"""Copies of BIRD's routes: which rule lets them go, and what the kernel has of them."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import netns

from tests.agent.namespaces import namespaces, needs_root, run
from tests.agent.packets import inside
from tests.kube.watching import eventually
from tortie.addressing.allocator import address
from tortie.addressing.ranges import parse
from tortie.agent import copies, forwarding
from tortie.agent.bird import Bird
from tortie.agent.copies import PATIENCE, STEADY, Copies, Steadiness
from tortie.agent.forwarding import Route

POOL, BLOCK, EVERY = parse("10.0.0.0/16"), parse("10.0.0.64/26"), parse("0.0.0.0/0")
THERE = {BLOCK: Route(BLOCK, address("192.0.2.2"))}
NEVER: list[object] = []


def begun() -> Steadiness:
    """BIRD has ended at 100, and its routes are unchanged."""
    one = Steadiness(0.0)
    one.begin(100.0)
    assert one.over(100.0, [BLOCK], THERE, is_settled=False) == NEVER
    return one


def test_a_copy_goes_when_bird_s_routes_are_steady() -> None:
    one = begun()
    assert one.over(102.0, [BLOCK], {}, is_settled=True) == NEVER
    assert one.over(104.0, [BLOCK], THERE, is_settled=True) == NEVER
    assert one.over(104.0 + STEADY - 0.1, [BLOCK], THERE, is_settled=True) == NEVER
    assert one.over(104.0 + STEADY, [BLOCK], THERE, is_settled=True) == [BLOCK]


def test_a_copy_stays_while_bird_recovers_or_was_not_told_all() -> None:
    one = begun()
    assert one.over(101.0 + STEADY, [BLOCK], THERE, is_settled=False) == NEVER
    assert one.over(101.0 + 2 * STEADY - 0.1, [BLOCK], THERE, is_settled=True) == NEVER, "steady since it is settled"
    assert one.over(101.0 + 2 * STEADY, [BLOCK], THERE, is_settled=True) == [BLOCK]


def test_a_copy_is_the_only_way_until_patience_ends() -> None:
    one = begun()
    assert one.over(100.0 + 2 * STEADY, [BLOCK], {}, is_settled=True) == NEVER
    assert one.over(100.0 + PATIENCE - 0.1, [BLOCK], {}, is_settled=True) == NEVER
    assert one.over(100.0 + PATIENCE, [BLOCK], {}, is_settled=True) == [BLOCK], "the node is dead, or BIRD can't reach it"


def test_a_route_to_more_than_the_block_leads_there_too_but_the_default_route_doesn_t() -> None:
    one = begun()
    for routes, gone in (
        ({POOL: Route(POOL, address("192.0.2.9"))}, [BLOCK]),
        ({EVERY: Route(EVERY, address("192.0.2.9"))}, NEVER),
    ):
        one.over(110.0, [BLOCK], routes, is_settled=True)
        assert one.over(110.0 + STEADY, [BLOCK], routes, is_settled=True) == gone


def test_the_default_route_s_own_copy_goes_as_others_do() -> None:
    one, routes = begun(), {EVERY: Route(EVERY, address("192.0.2.9"))}
    one.over(110.0, [EVERY], routes, is_settled=True)
    assert one.over(110.0 + STEADY, [EVERY], routes, is_settled=True) == [EVERY]


def test_routes_that_never_are_steady_hold_nothing_up() -> None:
    one, now = begun(), 100.0
    while now < 100.0 + PATIENCE:
        assert one.over(now, [BLOCK], {} if now % 2 else THERE, is_settled=True) == NEVER
        now += 1
    assert one.over(now, [BLOCK], {}, is_settled=True) == [BLOCK]


def test_a_bird_that_ends_again_begins_anew() -> None:
    one = begun()
    one.begin(150.0)
    assert one.over(100.0 + PATIENCE, [BLOCK], {}, is_settled=False) == NEVER
    assert one.over(150.0 + PATIENCE, [BLOCK], {}, is_settled=False) == [BLOCK]


def test_where_something_else_leads_they_go_at_once() -> None:
    one = begun()
    one.end()
    assert one.over(100.0, [BLOCK], {}, is_settled=False) == [BLOCK]


# --- in the kernel


@pytest.fixture
def node() -> Iterator[str]:
    """A namespace with routes of BIRD's, two of the agent's own, and one of another BIRD."""
    with namespaces(1) as (path,):
        run(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far"], path)
        run(["ip", "addr", "add", "192.0.2.1/24", "dev", "eth0"], path)
        run(["ip", "addr", "add", "2001:db8::1/64", "dev", "eth0", "nodad"], path)
        for link in ("eth0", "far"):
            run(["ip", "link", "set", link, "up"], path)
        bird = ["proto", "bird", "metric", "768"]
        run(["ip", "route", "add", "10.0.0.64/26", "via", "192.0.2.2", *bird], path)
        run(["ip", "route", "add", "fd00::40/122", "via", "2001:db8::2", *bird], path)
        run(["ip", "route", "add", "fd00::80/122", "via", "fe80::2", "dev", "eth0", *bird], path)
        run(["ip", "route", "add", "10.9.0.0/26", "via", "192.0.2.2", "proto", "bird", "metric", "32"], path)
        run(["ip", "route", "add", "10.0.0.128/26", "via", "192.0.2.3", "proto", "201"], path)
        run(["ip", "route", "add", "fd00::c0/122", "via", "2001:db8::3", "proto", "201", "metric", "512"], path)
        yield path


def copied(path: str) -> set[str]:
    return {str(one) for one in inside(path, forwarding.copies).values()}


COPIED = {"10.0.0.64/26 via 192.0.2.2", "fd00::40/122 via 2001:db8::2"}


@needs_root
def test_bird_s_routes_are_copied_and_nothing_else_is_touched(node: str) -> None:
    before, own = inside(node, forwarding.of_bird), set(inside(node, forwarding.routes))
    assert inside(node, forwarding.copy_birds)
    assert copied(node) == COPIED, "none of another BIRD's, and none that is its link's"
    assert set(inside(node, forwarding.routes)) == own, "copies are no routes that something is looked for"
    assert inside(node, forwarding.of_bird) == before
    for block in ("10.0.0.65", "fd00::41"):
        assert "proto 201" in run(["ip", "-o", "route", "get", "fibmatch", block], node), "the copy leads"
    inside(node, lambda: forwarding.remove_copies(forwarding.copies().values()))
    assert copied(node) == set()
    assert inside(node, forwarding.of_bird) == before
    assert set(inside(node, forwarding.routes)) == own


@needs_root
def test_what_has_a_copy_keeps_it_also_when_bird_has_taken_its_route_back(node: str) -> None:
    inside(node, forwarding.copy_birds)
    run(["ip", "route", "change", "10.0.0.64/26", "via", "192.0.2.254", "proto", "bird", "metric", "768"], node)
    run(["ip", "route", "del", "fd00::40/122", "proto", "bird"], node)
    assert inside(node, forwarding.copy_birds)
    assert copied(node) == COPIED
    inside(node, forwarding.remove_birds)
    assert inside(node, forwarding.copy_birds), "copies are left"
    inside(node, lambda: forwarding.remove_copies(forwarding.copies().values()))
    assert not inside(node, forwarding.copy_birds), "nothing is"


@pytest.fixture
def within(node: str) -> Iterator[str]:
    """The namespace, with the test in it: programs and threads that it starts are there too."""
    with Path("/proc/thread-self/ns/net").open() as own:
        netns.setns(node)
        try:
            yield node
        finally:
            netns.setns(own.fileno())


# It has no peer, as one whose peers all start anew.
LONELY = """router id 192.0.2.1;
graceful restart wait 30;
protocol device {}
protocol kernel { scan time 1; persist; graceful restart; metric 768; ipv4 { export all; }; }
protocol kernel { scan time 1; persist; graceful restart; metric 768; ipv6 { export all; }; }
"""


@needs_root
@pytest.mark.skipif(not shutil.which("bird"), reason="BIRD isn't installed: apt-get install bird2")
async def test_a_bird_that_nobody_tells_its_routes_takes_them_back_and_copies_lead(within: str, tmp_path: Path) -> None:
    one = Copies()
    bird = Bird(tmp_path, one.make)
    bird.want(LONELY)
    task = asyncio.create_task(bird.run())
    await eventually(lambda: not inside(within, forwarding.of_bird), "it takes them back, though it was to keep them")
    assert copied(within) == COPIED
    assert "proto 201" in run(["ip", "-o", "route", "get", "fibmatch", "10.0.0.65"], within)
    assert not await bird.is_recovering()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@needs_root
@pytest.mark.parametrize("left_by", ["this agent", "the one before, without an API server"])
async def test_copies_leave_by_themselves(within: str, left_by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """BIRD's routes are steady soon."""
    monkeypatch.setattr(copies, "STEADY", 0.01)
    monkeypatch.setattr(copies, "LOOK", 0.01)
    one, settled = Copies(), [False]

    async def is_settled() -> bool:
        return settled[0]

    one.is_settled = is_settled
    if left_by == "this agent":
        assert await one.make()
    else:
        inside(within, forwarding.copy_birds)
    task = asyncio.create_task(one.run())
    run(["ip", "route", "add", "10.0.0.192/26", "via", "192.0.2.2", "proto", "bird", "metric", "768"], within)
    await eventually(lambda: len(copied(within)) == 3, "what came later is copied as well, while BIRD isn't settled")
    settled[0] = True
    await eventually(lambda: copied(within) == set(), "they go")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
