"""What carries packets to another node's block, row by row."""

from typing import NamedTuple

import pytest

from tortie.addressing.ranges import parse
from tortie.api import lean
from tortie.routing.carriage import Carried, Mode, Node, NoWay, encapsulates, node_of, pool_of, way


def node(name: str, *at: str, mac: str = "", vxlan: tuple[str, ...] = (), ipip: str | None = None) -> Node:
    device = lean.NetworkVxlan(mac, vxlan) if mac or vxlan else None
    return node_of(lean.Network(lean.Metadata(name), status=lean.NetworkStatus(at, vxlan=device, ipip=ipip)))


MAC, LOCAL = "66:00:00:00:00:02", "fe80::6400:ff:fe00:2"
HERE = node("a", "192.0.2.1/24", "2001:db8::1/64")
NEAR = node("b", "192.0.2.2/24", "2001:db8::2/64", mac=MAC, vxlan=("10.0.0.64", "fd00::40"), ipip="10.0.0.65")
FAR = node("b", "198.51.100.2/24", "2001:db8:1::2/64", mac=MAC, vxlan=("10.0.0.64", "fd00::40"), ipip="10.0.0.65")
YOUNG = node("b", "198.51.100.2/24", "2001:db8:1::2/64")
ONLY4 = node("b", "192.0.2.2/24", mac=MAC, vxlan=("10.0.0.64", "fd00::40"))
ONLY6 = node("b", "2001:db8::2/64")
V4, V6 = "10.0.0.64/26", "fd00::40/122"


class Row(NamedTuple):
    """A block of node b, and its pool's modes; then who carries its packets and to where, or why nobody does."""

    there: Node
    block: str
    carried: str
    vxlan: Mode = "Never"
    ipip: Mode = "Never"
    bgp: bool = False
    here: Node = HERE


ROWS = {
    "one subnet": Row(NEAR, V4, "Direct 192.0.2.2"),
    "one subnet, IPv6": Row(NEAR, V6, "Direct 2001:db8::2"),
    "two subnets": Row(FAR, V4, "node b is at 198.51.100.2/24, not in this node's subnet (192.0.2.1/24)"),
    "one subnet, BGP": Row(NEAR, V4, "BGP None", bgp=True),
    "two subnets, BGP": Row(FAR, V6, "BGP None", bgp=True),
    "it has none of the family": Row(ONLY4, V6, "node b has no IPv6 address; its pods can't be reached by IPv6"),
    "this node has none of the family": Row(NEAR, V6, "this node has no address of that family", here=ONLY4),
    "VXLAN in one subnet": Row(NEAR, V4, "VXLAN 10.0.0.64", "Always"),
    "VXLAN between two": Row(FAR, V4, "VXLAN 10.0.0.64", "Always"),
    "VXLAN, IPv6": Row(FAR, V6, f"VXLAN {LOCAL}", "Always"),
    "VXLAN carries IPv6 between nodes without it": Row(ONLY4, V6, f"VXLAN {LOCAL}", "Always", here=node("a", "192.0.2.1/24")),
    "VXLAN comes before BGP": Row(FAR, V4, "VXLAN 10.0.0.64", "Always", bgp=True),
    "VXLAN across subnets, in one": Row(NEAR, V4, "Direct 192.0.2.2", "CrossSubnet", bgp=True),
    "VXLAN across subnets, between two": Row(FAR, V6, f"VXLAN {LOCAL}", "CrossSubnet"),
    "VXLAN across subnets, IPv6 between nodes without it": Row(ONLY4, V6, f"VXLAN {LOCAL}", "CrossSubnet"),
    "VXLAN, not said yet": Row(YOUNG, V4, "node b hasn't said its VXLAN device's MAC yet", "Always"),
    "VXLAN, no address yet": Row(node("b", "198.51.100.2/24", mac=MAC), V4, "VXLAN device's IPv4 address yet", "Always"),
    "VXLAN, no family in common": Row(
        ONLY6, V4, "no common family to encapsulate in (node a has IPv4 and node b has IPv6)", "Always",
        here=node("a", "192.0.2.1/24"),
    ),
    "VXLAN, one of both families and one of IPv6": Row(ONLY6, V6, "(node a has IPv4 and IPv6 and node b has IPv6)", "Always"),
    "IP-in-IP in one subnet": Row(NEAR, V4, "IPIP 192.0.2.2", ipip="Always"),
    "IP-in-IP between two": Row(FAR, V4, "IPIP 198.51.100.2", ipip="Always"),
    "IP-in-IP across subnets, in one": Row(NEAR, V4, "Direct 192.0.2.2", ipip="CrossSubnet"),
    "IP-in-IP across subnets, between two": Row(FAR, V4, "IPIP 198.51.100.2", ipip="CrossSubnet"),
    "IP-in-IP without IPv4 there": Row(ONLY6, V4, "needs IPv4 addresses of both nodes, and the other one", ipip="Always"),
    "IP-in-IP without IPv4 here": Row(NEAR, V4, "of both nodes, and node b has none", ipip="Always", here=ONLY6),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_what_carries_a_block(row: str) -> None:
    one = ROWS[row]
    pool = Carried(parse("10.0.0.0/16" if one.block == V4 else "fd00::/64"), one.vxlan, one.ipip)
    found = way(parse(one.block), one.here, one.there, pool, bgp=one.bgp)
    if isinstance(found, NoWay):
        assert one.carried in found.why
        assert found.soon == ("VXLAN" if "yet" in found.why else None), "what is said soon isn't waited for in vain"
    else:
        assert f"{found.carrier} {found.via}" == one.carried


def test_a_block_whose_pool_is_gone_travels_as_it_is() -> None:
    pools = [Carried(parse("10.0.0.0/16"), "Always"), Carried(parse("fd00::/64"))]
    assert pool_of(parse("10.0.0.64/26"), pools) is pools[0]
    assert pool_of(parse("10.1.0.64/26"), pools) == Carried(parse("10.1.0.64/26"))


def test_the_devices_that_pools_need() -> None:
    whole = parse("10.0.0.0/16")
    for pools, devices in (
        ([Carried(whole)], set()),
        ([Carried(whole, vxlan="CrossSubnet")], {"VXLAN"}),
        ([Carried(whole, ipip="Always"), Carried(whole)], {"IPIP"}),
        ([Carried(whole, ipip="CrossSubnet"), Carried(whole, vxlan="Always")], {"VXLAN", "IPIP"}),
    ):
        assert encapsulates(pools) == devices
