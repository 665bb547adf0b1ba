"""The kernel's connections: listed, and deleted one by one (<linux/netfilter/nfnetlink_conntrack.h>).

Belongs here: how they are spelled. Does not: which of them may go on.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tortie.agent.netlink import Closing, messages
from tortie.agent.nfnetlink import NETFILTER, attribute

_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct(">BBH")
_ATTRIBUTE = struct.Struct("=HH")
_INT = struct.Struct("=i")
_GET, _DELETE = 0x101, 0x102  # of NFNL_SUBSYS_CTNETLINK
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_ORIGINAL, _REPLY, _PROTOINFO, _ID, _ZONE = 1, 2, 4, 12, 18
_TCP, _TCP_FLAGS = 1, 4  # CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_FLAGS_ORIGINAL
_WINDOW_SCALE, _BE_LIBERAL = 0x01, 0x08  # IP_CT_TCP_FLAG_…: the first one is said by SYN alone
_IP, _PROTO = 1, 2
_SOURCES, _TARGETS = {1, 3}, {2, 4}  # of both families
_NUMBER, _SOURCE_PORT, _TARGET_PORT = 1, 2, 3
_NESTED = 0x8000
_ROOM = 1 << 16  # bytes; the kernel lists 32 KB at once at most
_PATIENCE = 30.0  # seconds


class Flow(NamedTuple):
    """One way of a connection: addresses as in packets, ports where the protocol has them."""

    source: bytes
    target: bytes
    protocol: int
    source_port: int
    target_port: int


class Connection(NamedTuple):
    """A connection: as its first packet came, and how replies come, which tells where it truly went; `key` names it.

    Attributes:
        is_picked_up: The kernel saw a TCP connection's middle first, so `original` may be the side that answers.
    """

    original: Flow
    reply: Flow
    key: bytes
    is_picked_up: bool = False


class Connections(Closing):
    """A socket in the network namespace that the thread is in when it is made."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETFILTER)
        self._socket.settimeout(_PATIENCE)
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def of(self, addresses: frozenset[bytes]) -> Iterator[Connection]:
        """Yield the connections that begin or end at one of these addresses; raises OSError."""
        self._sequence += 1
        self._socket.send(_message(_GET, _DUMP, self._sequence, socket.AF_UNSPEC, b""))
        while True:
            data = self._socket.recv(_ROOM)
            for kind, sequence, begin, end in messages(data):
                if sequence != self._sequence:
                    continue
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    code = -_INT.unpack_from(data, begin + _HEADER.size)[0]
                    raise OSError(code, os.strerror(code))
                first = begin + _HEADER.size + _FAMILY.size
                if addresses.isdisjoint(_sources(data, first)):  # of 100,000 connections few are looked at further
                    continue
                yield _connection(data, first, end)

    def delete(self, connections: Iterable[Connection]) -> None:
        """Delete connections; one that is gone is fine. Raises OSError for the first that can't be, when all were tried."""
        refused = 0
        for one in connections:
            self._sequence += 1
            family = socket.AF_INET if len(one.original.source) == 4 else socket.AF_INET6
            self._socket.send(_message(_DELETE, _ACK, self._sequence, family, one.key))
            code = self._answer()
            refused = refused or (code if code != errno.ENOENT else 0)
        if refused:
            raise OSError(refused, os.strerror(refused))

    def _answer(self) -> int:
        while True:
            data = self._socket.recv(_ROOM)
            for kind, sequence, begin, _ in messages(data):
                if kind == _ERROR and sequence == self._sequence:
                    return -int(_INT.unpack_from(data, begin + _HEADER.size)[0])


def _message(kind: int, flags: int, sequence: int, family: int, body: bytes) -> bytes:
    size = _HEADER.size + _FAMILY.size + len(body)
    return _HEADER.pack(size, kind, _REQUEST | flags, sequence, 0) + _FAMILY.pack(family, 0, 0) + body


def _sources(data: bytes, at: int) -> tuple[bytes, bytes]:
    """Return where a connection and its replies come from: the kernel says both flows first, and each one's source first."""
    length = _ATTRIBUTE.unpack_from(data, at)[0]
    other = at + (length + 3 & ~3)
    return _source(data, at), _source(data, other)


def _source(data: bytes, flow: int) -> bytes:
    at = flow + 2 * _ATTRIBUTE.size
    return data[at + _ATTRIBUTE.size : at + _ATTRIBUTE.unpack_from(data, at)[0]]


def _attributes(data: bytes, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
    while offset + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        yield kind & ~_NESTED & 0x3FFF, offset + _ATTRIBUTE.size, offset + length
        offset += max(length + 3 & ~3, _ATTRIBUTE.size)


def _connection(data: bytes, begin: int, end: int) -> Connection:
    flows, key, flags = {}, b"", 0
    for kind, first, last in _attributes(data, begin, end):
        if kind in (_ORIGINAL, _REPLY):
            flows[kind] = _flow(data, first, last)
        if kind in (_ORIGINAL, _ID, _ZONE):
            key += attribute(kind | (_NESTED if kind == _ORIGINAL else 0), data[first:last])
        if kind == _PROTOINFO:
            flags = _tcp_flags(data, first, last)
    return Connection(flows[_ORIGINAL], flows[_REPLY], key, flags & (_WINDOW_SCALE | _BE_LIBERAL) == _BE_LIBERAL)


def _tcp_flags(data: bytes, begin: int, end: int) -> int:
    for protocol, first, last in _attributes(data, begin, end):
        for kind, at, _ in _attributes(data, first, last) if protocol == _TCP else ():
            if kind == _TCP_FLAGS:
                return data[at]
    return 0


def _flow(data: bytes, begin: int, end: int) -> Flow:
    source = target = b""
    protocol = source_port = target_port = 0
    for kind, first, last in _attributes(data, begin, end):
        for part, at, to in _attributes(data, first, last):
            if kind == _IP and part in _SOURCES:
                source = data[at:to]
            elif kind == _IP and part in _TARGETS:
                target = data[at:to]
            elif kind == _PROTO and part == _NUMBER:
                protocol = data[at]
            elif kind == _PROTO and part == _SOURCE_PORT:
                source_port = int.from_bytes(data[at:to], "big")
            elif kind == _PROTO and part == _TARGET_PORT:
                target_port = int.from_bytes(data[at:to], "big")
    return Flow(source, target, protocol, source_port, target_port)
