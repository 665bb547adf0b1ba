"""Which routes a node needs, row by row."""

import sys

import pytest

from tests.agent.namespaces import namespaces, needs_root, run
from tortie.addressing.ranges import Family, parse
from tortie.agent.detection import NodeAddress, node_address
from tortie.agent.routes import desired
from tortie.api import lean

HERE: dict[Family, NodeAddress] = {4: node_address("192.0.2.1/24"), 6: node_address("2001:db8::1/64")}


def network(name: str, *blocks: str, at: tuple[str, ...]) -> lean.Network:
    spec = lean.NetworkSpec(tuple(lean.NetworkBlock(b, b) for b in blocks))
    return lean.Network(lean.Metadata(name), spec, lean.NetworkStatus(at))


ROWS: dict[str, tuple[lean.Network, list[str], str]] = {
    "same subnet": (network("b", "10.0.0.64/26", at=("192.0.2.2/24",)), ["10.0.0.64/26 via 192.0.2.2"], ""),
    "both families": (
        network("b", "10.0.0.64/26", "fd00::/122", at=("192.0.2.2/24", "2001:db8::2/64")),
        ["10.0.0.64/26 via 192.0.2.2", "fd00::/122 via 2001:db8::2"],
        "",
    ),
    "another subnet": (
        network("b", "10.0.0.64/26", at=("198.51.100.2/24",)), [], "node b is at 198.51.100.2/24, not in this node's subnet"
    ),
    "it has none of the family": (
        network("b", "fd00::/122", at=("192.0.2.2/24",)), [], "node b has no IPv6 address; its pods can't be reached by IPv6"
    ),
    "it hasn't said its address yet": (network("b", "10.0.0.64/26", at=()), [], ""),
    "an address that is none": (network("b", "10.0.0.64/26", at=("ten",)), [], "not an IP address: 'ten'"),
    "its own": (network("a", "10.0.0.64/26", at=("192.0.2.1/24",)), [], ""),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_desired(row: str) -> None:
    other, expected, problem = ROWS[row]
    routes, problems = desired("a", HERE, [parse("10.0.0.0/26")], [other])
    assert {str(route) for route in routes} == {*expected, "blackhole 10.0.0.0/26"}
    assert [problem in said for said in problems.values()] == [True] * bool(problem)


def test_the_only_address_of_a_block_has_its_pod_s_route_and_no_blackhole() -> None:
    routes, _ = desired("a", HERE, [parse("10.0.0.5/32"), parse("fd00::5/128"), parse("10.0.0.8/31")], [])
    assert [str(route) for route in routes] == ["blackhole 10.0.0.8/31"]


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
from tortie.agent.routes import Route, sync_routes
wanted = [one.split() for one in sys.argv[1:]]
failed = sync_routes({Route(parse(to), *map(address, via)) for to, *via in wanted})
assert not failed, failed
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


def test_a_node_without_the_family_says_so() -> None:
    _, problems = desired("a", {}, [], [network("b", "10.0.0.64/26", at=("192.0.2.2/24",))])
    assert "this node has no address of that family" in problems["10.0.0.64/26"]
