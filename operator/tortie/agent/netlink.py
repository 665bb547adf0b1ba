"""The kernel's routing (rtnetlink(7), RFC 3549), where pods wait for it or where their number counts.

pyroute2 spells the messages; this sends many of them at once, and reads of a long list only what is wanted. Its own sockets
run an event loop for each request (an ADD of 4.8 ms took 10.4 on the same loaded machine) and decode all that the kernel
says (1 ms for each route); they serve what is seldom and short.
"""

import errno
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from tortie.addressing.allocator import Address
from tortie.addressing.ranges import BITS

AF = {4: socket.AF_INET, 6: socket.AF_INET6}
LINK_SCOPE = 253

# <linux/netlink.h>, <linux/rtnetlink.h>
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ERROR = _INDEX = struct.Struct("=i")
_IFINFOMSG = 16  # bytes
_SIOCGIFINDEX, _IFREQ = 0x8933, struct.Struct("=16si20x")  # <linux/sockios.h>; netdevice(7)
_IFLA_OPERSTATE, _UP = 16, 6
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_REQUEST, _ACK, _REPLACE, _EXCL, _CREATE = 0x1, 0x4, 0x100, 0x200, 0x400
_DUMP, _DUMP_INTR = 0x300, 0x10
_NEWLINK, _DELLINK, _GETLINK, _NEWADDR, _GETADDR, _NEWROUTE, _GETROUTE, _NEWNEIGH = 16, 17, 18, 20, 22, 24, 26, 28
_RTM_SCOPE, _IFA_SCOPE, _IFI_INDEX = 6, 3, 4  # where they stand after the header
_SOL_NETLINK, _CAP_ACK, _STRICT = 270, 10, 12
_MAIN, _UNICAST, _STATIC = 254, 1, 4
_IFF_UP, _PERMANENT, _NODAD, _NOPREFIXROUTE = 0x1, 0x80, 0x02, 0x200
_SKIP_STATS = 1 << 3
_RECEIVED = 1 << 16  # bytes; acknowledgements have 36, a link without statistics 1,000
_AT_ONCE = 200  # requests; the socket's room is for as many answers
_SEQUENCE = struct.Struct("=I")
_FLAGS = 6 if sys.byteorder == "little" else 7  # where the lower half of the flags is
_PATIENCE = 30.0  # seconds; the kernel answers before the request returns

Message = Any  # pyroute2's, which is untyped


