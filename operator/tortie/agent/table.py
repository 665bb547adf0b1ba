"""What the agent's nftables table always has: its sets, and the chains that every packet takes. Pure.

A pod's packets take two base chains, one for what it sends (`from-pods`, `from-pods-here` to its own node) and one for what it
receives (`to-pods`; `to-pods-from-here` from its own node, which may always begin), so that a rule's `accept` decides for one
side alone. Each leads by the pod's interface to the chain of its list of RuleSets (`tortie.agent.rules`); an interface of ours
that leads nowhere is closed.

A packet that is being asked while a transaction happens goes on by the rules that it began with; but a set or a map is to it,
from that moment, what the transaction made of it. So a replacement of the table leaves alone what rules look into, and makes
all of that anew under other names, those of the next `Edition`.
"""

import struct
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from tortie.addressing.ranges import Family
from tortie.agent import nfnetlink as nf
from tortie.agent.matches import ADDRESS, BYTES, FAMILIES, SOURCE, TARGET, between, carries, is_of
from tortie.agent.wire import GROUP
from tortie.api.compiled import Direction

TABLE = "tortie"
# Elements: constant of a set and address; interface and address; interface and MAC; address; interface, to a chain.
PEERS: dict[Family, str] = {4: "peers4", 6: "peers6"}
HERE: dict[Family, str] = {4: "here4", 6: "here6"}
LOCAL: dict[Family, str] = {4: "local4", 6: "local6"}
MACS = "macs"
# Ranges: of all pools, and of those whose packets are masqueraded where they leave all pools.
POOLS: dict[Family, str] = {4: "pools4", 6: "pools6"}
NATTED: dict[Family, str] = {4: "natted4", 6: "natted6"}
WAYS: dict[Direction, str] = {"Ingress": "to", "Egress": "from"}  # the maps, and how chains' names end

_IPIP, _TCP, _UDP, _ICMPV6 = 4, 6, 17, 58
_ETHERNET = 1  # ARPHRD_ETHER
_ESTABLISHED, _RELATED, _NEW = 2, 4, 8
_FIN_SYN_RST_ACK, _SYN = b"\x17", b"\x02"
_ADVERTISEMENT = 134
# Neighbour discovery (RFC 4861) without advertisements of routers, and listeners' reports (RFC 3810).
_DISCOVERY = ((131, 133), (135, 136), (143, 143))
# Before connections are tracked (-200) and translated (-100).
_RAW, _FROM, _TO = -300, -2, -1
_SOURCE_NAT = 100  # NF_IP_PRI_NAT_SRC


class Edition(NamedTuple):
    """The sets and maps that one replacement of the table made, whose names end with its number; a new table's have none."""

    number: int = 0

    def of(self, name: str) -> str:
        """Return a set's or map's name in this edition."""
        return f"{name}.{self.number}" if self.number else name


def edition_in_force(sets: Sequence[str]) -> Edition:
    """Return the edition that rules name, of a table with these sets: the last one whose MACs came, which is with its rules."""
    return Edition(max((number for base, number in map(_parted, sets) if base == MACS), default=0))


def next_edition(sets: Sequence[str]) -> Edition:
    """Return an edition of which a table with these sets has nothing, whoever made them."""
    return Edition(1 + max((number for _, number in map(_parted, sets)), default=-1))


def _parted(name: str) -> tuple[str, int]:
    base, dot, number = name.rpartition(".")
    return (base, int(number)) if dot and number.isascii() and number.isdecimal() else (name, 0)


def ranges_of(name: str, family: Family) -> str:
    """Return the name of the set of a set's ranges."""
    return f"{name}-{family}"


def can_be_refilled(there: nf.Contents, *, masquerades: bool) -> bool:
    """Whether a table has all base chains."""
    return dict(_base_chains(Edition(), 0, masquerades=masquerades)).keys() <= set(there.chains)


def prepare(
    batch: nf.Batch, ranges: nf.Batch, there: nf.Contents | None, edition: Edition, vxlan_port: int, *,
    masquerades: bool, chains: Collection[str], counters: Collection[str],
) -> nf.Contents:  # fmt: skip
    """Make the table: an edition of its sets, and its base chains with their rules, which close every interface of ours.

    Base chains that are there are refilled, and so are `chains`, which come later: of two base chains at one hook a packet
    would be asked by one as it was and by the other as it is. All else stays, because packets may still be asked by it: what
    isn't among `chains` and `counters` is returned, for `tidy`. `ranges` comes before `batch`, unless it is the same.
    """
    base = dict(_base_chains(edition, vxlan_port, masquerades=masquerades))
    before = there or nf.Contents([], [], [])
    batch.table(anew=there is None)
    for name in before.chains:
        if name in base or name in chains:
            batch.flush(name)
    _make_sets(batch, ranges, edition)
    for name, (hook, _) in base.items():
        batch.chain(name, hook)
    for name, (_, rules) in base.items():
        batch.rules(name, rules)
    stale = [name for name in before.chains if name not in base and name not in chains]
    return nf.Contents(stale, before.sets, [name for name in before.counters if name not in counters])


