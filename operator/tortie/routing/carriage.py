"""What carries packets to another node's block: the one place that says so. Pure.

An IPPool's vxlanMode and ipipMode decide: Always, or CrossSubnet, which is direct inside a subnet. Where both are Never,
packets go as they are: by BGP's routes where nodes speak it, else directly, which takes one subnet.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tortie.addressing.allocator import Address, address
from tortie.addressing.ranges import BITS, Family, Range
from tortie.api import lean

Carrier = Literal["Direct", "VXLAN", "IPIP", "BGP"]
Mode = Literal["Never", "Always", "CrossSubnet"]


class NodeAddress(NamedTuple):
    """An address of a node, with the length of its subnet's prefix."""

    address: Address
    prefix: int

    @property
    def subnet(self) -> Range:
        """The range of those that are reached without a router."""
        host = BITS[self.address.family] - self.prefix
        return Range(self.address.family, self.address.value >> host << host, self.prefix)

    def __str__(self) -> str:
        return f"{self.address}/{self.prefix}"


def node_address(text: str) -> NodeAddress:
    """Return what `192.0.2.7/24` names; without a prefix the address is alone in its subnet. Raises ValueError."""
    plain, _, prefix = text.partition("/")
    found = address(plain)
    return NodeAddress(found, int(prefix) if prefix else BITS[found.family])


class Carried(NamedTuple):
    """A pool, as far as its packets are carried."""

    range: Range
    vxlan: Mode = "Never"
    ipip: Mode = "Never"


@dataclass(frozen=True, slots=True)
class Node:
    """A node, as others need to know it.

    Attributes:
        addresses: Its own.
        mac: Of its VXLAN device; "": it has none.
        vxlan: The addresses of that device.
        ipip: The address of its IP-in-IP device.
    """

    name: str
    addresses: Mapping[Family, NodeAddress] = field(default_factory=dict)
    mac: str = ""
    vxlan: Mapping[Family, Address] = field(default_factory=dict)
    ipip: Address | None = None

    def underlay(self, other: "Node") -> NodeAddress | None:
        """Return the other's address that carries what is encapsulated between the two, if there is one.

        A device has one family, IPv4 where its node has an IPv4 address, and the kernel takes no other's entries.
        """
        mine: Family = 4 if 4 in self.addresses else 6
        its: Family = 4 if 4 in other.addresses else 6
        return other.addresses.get(mine) if mine == its and mine in self.addresses else None


class Way(NamedTuple):
    """How packets travel to a block of another node.

    Attributes:
        via: The next hop: the other node's own address, or its VXLAN device's (IPv6: the link-local one). None: what BGP says.
    """

    to: Range
    node: str
    carrier: Carrier
    via: Address | None = None


class NoWay(NamedTuple):
    """A block that can't be reached, and why, for people; `soon`: what carries it once the other node has said its device."""

    to: Range
    node: str
    why: str
    soon: Carrier | None = None


def node_of(network: lean.Network) -> Node:
    """Return the node that a NodeNetwork is about; raises ValueError where an address isn't one."""
    status = network.status
    tunnels = {one.family: one for one in map(address, status.vxlan.addresses)} if status.vxlan else {}
    return Node(
        network.metadata.name,
        {one.address.family: one for one in map(node_address, status.addresses)},
        status.vxlan.mac if status.vxlan else "",
        tunnels,
        address(status.ipip) if status.ipip else None,
    )


def pool_of(block: Range, pools: Iterable[Carried]) -> Carried:
    """Return the pool that a block is of; one whose pool is gone travels as it is."""
    return next((pool for pool in pools if pool.range.contains(block)), Carried(block))


def way(block: Range, here: Node, there: Node, pool: Carried, *, bgp: bool) -> Way | NoWay:
    """Return how packets travel from one node to a block of another; `bgp`: whether the nodes speak it."""
    for carrier, mode in (("VXLAN", pool.vxlan), ("IPIP", pool.ipip)):
        if mode == "CrossSubnet" and (direct := _direct(block, here, there)):
            return direct
        if mode != "Never":
            return _by_vxlan(block, here, there) if carrier == "VXLAN" else _by_ipip(block, here, there)
    if bgp:
        return Way(block, there.name, "BGP")
    return _direct(block, here, there) or NoWay(block, there.name, _why_not_directly(block.family, here, there))


def encapsulates(pools: Iterable[Carried]) -> set[Carrier]:
    """Return what devices a node needs for these pools."""
    found = set[Carrier]()
    for pool in pools:
        found |= {"VXLAN"} if pool.vxlan != "Never" else {"IPIP"} if pool.ipip != "Never" else set()
    return found


def _direct(block: Range, here: Node, there: Node) -> Way | None:
    mine, its = here.addresses.get(block.family), there.addresses.get(block.family)
    if mine and its and its.address.within(mine.subnet):
        return Way(block, there.name, "Direct", its.address)
    return None


def _by_vxlan(block: Range, here: Node, there: Node) -> Way | NoWay:
    if here.underlay(there) is None:
        return NoWay(block, there.name, _nothing_in_common(here, there))
    if not there.mac or (block.family == 4 and 4 not in there.vxlan):
        what = "IPv4 address" if there.mac else "MAC"
        return NoWay(block, there.name, f"node {there.name} hasn't said its VXLAN device's {what} yet", soon="VXLAN")
    # The device's own IPv6 address lies in its node's block: the kernel refuses it as the next hop to that block as long as
    # another route leads there (`ip6_route_check_nh_onlink`), so no route could take that one's place.
    return Way(block, there.name, "VXLAN", there.vxlan[4] if block.family == 4 else link_local(there.mac))


def link_local(mac: str) -> Address:
    """Return the link-local address that a MAC has (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    return Address(
        6, int.from_bytes(b"\xfe\x80" + bytes(6) + bytes((octets[0] ^ 2,)) + octets[1:3] + b"\xff\xfe" + octets[3:], "big")
    )


def _by_ipip(block: Range, here: Node, there: Node) -> Way | NoWay:
    mine, its = here.addresses.get(4), there.addresses.get(4)
    if mine is None or its is None:
        return NoWay(block, there.name, f"IP in IP needs IPv4 addresses of both nodes, and {_name_of(here, mine)} has none")
    return Way(block, there.name, "IPIP", its.address)


def _name_of(here: Node, mine: NodeAddress | None) -> str:
    return "the other one" if mine else f"node {here.name}"


def _nothing_in_common(here: Node, there: Node) -> str:
    have = " and ".join(f"node {one.name} {_families(one)}" for one in (here, there))
    return f"the nodes have no common family to encapsulate in ({have}): IPv4 where a node has it; give both IPv4, or none"


def _families(node: Node) -> str:
    return "has " + " and ".join(f"IPv{one}" for one in sorted(node.addresses)) if node.addresses else "has none"


def _why_not_directly(family: Family, here: Node, there: Node) -> str:
    mine, its = here.addresses.get(family), there.addresses.get(family)
    if its is None:
        return f"node {there.name} has no IPv{family} address; its pods can't be reached by IPv{family}: give it one"
    where = f"not in this node's subnet ({mine})" if mine else "and this node has no address of that family"
    return (
        f"node {there.name} is at {its}, {where}; pods there can't be reached: set vxlanMode: CrossSubnet in their IPPool,"
        " let nodes speak BGP, or put them in one subnet"
    )