class Closing:
    """What is closed at the end of a `with`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        raise NotImplementedError


class Netlink(Closing):
    """A socket in the network namespace that the thread is in when it is made. One thread's at a time."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)  # an error doesn't repeat the request
        self._socket.setsockopt(_SOL_NETLINK, _STRICT, 1)  # it lists what is asked for, and not everything
        self._socket.settimeout(_PATIENCE)
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def index(self, name: str) -> int:
        """Return a link's index, 0 where there is none. No file is opened for it: where none can be, the link isn't gone."""
        try:
            answer = fcntl.ioctl(self._socket, _SIOCGIFINDEX, _IFREQ.pack(name.encode(), 0))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return 0
            raise
        return int(_IFREQ.unpack(answer)[1])

    def is_up(self, index: int) -> bool:
        """Whether a link sends: it is up, and the kernel has seen its carrier (RFC 2863's operational status)."""
        return self.ask(_request(ifinfmsg, _GETLINK, 0, [("IFLA_EXT_MASK", _SKIP_STATS)], index=index)) == [_UP]

    def links(self, indices: Collection[int] | None = None) -> list[Message]:
        """Return these of the namespace's links, or all, without their statistics."""
        request = _request(ifinfmsg, _GETLINK, _DUMP, [("IFLA_EXT_MASK", _SKIP_STATS)])
        return self._list(ifinfmsg, request, lambda body: indices is None or _INDEX.unpack_from(body, _IFI_INDEX)[0] in indices)

    def routes(self, family: int, proto: int, *, pods: bool = False) -> list[Message]:
        """Return the main table's routes of a protocol; without `pods` none of IPv4 to what is right behind a link."""
        request = _request(rtmsg, _GETROUTE, _DUMP, [], family=AF[family], table=_MAIN, proto=proto)
        return self._list(rtmsg, request, lambda body: pods or body[_RTM_SCOPE] != LINK_SCOPE)

    def addresses(self, *, everywhere: bool = True) -> list[Message]:
        """Return the addresses of the namespace's links that are valid everywhere, or all."""
        request = _request(ifaddrmsg, _GETADDR, _DUMP, [])
        return self._list(ifaddrmsg, request, lambda body: not everywhere or body[_IFA_SCOPE] == 0)

    def ask(self, *requests: Message) -> list[int]:
        """Let the kernel do all requests, in their order; return the operational status of links that some asked for.

        One that is refused doesn't keep those after it from being done; raises NetlinkError for the first of these.
        """
        parts, waiting = [], set[int]()
        for request in requests:
            self._sequence += 1
            request["header"]["sequence_number"] = self._sequence
            request.encode()
            parts.append(bytes(request.data))
            waiting.add(self._sequence)
        self._socket.send(b"".join(parts))
        refused: dict[int, int] = {}
        found = []
        while waiting:
            data = self._socket.recv(_RECEIVED)
            for kind, sequence, offset, end in messages(data):
                if sequence not in waiting:
                    continue  # the answer to one that wasn't waited for to its end
                if kind == _NEWLINK:
                    found.append(_operstate(data, offset, end))
                elif kind == _NLMSG_ERROR:
                    waiting.discard(sequence)
                    (code,) = _ERROR.unpack_from(data, offset + _HEADER.size)
                    if code:
                        refused[sequence] = -code
        if refused:
            code = refused[min(refused)]
            raise NetlinkError(code, os.strerror(code))
        return found

    def tell(self, parts: Sequence[bytes]) -> dict[int, int]:
        """Let the kernel do packed requests, in their order; return the errors, by the number of the request.

        Nothing but errors is answered, and the end: so many are done at a time as there is room for, were all refused.
        """
        refused = dict[int, int]()
        for first in range(0, len(parts), _AT_ONCE):
            some = parts[first : first + _AT_ONCE]
            begin = self._sequence + 1
            self._sequence += len(some)
            sent = bytearray()
            for number, one in enumerate(some):
                at = len(sent)
                sent += one
                _SEQUENCE.pack_into(sent, at + 8, begin + number)
            sent[len(sent) - len(some[-1]) + _FLAGS] |= _ACK
            self._socket.send(sent)
            is_done = False
            while not is_done:
                data = self._socket.recv(_RECEIVED)
                for kind, sequence, offset, _ in messages(data):
                    if kind != _NLMSG_ERROR or not begin <= sequence <= self._sequence:
                        continue
                    (code,) = _ERROR.unpack_from(data, offset + _HEADER.size)
                    if code:
                        refused[first + sequence - begin] = -code
                    is_done = is_done or sequence == self._sequence
        return refused

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Return what the kernel lists for a packed request, without headers; begins anew where it was disturbed."""
        while True:
            self._sequence += 1
            request = bytearray(packed(kind, body))
            _HEADER.pack_into(request, 0, len(request), kind, _REQUEST | _DUMP, self._sequence, 0)
            self._socket.send(request)
            found, end, disturbed = list[bytes](), False, False
            while not end:
                data = self._socket.recv(_RECEIVED)
                for what, sequence, begin, stop in messages(data):
                    if sequence != self._sequence:
                        continue
                    end = end or what in (_NLMSG_DONE, _NLMSG_ERROR)
                    disturbed = disturbed or bool(_HEADER.unpack_from(data, begin)[2] & _DUMP_INTR)
                    code = -_ERROR.unpack_from(data, begin + _HEADER.size)[0] if end else 0
                    if code not in (0, errno.ENOENT):  # a table of routes is made with its first one
                        raise NetlinkError(code, os.strerror(code))
                    if not end:
                        found.append(data[begin + _HEADER.size : stop])
            if not disturbed:
                return found

    def _list(self, kind: Any, request: Message, wanted: Callable[[bytes], bool]) -> list[Message]:
        """Return of what the kernel lists what is wanted, by the bytes after its header."""
        request.encode()
        command, data = request["header"]["type"], bytes(request.data)[_HEADER.size :]
        found = []
        for body in self.dump(command, data):
            if wanted(body):
                one = kind(_HEADER.pack(_HEADER.size + len(body), command, 0, 0, 0) + body)
                one.decode()
                found.append(one)
        return found


def veth(host: str, group: int, mac: str, mtu: int, peer: tuple[int, str, str]) -> Message:
    """Make a pair of links: `peer` is the other end's namespace, an open file, its name and its MAC."""
    namespace, name, its_mac = peer
    other = [
        ("IFLA_IFNAME", name), ("IFLA_NET_NS_FD", namespace), ("IFLA_MTU", mtu), ("IFLA_ADDRESS", its_mac),
    ]  # fmt: skip
    data = {"attrs": [("VETH_INFO_PEER", {"attrs": other})]}
    attributes = [
        ("IFLA_IFNAME", host), ("IFLA_GROUP", group), ("IFLA_MTU", mtu), ("IFLA_ADDRESS", mac),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}),
    ]  # fmt: skip
    return _request(ifinfmsg, _NEWLINK, _CREATE | _EXCL, attributes)


