"""The kernel's nftables by netlink: messages, expressions, and a socket that sends a transaction.

Belongs here: how things are spelled (<linux/netfilter/nf_tables.h>, <linux/netfilter/nfnetlink.h>). Does not: what is to be
filtered.

By hand, and not through libnftables: its lists of what is there already make one added address take 20-190 ms, it knows no
constant in a concatenation, without which 10,000 sets are needed where two do, and its licence (GPL 2) isn't ours. pyroute2
spells these messages too, at 2 ms a rule.
"""

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from tortie.agent.netlink import Closing, messages

NETFILTER = 12  # netlink(7): NETLINK_NETFILTER
INET = 1  # NFPROTO_INET
IPV4, IPV6 = 2, 10  # NFPROTO_IPV4, NFPROTO_IPV6
DROP, ACCEPT, JUMP, GOTO = 0, 1, -3, -4
EQUAL, NOT_EQUAL, LESS_OR_EQUAL, GREATER_OR_EQUAL = 0, 1, 3, 5
LINK, NETWORK, TRANSPORT = 0, 1, 2  # where a payload begins
IIFNAME, OIFNAME, NFPROTO, L4PROTO, IIFGROUP, OIFGROUP, IIFTYPE = 6, 7, 15, 16, 21, 22, 8
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = 0, 1, 2, 3, 4
# nft's numbers of types, which it shows keys by (nftables' datatype.h): six bits for each part of a key
VERDICT, IPV4_ADDRESS, IPV6_ADDRESS, ETHER_ADDRESS, IFNAME = 0xFFFFFF00, 7, 8, 9, 41
INTERVAL, MAP = 0x4, 0x8

NEW_TABLE, GET_TABLE, DELETE_TABLE, NEW_CHAIN, DELETE_CHAIN, NEW_RULE, DELETE_RULE = 0, 1, 2, 3, 5, 6, 8
NEW_SET, DELETE_SET, NEW_ELEMENTS, DELETE_ELEMENTS = 9, 11, 12, 14
GET_CHAIN, GET_SET, NEW_OBJECT, GET_OBJECT, DELETE_OBJECT = 4, 10, 18, 19, 20

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_FLAGS = 6 if sys.byteorder == "little" else 7  # where the lower half of the flags is
_FAMILY = struct.Struct(">BBH")  # family, version, resource
_ATTRIBUTE = struct.Struct("=HH")
_INT = struct.Struct("=i")
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_BEGIN, _END = 0x10, 0x11
_REQUEST, _ACK, _CREATE, _APPEND = 0x1, 0x4, 0x400, 0x800
_DUMP, _DUMP_INTERRUPTED = 0x300, 0x10
_NESTED = 0x8000
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_COUNTER = 1  # NFT_OBJECT_COUNTER
_SNDBUFFORCE, _RCVBUFFORCE = 32, 33  # socket(7); Python has no names for them
_SOL_NETLINK, _CAP_ACK = 270, 10  # netlink(7)
_ROOM = 1 << 20  # bytes, for the kernel's answers to messages that are wrong
_MOST = 60_000  # bytes of elements in a message: an attribute's length has 16 bits
_INTERVAL_END = 1
_RANDOM = 0x10  # NF_NAT_RANGE_PROTO_RANDOM_FULLY: two connections that begin at once don't choose one port
_FIRST = 1  # the register that all begins in; each next one of four bytes is 9, 10, …
REGISTER_2, REGISTER_5 = 9, 12  # behind four bytes, and behind an interface's name
_COMMENT = 120  # bytes that nft shows of a comment, without its end


_SAID = 10  # of what is wrong, in a line of the log


class Refused(Exception):
    """The kernel didn't take a transaction, and nothing of it happened.

    Attributes:
        owners: What its wrong messages were about, with the errors; "" for none in particular.
    """

    def __init__(self, owners: dict[str, int]) -> None:
        self.owners = owners
        said = [f"{owner or 'the table'}: {os.strerror(code)}" for owner, code in owners.items()]
        more = [f"and {len(said) - _SAID} more"] if len(said) > _SAID else []
        super().__init__("; ".join(said[:_SAID] + more))