def tidy(batch: nf.Batch, left: nf.Contents) -> None:
    """Delete what a replacement left: rules name chains and sets, maps name chains."""
    for name in left.chains:
        batch.flush(name)
    for name in left.sets:
        batch.delete_set(name)
    for name in left.chains:
        batch.delete_chain(name)
    for name in left.counters:
        batch.delete_counter(name)


def _make_sets(batch: nf.Batch, ranges: nf.Batch, edition: Edition) -> None:
    batch.set(edition.of(MACS), (nf.IFNAME, nf.ETHER_ADDRESS), 16 + 8)
    for family in FAMILIES:
        address, size = ADDRESS[family], BYTES[family]
        batch.set(edition.of(PEERS[family]), (nf.IPV4_ADDRESS, address), 4 + size)  # nft has no plain number
        batch.set(edition.of(HERE[family]), (nf.IFNAME, address), 16 + size)
        batch.set(edition.of(LOCAL[family]), (address,), size)
        for name in (POOLS[family], NATTED[family]):
            ranges.set(edition.of(name), (address,), size, nf.INTERVAL)
    for way in WAYS.values():
        batch.set(edition.of(way), (nf.IFNAME,), 16, nf.MAP)


def _base_chains(
    edition: Edition, vxlan_port: int, *, masquerades: bool
) -> Iterator[tuple[str, tuple[nf.Hook | None, tuple[bytes, ...]]]]:
    """Yield the chains that are always there, by name: hook and priority, and rules."""
    yield "outside", (None, tuple(_outside(edition)))
    yield "discovery", (None, tuple(_discovery()))
    yield "addresses", (None, tuple(_addresses(edition)))
    yield "spoofing", (nf.Hook(nf.PREROUTING, _RAW), tuple(_spoofing(edition)))
    yield "from-pods", (nf.Hook(nf.FORWARD, _FROM), tuple(_forwarded(edition, "Egress", vxlan_port)))
    yield "from-pods-here", (nf.Hook(nf.INPUT, _FROM), tuple(_from_pods_here(edition, vxlan_port)))
    yield "to-pods", (nf.Hook(nf.FORWARD, _TO), tuple(_forwarded(edition, "Ingress", vxlan_port)))
    yield "to-pods-from-here", (nf.Hook(nf.OUTPUT, _TO), tuple(_connections("Ingress", vxlan_port)))
    if masquerades:
        yield "leaving", (nf.Hook(nf.POSTROUTING, _SOURCE_NAT, "nat"), tuple(_leaving(edition)))


def ranges_set(batch: nf.Batch, edition: Edition, name: str, family: Family) -> None:
    """Make the set of a set's ranges."""
    batch.set(edition.of(ranges_of(name, family)), (ADDRESS[family],), BYTES[family], nf.INTERVAL)


def _spoofing(edition: Edition) -> Iterator[bytes]:
    yield nf.rule(nf.meta(nf.IIFGROUP), nf.compare(nf.host_order(GROUP), nf.NOT_EQUAL), nf.verdict(nf.GOTO, "outside"))
    known = nf.meta(nf.IIFNAME), nf.payload(nf.LINK, 6, 6, nf.REGISTER_5), nf.member(edition.of(MACS))
    ethernet = nf.meta(nf.IIFTYPE), nf.compare(struct.pack("=H", _ETHERNET))
    yield nf.rule(*ethernet, *known, nf.verdict(nf.JUMP, "addresses"))
    yield nf.rule(nf.verdict(nf.DROP))


def _outside(edition: Edition) -> Iterator[bytes]:
    """What comes from elsewhere has no address of a pod here; what the node says to itself may be anything."""
    yield nf.rule(nf.meta(nf.IIFNAME), nf.compare(nf.ifname("lo")), nf.verdict(nf.ACCEPT))
    for family in FAMILIES:
        source = nf.payload(nf.NETWORK, SOURCE[family], BYTES[family])
        yield nf.rule(is_of(family), source, nf.member(edition.of(LOCAL[family])), nf.verdict(nf.DROP))


