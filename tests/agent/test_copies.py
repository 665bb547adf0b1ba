"""Copies of BIRD's routes: which rule lets them go, and what the kernel has of them."""

import asyncio
import errno
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from pyroute2 import netns

from tests.agent.namespaces import connect, namespaces, needs_root, run
from tests.agent.packets import inside
from tests.kube.watching import eventually
from tortie.addressing.allocator import address
from tortie.addressing.ranges import Range, parse
from tortie.agent import copies, forwarding
from tortie.agent.bird import Bird
from tortie.agent.copies import PATIENCE, STEADY, Copies, Steadiness
from tortie.agent.forwarding import Route
from tortie.agent.netlink import Netlink

POOL, BLOCK, OTHER, EVERY = map(parse, ("10.0.0.0/16", "10.0.0.64/26", "10.0.0.128/26", "0.0.0.0/0"))
THERE = {BLOCK: Route(BLOCK, address("192.0.2.2"))}
NEVER: list[Range] = []


def begun() -> Steadiness:
    """BIRD has ended at 100, and isn't settled."""
    one = Steadiness(0.0)
    one.begin(100.0)
    assert one.over(100.0, [BLOCK], {}) == NEVER
    return one


def test_a_copy_goes_when_bird_s_route_is_steady() -> None:
    one = begun()
    assert one.over(104.0, [BLOCK], THERE) == NEVER
    assert one.over(104.0 + STEADY - 0.1, [BLOCK], THERE) == NEVER
    assert one.over(104.0 + STEADY, [BLOCK], THERE) == [BLOCK]


def test_another_way_is_another_route() -> None:
    one = begun()
    one.over(104.0, [BLOCK], THERE)
    assert one.over(104.0 + STEADY, [BLOCK], {BLOCK: Route(BLOCK, address("192.0.2.3"))}) == NEVER


def test_a_bird_that_isn_t_settled_any_more_begins_anew() -> None:
    one = begun()
    one.over(104.0, [BLOCK], THERE)
    one.over(105.0, [BLOCK], {})
    assert one.over(104.0 + STEADY, [BLOCK], THERE) == NEVER
    assert one.over(104.0 + 2 * STEADY, [BLOCK], THERE) == [BLOCK]


def test_a_copy_is_the_only_way_until_patience_ends() -> None:
    one = begun()
    assert one.over(100.0 + 2 * STEADY, [BLOCK], {}) == NEVER
    assert one.over(100.0 + PATIENCE - 0.1, [BLOCK], {}) == NEVER
    assert one.over(100.0 + PATIENCE, [BLOCK], {}) == [BLOCK], "the node is dead, or BIRD can't reach it"


@pytest.mark.parametrize(
    ("to", "copied", "goes"),
    [
        pytest.param(POOL, BLOCK, True, id="a range that the block lies in"),
        pytest.param(EVERY, BLOCK, False, id="the default route leads anywhere"),
        pytest.param(EVERY, EVERY, True, id="the default route's own copy"),
    ],
)
def test_what_else_leads_there(to: Range, copied: Range, goes: bool) -> None:
    one, routes = begun(), {to: Route(to, address("192.0.2.9"))}
    one.over(110.0, [copied], routes)
    assert one.over(110.0 + STEADY, [copied], routes) == ([copied] if goes else NEVER)


def test_a_route_that_never_is_steady_keeps_no_other_s_copy() -> None:
    one, now, both = begun(), 100.0, [BLOCK, OTHER]
    while now < 100.0 + PATIENCE:
        routes = THERE if now % 2 else THERE | {OTHER: Route(OTHER, address("192.0.2.2"))}
        assert one.over(now, both, routes) == ([BLOCK] if now >= 100.0 + STEADY else NEVER)
        now += 1
    assert one.over(now, both, {}) == both


def test_a_bird_that_ends_again_begins_anew() -> None:
    one = begun()
    one.begin(150.0)
    assert one.over(100.0 + PATIENCE, [BLOCK], {}) == NEVER
    assert one.over(150.0 + PATIENCE, [BLOCK], {}) == [BLOCK]


def test_where_something_else_leads_they_go_at_once() -> None:
    one = begun()
    one.end()
    assert one.over(100.0, [BLOCK], {}) == [BLOCK]


# --- in the kernel


BIRDS = ["proto", "bird", "metric", "768"]


@pytest.fixture
def node() -> Iterator[str]:
    """A namespace with routes of BIRD's, two of the agent's own, and one of another BIRD."""
    with namespaces(1) as (path,):
        connect(path)
        run(["ip", "route", "add", "10.0.0.64/26", "via", "192.0.2.2", *BIRDS], path)
        run(["ip", "route", "add", "fd00::40/122", "via", "2001:db8::2", *BIRDS], path)
        run(["ip", "route", "add", "fd00::80/122", "via", "fe80::2", "dev", "eth0", *BIRDS], path)
        run(["ip", "route", "add", "10.9.0.0/26", "via", "192.0.2.2", "proto", "bird", "metric", "32"], path)
        run(["ip", "route", "add", "10.0.0.128/26", "via", "192.0.2.3", "proto", "201"], path)
        run(["ip", "route", "add", "fd00::c0/122", "via", "2001:db8::3", "proto", "201", "metric", "512"], path)
        yield path


