"""What the kernel has for other nodes' blocks, made to match; and which of it a node needs."""

import sys

import pytest

from tests.agent.namespaces import connect, namespaces, needs_root, run
from tests.agent.packets import inside
from tortie.addressing.allocator import address
from tortie.addressing.ranges import Family, parse
from tortie.agent import forwarding, reach
from tortie.agent.forwarding import Entry, Neighbour, Route, Thing
from tortie.agent.netlink import Netlink
from tortie.agent.reach import Reach, Terms
from tortie.agent.wire import IPIP, VXLAN
from tortie.api import lean
from tortie.routing.carriage import Carried, Node, NodeAddress, link_local, node_address

HERE = Node("a", {4: node_address("192.0.2.1/24"), 6: node_address("2001:db8::1/64")})
MAC = "66:00:00:00:00:02"


def network(
    name: str, *blocks: str, at: tuple[str, ...] = ("192.0.2.2/24",), vxlan: lean.NetworkVxlan | None = None
) -> lean.Network:
    spec = lean.NetworkSpec(tuple(lean.NetworkBlock(b, b) for b in blocks))
    return lean.Network(lean.Metadata(name), spec, lean.NetworkStatus(at, vxlan=vxlan))


DEVICE = lean.NetworkVxlan(MAC, ("10.0.0.64", "fd00::40"))
BY_VXLAN = {
    f"neighbour 10.0.0.64 at {MAC}",
    f"forwarding entry {MAC} to 192.0.2.2",
    "10.0.0.64/26 via 10.0.0.64 dev vxlan.tortie",
}
POOL = parse("10.0.0.0/16")
VXLAN_POOL, IPIP_POOL = Carried(POOL, vxlan="Always"), Carried(POOL, ipip="Always")


def needed(*networks: lean.Network, terms: Terms) -> tuple[set[str], dict[str, str]]:
    reached = Reach()
    for one in networks:
        reached.put(one.metadata.name, one)
    gone, come = reached.settle(terms)
    assert (gone, come) == (set(), reached.things)
    return {str(one) for one in come}, reached.problems


# Name: another node; the pool; what the kernel needs, and what is wrong.
NEEDED: dict[str, tuple[lean.Network, Carried, set[str], str]] = {
    "directly": (network("b", "10.0.0.64/26"), Carried(POOL), {"10.0.0.64/26 via 192.0.2.2"}, ""),
    "it hasn't said its address yet": (network("b", "10.0.0.64/26", at=()), Carried(POOL), set(), ""),
    "an address that is none": (network("b", "10.0.0.64/26", at=("ten",)), Carried(POOL), set(), "not an IP address: 'ten'"),
    "its own": (network("a", "10.0.0.64/26"), Carried(POOL), set(), ""),
    "VXLAN": (network("b", "10.0.0.64/26", vxlan=DEVICE), VXLAN_POOL, BY_VXLAN, ""),
    "VXLAN, not said yet": (network("b", "10.0.0.64/26"), VXLAN_POOL, set(), "hasn't said its VXLAN device's MAC yet"),
    "IP-in-IP": (network("b", "10.0.0.64/26"), IPIP_POOL, {"10.0.0.64/26 via 192.0.2.2 dev tunl.tortie"}, ""),
}


@pytest.mark.parametrize("row", NEEDED)
def test_what_another_node_takes(row: str) -> None:
    other, pool, expected, problem = NEEDED[row]
    things, problems = needed(other, terms=Terms(HERE, (pool,)))
    assert things == expected
    assert [problem in said for said in problems.values()] == [True] * bool(problem)


def test_the_only_address_of_a_block_has_its_pod_s_route_and_no_blackhole() -> None:
    found = reach.own([parse("10.0.0.5/32"), parse("fd00::5/128"), parse("10.0.0.8/31")])
    assert {str(one) for one in found} == {"blackhole 10.0.0.8/31"}


