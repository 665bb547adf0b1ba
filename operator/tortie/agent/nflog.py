"""Packets that rules of ours logged, as the kernel tells them (<linux/netfilter/nfnetlink_log.h>).

Belongs here: how they are spelled. Does not: why they were logged, and who is told.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from tortie.agent.netlink import Closing, messages
from tortie.agent.nfnetlink import NETFILTER, attribute, attributes, number

_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct(">BBH")
_PACKET, _CONFIG = 0x400, 0x401  # of NFNL_SUBSYS_ULOG
_REQUEST, _ACK, _ERROR = 0x1, 0x4, 2
_INT = struct.Struct("=i")
_COMMAND, _MODE, _TIMEOUT, _AT_ONCE = 1, 2, 4, 5
_BIND, _COPY_PACKET = 1, 2
_PAYLOAD, _PREFIX = 9, 10
_ROOM = 1 << 16
# The kernel tells when so many wait, or when one has waited so many hundredths of a second.
_MOST, _LONGEST = 10, 10
_FRAGMENT = 44
_EXTENSIONS = {0, 43, 60, _FRAGMENT}  # of IPv6's header: hop by hop, routing, destination (RFC 8200)
_WITH_PORTS = {6, 17, 132}


class Packet(NamedTuple):
    """A packet: `said` is the rule's prefix, addresses are as in it, `port` the target's where it has one."""

    said: str
    source: bytes
    target: bytes
    protocol: int
    port: int | None


class PacketLog(Closing):
    """Listens to a group, in the network namespace that the thread is in when it is made; raises OSError."""

    def __init__(self, group: int, length: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETFILTER)
        self._socket.bind((0, 0))
        self._group = group
        try:
            for one in (
                attribute(_COMMAND, bytes((_BIND,))),
                attribute(_MODE, struct.pack(">IBx", length, _COPY_PACKET)),
                number(_TIMEOUT, _LONGEST),
                number(_AT_ONCE, _MOST),
            ):
                self._configure(one)
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)

    def close(self) -> None:
        """Close the socket; nobody listens any more."""
        self._socket.close()

    def fileno(self) -> int:
        """Return the socket, to wait for packets."""
        return self._socket.fileno()

    def read(self) -> Iterator[Packet | None]:
        """Yield what was logged since the last time; None: there was more than there is room for."""
        while True:
            try:
                data = self._socket.recv(_ROOM)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                yield None
                continue
            for kind, _, begin, end in messages(data):
                if kind == _PACKET:
                    found = attributes(data[begin + _HEADER.size + _FAMILY.size : end])
                    read = packet(found.get(_PREFIX, b"").rstrip(b"\0").decode(errors="replace"), found.get(_PAYLOAD, b""))
                    if read is not None:
                        yield read

    def _configure(self, body: bytes) -> None:
        size = _HEADER.size + _FAMILY.size + len(body)
        head = _HEADER.pack(size, _CONFIG, _REQUEST | _ACK, 1, 0) + _FAMILY.pack(socket.AF_UNSPEC, 0, self._group)
        self._socket.send(head + body)
        data = self._socket.recv(_ROOM)  # the kernel answers before `send` returns
        for kind, _, begin, _ in messages(data):
            if kind == _ERROR and (code := -_INT.unpack_from(data, begin + _HEADER.size)[0]):
                raise OSError(code, os.strerror(code))


def packet(said: str, data: bytes) -> Packet | None:
    """Return what a packet's headers say; None where they aren't whole."""
    if len(data) >= 20 and data[0] >> 4 == 4:
        protocol, start = data[9], 4 * (data[0] & 15)
        source, target = data[12:16], data[16:20]
        is_first = not int.from_bytes(data[6:8], "big") & 0x1FFF
    elif len(data) >= 40 and data[0] >> 4 == 6:
        protocol, start, is_first = data[6], 40, True
        source, target = data[8:24], data[24:40]
        while protocol in _EXTENSIONS and start + 4 <= len(data) and is_first:
            if protocol == _FRAGMENT:
                is_first = not int.from_bytes(data[start + 2 : start + 4], "big") & 0xFFF8
            length = 0 if protocol == _FRAGMENT else data[start + 1]
            protocol, start = data[start], start + 8 * (length + 1)
    else:
        return None
    has_port = is_first and protocol in _WITH_PORTS and start + 4 <= len(data)
    return Packet(said, source, target, protocol, int.from_bytes(data[start + 2 : start + 4], "big") if has_port else None)
