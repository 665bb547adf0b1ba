"""What leads to a block that BGP carries: what was there before, until BIRD's route is."""

from tests.agent.test_forwarding import DEVICE, HERE, MAC, POOL, VXLAN_POOL, network
from tortie.addressing.allocator import address
from tortie.addressing.ranges import parse
from tortie.agent.forwarding import Entry, Neighbour, Route
from tortie.agent.reach import Reach, Terms
from tortie.agent.wire import VXLAN
from tortie.routing.carriage import Carried

BLOCK = parse("10.0.0.64/26")
DIRECT, BY_BGP = Terms(HERE, (Carried(POOL),)), Terms(HERE, (Carried(POOL),), bgp=True)
OURS, BIRDS = Route(BLOCK, address("192.0.2.2")), Route(BLOCK, address("192.0.2.254"), "eth0")


def reached() -> Reach:
    found = Reach()
    found.put("b", network("b", "10.0.0.64/26", vxlan=DEVICE))
    return found


def test_a_direct_route_stays_until_bird_s_is_there() -> None:
    one = reached()
    assert one.settle(DIRECT) == (set(), {OURS})
    assert one.settle(BY_BGP, {}) == (set(), set())
    assert one.things == {OURS}
    assert one.settle(BY_BGP, {BLOCK: BIRDS}) == ({OURS}, set())
    assert one.settle(BY_BGP, {}) == (set(), set()), "what BIRD takes back is nobody's: the node may be dead"


def test_a_vxlan_route_stays_with_what_is_behind_it() -> None:
    one = reached()
    _, come = one.settle(Terms(HERE, (VXLAN_POOL,)))
    assert one.settle(BY_BGP, {}) == (set(), set())
    assert one.things == come == {Route(BLOCK, address("10.0.0.64"), VXLAN), Neighbour(address("10.0.0.64"), MAC),
                                  Entry(MAC, address("192.0.2.2"))}  # fmt: skip
    assert one.settle(BY_BGP, {BLOCK: BIRDS}) == (come, set())


def test_an_agent_that_starts_anew_keeps_what_the_kernel_has() -> None:
    one = reached()
    one.begin([OURS, Route(parse("10.9.0.0/26"), address("192.0.2.9"))])
    assert one.settle(BY_BGP, {}) == (set(), {OURS})
    assert one.settle(BY_BGP, {BLOCK: BIRDS}) == ({OURS}, set())


def test_back_to_direct_routes() -> None:
    one = reached()
    one.settle(BY_BGP, {BLOCK: BIRDS})
    assert one.settle(DIRECT, {}) == (set(), {OURS})


def test_a_route_to_more_than_the_block_leads_there_too() -> None:
    """A router may tell a pool's range alone, where a filter takes it."""
    one = reached()
    one.settle(DIRECT)
    assert one.settle(BY_BGP, {POOL: BIRDS._replace(to=POOL)}) == ({OURS}, set())
    every = parse("0.0.0.0/0")
    other = reached()
    other.settle(DIRECT)
    assert other.settle(BY_BGP, {every: BIRDS._replace(to=every)}) == (set(), set()), "the default route leads anywhere"