class Hook(NamedTuple):
    """Where a base chain is asked: the hook, the priority (lower ones come first), and the chain's type."""

    number: int
    priority: int
    kind: str = "filter"


class Contents(NamedTuple):
    """The names of what a table has."""

    chains: list[str]
    sets: list[str]
    counters: list[str]


class Socket(Closing):
    """A socket for transactions, in the network namespace that the thread is in when it is made."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETFILTER)
        self._socket.bind((0, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _ROOM)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)  # an error doesn't repeat the message
        self._socket.setblocking(False)  # what the kernel answers is there before `send` returns
        self._sent = 0
        self.port = int(self._socket.getsockname()[0])

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def has_table(self, name: str) -> bool:
        """Whether there is a table of this name, of family inet."""
        self._socket.send(_message(GET_TABLE, _REQUEST | _ACK, 1, _FAMILY.pack(INET, 0, 0) + text(1, name)))
        while True:
            answer = self._socket.recv(_ROOM)
            for kind, _, offset, _ in messages(answer):
                if kind == _NLMSG_ERROR:
                    return not _INT.unpack_from(answer, offset + _HEADER.size)[0]

    def contents(self, table: str) -> Contents | None:
        """Return what a table has, of family inet; None: there is no such table, or it changes meanwhile."""
        if not self.has_table(table):
            return None
        listed = (
            [_string(one[name]) for one in self._list(kind, table) if not _flags(one, flags) & its_rule_s]
            for kind, name, flags, its_rule_s in _NAMED
        )
        return Contents(*listed)

    def outwait(self) -> None:
        """Return when no packet is asked any more that was being asked; raises OSError.

        The kernel answers to a transaction that it refuses when nobody can look at what that tried: it waits for all that
        are looking (synchronize_rcu; 8 to 16 ms).
        """
        batch = Batch(_TRIES)
        batch.table()
        batch.delete_chain("none")
        with suppress(Refused):
            self.commit(batch)

    def takes(self, *expressions: bytes) -> bool:
        """Whether the kernel knows these expressions, and counters; raises OSError."""
        batch = Batch(_TRIES)
        batch.table()
        batch.chain("c")
        batch.counter(TRIED)
        batch.rules("c", [rule(*expressions)])
        batch.delete_table()
        try:
            self.commit(batch)
        except Refused:
            return False
        return True

    def counters(self, table: str) -> dict[str, tuple[int, int]]:
        """Return a table's counters, by name: packets, and bytes."""
        found = dict[str, tuple[int, int]]()
        for one in self._list(GET_OBJECT, table):
            counted = attributes(one[4])
            found[_string(one[2])] = int.from_bytes(counted[2], "big"), int.from_bytes(counted[1], "big")
        return found

    def _list(self, kind: int, table: str) -> Iterator[dict[int, bytes]]:
        """Yield the attributes of a table's chains, sets or counters; raises OSError, also where they change meanwhile."""
        wanted = text(1, table) + (number(3, _COUNTER) if kind == GET_OBJECT else b"")
        self._socket.send(_message(kind, _REQUEST | _DUMP, 1, _FAMILY.pack(INET, 0, 0) + wanted))
        is_torn = False
        while True:
            data = self._socket.recv(_ROOM)
            for answer, _, begin, end in messages(data):
                is_torn = is_torn or bool(_HEADER.unpack_from(data, begin)[2] & _DUMP_INTERRUPTED)
                if answer == _NLMSG_ERROR:
                    code = -_INT.unpack_from(data, begin + _HEADER.size)[0]
                    raise OSError(code, os.strerror(code))
                if answer == _NLMSG_DONE:
                    if is_torn:
                        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                    return
                one = attributes(data[begin + _HEADER.size + _FAMILY.size : end])
                if _string(one[1]) == table:
                    yield one

    def commit(self, batch: "Batch") -> None:
        """Let all of a batch happen at once, or nothing; raises Refused. Returns when the kernel has done it."""
        data = batch.encoded()
        if len(data) > self._sent:
            self._socket.setsockopt(socket.SOL_SOCKET, _SNDBUFFORCE, 2 * len(data))
            self._sent = len(data)
        self._socket.send(data)
        refused, is_known = dict[str, int](), False
        while True:
            try:
                answer = self._socket.recv(_ROOM)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                refused.setdefault("", errno.ENOBUFS)  # more was wrong than there is room to say
                continue
            for kind, sequence, offset, _ in messages(answer):
                if kind == _NLMSG_ERROR:
                    (code,) = _INT.unpack_from(answer, offset + _HEADER.size)
                    is_known = is_known or sequence == batch.last
                    if code:
                        refused.setdefault(batch.owner(sequence), -code)
        if refused or not is_known:
            raise Refused(refused or {"": errno.EPROTO})