def _addresses(edition: Edition) -> Iterator[bytes]:
    """A pod sends from its own addresses, and what neighbour discovery needs; it is no router."""
    yield nf.rule(_icmpv6((_ADVERTISEMENT, _ADVERTISEMENT)), nf.verdict(nf.DROP))
    for family in FAMILIES:
        source = nf.payload(nf.NETWORK, SOURCE[family], BYTES[family], nf.REGISTER_5)
        yield nf.rule(is_of(family), nf.meta(nf.IIFNAME), source, nf.member(edition.of(HERE[family])), nf.verdict(nf.ACCEPT))
    link_local = nf.payload(nf.NETWORK, SOURCE[6], 2), nf.masked(b"\xff\xc0"), nf.compare(b"\xfe\x80")
    nothing = nf.payload(nf.NETWORK, SOURCE[6], 16), nf.compare(bytes(16))
    for source_is in (link_local, nothing):
        yield nf.rule(is_of(6), *source_is, nf.verdict(nf.JUMP, "discovery"))


def _discovery() -> Iterator[bytes]:
    for types in _DISCOVERY:
        yield nf.rule(_icmpv6(types), nf.verdict(nf.ACCEPT))


def _forwarded(edition: Edition, direction: Direction, vxlan_port: int) -> Iterator[bytes]:
    """What one side's rules are asked of a forwarded packet; a pod always reaches itself."""
    name, there = (nf.IIFNAME, TARGET) if direction == "Egress" else (nf.OIFNAME, SOURCE)
    yield from _connections(direction, vxlan_port)
    for family in FAMILIES:
        other = nf.payload(nf.NETWORK, there[family], BYTES[family], nf.REGISTER_5)
        yield nf.rule(is_of(family), nf.meta(name), other, nf.member(edition.of(HERE[family])), nf.verdict(nf.ACCEPT))
    yield nf.rule(nf.meta(name), nf.verdict_of(edition.of(WAYS[direction])))
    yield nf.rule(nf.verdict(nf.DROP))


def _leaving(edition: Edition) -> Iterator[bytes]:
    """Let what leaves the pools look as if the node sent it, where a pool asks for that."""
    for family in FAMILIES:
        source = nf.payload(nf.NETWORK, SOURCE[family], BYTES[family]), nf.member(edition.of(NATTED[family]))
        target = nf.payload(nf.NETWORK, TARGET[family], BYTES[family]), nf.member(edition.of(POOLS[family]), outside=True)
        yield nf.rule(is_of(family), *source, *target, nf.masquerade())


def _from_pods_here(edition: Edition, vxlan_port: int) -> Iterator[bytes]:
    yield from _connections("Egress", vxlan_port)
    for types in _DISCOVERY:
        yield nf.rule(_icmpv6(types), nf.verdict(nf.ACCEPT))
    yield nf.rule(nf.meta(nf.IIFNAME), nf.verdict_of(edition.of("from")))
    yield nf.rule(nf.verdict(nf.DROP))


def _connections(direction: Direction, vxlan_port: int) -> Iterator[bytes]:
    """What isn't ours isn't looked at; what belongs to a connection passes; no connection begins in its middle.

    One that was cut would otherwise go on: the other side's next packet would begin it anew, the other way round.
    """
    group = nf.IIFGROUP if direction == "Egress" else nf.OIFGROUP
    yield nf.rule(nf.meta(group), nf.compare(nf.host_order(GROUP), nf.NOT_EQUAL), nf.verdict(nf.ACCEPT))
    if direction == "Egress":
        # A node would take what a pod encapsulates for another node's, and what is inside may claim to be anybody's. It counts
        # where a Service leads it, and it may be an answer.
        vxlan = nf.payload(nf.TRANSPORT, 2, 2), nf.compare(vxlan_port.to_bytes(2, "big"))
        yield nf.rule(carries(_UDP), *vxlan, nf.verdict(nf.DROP))
        yield nf.rule(carries(_IPIP), nf.verdict(nf.DROP))
    yield nf.rule(nf.connection(), nf.bits(_ESTABLISHED | _RELATED), nf.verdict(nf.ACCEPT))
    flags = nf.payload(nf.TRANSPORT, 13, 1), nf.masked(_FIN_SYN_RST_ACK), nf.compare(_SYN, nf.NOT_EQUAL)
    yield nf.rule(nf.connection(), nf.bits(_NEW), carries(_TCP), *flags, nf.verdict(nf.DROP))


def _icmpv6(types: tuple[int, int]) -> bytes:
    return is_of(6) + carries(_ICMPV6) + nf.payload(nf.TRANSPORT, 0, 1) + between(*types, 1)
