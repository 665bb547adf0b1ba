"""Connections that are open: both ends say words over them, and it is known whether the other has heard all."""

import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from tests.agent.packets import inside
from tests.cluster.deploy import wait
from tests.conformance.rows import Asked
from tests.conformance.town import Spot, Town

_SECONDS = 30.0  # until what should open has opened
_SOON = 10.0  # seconds until something that takes one at most
_RETRANSMITS = 2  # where tcpi_retransmits is in struct tcp_info, <linux/tcp.h>


class Talk:
    """An open connection. Both ends say the same numbers, of which each has as many bytes."""

    def __init__(self, asked: Asked, *ends: socket.socket) -> None:
        self.asked, self._ends = asked, ends
        self._said, self._heard = b"", [b"", b""]
        for one in ends:
            one.setblocking(False)
            if one.type == socket.SOCK_STREAM:  # no word waits for another's acknowledgement
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def say(self) -> None:
        """Let both ends say the next number."""
        word = (len(self._said) // 4).to_bytes(4, "big")
        self._said += word
        for one in self._ends:
            with suppress(ConnectionError):  # it was reset, and carries nothing
                one.send(word)

    def heard(self) -> list[bytes]:
        """Return what each end has heard until now."""
        for number, one in enumerate(self._ends):
            with suppress(BlockingIOError, ConnectionError):
                while data := one.recv(1024):
                    self._heard[number] += data
        return list(self._heard)

    def is_whole(self) -> bool:
        """Whether both ends have heard all that was said, in its order, and nothing else."""
        return self.heard() == [self._said, self._said]

    def insists(self) -> bool:
        """Whether what wasn't heard was sent once more, and again, by both ends; by UDP nobody does that."""
        streams = (one for one in self._ends if one.type == socket.SOCK_STREAM)
        return all(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[_RETRANSMITS] >= 2 for one in streams)


@contextmanager
def talk(town: Town, world: int, asked: Asked) -> Iterator[Talk]:
    """Open a connection, from what is asked as its client, and close it in the end."""
    kind = socket.SOCK_STREAM if asked.on.startswith("TCP") else socket.SOCK_DGRAM
    family = socket.AF_INET6 if asked.family == "v6" else socket.AF_INET
    own, port = town.addresses(world)[asked.target][asked.family == "v6"], int(asked.on.partition(" ")[2])
    with (
        _socket(town.spot(world, asked.target), family, kind) as server,
        _socket(town.spot(world, asked.source), family, kind) as client,
    ):
        server.bind((own, port))
        if kind == socket.SOCK_STREAM:
            server.listen()
            client.connect(town.target(world, asked))
            with server.accept()[0] as accepted:
                server.close()  # the next one listens there
                yield Talk(asked, client, accepted)
        else:
            client.connect(town.target(world, asked))
            client.send(b"first")
            server.connect(server.recvfrom(16)[1])
            yield Talk(asked, client, server)


def say(talks: Iterable[Talk]) -> None:
    """Let both ends of each say a word, and hear what has come."""
    for one in talks:
        one.say()
        one.heard()


def losing(talks: Sequence[Talk]) -> list[Talk]:
    """Return those over which not all is heard that was said."""
    with suppress(TimeoutError):
        wait("all is heard", lambda: all(one.is_whole() for one in talks), _SOON)
    return [one for one in talks if not one.is_whole()]


def carrying(town: Town, talks: Sequence[Talk]) -> list[Talk]:
    """Return those that carry a word in any direction, the first time or when it is sent again."""
    before = [one.heard() for one in talks]
    with town.arriving():
        for one in talks:
            one.say()

    def silent() -> list[Talk]:
        return [one for one, heard in zip(talks, before, strict=True) if one.heard() == heard]

    with suppress(TimeoutError):
        wait("what was lost is sent again", lambda: all(one.insists() for one in silent()), _SOON)
    lost = silent()
    return [one for one in talks if one not in lost]


def _socket(spot: Spot, family: int, kind: int) -> socket.socket:
    made = inside(spot.namespace, lambda: socket.socket(family, kind))
    made.settimeout(_SECONDS)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made