class Batch:
    """A transaction on one table of family inet: what happens, in order. `owner` is who is to blame for a message."""

    def __init__(self, table: str) -> None:
        self._table = text(1, table)
        self._messages: list[bytes] = []
        self._owners: list[str] = []

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def last(self) -> int:
        """The sequence of the message whose acknowledgement says that all was looked at."""
        return len(self._messages)

    def owner(self, sequence: int) -> str:
        """Return whose message this was."""
        return self._owners[sequence - 1] if 0 < sequence <= len(self._owners) else ""

    def encoded(self) -> bytes:
        """Return all of it as the kernel reads it."""
        edge = _FAMILY.pack(0, 0, _SUBSYSTEM)
        head = _HEADER.pack(20, _BEGIN, _REQUEST, 0, 0) + edge
        # Errors of those before it are said before that it is acknowledged.
        last = bytearray(self._messages[-1])
        last[_FLAGS] |= _ACK
        return b"".join((head, *self._messages[:-1], last, _HEADER.pack(20, _END, _REQUEST, 0, 0), edge))

    def table(self, *, anew: bool = False) -> None:
        """Make the table, or let one that somebody set dormant filter again; `anew`: without anything that it had."""
        self._add(NEW_TABLE, _CREATE, number(2, 0))
        if anew:
            self._add(DELETE_TABLE, 0, b"")
            self._add(NEW_TABLE, _CREATE, b"")

    def delete_table(self) -> None:
        """Delete the table with all that it has, which is the last thing that happens to it."""
        self._add(DELETE_TABLE, 0, b"")

    def chain(self, name: str, hook: Hook | None = None, owner: str = "") -> None:
        """Make a chain; `hook` is that of a base chain: what it doesn't decide is accepted."""
        body = text(3, name)
        if hook:
            where = nest(4, number(1, hook.number), number(2, hook.priority & 0xFFFFFFFF))
            body += where + number(5, ACCEPT) + text(7, hook.kind)
        self._add(NEW_CHAIN, _CREATE, body, owner)

    def rules(self, chain: str, rules: Iterable[bytes], owner: str = "") -> None:
        """Add rules to a chain's end."""
        name = text(2, chain)
        for rule in rules:
            self._add(NEW_RULE, _CREATE | _APPEND, name + rule, owner)

    def flush(self, chain: str, owner: str = "") -> None:
        """Take a chain's rules away."""
        self._add(DELETE_RULE, 0, text(2, chain), owner)

    def delete_chain(self, name: str, owner: str = "") -> None:
        """Delete a chain that is empty and that nothing leads to."""
        self._add(DELETE_CHAIN, 0, text(3, name), owner)

    def set(self, name: str, types: Sequence[int], length: int, flags: int = 0, owner: str = "") -> None:
        """Make a set of keys of these types, `length` bytes together; with the flag MAP, from keys to verdicts."""
        kind = 0
        for one in types:
            kind = kind << 6 | one
        # The id is only for rules of the same transaction; these name the set.
        body = text(2, name) + number(3, flags) + number(4, kind) + number(5, length) + number(10, len(self._messages) + 1)
        if flags & MAP:
            body += number(6, VERDICT) + number(7, 0)
        if types == (IFNAME,):
            body += attribute(13, b"\0\4" + host_order(1))  # without it nft would read the name backwards
        self._add(NEW_SET, _CREATE, body, owner)

    def delete_set(self, name: str, owner: str = "") -> None:
        """Delete a set that no rule names."""
        self._add(DELETE_SET, 0, text(2, name), owner)

    def elements(self, name: str, elements: Iterable[bytes], *, delete: bool = False, owner: str = "") -> None:
        """Add elements to a set or map, or delete them."""
        head, kind, how = text(2, name), DELETE_ELEMENTS if delete else NEW_ELEMENTS, 0 if delete else _CREATE
        waiting, size = list[bytes](), 0
        for one in elements:
            waiting.append(one)
            size += len(one)
            if size > _MOST:
                self._add(kind, how, head + nest(3, *waiting), owner)
                waiting, size = [], 0
        if waiting:
            self._add(kind, how, head + nest(3, *waiting), owner)

    def clear(self, name: str, owner: str = "") -> None:
        """Take all elements from a set."""
        self._add(DELETE_ELEMENTS, 0, text(2, name), owner)

    def counter(self, name: str, owner: str = "") -> None:
        """Make a counter; one that is there goes on."""
        self._add(NEW_OBJECT, _CREATE, text(2, name) + number(3, _COUNTER) + nest(4), owner)

    def delete_counter(self, name: str) -> None:
        """Delete a counter that no rule names."""
        self._add(DELETE_OBJECT, 0, text(2, name) + number(3, _COUNTER))

    def _add(self, kind: int, flags: int, body: bytes, owner: str = "") -> None:
        head = _FAMILY.pack(INET, 0, 0) + self._table
        self._owners.append(owner)
        self._messages.append(_message(kind, _REQUEST | flags, len(self._owners), head + body))


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), _SUBSYSTEM << 8 | kind, flags, sequence, 0) + body


