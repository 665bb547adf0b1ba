"""Matches of packets, in netlink's words, that rules of several kinds are made of. Pure."""

import socket

from tortie.addressing.allocator import Address
from tortie.addressing.ranges import Family
from tortie.agent import nfnetlink as nf

FAMILIES: tuple[Family, ...] = (4, 6)
BYTES: dict[Family, int] = {4: 4, 6: 16}
# Where they are in the header.
SOURCE: dict[Family, int] = {4: 12, 6: 8}
TARGET: dict[Family, int] = {4: 16, 6: 24}
# As keys of sets.
ADDRESS: dict[Family, int] = {4: nf.IPV4_ADDRESS, 6: nf.IPV6_ADDRESS}

_PROTO: dict[Family, int] = {4: nf.IPV4, 6: nf.IPV6}
_AF: dict[Family, socket.AddressFamily] = {4: socket.AF_INET, 6: socket.AF_INET6}


def packed(family: Family, address: str) -> bytes:
    """Return an address as it is in a packet."""
    return socket.inet_pton(_AF[family], address)


def bytes_of(one: Address) -> bytes:
    """Return an address as it is in a packet."""
    return one.value.to_bytes(BYTES[one.family], "big")


def address_of(packed: bytes) -> Address:
    """Return the address that is so in a packet, or in a message of the kernel's."""
    return Address(4 if len(packed) == 4 else 6, int.from_bytes(packed, "big"))


def family_of(text: str) -> Family:
    """Return the family of an address or range."""
    return 6 if ":" in text else 4


def between(first: int, last: int, size: int) -> bytes:
    """Go on if a number of so many bytes that was loaded is one of these."""
    if first == last:
        return nf.compare(first.to_bytes(size, "big"))
    begin = nf.compare(first.to_bytes(size, "big"), nf.GREATER_OR_EQUAL)
    return begin + nf.compare(last.to_bytes(size, "big"), nf.LESS_OR_EQUAL)


def is_of(family: Family) -> bytes:
    """Go on with packets of a family."""
    return nf.meta(nf.NFPROTO) + nf.compare(bytes((_PROTO[family],)))


def carries(protocol: int) -> bytes:
    """Go on with packets of a protocol."""
    return nf.meta(nf.L4PROTO) + nf.compare(bytes((protocol,)))
