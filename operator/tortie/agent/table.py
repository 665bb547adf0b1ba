"""What the agent's nftables table always has: its sets, and the chains that every packet takes. Pure.

A pod's packets take two base chains, one for what it sends (`from-pods`, `from-pods-here` to its own node) and one for what it
receives (`to-pods`), so that a rule's `accept` decides for one side alone. Each leads by the pod's interface to the chain
of its list of RuleSets (`tortie.agent.rules`); an interface of ours that leads nowhere is closed.
"""

import struct
from collections.abc import Collection, Iterator

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


def ranges_of(name: str, family: Family) -> str:
    """Return the name of the set of a set's ranges."""
    return f"{name}-{family}"


def prepare(batch: nf.Batch, there: nf.Contents | None, vxlan_port: int, *, masquerades: bool) -> None:
    """Make the table: its sets, and its base chains with their rules, which close every interface of ours.

    Of a table that is there nothing stays but the base chains: of two chains at one hook a packet would be asked by one as
    it was and by the other as it is.
    """
    chains = dict(_base_chains(vxlan_port, masquerades=masquerades))
    if there is None or not chains.keys() <= set(there.chains):
        batch.table(anew=True)
    else:
        _empty(batch, there, chains)
    _make_sets(batch)
    for name, (hook, _) in chains.items():
        batch.chain(name, hook)
    for name, (_, rules) in chains.items():
        batch.rules(name, rules)


def _empty(batch: nf.Batch, there: nf.Contents, chains: Collection[str]) -> None:
    batch.table()
    batch.flush_all()
    for name in there.sets:
        batch.delete_set(name)
    for name in there.chains:
        if name not in chains:
            batch.delete_chain(name)
    for name in there.counters:
        batch.delete_counter(name)


def _make_sets(batch: nf.Batch) -> None:
    batch.set(MACS, (nf.IFNAME, nf.ETHER_ADDRESS), 16 + 8)
    for family in FAMILIES:
        address, size = ADDRESS[family], BYTES[family]
        batch.set(PEERS[family], (nf.IPV4_ADDRESS, address), 4 + size)  # nft has no plain number
        batch.set(HERE[family], (nf.IFNAME, address), 16 + size)
        batch.set(LOCAL[family], (address,), size)
        for name in (POOLS[family], NATTED[family]):
            batch.set(name, (address,), size, nf.INTERVAL)
    for way in WAYS.values():
        batch.set(way, (nf.IFNAME,), 16, nf.MAP)


def _base_chains(vxlan_port: int, *, masquerades: bool) -> Iterator[tuple[str, tuple[nf.Hook | None, tuple[bytes, ...]]]]:
    """Yield the chains that are always there, by name: hook and priority, and rules."""
    yield "outside", (None, tuple(_outside()))
    yield "discovery", (None, tuple(_discovery()))
    yield "addresses", (None, tuple(_addresses()))
    yield "spoofing", (nf.Hook(nf.PREROUTING, _RAW), tuple(_spoofing(vxlan_port)))
    yield "from-pods", (nf.Hook(nf.FORWARD, _FROM), tuple(_forwarded("Egress")))
    yield "from-pods-here", (nf.Hook(nf.INPUT, _FROM), tuple(_from_pods_here()))
    yield "to-pods", (nf.Hook(nf.FORWARD, _TO), tuple(_forwarded("Ingress")))
    if masquerades:
        yield "leaving", (nf.Hook(nf.POSTROUTING, _SOURCE_NAT, "nat"), tuple(_leaving()))


def ranges_set(batch: nf.Batch, name: str, family: Family) -> None:
    """Make the set of a set's ranges."""
    batch.set(ranges_of(name, family), (ADDRESS[family],), BYTES[family], nf.INTERVAL)


def _spoofing(vxlan_port: int) -> Iterator[bytes]:
    yield nf.rule(nf.meta(nf.IIFGROUP), nf.compare(nf.host_order(GROUP), nf.NOT_EQUAL), nf.verdict(nf.GOTO, "outside"))
    # A node would take what a pod encapsulates for another node's, and what is inside may claim to be anybody's.
    vxlan = nf.payload(nf.TRANSPORT, 2, 2), nf.compare(vxlan_port.to_bytes(2, "big"))
    yield nf.rule(carries(_UDP), *vxlan, nf.verdict(nf.DROP))
    yield nf.rule(carries(_IPIP), nf.verdict(nf.DROP))
    known = nf.meta(nf.IIFNAME), nf.payload(nf.LINK, 6, 6, nf.REGISTER_5), nf.member(MACS)
    ethernet = nf.meta(nf.IIFTYPE), nf.compare(struct.pack("=H", _ETHERNET))
    yield nf.rule(*ethernet, *known, nf.verdict(nf.JUMP, "addresses"))
    yield nf.rule(nf.verdict(nf.DROP))