def up(index: int) -> Message:
    """Set a link up."""
    return _request(ifinfmsg, _NEWLINK, 0, [], index=index, flags=_IFF_UP, change=_IFF_UP)


def delete(index: int) -> Message:
    """Delete a link."""
    return _request(ifinfmsg, _DELLINK, 0, [], index=index)


def give(index: int, one: Address) -> Message:
    """Give a link an address of its own: no neighbours, no duplicates looked for."""
    attributes: list[tuple[str, Any]] = [("IFA_ADDRESS", str(one)), ("IFA_LOCAL", str(one))]
    if one.family == 6:
        attributes = [attributes[0], ("IFA_FLAGS", _NODAD | _NOPREFIXROUTE)]
    return _request(
        ifaddrmsg, _NEWADDR, _CREATE | _EXCL, attributes, index=index, family=AF[one.family], prefixlen=BITS[one.family]
    )


def neighbour(index: int, family: int, address: str, mac: str) -> Message:
    """Say for good which MAC an address behind a link has."""
    attributes = [("NDA_DST", address), ("NDA_LLADDR", mac)]
    flags = _CREATE | _REPLACE
    return _request(ndmsg, _NEWNEIGH, flags, attributes, family=AF[family], ifindex=index, state=_PERMANENT)


def route(index: int, one: Address, proto: int = _STATIC) -> Message:
    """Lead to an address right behind a link; in place of another route to it."""
    attributes = [("RTA_DST", str(one)), ("RTA_OIF", index)]
    return _route(one.family, _REPLACE, attributes, dst_len=BITS[one.family], scope=LINK_SCOPE, proto=proto)


def default(index: int, family: int, gateway: str) -> Message:
    """Lead everywhere by a gateway behind a link."""
    return _route(family, _EXCL, [("RTA_GATEWAY", gateway), ("RTA_OIF", index)], proto=_STATIC)


def _route(family: int, how: int, attributes: Sequence[tuple[str, Any]], **fields: int) -> Message:
    fields = {"family": AF[family], "table": _MAIN, "type": _UNICAST, **fields}
    return _request(rtmsg, _NEWROUTE, _CREATE | how, attributes, **fields)


def _request(kind: Any, command: int, how: int, attributes: Sequence[tuple[str, Any]], **fields: int) -> Message:
    made = kind()
    made["header"] = {"type": command, "flags": _REQUEST | _ACK | how}
    made["attrs"] = list(attributes)
    for name, value in fields.items():
        made[name] = value
    return made


def packed(kind: int, body: bytes, *, replace: bool = False) -> bytes:
    """Return a request for `Netlink.tell`; `replace`: it makes something, in place of what is there."""
    flags = _REQUEST | (_CREATE | _REPLACE if replace else 0)
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield type, sequence, begin and end of the messages in what was received."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        yield kind, sequence, offset, offset + length
        offset += max(length + 3 & ~3, _HEADER.size)


def _operstate(data: bytes, offset: int, end: int) -> int:
    """Return what a link's message says of its operational status; pyroute2 would decode all else, too."""
    offset += _HEADER.size + _IFINFOMSG
    while offset + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if kind == _IFLA_OPERSTATE:
            return data[offset + _ATTRIBUTE.size]
        offset += max(length + 3 & ~3, _ATTRIBUTE.size)
    return 0
