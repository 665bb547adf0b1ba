"""The node's tunnels: the VXLAN and the IP-in-IP device, made and kept as they should be.

Belongs here: the devices. Does not: what is sent through them (`tortie.agent.forwarding`), nor whose addresses they have
(`tortie.agent.tunnels`). A device that nobody needs any more stays, without a pool's address: nodes change their minds at
different times, and what others still send must be taken.
"""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tortie.addressing.allocator import Address, address
from tortie.addressing.ranges import BITS, Family
from tortie.agent.netlink import AF, LINK_SCOPE
from tortie.agent.tunnels import link_of
from tortie.agent.wire import IPIP, VXLAN, WireError, write_sysctl
from tortie.routing.carriage import Carried, Carrier, encapsulates

_NODAD = 0x02  # <linux/if_addr.h>: IFA_F_NODAD
# What every device has as well, in the scope of its link, so that nothing is sent from it. Of one without any IPv4 address the
# kernel removes all routes (`fib_inetaddr_event`), and takes nothing whose answer would go another way (`fib_validate_source`).
_DUMMY = address("192.0.0.8")  # RFC 7600, section 4.8: of nodes that have no IPv4 address
# Bytes that encapsulation takes of a packet: outer IP, UDP, VXLAN, inner Ethernet (RFC 7348); outer IPv4 (RFC 2003).
VXLAN_BYTES = {4: 20 + 8 + 8 + 14, 6: 40 + 8 + 8 + 14}
IPIP_BYTES = 20


class Device(NamedTuple):
    """A tunnel as it should be.

    Attributes:
        local: The node's address, from which it sends.
        mac: Of a VXLAN device; "" of others, which have none.
        vni: VXLAN's network identifier, of 24 bits; zero of others. So is `port`, UDP's.
    """

    name: str
    local: Address
    mtu: int
    addresses: frozenset[Address] = frozenset()
    mac: str = ""
    vni: int = 0
    port: int = 0

    @property
    def kind(self) -> str:
        """The kernel's name for such a device."""
        return "ipip" if self.name == IPIP else "vxlan"


def room(pools: Iterable[Carried], underlay: Family) -> int:
    """Return how many bytes of a packet these pools' encapsulation takes."""
    taken: dict[Carrier, int] = {"VXLAN": VXLAN_BYTES[underlay], "IPIP": IPIP_BYTES}
    return max((taken[carrier] for carrier in encapsulates(pools)), default=0)


def mac_of(node: str) -> str:
    """Return the MAC of a node's VXLAN device: another one for each name, always the same, locally administered."""
    digest = hashlib.sha256(f"vxlan {node}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x66, *digest[:5]))


def ensure(kernel: IPRoute, device: Device) -> int:
    """Make a device be as it should be, and return its index; raises NetlinkError."""
    there = _find(kernel, device.name)
    if there is not None and not _is_same(there, device):
        kernel.link("del", index=there["index"])
        there = None
    if there is None:
        kernel.link("add", **_arguments(device))
        there = _find(kernel, device.name)
        assert there is not None
    index = int(there["index"])
    mac = {"address": device.mac} if device.mac and there.get("address") != device.mac else {}
    if mac or there.get("mtu") != device.mtu or there.get("operstate") == "DOWN":
        kernel.link("set", index=index, mtu=device.mtu, state="up", **mac)
    _give(kernel, index, device)
    # A reply may come another way than its question went; the kernel takes the greater of this and `all`, and 2 is loose.
    write_sysctl(f"net/ipv4/conf/{device.name}/rp_filter", "2")
    write_sysctl(f"net/ipv4/conf/{device.name}/forwarding", "1")
    return index


def strip(name: str, one: Address) -> None:
    """Take an address from a device, if it is there and has it; raises NetlinkError."""
    with IPRoute() as kernel:
        there = _find(kernel, name)
        if there is not None and one in _addresses(kernel, int(there["index"])):
            _take(kernel, int(there["index"]), one)


def remove_all() -> None:
    """Remove the devices that are there, and all that leads through them; raises NetlinkError."""
    with IPRoute() as kernel:
        for name in (VXLAN, IPIP):
            there = _find(kernel, name)
            if there is not None:
                kernel.link("del", index=there["index"])


def inventory() -> dict[str, list[Address]]:
    """Return the addresses of the tunnels that are there, as the ledger names them; raises WireError."""
    found = dict[str, list[Address]]()
    try:
        with IPRoute() as kernel:
            for name in (VXLAN, IPIP):
                there = _find(kernel, name)
                for one in _addresses(kernel, int(there["index"])) if there is not None else ():
                    found.setdefault(link_of(name, one.family), []).append(one)
    except (NetlinkError, OSError) as error:
        raise WireError(f"the tunnels' addresses can't be listed: {error}") from error
    return found


def _addresses(kernel: IPRoute, index: int, scope: int = 0) -> list[Address]:
    return [address(one.get("address")) for one in kernel.get_addr(index=index) if one["scope"] == scope]


def _find(kernel: IPRoute, name: str) -> Any:
    found = kernel.link_lookup(ifname=name)
    return next(iter(kernel.get_links(*found)), None) if found else None


def _is_same(there: Any, device: Device) -> bool:
    info = there.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    kind = there.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
    if device.kind == "ipip":
        return bool(kind == "ipip" and info.get("IFLA_IPIP_LOCAL") == str(device.local))
    local = info.get("IFLA_VXLAN_LOCAL" if device.local.family == 4 else "IFLA_VXLAN_LOCAL6") if kind == "vxlan" else None
    if local != str(device.local):
        return False
    said = info.get("IFLA_VXLAN_ID"), info.get("IFLA_VXLAN_PORT"), info.get("IFLA_VXLAN_LEARNING")
    return bool(said == (device.vni, device.port, 0))


def _arguments(device: Device) -> dict[str, Any]:
    common = {"ifname": device.name, "mtu": device.mtu}
    if device.kind == "ipip":
        return {**common, "kind": "ipip", "ipip_local": str(device.local), "ipip_ttl": 64, "ipip_pmtudisc": 1}
    local = {"vxlan_local" if device.local.family == 4 else "vxlan_local6": str(device.local)}
    vxlan = {"vxlan_id": device.vni, "vxlan_port": device.port, "vxlan_learning": 0}
    return {**common, "kind": "vxlan", "address": device.mac, **vxlan, **local}


def _give(kernel: IPRoute, index: int, device: Device) -> None:
    there = set(_addresses(kernel, index))
    if _DUMMY not in _addresses(kernel, index, LINK_SCOPE):
        kernel.addr("add", index=index, address=str(_DUMMY), prefixlen=BITS[4], family=AF[4], scope=LINK_SCOPE)
    for one in there - device.addresses:
        _take(kernel, index, one)
    for one in device.addresses - there:
        flags = {"flags": _NODAD} if one.family == 6 else {}
        kernel.addr("add", index=index, address=str(one), prefixlen=BITS[one.family], family=AF[one.family], **flags)


def _take(kernel: IPRoute, index: int, one: Address) -> None:
    kernel.addr("del", index=index, address=str(one), prefixlen=BITS[one.family], family=AF[one.family])