def copied(path: str) -> set[str]:
    return {str(one) for one in inside(path, forwarding.copies).values()}


def copy(path: str, *, anew: bool = True) -> dict[Route, str]:
    return inside(path, lambda: forwarding.copy_birds(anew=anew))


def remove(path: str) -> None:
    inside(path, lambda: forwarding.remove_copies(forwarding.copies().values()))


COPIED = {"10.0.0.64/26 via 192.0.2.2", "fd00::40/122 via 2001:db8::2", "fd00::80/122 via fe80::2"}


@needs_root
def test_bird_s_routes_are_copied_and_nothing_else_is_touched(node: str) -> None:
    before, own = inside(node, forwarding.of_bird), set(inside(node, forwarding.routes))
    assert copy(node) == {}
    assert copied(node) == COPIED, "none of another BIRD's"
    assert set(inside(node, forwarding.routes)) == own, "copies are no routes that something is looked for"
    assert inside(node, forwarding.of_bird) == before
    for block in ("10.0.0.65", "fd00::41", "fd00::81"):
        assert "proto 201" in run(["ip", "-o", "route", "get", "fibmatch", block], node), "the copy leads"
    remove(node)
    assert copied(node) == set()
    assert inside(node, forwarding.of_bird) == before
    assert set(inside(node, forwarding.routes)) == own


@needs_root
def test_a_next_hop_that_only_its_link_leads_to(node: str) -> None:
    run(["ip", "route", "add", "10.0.1.0/26", "via", "198.51.100.1", "dev", "eth0", "onlink", *BIRDS], node)
    assert copy(node) == {}
    assert "10.0.1.0/26 via 198.51.100.1 dev eth0 proto 201 metric 767 onlink" in " ".join(run(["ip", "route"], node).split())
    remove(node)
    assert copied(node) == set()


@needs_root
@pytest.mark.parametrize(("anew", "via"), [(True, "192.0.2.254"), (False, "192.0.2.2")])
def test_what_has_a_copy_already(node: str, anew: bool, via: str) -> None:
    copy(node)
    run(["ip", "route", "change", "10.0.0.64/26", "via", "192.0.2.254", *BIRDS], node)
    run(["ip", "route", "del", "fd00::40/122", "proto", "bird"], node)
    copy(node, anew=anew)
    assert copied(node) == COPIED - {"10.0.0.64/26 via 192.0.2.2"} | {f"10.0.0.64/26 via {via}"}


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
    one, settled, asked = Copies(), [False], list[bool]()

    async def is_settled() -> bool:
        asked.append(True)
        return settled[0]

    one.is_settled = is_settled
    if left_by == "this agent":
        assert await one.make()
    else:
        copy(within)
    task = asyncio.create_task(one.run())
    await eventually(lambda: asked, "it looks")
    assert copied(within) == COPIED, "they stay while BIRD isn't settled"
    settled[0] = True
    await eventually(lambda: copied(within) == set(), "they go")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@needs_root
async def test_none_is_removed_by_what_was_decided_before_it_was_made(within: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """BIRD ends at the moment when the last copies are about to go."""
    one, removing, go, real = Copies(), threading.Event(), threading.Event(), forwarding.remove_copies

    def remove_copies(some: Iterable[Route]) -> None:
        removing.set()
        assert go.wait(60)
        real(some)

    await one.make()
    one.give_up()
    monkeypatch.setattr(forwarding, "remove_copies", remove_copies)
    looks = asyncio.create_task(one._settle())
    await eventually(removing.is_set, "copies are about to go")
    makes = asyncio.create_task(one.make())
    await eventually(lambda: one._lock._waiters or makes.done(), "it waits, or has made them in the midst")
    go.set()
    await asyncio.gather(looks, makes)
    assert copied(within) == COPIED


@needs_root
async def test_what_the_kernel_refuses_is_said(
    within: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = Copies()
    assert inside(within, forwarding.of_bird)
    monkeypatch.setattr(Netlink, "tell", lambda _self, parts: {0: errno.ENETUNREACH} if parts else {})
    assert await one.make()
    assert (
        "can't be copied: 10.0.0.64/26 via 192.0.2.2: Network is unreachable; packets to other nodes may be lost" in caplog.text
    )


async def test_a_kernel_that_doesn_t_answer_is_said_and_asked_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one, looks = Copies(), list[bool]()

    def fails(**_: bool) -> dict[Route, str]:
        looks.append(True)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(copies, "LOOK", 0.0)
    monkeypatch.setattr(forwarding, "copy_birds", fails)
    monkeypatch.setattr(forwarding, "copies", fails)
    assert await one.make(), "what there may be is to stay"
    assert "Too many open files" in caplog.text
    task = asyncio.create_task(one.run())
    await eventually(lambda: len(looks) > 2, "it looks again")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
