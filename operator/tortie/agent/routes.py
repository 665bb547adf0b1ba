"""The node's routes to blocks: its own are blackholes under its pods' routes, others' lead to their nodes.

Only routes with our protocol number are touched, and of those not the pods' own (`tortie.agent.wire`).
"""

import logging
import socket
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tortie.addressing.allocator import Address, address
from tortie.addressing.ranges import Family, Range, parse
from tortie.agent.wire import PROTOCOL
from tortie.api import lean

_log = logging.getLogger(__name__)

_BLACKHOLE, _UNICAST, _MAIN = 6, 1, 254
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_WHOLE = {4: 32, 6: 128}


class Route(NamedTuple):
    """One route: to a block, via a node's address, or nowhere for a block of our own."""

    to: Range
    via: Address | None = None

    def __str__(self) -> str:
        return f"{self.to} via {self.via}" if self.via else f"blackhole {self.to}"


def desired(node: str, own: Iterable[Range], networks: Iterable[lean.Network]) -> set[Route]:
    """Return the routes that a node needs; a node whose address isn't known yet has none to it."""
    routes = {Route(block) for block in own}
    for network in networks:
        if network.metadata.name != node:
            addresses = {one.family: one for one in map(address, network.status.addresses)}
            for block in map(parse, (block.cidr for block in network.spec.blocks)):
                routes |= _carried(block, addresses)
    return routes


def _carried(block: Range, addresses: Mapping[Family, Address]) -> set[Route]:
    """Return how packets to another node's block travel: directly. Overlays and BGP come in here."""
    via = addresses.get(block.family)
    return {Route(block, via)} if via else set()


class RouteTable:
    """The routes in the kernel, in the namespace that the process is in. Synchronous; used by one thread at a time."""

    def __init__(self) -> None:
        self._kernel = IPRoute()

    def close(self) -> None:
        """Close the socket."""
        self._kernel.close()

    def sync(self, wanted: set[Route]) -> dict[Route, str]:
        """Make the kernel match; return what could not be done, each with its reason. The others are done all the same."""
        there, failed = self._read(), {}
        for route in sorted(there - wanted) + sorted(wanted - there):
            stale = route in there
            if stale and any(route.to == new.to for new in wanted):
                continue  # replaced below
            try:
                self._kernel.route("del" if stale else "replace", **_arguments(route))
                _log.info("route %s %s", route, "removed" if stale else "set")
            except NetlinkError as error:
                failed[route] = str(error)
        return failed

    def _read(self) -> set[Route]:
        found = set()
        for family in (4, 6):
            for route in self._kernel.get_routes(family=_AF[family], proto=PROTOCOL, table=_MAIN):
                via, to = route.get("gateway"), route.get("dst")
                if to and (via or route["type"] == _BLACKHOLE):
                    found.add(Route(parse(f"{to}/{route['dst_len']}"), address(via) if via else None))
        return found


def _arguments(route: Route) -> dict[str, Any]:
    base: dict[str, Any] = {"family": _AF[route.to.family], "dst": str(route.to), "proto": PROTOCOL, "table": _MAIN}
    return {**base, "gateway": str(route.via)} if route.via else {**base, "type": "blackhole"}
