"""Somebody else's hand in our table: noticed by the kernel's own messages, and mended.

Belongs here: whether a transaction was ours (nftables' netlink group, <linux/netfilter/nf_tables.h>). Does not: what the table
should be.
"""

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import Awaitable, Callable

from tortie.agent.netlink import messages
from tortie.agent.nfnetlink import INET, NETFILTER, text

_log = logging.getLogger(__name__)

# Seconds: what a person's command changes bit by bit is mended once.
SETTLE = 0.1
# Seconds until a table that can't be made is tried again.
RETRY = 2.0
_ADD_MEMBERSHIP, _SOL_NETLINK, _RCVBUFFORCE = 1, 270, 33  # netlink(7), socket(7)
_GROUP = 7  # NFNLGRP_NFTABLES
_SUBSYSTEM, _NEW_GENERATION = 10, 15
# Bytes: a whole table of ours is said in messages too, 10,000 policies in 30 MB.
_ROOM = 64 << 20
_RECEIVED = 1 << 18
_HEADER = struct.Struct("=IHHII")


class Drift:
    """Reads what the kernel says of a table, in the network namespace that the thread is in when it is made.

    `own` is the port of the socket whose transactions are ours.
    """

    def __init__(self, table: str, own: int) -> None:
        self._mark = bytes((INET,)), text(1, table)
        self._own = own
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _ROOM)
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
        self._socket.setblocking(False)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def read(self) -> bool:
        """Take in what was said since the last time; whether somebody else changed our table, or that isn't known."""
        return any(self._read())

    def _read(self) -> tuple[bool, bool]:
        """Return whether somebody else changed our table, and whether more was said than there was room for."""
        found = lost = False
        while True:
            try:
                data = self._socket.recv(_RECEIVED)
            except BlockingIOError:
                return found, lost
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            found = found or self._is_strange(data)

    async def run(self, mend: Callable[[], Awaitable[bool]]) -> None:
        """Watch for ever; `mend` replaces the table, and says whether it could."""
        loop, heard, strange = asyncio.get_running_loop(), asyncio.Event(), False
        loop.add_reader(self._socket, heard.set)
        try:
            while True:
                await heard.wait()
                heard.clear()
                strange = self.read() or strange
                if strange:
                    await asyncio.sleep(SETTLE)
                    self.read()
                    mended = await mend()
                    changed, _ = self._read()  # the rest is of our own making, and may be much
                    strange = changed or not mended
                if strange:
                    loop.call_later(RETRY, heard.set)
        finally:
            loop.remove_reader(self._socket)

    def _is_strange(self, data: bytes) -> bool:
        family, table = self._mark
        for kind, _, begin, end in messages(data):
            if kind >> 8 != _SUBSYSTEM or kind & 0xFF == _NEW_GENERATION:
                continue
            (*_, port) = _HEADER.unpack_from(data, begin)
            body = data[begin + _HEADER.size : end]
            if port != self._own and body[:1] == family and body[4 : 4 + len(table)] == table:
                return True
        return False