# --- attributes


def attribute(kind: int, data: bytes) -> bytes:
    """Return an attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(4 + len(data), kind) + data + bytes(-len(data) % 4)


def nest(kind: int, *parts: bytes) -> bytes:
    """Return an attribute made of attributes."""
    return attribute(_NESTED | kind, b"".join(parts))


def number(kind: int, value: int) -> bytes:
    """Return an attribute of 32 bits."""
    return attribute(kind, value.to_bytes(4, "big"))


def text(kind: int, value: str) -> bytes:
    """Return an attribute with a name."""
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes) -> dict[int, bytes]:
    """Return what attributes hold, by kind; of several of a kind the last one."""
    found, at = dict[int, bytes](), 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        found[kind & 0x3FFF] = data[at + _ATTRIBUTE.size : at + length]
        at += max(length + 3 & ~3, _ATTRIBUTE.size)
    return found


def _string(data: bytes) -> str:
    return data.rstrip(b"\0").decode()


def _flags(one: Mapping[int, bytes], kind: int) -> int:
    return int.from_bytes(one.get(kind, b""), "big")


# What is listed of each kind: where its name is, where its flags are, and which of these says that it goes with its rule.
_NAMED = (GET_CHAIN, 3, 10, 0x4), (GET_SET, 2, 3, 0x1), (GET_OBJECT, 2, 0, 0)
TRIED = "c"  # a counter that `takes` makes
_TRIES = "tortie-tries"  # a table that never comes to be


# --- elements of sets and maps


def element(key: bytes) -> bytes:
    """Return an element of a set."""
    return nest(1, nest(1, attribute(1, key)))


def interval(first: bytes, after: bytes | None) -> tuple[bytes, ...]:
    """Return the elements for a range of keys; `after` is the first key behind it, None: there is none."""
    begin = nest(1, nest(1, attribute(1, first)))
    return (begin,) if after is None else (begin, nest(1, nest(1, attribute(1, after)), number(3, _INTERVAL_END)))


def mapping(key: bytes, code: int, chain: str = "") -> bytes:
    """Return an element of a map, from a key to a verdict."""
    return nest(1, nest(1, attribute(1, key)), nest(2, _verdict(code, chain)))


def ifname(name: str) -> bytes:
    """Return an interface's name as a key."""
    return name.encode().ljust(16, b"\0")