def test_what_changes_is_said_and_nothing_else() -> None:
    reached, direct, vxlan = Reach(), Terms(HERE, (Carried(POOL),)), Terms(HERE, (VXLAN_POOL,))
    old, new = Route(parse("10.0.0.64/26"), address("192.0.2.2")), Route(parse("10.0.0.64/26"), address("10.0.0.64"), VXLAN)
    behind: set[Thing] = {Neighbour(address("10.0.0.64"), MAC), Entry(MAC, address("192.0.2.2"))}
    reached.put("b", network("b", "10.0.0.64/26"))
    assert reached.settle(direct) == (set(), {old})
    assert reached.settle(direct) == (set(), set())
    # The pool's mode is another; the other node hasn't a device yet, so the way of before stays.
    assert reached.settle(vxlan) == (set(), set())
    assert "yet" in reached.problems["10.0.0.64/26"]
    reached.put("b", network("b", "10.0.0.64/26", vxlan=DEVICE))
    assert reached.settle(vxlan) == (set(), {new, *behind}), "the new route takes the old one's place"
    assert reached.problems == {}
    # The block is another node's now, which is said before its first owner's NodeNetwork says so.
    reached.put("c", network("c", "10.0.0.64/26", at=("192.0.2.3/24",)))
    reached.put("b", network("b", vxlan=DEVICE))
    assert reached.settle(direct) == (behind, {Route(parse("10.0.0.64/26"), address("192.0.2.3"))})
    reached.put("c", None)
    assert reached.settle(direct) == ({Route(parse("10.0.0.64/26"), address("192.0.2.3"))}, set())


def test_what_another_node_says_no_more_stays_as_long_as_the_pool_asks_for_it() -> None:
    """Its agent may have seen the pool's change before this one did, or starts anew."""
    reached, terms = Reach(), Terms(HERE, (VXLAN_POOL,))
    reached.put("b", network("b", "10.0.0.64/26", vxlan=DEVICE))
    _, come = reached.settle(terms)
    reached.put("b", network("b", "10.0.0.64/26"))
    assert reached.settle(terms) == (set(), set())
    assert reached.things == come
    assert {str(one) for one in come} == BY_VXLAN
    reached.put("b", network("b"))
    assert reached.settle(terms) == (come, set())


def test_the_node_s_own_address_and_blocks_count() -> None:
    here: dict[Family, NodeAddress] = {4: node_address("198.51.100.1/24")}
    reached = Reach()
    block = parse("10.0.0.64/26")
    reached.put("b", network("b", "10.0.0.64/26"))
    reached.settle(Terms(Node("a", dict(here)), (Carried(POOL),)))
    assert "not in this node's subnet" in reached.problems[str(block)]
    here[4] = node_address("192.0.2.1/24")
    route: set[Thing] = {Route(block, address("192.0.2.2"))}
    assert reached.settle(Terms(Node("a", dict(here)), (Carried(POOL),))) == (set(), route)
    mine = Terms(Node("a", dict(here)), (Carried(POOL),), own=frozenset({block}))
    assert reached.settle(mine) == (route, set()), "what is this node's isn't sent to another"


def test_a_device_that_can_t_be_made_is_one_problem() -> None:
    """However many blocks are behind it; and none where no way takes it."""
    without = {VXLAN: "no vxlan", IPIP: "no ipip"}
    far, near = ("198.51.100.2/24",), ("192.0.2.2/24",)
    cross, always = Carried(POOL, vxlan="CrossSubnet"), Carried(POOL, vxlan="Always")
    for pool, at, device, expected in (
        (cross, far, DEVICE, {VXLAN: "no vxlan"}),
        (cross, near, DEVICE, {}),
        (cross, near, None, {}),
        (always, near, None, {VXLAN: "no vxlan"}),  # no other node can make one either
        (IPIP_POOL, far, None, {IPIP: "no ipip"}),
        (Carried(POOL, ipip="CrossSubnet"), near, None, {}),
    ):
        reached = Reach()
        reached.put("b", network("b", "10.0.1.0/26", "10.0.2.0/26", at=at, vxlan=device))
        reached.settle(Terms(HERE, (pool,)))
        assert reached.problems_without(without) == expected


def test_other_problems_are_said_block_by_block() -> None:
    reached = Reach()
    reached.put("b", network("b", "10.0.1.0/26", "10.1.0.0/26", at=("198.51.100.2/24",)))
    reached.settle(Terms(HERE, (VXLAN_POOL,)))
    assert [*reached.problems_without({})] == ["10.0.1.0/26", "10.1.0.0/26"]
    assert [*reached.problems_without({VXLAN: "no vxlan"})] == [VXLAN, "10.1.0.0/26"], "that one is of no pool"


class Told:
    """A kernel that notes what it is told, and does nothing."""

    def __init__(self) -> None:
        self.kinds = list[int]()

    def tell(self, messages: list[bytes]) -> dict[int, int]:
        self.kinds += [int.from_bytes(one[4:6], sys.byteorder) for one in messages]  # nlmsghdr's type
        return {}


NEW_ROUTE, DELETE_ROUTE, NEW_NEIGHBOUR, DELETE_NEIGHBOUR = 24, 25, 28, 29  # <linux/rtnetlink.h>; entries are neighbours, too


