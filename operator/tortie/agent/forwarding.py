"""Where the kernel sends packets for other nodes' blocks: routes; behind the VXLAN device neighbours and forwarding entries.

Belongs here: what the kernel has of it, and making it match, many at once. Does not: what should be
(`tortie.routing.carriage`), nor the device (`tortie.agent.overlay`). Only routes with our protocol number are touched, and of
those not the pods' own (`tortie.agent.wire`).

The messages are packed here and not by pyroute2: 5,000 nodes are 25,000 of them, at 0.2 ms each to write and 1 ms to read.
"""

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import repeat
from typing import NamedTuple

from tortie.addressing.allocator import Address
from tortie.addressing.ranges import Family, Range
from tortie.agent import netlink
from tortie.agent.matches import BYTES, address_of, bytes_of
from tortie.agent.netlink import AF, LINK_SCOPE, Netlink
from tortie.agent.nfnetlink import attribute, attributes
from tortie.agent.wire import IPIP, PROTOCOL, VXLAN
from tortie.routing import bird

# <linux/rtnetlink.h>, <linux/neighbour.h>
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, lengths of destination and source, tos, table, protocol, scope, type, flags
_NDMSG = struct.Struct("=BxxxiHBB")  # family, interface, state, flags, type
_U32 = struct.Struct("=I")
_NEW_ROUTE, _DELETE_ROUTE, _GET_ROUTE, _NEW_NEIGHBOUR, _DELETE_NEIGHBOUR, _GET_NEIGHBOUR = 24, 25, 26, 28, 29, 30
_DST, _OIF, _GATEWAY, _PRIORITY = 1, 4, 5, 6  # RTA_…
_NDA_DST, _NDA_MAC, _NDA_IFINDEX = 1, 2, 8
_MAIN, _UNICAST, _BLACKHOLE, _ONLINK = 254, 1, 6, 0x4
_PERMANENT, _SELF, _BRIDGE = 0x80, 0x02, 7
_FAMILY: dict[int, Family] = {socket.AF_INET: 4, socket.AF_INET6: 6}
# The metric of routes to others' blocks. IPv6 would have 1024 by default, and BIRD's must come after ours.
METRIC: dict[Family, int] = {4: 0, 6: 512}
BIRD_PROTOCOL = 12  # <linux/rtnetlink.h>: RTPROT_BIRD
COPY_METRIC = bird.METRIC - 1  # of copies of BIRD's routes: right before these, and behind all that is ours by itself
BLACKHOLE_METRIC: dict[Family, int] = {4: 0, 6: 1024}


class Route(NamedTuple):
    """One route: to a block, by a next hop on a link of the node or right behind a tunnel; or nowhere, for an own block.

    Attributes:
        link: The tunnel's name; "": the link on whose subnet the next hop is.
        metric: One that isn't as ours are made: an older agent's.
    """

    to: Range
    via: Address | None = None
    link: str = ""
    metric: int | None = None

    def __str__(self) -> str:
        by = f" dev {self.link}" if self.link else ""
        return f"{self.to} via {self.via}{by}" if self.via else f"blackhole {self.to}"


class Neighbour(NamedTuple):
    """Which MAC an address behind the VXLAN device has."""

    address: Address
    mac: str

    def __str__(self) -> str:
        return f"neighbour {self.address} at {self.mac}"


class Entry(NamedTuple):
    """Which node the VXLAN device sends packets for a MAC to."""

    mac: str
    outer: Address

    def __str__(self) -> str:
        return f"forwarding entry {self.mac} to {self.outer}"


Thing = Route | Neighbour | Entry
_GONE = {errno.ENOENT, errno.ESRCH, errno.ENODEV}
# What others need is made first and goes last.
_ORDER = {Entry: 0, Neighbour: 1, Route: 2}


def routes() -> list[Route]:
    """Return the routes to blocks, of the namespace that the thread is in; raises NetlinkError."""
    with Netlink() as kernel:
        tunnels = {kernel.index(name): name for name in (VXLAN, IPIP)}
        return list(_own(kernel, tunnels))


def of_bird() -> dict[Range, Route]:
    """Return BIRD's routes to other nodes' blocks, of the namespace that the thread is in; raises NetlinkError."""
    with Netlink() as kernel:
        return {one.to: one._replace(metric=None) for one in _birds(kernel)}


def copies() -> dict[Range, Route]:
    """Return the copies of BIRD's routes, of the namespace that the thread is in; raises NetlinkError."""
    with Netlink() as kernel:
        return {one.to: one._replace(metric=None) for one in _copies(kernel)}