def _outside() -> Iterator[bytes]:
    """What comes from elsewhere has no address of a pod here; what the node says to itself may be anything."""
    yield nf.rule(nf.meta(nf.IIFNAME), nf.compare(nf.ifname("lo")), nf.verdict(nf.ACCEPT))
    for family in FAMILIES:
        source = nf.payload(nf.NETWORK, SOURCE[family], BYTES[family])
        yield nf.rule(is_of(family), source, nf.member(LOCAL[family]), nf.verdict(nf.DROP))


def _addresses() -> Iterator[bytes]:
    """A pod sends from its own addresses, and what neighbour discovery needs; it is no router."""
    yield nf.rule(_icmpv6((_ADVERTISEMENT, _ADVERTISEMENT)), nf.verdict(nf.DROP))
    for family in FAMILIES:
        source = nf.payload(nf.NETWORK, SOURCE[family], BYTES[family], nf.REGISTER_5)
        yield nf.rule(is_of(family), nf.meta(nf.IIFNAME), source, nf.member(HERE[family]), nf.verdict(nf.ACCEPT))
    link_local = nf.payload(nf.NETWORK, SOURCE[6], 2), nf.masked(b"\xff\xc0"), nf.compare(b"\xfe\x80")
    nothing = nf.payload(nf.NETWORK, SOURCE[6], 16), nf.compare(bytes(16))
    for source_is in (link_local, nothing):
        yield nf.rule(is_of(6), *source_is, nf.verdict(nf.JUMP, "discovery"))


def _discovery() -> Iterator[bytes]:
    for types in _DISCOVERY:
        yield nf.rule(_icmpv6(types), nf.verdict(nf.ACCEPT))


def _forwarded(direction: Direction) -> Iterator[bytes]:
    """What one side's rules are asked of a forwarded packet; a pod always reaches itself."""
    group, name, there = nf.IIFGROUP, nf.IIFNAME, TARGET
    if direction == "Ingress":
        group, name, there = nf.OIFGROUP, nf.OIFNAME, SOURCE
    yield from _connections(group)
    for family in FAMILIES:
        other = nf.payload(nf.NETWORK, there[family], BYTES[family], nf.REGISTER_5)
        yield nf.rule(is_of(family), nf.meta(name), other, nf.member(HERE[family]), nf.verdict(nf.ACCEPT))
    yield nf.rule(nf.meta(name), nf.verdict_of(WAYS[direction]))
    yield nf.rule(nf.verdict(nf.DROP))


def _leaving() -> Iterator[bytes]:
    """Let what leaves the pools look as if the node sent it, where a pool asks for that."""
    for family in FAMILIES:
        source = nf.payload(nf.NETWORK, SOURCE[family], BYTES[family]), nf.member(NATTED[family])
        target = nf.payload(nf.NETWORK, TARGET[family], BYTES[family]), nf.member(POOLS[family], outside=True)
        yield nf.rule(is_of(family), *source, *target, nf.masquerade())


def _from_pods_here() -> Iterator[bytes]:
    yield from _connections(nf.IIFGROUP)
    for types in _DISCOVERY:
        yield nf.rule(_icmpv6(types), nf.verdict(nf.ACCEPT))
    yield nf.rule(nf.meta(nf.IIFNAME), nf.verdict_of("from"))
    yield nf.rule(nf.verdict(nf.DROP))


def _connections(group: int) -> Iterator[bytes]:
    """What belongs to a connection passes; what isn't ours isn't looked at; no connection begins in its middle.

    One that was cut would otherwise go on: the other side's next packet would begin it anew, the other way round.
    """
    yield nf.rule(nf.connection(), nf.bits(_ESTABLISHED | _RELATED), nf.verdict(nf.ACCEPT))
    yield nf.rule(nf.meta(group), nf.compare(nf.host_order(GROUP), nf.NOT_EQUAL), nf.verdict(nf.ACCEPT))
    flags = nf.payload(nf.TRANSPORT, 13, 1), nf.masked(_FIN_SYN_RST_ACK), nf.compare(_SYN, nf.NOT_EQUAL)
    yield nf.rule(nf.connection(), nf.bits(_NEW), carries(_TCP), *flags, nf.verdict(nf.DROP))


def _icmpv6(types: tuple[int, int]) -> bytes:
    return is_of(6) + carries(_ICMPV6) + nf.payload(nf.TRANSPORT, 0, 1) + between(*types, 1)