def test_at_no_moment_a_route_lacks_what_is_behind_it() -> None:
    block, links = parse("10.0.0.64/26"), {VXLAN: 7, IPIP: 8}
    vxlan: list[Thing] = [Route(block, address("10.0.0.64"), VXLAN), Neighbour(address("10.0.0.64"), MAC)]
    vxlan.append(Entry(MAC, address("192.0.2.2")))
    ipip: list[Thing] = [Route(block, address("192.0.2.2"), IPIP)]
    for there, wanted, expected in (
        ([], vxlan, [NEW_NEIGHBOUR, NEW_NEIGHBOUR, NEW_ROUTE]),
        (vxlan, [], [DELETE_ROUTE, DELETE_NEIGHBOUR, DELETE_NEIGHBOUR]),
        (ipip, vxlan, [NEW_NEIGHBOUR, NEW_NEIGHBOUR, NEW_ROUTE]),
        (vxlan, ipip, [NEW_ROUTE, DELETE_NEIGHBOUR, DELETE_NEIGHBOUR]),
    ):
        kernel = Told()
        assert forwarding.write(kernel, links, there, wanted) == {}  # type: ignore[arg-type]
        assert kernel.kinds == expected


def test_what_another_node_has_by_now_isn_t_removed_with_it() -> None:
    """Its tunnel may have the address that the one of before had."""
    reached, terms = Reach(), Terms(HERE, (VXLAN_POOL,))
    reached.put("b", network("b", "10.0.0.64/26", vxlan=DEVICE))
    reached.settle(terms)
    other = DEVICE.__class__("66:00:00:00:00:03", DEVICE.addresses)
    reached.put("c", network("c", "10.0.0.64/26", at=("192.0.2.3/24",), vxlan=other))
    reached.settle(terms)
    reached.put("b", None)
    assert reached.settle(terms) == ({Entry(MAC, address("192.0.2.2"))}, set())


# What the kernel has before, as `ip route` takes it; what is wanted; what it has afterwards.
KERNEL = {
    "nothing is there": ([], ["10.1.0.0/26"], ["blackhole 10.1.0.0/26 proto 201"]),
    "a stale one goes": (["blackhole 10.2.0.0/26 proto 201"], ["10.1.0.0/26"], ["blackhole 10.1.0.0/26 proto 201"]),
    "somebody else's stays": (["blackhole 10.2.0.0/26 proto 77"], [], ["blackhole 10.2.0.0/26 proto 77"]),
    "a pod's stays": (
        ["10.1.0.1 dev lo proto 201"], ["10.1.0.0/26"], ["10.1.0.1 dev lo proto 201", "blackhole 10.1.0.0/26 proto 201"],
    ),
    "another way to it takes its place": (
        ["10.1.0.64/26 via 192.0.2.9 proto 201"], ["10.1.0.64/26 192.0.2.2"], ["10.1.0.64/26 via 192.0.2.2 proto 201"],
    ),
    "it became ours": (
        ["10.1.0.64/26 via 192.0.2.9 proto 201"], ["10.1.0.64/26"], ["blackhole 10.1.0.64/26 proto 201"],
    ),
}  # fmt: skip
_SYNC = """
import sys
from tortie.addressing.allocator import address
from tortie.addressing.ranges import parse
from tortie.agent import forwarding
from tortie.agent.forwarding import Route
from tortie.agent.netlink import Netlink
wanted = {Route(parse(to), *map(address, via)) for to, *via in (one.split() for one in sys.argv[1:])}
with Netlink() as kernel:
    failed = forwarding.write(kernel, {}, forwarding.read(kernel, {}), wanted)
    assert not failed, failed
    assert forwarding.read(kernel, {}) == wanted
"""


@needs_root
@pytest.mark.parametrize("row", KERNEL)
def test_the_kernel_s_routes(row: str) -> None:
    before, wanted, after = KERNEL[row]
    with namespaces(1) as (path,):
        run(["ip", "addr", "add", "192.0.2.1/24", "dev", "lo"], path)
        for route in before:
            run(["ip", "route", "add", *route.split()], path)
        for _ in range(2):  # repeated, it changes nothing
            run([sys.executable, "-c", _SYNC, *wanted], path)
            left = [" ".join(line.split()) for line in run(["ip", "route"], path).splitlines()]
            plain = [line.replace(" dev lo proto", " proto") if "via" in line else line for line in left]
            shown = [line.replace(" scope link", "") for line in plain if not line.startswith("192.0.2.0/24")]
            assert sorted(shown) == sorted(after)


