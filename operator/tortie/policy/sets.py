"""AddressSets: the members of one peer, in chunks that stay as they are while others change."""

import binascii
import hashlib
from collections.abc import Iterator, Mapping

import msgspec

from tortie.addressing.ranges import Range
from tortie.api.compiled import AddressSetSpec
from tortie.policy.index import PodPort
from tortie.policy.policies import Peer

# Addresses in a chunk: what one pod more sends to every node that uses the set (docs/architecture.md has the figures).
CHUNK = 64
_MANY = 8  # chunks, from which on a member isn't looked for in each
NAME = 14  # characters of a name
# base64's letters as 32 that the name of an object may have.
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_LETTERS = bytes.maketrans(_BASE64, 2 * b"abcdefghijklmnopqrstuvwxyz234567")


class SetKey(msgspec.Struct, frozen=True):
    """What a set holds: the peer's addresses; with `port` those of pods that call that port so; `within` these ranges."""

    peer: Peer
    port: PodPort | None = None
    within: tuple[Range, ...] | None = None


class AddressSet:
    """One set. It is the same for everybody who names the same peer.

    Attributes:
        uses: How many rules name it.
        denies: How many of these deny.
    """

    __slots__ = ("_chunks", "_count", "_dirty", "_taken", "_where", "denies", "key", "name", "uses")

    def __init__(self, key: SetKey) -> None:
        self.key, self.name = key, digest(key)
        self.uses = self.denies = 0
        # Each member, and how many pods have it: an address passes from one to another between two events. One that nobody
        # has any more keeps its place until it is taken: come back to another chunk, it would be in none for a moment.
        self._chunks: list[dict[str, int]] = [{}]
        self._count = 0  # of members that somebody has
        self._where: dict[str, int] = {}  # the chunk of each member, once there are many chunks
        self._dirty = {0}  # the chunks that were changed since they were taken
        self._taken = 0  # how many chunks there were then

    def add(self, member: str) -> None:
        """Take a member once more."""
        number = self._chunk_of(member)
        if number is None:
            number = self._place(member, 0)
        chunk = self._chunks[number]
        chunk[member] += 1
        if chunk[member] == 1:
            self._count += 1
            self._dirty.add(number)

    def discard(self, member: str) -> None:
        """Take a member out, if it was taken but once."""
        number = self._chunk_of(member)
        assert number is not None
        chunk = self._chunks[number]
        chunk[member] -= 1
        if not chunk[member]:
            self._count -= 1
            self._dirty.add(number)

    def names(self) -> Iterator[str]:
        """Yield the name of every chunk that was taken and not taken back."""
        return (chunk_name(self.name, number) for number in range(self._taken))

    def take(self) -> Iterator[tuple[str, AddressSetSpec | None]]:
        """Yield the chunks that changed since the last time; None for one that is no more.

        Written one by one in this order, no member is ever missing: those but chunk 0 (in any order), chunk 0, which says
        how many there are, then what is no more.
        """
        for number in self._dirty:
            for gone in [member for member, pods in self._chunks[number].items() if not pods]:
                del self._chunks[number][gone]
                self._where.pop(gone, None)
        if len(self._chunks) > 1 and self._count <= CHUNK * len(self._chunks) // 4:
            self._merge()
        dirty, self._dirty = self._dirty, set()
        taken, self._taken = self._taken, len(self._chunks)
        for number in [*sorted(dirty - {0}), *(dirty & {0})]:
            count = len(self._chunks) if number == 0 else None
            yield chunk_name(self.name, number), AddressSetSpec(self.name, number, tuple(sorted(self._chunks[number])), count)
        yield from ((chunk_name(self.name, number), None) for number in range(self._taken, taken))

    def _chunk_of(self, member: str) -> int | None:
        if self._where:
            return self._where.get(member)
        for number, chunk in enumerate(self._chunks):
            if member in chunk:
                return number
        return None

    def _place(self, member: str, pods: int) -> int:
        """Put a new member where there is room, and return the number of that chunk."""
        number = len(self._chunks) - 1
        if len(self._chunks[number]) >= CHUNK:
            number = next((n for n, chunk in enumerate(self._chunks) if len(chunk) < CHUNK), number + 1)
            if number == len(self._chunks):
                self._chunks.append({})
                self._dirty.add(0)  # it says how many there are
                if number == _MANY:
                    self._where = {member: number for number, chunk in enumerate(self._chunks) for member in chunk}
        self._chunks[number][member] = pods
        if self._where:
            self._where[member] = number
        self._dirty.add(number)
        return number

    def _merge(self) -> None:
        """Use fewer chunks: seldom, because each change is sent to all who use the set. Those that stay only gain."""
        keep = max(1, -(-self._count // (CHUNK // 2)))
        moved, self._chunks = self._chunks[keep:], self._chunks[:keep]
        self._dirty = {number for number in self._dirty if number < keep} | {0}
        for chunk in moved:
            for member, pods in chunk.items():
                self._place(member, pods)
        if keep <= _MANY:
            self._where = {}


def chunk_name(name: str, number: int) -> str:
    """Return the name of a chunk's object."""
    return f"{name}-{number}"


def digest(key: object) -> str:
    """Return a name that is the same for the same content: 14 characters, because a node may name 50,000 of them.

    They say 70 of the hash's bits: two letters of base64 are one that a name may have.
    """
    hashed = hashlib.blake2b(repr(key).encode(), digest_size=12).digest()
    return binascii.b2a_base64(hashed, newline=False).translate(_LETTERS)[:NAME].decode()


Chunks = Mapping[str, AddressSetSpec]
Writes = list[tuple[str, AddressSetSpec | None]]


def steps(known: Chunks, wanted: Chunks) -> Iterator[Writes]:
    """Yield the writes that make a set's chunks so, by name; those of one step in any order, None for a deletion.

    After each write the union of chunks, as chunk 0 counts them, holds every member that is in both. Chunks of one `take`
    need no more than the order of steps; where several came together a member may have moved to a chunk that is written
    later, so what receives it is written first, beside what it holds still.
    """
    now, then = _places(known), _places(wanted)
    moved = {name for member, name in then.items() if now.get(member, name) != name}
    first = [name for name, spec in wanted.items() if spec.chunk == 0]
    if moved:
        count = max(spec.chunks or 1 for spec in (*known.values(), *wanted.values()))
        yield [(name, _with(wanted[name], known.get(name), then)) for name in sorted(moved) if name not in first]
        yield [(name, _with(wanted[name], known.get(name), then, count)) for name in first]
    yield [(name, spec) for name, spec in wanted.items() if name not in first]
    yield [(name, wanted[name]) for name in first]
    yield [(name, None) for name in known if name not in wanted]


def _places(chunks: Chunks) -> dict[str, str]:
    return {member: name for name, spec in chunks.items() for member in spec.addresses}


def _with(
    wanted: AddressSetSpec, known: AddressSetSpec | None, then: Mapping[str, str], count: int | None = None
) -> AddressSetSpec:
    """Return a chunk with what it holds still that is to be in another one; chunk 0 counts the chunks before and after."""
    staying = (one for one in known.addresses if one in then) if known is not None else ()
    return AddressSetSpec(wanted.set, wanted.chunk, tuple(sorted({*wanted.addresses, *staying})), count)