# --- rules: expressions, in order


def rule(*expressions: bytes, comment: str = "") -> bytes:
    """Return a rule; nft shows its comment."""
    said = comment.encode()[:_COMMENT] + b"\0" if comment else b""
    return nest(4, *expressions) + (attribute(7, bytes((0, len(said))) + said) if said else b"")


@lru_cache(1024)
def meta(key: int, register: int = _FIRST) -> bytes:
    """Load what is known of a packet beside its bytes."""
    return _expression("meta", number(1, register), number(2, key))


@lru_cache(1024)
def payload(base: int, offset: int, length: int, register: int = _FIRST) -> bytes:
    """Load bytes of a packet."""
    return _expression("payload", number(1, register), number(2, base), number(3, offset), number(4, length))


def constant(data: bytes, register: int = _FIRST) -> bytes:
    """Load a constant."""
    return _expression("immediate", number(1, register), nest(2, attribute(1, data)))


@lru_cache(16384)
def compare(data: bytes, how: int = EQUAL, register: int = _FIRST) -> bytes:
    """Go on with the rule if what was loaded compares so."""
    return _expression("cmp", number(1, register), number(2, how), nest(3, attribute(1, data)))


def masked(mask: bytes) -> bytes:
    """Keep these bits of what was loaded."""
    size, none = number(3, len(mask)), attribute(1, bytes(len(mask)))
    return _expression("bitwise", number(1, _FIRST), number(2, _FIRST), size, nest(4, attribute(1, mask)), nest(5, none))


def bits(mask: int) -> bytes:
    """Go on if any of these bits of a loaded number is set."""
    return masked(host_order(mask)) + compare(host_order(0), NOT_EQUAL)


@lru_cache(64)
def connection() -> bytes:
    """Load the state of a packet's connection, as bits."""
    return _expression("ct", number(1, _FIRST), number(2, 0))


@lru_cache(1024)
def member(name: str, *, outside: bool = False) -> bytes:
    """Go on if what was loaded is in a set, or `outside` of it."""
    return _expression("lookup", text(1, name), number(2, _FIRST), number(5, int(outside)))


def masquerade() -> bytes:
    """Let the packet's connection leave with the address of the link that it leaves by, and a port drawn at random."""
    return _expression("masq", number(1, _RANDOM))


@lru_cache(64)
def verdict_of(name: str) -> bytes:
    """Do what a map says of what was loaded; go on with the rule if it says nothing."""
    return _expression("lookup", text(1, name), number(2, _FIRST), number(3, 0))


@lru_cache(16384)
def verdict(code: int, chain: str = "") -> bytes:
    """Decide, or lead to a chain."""
    return _expression("immediate", number(1, 0), nest(2, _verdict(code, chain)))


@lru_cache(1024)
def counted(name: str) -> bytes:
    """Count the packet in a counter."""
    return _expression("objref", number(1, _COUNTER), text(2, name))


def limit(rate: int, burst: int) -> bytes:
    """Go on at most so often a second."""
    second = 1
    return _expression(
        "limit", attribute(1, rate.to_bytes(8, "big")), attribute(2, second.to_bytes(8, "big")), number(3, burst), number(4, 0)
    )


def log(group: int, prefix: str, length: int) -> bytes:
    """Tell those who listen to a group of a packet, so many bytes of it; `prefix`: at most 127 bytes."""
    return _expression("log", attribute(1, group.to_bytes(2, "big")), text(2, prefix), number(3, length))


def host_order(value: int) -> bytes:
    """Return a number of 32 bits in the machine's order."""
    return struct.pack("=I", value)


def _verdict(code: int, chain: str) -> bytes:
    said = number(1, code & 0xFFFFFFFF)
    return nest(2, said + text(2, chain) if chain else said)


def _expression(name: str, *data: bytes) -> bytes:
    return nest(1, text(1, name), nest(2, *data))