_SIX = """
from tortie.addressing.allocator import address
from tortie.addressing.ranges import parse
from tortie.agent import forwarding
from tortie.agent.forwarding import Route
from tortie.agent.netlink import Netlink
mine, its = Route(parse("fd00::40/122")), Route(parse("fd00::40/122"), address("2001:db8::2"))
with Netlink() as kernel:
    for wanted in ({mine}, {its}, {its}, {mine}, {mine}, {mine, its}, {its}, set()):
        for _ in range(2):
            assert forwarding.write(kernel, {}, forwarding.read(kernel, {}), wanted) == {}
            assert forwarding.read(kernel, {}) == wanted, wanted
"""


@needs_root
def test_an_ipv6_block_that_comes_and_goes() -> None:
    """Its blackhole and a route to another node have metrics of their own, so neither takes the other's place."""
    with namespaces(1) as (path,):
        run(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1"], path)
        for one in ("eth0", "eth1"):
            run(["ip", "link", "set", one, "up"], path)
        run(["ip", "addr", "add", "2001:db8::1/64", "dev", "eth0", "nodad"], path)
        # As an agent of before made it.
        run(["ip", "route", "add", "fd00::80/122", "via", "2001:db8::9", "proto", "201"], path)
        run([sys.executable, "-c", _SIX], path)
        assert "proto 201" not in run(["ip", "-6", "route"], path)


@needs_root
def test_what_is_behind_the_vxlan_device() -> None:
    with namespaces(1) as (path,):
        run(["ip", "link", "add", VXLAN, "type", "vxlan", "id", "4096", "dstport", "4789", "local", "192.0.2.1"], path)
        run(["ip", "link", "set", VXLAN, "up"], path)
        run(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1"], path)
        for one in ("eth0", "eth1"):
            run(["ip", "link", "set", one, "up"], path)
        run(["ip", "addr", "add", "192.0.2.1/24", "dev", "eth0"], path)
        run(["ip", "addr", "add", "2001:db8::1/64", "dev", "eth0", "nodad"], path)
        with inside(path, Netlink) as kernel:
            links = {VXLAN: kernel.index(VXLAN)}
            direct = {Route(parse("10.0.0.64/26"), address("192.0.2.2")), Route(parse("fd00::40/122"), address("2001:db8::2"))}
            assert forwarding.write(kernel, links, set(), direct) == {}
            assert forwarding.read(kernel, links) == direct
            via4, via6, mac = address("10.0.0.64"), link_local(MAC), MAC
            routes = {Route(parse("10.0.0.64/26"), via4, VXLAN), Route(parse("fd00::40/122"), via6, VXLAN)}
            wanted: set[Thing] = {*routes, Neighbour(via4, mac), Neighbour(via6, mac), Entry(mac, address("192.0.2.2"))}
            assert forwarding.write(kernel, links, direct, wanted) == {}
            assert forwarding.read(kernel, links) == wanted
            moved: set[Thing] = {*routes, Neighbour(via4, mac), Neighbour(via6, mac), Entry(mac, address("192.0.2.3"))}
            assert forwarding.write(kernel, links, wanted, moved) == {}
            assert forwarding.read(kernel, links) == moved
            strange = Route(parse("10.0.0.128/26"), via4, IPIP)
            assert forwarding.write(kernel, links, moved, {*moved, strange}) == {strange: "there is no device tunl.tortie"}
            # What went on its own, or is refused, keeps nothing else from being done.
            run(["ip", "route", "del", "10.0.0.64/26"], path)
            bad = Route(parse("10.0.0.192/26"), address("198.51.100.1"))
            failed = forwarding.write(kernel, links, moved, {bad, Neighbour(via4, mac)})
            assert failed == {bad: "Network is unreachable"}
            assert forwarding.read(kernel, links) == {Neighbour(via4, mac)}


@needs_root
def test_of_bird_s_routes_those_of_this_one_are_known_and_removed() -> None:
    with namespaces(1) as (path,):
        connect(path)
        for to, via, metric in (
            ("10.0.0.64/26", "192.0.2.2", "768"),
            ("fd00::40/122", "2001:db8::2", "768"),
            ("0.0.0.0/0", "192.0.2.2", "768"),
            ("10.9.0.0/26", "192.0.2.2", "32"),
        ):
            run(["ip", "route", "add", to, "via", via, "proto", "bird", "metric", metric], path)
        run(["ip", "route", "add", "10.0.0.128/26", "via", "192.0.2.2", "proto", "201"], path)
        assert {str(one) for one in inside(path, forwarding.of_bird).values()} == {
            "10.0.0.64/26 via 192.0.2.2",
            "fd00::40/122 via 2001:db8::2",
            "0.0.0.0/0 via 192.0.2.2",
        }
        inside(path, forwarding.remove_birds)
        left = run(["ip", "route"], path) + run(["ip", "-6", "route"], path)
        assert "768" not in left
        assert "10.9.0.0/26" in left
        assert "10.0.0.128/26" in left