def copy_birds(*, anew: bool) -> dict[Route, str]:
    """Copy BIRD's routes, `anew` also those that have a copy; return what the kernel refuses, and why; raises NetlinkError."""
    with Netlink() as kernel:
        there = set[Range]() if anew else {one.to for one in _copies(kernel)}
        news = [(one, data) for one, data in _listed(kernel, {}, BIRD_PROTOCOL) if _is_birds(one) and one.to not in there]
        refused = kernel.tell([netlink.packed(_NEW_ROUTE, _copy(data), replace=True) for _, data in news])
        return {news[number][0]: os.strerror(code) for number, code in refused.items()}


def remove_copies(some: Iterable[Route]) -> None:
    """Remove copies, of the namespace that the thread is in, as far as the kernel lets it; raises NetlinkError."""
    with Netlink() as kernel:
        kernel.tell([_message(one._replace(metric=COPY_METRIC), {}, delete=True) for one in some])


def remove_birds() -> None:
    """Remove BIRD's routes, which it left when it ended, of the namespace that the thread is in; raises NetlinkError."""
    with Netlink() as kernel:
        kernel.tell([netlink.packed(_DELETE_ROUTE, _route(one, {}, BIRD_PROTOCOL)) for one in _birds(kernel)])


def read(kernel: Netlink, links: Mapping[str, int]) -> set[Thing]:
    """Return what the kernel has, without copies; `links` are the tunnels' indices by name. Raises NetlinkError."""
    found = set[Thing](_own(kernel, {index: name for name, index in links.items()}))
    if VXLAN in links:
        found.update(_neighbours(kernel, links[VXLAN]))
    return found


def write(kernel: Netlink, links: Mapping[str, int], there: Collection[Thing], wanted: Collection[Thing]) -> dict[Thing, str]:
    """Make what is `there` be what is `wanted`; return what could not be done, each with its reason. The others are done."""
    news = sorted(set(wanted).difference(there), key=_key)
    replaced = {place(one) for one in news}
    gone = sorted((one for one in set(there).difference(wanted) if place(one) not in replaced), key=_key, reverse=True)
    # A route that goes leaves first, so that nothing is sent to where nobody takes it; one in another's place is replaced. What
    # routes of before need goes behind those that take their place.
    first = [one for one in gone if isinstance(one, Route)]
    last = [one for one in gone if not isinstance(one, Route)]
    done: list[tuple[Thing, bool]] = [*zip(first, repeat(True)), *zip(news, repeat(False)), *zip(last, repeat(True))]
    failed = dict[Thing, str]()
    ready = list[tuple[Thing, bytes, bool]]()
    for one, delete in done:
        link = link_of(one)
        if link and link not in links:
            failed[one] = f"there is no device {link}"
        else:
            ready.append((one, _message(one, links, delete=delete), delete))
    refused = kernel.tell([message for _, message, _ in ready])
    for number, code in refused.items():
        one, _, delete = ready[number]
        if not (delete and code in _GONE):
            failed[one] = os.strerror(code)
    return failed


def link_of(one: Thing) -> str:
    """Return the tunnel that a thing takes, "" for none."""
    return one.link if isinstance(one, Route) else VXLAN


def _key(one: Thing) -> tuple[int, Range | Address | str]:
    return _ORDER[type(one)], one[0]


def place(one: Thing) -> object:
    """Return what only one thing can be at, so that a new one takes the old one's place."""
    return type(one), one[0], _metric(one) if isinstance(one, Route) else 0


# --- what is sent


def _message(one: Thing, links: Mapping[str, int], *, delete: bool) -> bytes:
    match one:
        case Route():
            return netlink.packed(_DELETE_ROUTE if delete else _NEW_ROUTE, _route(one, links), replace=not delete)
        case Neighbour(where, mac):
            body = _NDMSG.pack(AF[where.family], links[VXLAN], _PERMANENT, 0, 0) + attribute(_NDA_DST, bytes_of(where))
        case Entry(mac, outer):
            body = _NDMSG.pack(_BRIDGE, links[VXLAN], _PERMANENT, _SELF, 0) + attribute(_NDA_DST, bytes_of(outer))
    body += attribute(_NDA_MAC, bytes.fromhex(mac.replace(":", "")))
    return netlink.packed(_DELETE_NEIGHBOUR if delete else _NEW_NEIGHBOUR, body, replace=not delete)


