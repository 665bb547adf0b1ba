"""The node's routes to blocks: its own are blackholes under its pods' routes, others' lead to their nodes.

Only routes with our protocol number are touched, and of those not the pods' own (`tortie.agent.wire`).
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tortie.addressing.allocator import Address, address
from tortie.addressing.ranges import Family, Range, parse
from tortie.agent.detection import NodeAddress, node_address
from tortie.agent.netlink import AF, Netlink
from tortie.agent.wire import PROTOCOL
from tortie.api import lean

_log = logging.getLogger(__name__)

_BLACKHOLE, _MAIN = 6, 254


class Route(NamedTuple):
    """One route: to a block, via a node's address, or nowhere for a block of our own."""

    to: Range
    via: Address | None = None

    def __str__(self) -> str:
        return f"{self.to} via {self.via}" if self.via else f"blackhole {self.to}"


def desired(
    node: str, here: Mapping[Family, NodeAddress], own: Iterable[Range], networks: Iterable[lean.Network]
) -> tuple[set[Route], dict[str, str]]:
    """Return the routes that a node needs, and for each block that it can't reach the reason, for people.

    A node whose address isn't known yet starts: it has no routes to it, and that is no problem. `here` are the node's own.
    """
    # A block of one address is its pod's route, or nobody's: a blackhole would take that route's place.
    routes, problems = {Route(block) for block in own if block.size > 1}, dict[str, str]()
    for network in networks:
        name = network.metadata.name
        if name == node:
            continue
        try:
            there = {one.address.family: one for one in map(node_address, network.status.addresses)}
            for block in map(parse, (block.cidr for block in network.spec.blocks)) if there else ():
                via = there.get(block.family)
                if via and (found := _carried(block, here.get(block.family), via)):
                    routes.add(found)
                else:
                    problems[str(block)] = _no_way(name, block.family, here.get(block.family), via)
        except ValueError as error:
            problems[f"to node {name}"] = f"its NodeNetwork can't be read: {error}; its agent mends it when it starts"
    return routes, problems


def _carried(block: Range, here: NodeAddress | None, there: NodeAddress) -> Route | None:
    """Return how packets to another node's block travel: directly inside a subnet. Overlays and BGP come in here."""
    return Route(block, there.address) if here and there.address.within(here.subnet) else None


def _no_way(node: str, family: Family, here: NodeAddress | None, there: NodeAddress | None) -> str:
    if there is None:
        return f"node {node} has no IPv{family} address; its pods can't be reached by IPv{family}: give it one"
    mine = f"not in this node's subnet ({here})" if here else "and this node has no address of that family"
    return f"node {node} is at {there}, {mine}; pods there can't be reached: put the nodes in one subnet"


def read_routes() -> set[Route]:
    """Return the routes to blocks that the kernel has, in the namespace that the process is in."""
    found = set()
    with Netlink() as kernel:
        for route in (one for family in (4, 6) for one in kernel.routes(family, PROTOCOL)):
            via, to = route.get("gateway"), route.get("dst")
            if to and (via or route["type"] == _BLACKHOLE):
                found.add(Route(parse(f"{to}/{route['dst_len']}"), address(via) if via else None))
    return found


def sync_routes(wanted: set[Route]) -> dict[Route, str]:
    """Make the kernel match; return what could not be done, each with its reason. The others are done all the same."""
    there, failed = read_routes(), dict[Route, str]()
    if there == wanted:
        return {}
    with IPRoute() as kernel:
        for route in sorted(there - wanted) + sorted(wanted - there):
            stale = route in there
            if stale and any(route.to == new.to for new in wanted):
                continue  # replaced below
            try:
                kernel.route("del" if stale else "replace", **_arguments(route))
                _log.info("route %s %s", route, "removed" if stale else "set")
            except NetlinkError as error:
                failed[route] = str(error)
    return failed


def _arguments(route: Route) -> dict[str, Any]:
    base: dict[str, Any] = {"family": AF[route.to.family], "dst": str(route.to), "proto": PROTOCOL, "table": _MAIN}
    return {**base, "gateway": str(route.via)} if route.via else {**base, "type": "blackhole"}
