"""Which address of the node other nodes reach it by. Pure but for `interfaces`, which reads the kernel."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tortie.addressing.allocator import address
from tortie.addressing.ranges import Family, Range, parse
from tortie.agent.netlink import AF, Netlink
from tortie.agent.wire import GROUP
from tortie.routing.carriage import NodeAddress, node_address

METHODS = "kubernetes-internal-ip, first-found, can-reach=ADDRESS, interface=REGEX, skip-interface=REGEX, cidr=CIDR,…"
# Links that others make for pods and tunnels: a node isn't reached by them.
_NOT_OURS_TO_TAKE = re.compile(
    r"docker|cbr|dummy|virbr|lxc|veth|cali|tunl|flannel|cni|kube-ipvs|nodelocaldns|vxlan|geneve|wireguard|podman|br-[0-9a-f]{12}"
)


class Interface(NamedTuple):
    """A link of the node that is up, and its addresses of global scope, in the kernel's order."""

    name: str
    addresses: tuple[NodeAddress, ...]


class BadMethod(ValueError):
    """A way of detection that there isn't; the message names it and those there are."""


def detect(
    family: Family, method: str, internal: Iterable[str], links: Sequence[Interface], source: Callable[[str], str | None]
) -> NodeAddress | None:
    """Return the node's address of a family, or None where it has none.

    Args:
        family: 4 or 6.
        method: One of METHODS, Calico's names.
        internal: The Node's addresses of type InternalIP. One that no link has is taken as it is, alone in its subnet.
        links: The node's links.
        source: Returns the address that packets to a destination leave with, or None where there is no way to it.

    Raises:
        BadMethod: The method is none of these, or what it names can't be read.
    """
    here = [one for link in links for one in link.addresses if one.address.family == family]
    first = next((a for k in links if not _NOT_OURS_TO_TAKE.match(k.name) for a in k.addresses if a in here), None)
    way, _, value = method.partition("=")
    match way:
        case "kubernetes-internal-ip":
            said = next((one for one in map(node_address, internal) if one.address.family == family), None)
            return next((one for one in here if said and one.address == said.address), said) or first
        case "first-found":
            return first
        case "can-reach" if value:
            found = source(value)
            return next((one for one in here if str(one.address) == found), None)
        case "interface" | "skip-interface" if value:
            matches, keep = _regex(method, value), way == "interface"
            named = [k for k in links if bool(matches.search(k.name)) == keep and (keep or not _NOT_OURS_TO_TAKE.match(k.name))]
            return next((one for link in named for one in link.addresses if one in here), None)
        case "cidr" if value:
            ranges = _ranges(method, value)
            return next((one for one in here if any(one.address.within(r) for r in ranges)), None)
    raise BadMethod(f"address detection {method!r} is none of: {METHODS}")


def interfaces() -> list[Interface]:
    """Return the links of the namespace that the process is in, loopback's and pods' left out, by index."""
    found: dict[int, list[NodeAddress]] = {}
    with Netlink() as kernel:
        for one in kernel.addresses():  # and only their links, not the pods'
            text = one.get("local") or one.get("address")
            found.setdefault(one["index"], []).append(NodeAddress(address(text), one["prefixlen"]))
        return [
            Interface(str(link.get("ifname")), tuple(found[link["index"]]))
            for link in sorted(kernel.links(found), key=lambda link: link["index"])
            if link.get("operstate") in ("UP", "UNKNOWN") and link.get("group") != GROUP and link["index"] != 1
        ]


def source(destination: str) -> str | None:
    """Return the address that packets to a destination leave with, or None where there is no route to it."""
    try:
        family = AF[address(destination).family]
        with IPRoute() as kernel:
            return next((str(r.get("prefsrc")) for r in kernel.route("get", family=family, dst=destination)), None)
    except (ValueError, NetlinkError):
        return None


def _regex(method: str, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise BadMethod(f"address detection {method!r}: no regular expression: {error}") from error


def _ranges(method: str, text: str) -> list[Range]:
    try:
        return [parse(part.strip()) for part in text.split(",")]
    except ValueError as error:
        raise BadMethod(f"address detection {method!r}: {error}") from error