def _route(one: Route, links: Mapping[str, int], protocol: int = PROTOCOL) -> bytes:
    family = one.to.family
    kind, flags = _UNICAST if one.via else _BLACKHOLE, _ONLINK if one.link else 0
    body = _RTMSG.pack(AF[family], one.to.prefix, 0, 0, _MAIN, protocol, 0, kind, flags)
    body += attribute(_DST, one.to.start.to_bytes(BYTES[family], "big"))
    if metric := _metric(one):
        body += attribute(_PRIORITY, _U32.pack(metric))
    if one.via:
        body += attribute(_GATEWAY, bytes_of(one.via))
    if one.link:
        body += attribute(_OIF, _U32.pack(links[one.link]))
    return body


def _metric(one: Route) -> int:
    return one.metric if one.metric is not None else _usual(one)


def _copy(data: bytes) -> bytes:
    """Return a route that the kernel lists as one of ours, with the metric of copies: by the same next hop and link."""
    family, length, _, _, _, _, _, _, flags = _RTMSG.unpack_from(data)
    found = attributes(data[_RTMSG.size :])
    body = _RTMSG.pack(family, length, 0, 0, _MAIN, PROTOCOL, 0, _UNICAST, flags & _ONLINK)
    body += b"".join(attribute(kind, found[kind]) for kind in (_DST, _OIF, _GATEWAY) if kind in found)
    return body + attribute(_PRIORITY, _U32.pack(COPY_METRIC))


def _usual(one: Route) -> int:
    return (METRIC if one.via else BLACKHOLE_METRIC)[one.to.family]


# --- what is read


def _routes(kernel: Netlink, names: Mapping[int, str], protocol: int = PROTOCOL) -> Iterator[Route]:
    return (one for one, _ in _listed(kernel, names, protocol))


def _listed(kernel: Netlink, names: Mapping[int, str], protocol: int) -> Iterator[tuple[Route, bytes]]:
    """Yield a protocol's routes, without those right behind a link, each with what the kernel says of it."""
    for af, family in _FAMILY.items():
        for data in kernel.dump(_GET_ROUTE, _RTMSG.pack(af, 0, 0, 0, _MAIN, protocol, 0, 0, 0)):
            _, length, _, _, _, _, scope, kind, _ = _RTMSG.unpack_from(data)
            if scope == LINK_SCOPE:
                continue
            found = attributes(data[_RTMSG.size :])
            if kind != _BLACKHOLE and _GATEWAY not in found:
                continue
            made = Route(Range(family, int.from_bytes(found.get(_DST, b""), "big"), length))  # of all it has none
            if kind != _BLACKHOLE:
                link = names.get(_U32.unpack(found[_OIF])[0], "") if _OIF in found else ""
                made = made._replace(via=address_of(found[_GATEWAY]), link=link)
            metric = _U32.unpack(found[_PRIORITY])[0] if _PRIORITY in found else 0
            yield made if metric == _usual(made) else made._replace(metric=metric), data


def _own(kernel: Netlink, names: Mapping[int, str]) -> Iterator[Route]:
    return (one for one in _routes(kernel, names) if one.metric != COPY_METRIC)


def _copies(kernel: Netlink) -> list[Route]:
    return [one for one in _routes(kernel, {}) if one.metric == COPY_METRIC]


def _birds(kernel: Netlink) -> list[Route]:
    return [one for one in _routes(kernel, {}, BIRD_PROTOCOL) if _is_birds(one)]


def _is_birds(one: Route) -> bool:
    """Whether a route of BIRD's number is this BIRD's: another's have another metric."""
    return one.via is not None and one.metric == bird.METRIC


def _neighbours(kernel: Netlink, index: int) -> Iterator[Neighbour | Entry]:
    only = attribute(_NDA_IFINDEX, _U32.pack(index))
    for family in (*_FAMILY, _BRIDGE):
        for data in kernel.dump(_GET_NEIGHBOUR, _NDMSG.pack(family, 0, 0, 0, 0) + only):
            _, link, state, _, _ = _NDMSG.unpack_from(data)
            found = attributes(data[_NDMSG.size :])
            if link != index or not state & _PERMANENT or not {_NDA_DST, _NDA_MAC} <= found.keys():
                continue
            mac = found[_NDA_MAC].hex(":")
            where = address_of(found[_NDA_DST])
            yield Entry(mac, where) if family == _BRIDGE else Neighbour(where, mac)
