"""What the kernel is told to do with packets: compiled rules as nftables' rules, and the chains that every packet takes. Pure.

A pod's packets take two base chains, one for what it sends (`from-pods`, `from-pods-here` to its own node) and one for what it
receives (`to-pods`), so that a rule's `accept` decides for one side alone. Each leads by the pod's interface to the chain
of its list of RuleSets, which pods of equal lists share; an interface of ours that leads nowhere is closed.
"""

import hashlib
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from tortie.addressing.allocator import Address
from tortie.addressing.ranges import BITS, Family, Range
from tortie.agent import nfnetlink as nf
from tortie.agent.wire import GROUP
from tortie.api.compiled import Action, Direction, Port, Rule, RuleSetSpec

TABLE = "tortie"
# Elements: constant of a set and address; interface and address; interface and MAC; address; interface, to a chain.
PEERS: dict[Family, str] = {4: "peers4", 6: "peers6"}
HERE: dict[Family, str] = {4: "here4", 6: "here6"}
LOCAL: dict[Family, str] = {4: "local4", 6: "local6"}
MACS = "macs"
WAYS: dict[Direction, str] = {"Ingress": "to", "Egress": "from"}  # the maps, and how chains' names end

Chains = dict[str, tuple[bytes, ...]]

FAMILIES: tuple[Family, ...] = (4, 6)
LOG_GROUP = 4096  # of nflog: where denials are said
LOG_RATE, LOG_BURST = 10, 20  # packets a second that each chain says, and at once
LOG_LENGTH = 128  # bytes of each: headers

_PROTO: dict[Family, int] = {4: nf.IPV4, 6: nf.IPV6}
_ADDRESS: dict[Family, int] = {4: nf.IPV4_ADDRESS, 6: nf.IPV6_ADDRESS}
_AF: dict[Family, socket.AddressFamily] = {4: socket.AF_INET, 6: socket.AF_INET6}
_BYTES: dict[Family, int] = {4: 4, 6: 16}
_SOURCE: dict[Family, int] = {4: 12, 6: 8}  # where it is in the header
_TARGET: dict[Family, int] = {4: 16, 6: 24}
_PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
_TCP, _ICMPV6 = 6, 58
_ETHERNET = 1  # ARPHRD_ETHER
_REGISTER_2, _REGISTER_5 = 9, 12  # behind four bytes, and behind an interface's name
_ESTABLISHED, _RELATED, _NEW = 2, 4, 8
_FIN_SYN_RST_ACK, _SYN = b"\x17", b"\x02"
_ADVERTISEMENT = 134
# Neighbour discovery (RFC 4861) without advertisements of routers, and listeners' reports (RFC 3810).
_DISCOVERY = ((131, 133), (135, 136), (143, 143))
# Before connections are tracked (-200) and translated (-100).
_RAW, _FROM, _TO = -300, -2, -1

ACCEPT, CLOSED = (nf.rule(nf.verdict(nf.ACCEPT)),), (nf.rule(nf.verdict(nf.DROP)),)


class Peer(NamedTuple):
    """A set as rules name it: its constant, and the families of which it has ranges, which are in a set of their own."""

    number: int
    ranges: tuple[Family, ...] = ()


class Terms(NamedTuple):
    """What rules are written with: families in use, the sets, whether denials are logged, and whether packets are counted."""

    families: tuple[Family, ...]
    peer: Callable[[str], Peer]
    logs: bool = True
    counts: bool = False


class Counted(NamedTuple):
    """What one counter counts: the packets for which a policy's rules decided so."""

    policy: str
    direction: Direction
    action: Literal["Accept", "Deny"]

    @property
    def name(self) -> str:
        """The counter's name."""
        return hashlib.sha256(" ".join(self).encode()).hexdigest()[:24]


def constant(number: int) -> bytes:
    """Return a set's constant, as it is before each of its addresses."""
    return number.to_bytes(4, "big")


def packed(family: Family, address: str) -> bytes:
    """Return an address as it is in a packet."""
    return socket.inet_pton(_AF[family], address)


def bytes_of(one: Address) -> bytes:
    """Return an address as it is in a packet."""
    return one.value.to_bytes(_BYTES[one.family], "big")


def family_of(text: str) -> Family:
    """Return the family of an address or range."""
    return 6 if ":" in text else 4


def ranges_of(name: str, family: Family) -> str:
    """Return the name of the set of a set's ranges."""
    return f"{name}-{family}"


def intervals(family: Family, ranges: Iterable[Range]) -> Iterator[bytes]:
    """Yield the elements of a set of ranges: merged, because the kernel refuses what overlaps."""
    edge = 1 << BITS[family]
    parsed = sorted((one.start, one.last + 1) for one in ranges)
    merged = list[tuple[int, int]]()
    for first, after in parsed:
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(after, merged[-1][1])
        else:
            merged.append((first, after))
    for first, after in merged:
        size = _BYTES[family]
        yield from nf.interval(first.to_bytes(size, "big"), after.to_bytes(size, "big") if after < edge else None)


# --- RuleSets and lists of them


def rule_set_chains(name: str, spec: RuleSetSpec, terms: Terms) -> Chains:
    """Return a RuleSet's chains; none for a way that it has no rule for, and no rules for one in which a rule passes on."""
    made: Chains = {}
    for direction, way in WAYS.items():
        rules = [rule for rule in spec.rules if rule.direction == direction]
        if _is_logged(spec, direction, terms):
            made[_denied(name, direction)] = _logged(f"{name}-{way}")
        if rules and not _passes(spec, direction):
            made |= _chains(f"{name}-{way}", rules, terms, _verdicts(name, spec, direction, terms, ""))
    return made


def list_name(names: Sequence[str], direction: Direction) -> str:
    """Return the chain of a list of RuleSets."""
    return f"list-{hashlib.sha256(' '.join(names).encode()).hexdigest()[:14]}-{WAYS[direction]}"


def list_chains(names: Sequence[str], specs: Mapping[str, RuleSetSpec], terms: Terms) -> Chains:
    """Return the chains of a list of RuleSets, for both ways: the order of tiers is that of `tortie.policy.verdict`."""
    made: Chains = {}
    for direction in WAYS:
        made |= _list_chains(direction, names, specs, terms)
    return made


def _list_chains(direction: Direction, names: Sequence[str], specs: Mapping[str, RuleSetSpec], terms: Terms) -> Chains:
    chain = list_name(names, direction)
    made: Chains = {}
    admin, rest, after = list[bytes](), list[bytes](), f"{chain}-rest"
    isolating = isolators(names, specs, direction)
    for number, name in enumerate(names):
        spec = specs[name]
        rules = [rule for rule in spec.rules if rule.direction == direction]
        lead = nf.rule(nf.verdict(nf.JUMP, f"{name}-{WAYS[direction]}"))
        if not rules:
            continue
        own = f"{chain}-{number}"  # where it passes, what follows depends on the list: its rules are the list's own
        if spec.tier == "Admin":
            if _passes(spec, direction):
                written = _chains(own, rules, terms, _verdicts(name, spec, direction, terms, after))
                admin.extend(written.pop(own))
                made |= written
            else:
                admin.append(lead)
        elif spec.tier == ("Namespace" if isolating else "Baseline"):
            if _passes(spec, direction):
                made[f"{chain}-end"] = ACCEPT
                made |= _chains(own, rules, terms, _verdicts(name, spec, direction, terms, f"{chain}-end"))
                lead = nf.rule(nf.verdict(nf.JUMP, own))
            rest.append(lead)
    if isolating:
        verdict = nf.verdict(nf.DROP)
        if terms.logs and any(specs[name].log for name in isolating):
            made[f"{chain}-denied"] = _logged(chain)
            verdict = nf.verdict(nf.GOTO, f"{chain}-denied")
        denying = (Counted(policy, direction, "Deny") for name in isolating for policy in specs[name].policies)
        rest.append(nf.rule(*_counted(denying, terms), verdict))
    else:
        rest.extend(ACCEPT)
    if any(_passes(specs[name], direction) for name in names if specs[name].tier == "Admin"):
        made[after] = tuple(rest)
        rest = [nf.rule(nf.verdict(nf.GOTO, after))]
    made[chain] = (*admin, *rest)
    return made


def isolators(names: Iterable[str], specs: Mapping[str, RuleSetSpec], direction: Direction) -> list[str]:
    """Return the RuleSets of a list by which nothing passes that none of its rules accepts."""
    return [name for name in names if direction in specs[name].isolates]


def passes(spec: RuleSetSpec) -> bool:
    """Whether a rule of it passes on to the next tier: what comes then depends on the list."""
    return any(_passes(spec, direction) for direction in WAYS)


def _passes(spec: RuleSetSpec, direction: Direction) -> bool:
    return any(rule.action == "Pass" and rule.direction == direction for rule in spec.rules)


def _verdicts(name: str, spec: RuleSetSpec, direction: Direction, terms: Terms, after: str) -> Mapping[Action, bytes]:
    """Return what a RuleSet's rules do; what passes goes on in `after`."""
    logged = _is_logged(spec, direction, terms)
    denies = nf.verdict(nf.GOTO, _denied(name, direction)) if logged else nf.verdict(nf.DROP)
    return {"Accept": nf.verdict(nf.ACCEPT), "Deny": denies, "Pass": nf.verdict(nf.GOTO, after)}


def _chains(chain: str, rules: Sequence[Rule], terms: Terms, verdicts: Mapping[Action, bytes]) -> Chains:
    """Return the chain of these rules, and those that it leads to."""
    made: Chains = {}
    written = list[bytes]()
    for number, rule in enumerate(rules):
        verdict = b"".join(_counted(_counters(rule), terms)) + verdicts[rule.action]
        peers, ports = list(_peers(rule, terms)), list(_ports(rule.ports))
        said = rule.sources[0] if rule.sources else ""
        if len(peers) * len(ports) > len(peers) + len(ports):
            within = f"{chain}-{number}"
            made[within] = tuple(nf.rule(port, verdict) for port in ports)
            ports, verdict = [b""], nf.verdict(nf.JUMP, within)
        written.extend(nf.rule(peer, port, verdict, comment=said) for peer in peers for port in ports)
    return {chain: tuple(written)} | made


# --- denials that are logged, and what is counted


def _is_logged(spec: RuleSetSpec, direction: Direction, terms: Terms) -> bool:
    return terms.logs and spec.log and any(rule.action == "Deny" and rule.direction == direction for rule in spec.rules)


def _denied(name: str, direction: Direction) -> str:
    return f"{name}-{WAYS[direction]}-denied"


def _logged(said: str) -> tuple[bytes, ...]:
    """Return a chain that denies, and says so; a limit decides about what is said alone."""
    log = nf.rule(nf.limit(LOG_RATE, LOG_BURST), nf.log(LOG_GROUP, said, LOG_LENGTH))
    return log, nf.rule(nf.verdict(nf.DROP))


def counted(spec: RuleSetSpec) -> frozenset[Counted]:
    """Return what is counted of a RuleSet."""
    by_rules = {one for rule in spec.rules for one in _counters(rule)}
    return frozenset(by_rules.union(Counted(one, way, "Deny") for way in spec.isolates for one in spec.policies))


def _counters(rule: Rule) -> Iterator[Counted]:
    """Yield what counts a rule's packets: one counter for each policy that says it. What passes on isn't decided yet."""
    if rule.action != "Pass":
        for policy in dict.fromkeys(" ".join(source.split(" ", 2)[:2]) for source in rule.sources):
            yield Counted(policy, rule.direction, rule.action)


def _counted(counters: Iterable[Counted], terms: Terms) -> list[bytes]:
    return [nf.counted(one.name) for one in counters] if terms.counts else []


def _peers(rule: Rule, terms: Terms) -> Iterator[bytes]:
    if rule.peers is None:
        yield b""
        return
    where = _SOURCE if rule.direction == "Ingress" else _TARGET
    for name in dict.fromkeys(rule.peers):
        peer = terms.peer(name)
        for family in terms.families:
            yield b"".join((
                _is(family), nf.constant(constant(peer.number)),
                nf.payload(nf.NETWORK, where[family], _BYTES[family], _REGISTER_2), nf.member(PEERS[family]),
            ))  # fmt: skip
        for family in peer.ranges:
            load = nf.payload(nf.NETWORK, where[family], _BYTES[family])
            yield _is(family) + load + nf.member(ranges_of(name, family))


def _ports(ports: Iterable[Port] | None) -> Iterator[bytes]:
    if ports is None:
        yield b""
        return
    for one in ports:
        match = _carries(_PROTOCOLS[one.protocol])
        if one.port is not None:
            match += nf.payload(nf.TRANSPORT, 2, 2) + _between(one.port, one.end_port or one.port, 2)
        yield match


def _between(first: int, last: int, size: int) -> bytes:
    if first == last:
        return nf.compare(first.to_bytes(size, "big"))
    begin = nf.compare(first.to_bytes(size, "big"), nf.GREATER_OR_EQUAL)
    return begin + nf.compare(last.to_bytes(size, "big"), nf.LESS_OR_EQUAL)


def _is(family: Family) -> bytes:
    return nf.meta(nf.NFPROTO) + nf.compare(bytes((_PROTO[family],)))


def _carries(protocol: int) -> bytes:
    return nf.meta(nf.L4PROTO) + nf.compare(bytes((protocol,)))


# --- what is always there


def prepare(batch: nf.Batch, there: nf.Contents | None) -> None:
    """Make the table: its sets, and its base chains with their rules, which close every interface of ours.

    Of a table that is there nothing stays but the base chains: of two chains at one hook a packet would be asked by one as
    it was and by the other as it is.
    """
    chains = dict(_base_chains())
    if there is None or not chains.keys() <= set(there.chains):
        batch.table(anew=True)
    else:
        batch.flush_all()
        for name in there.sets:
            batch.delete_set(name)
        for name in there.chains:
            if name not in chains:
                batch.delete_chain(name)
        for name in there.counters:
            batch.delete_counter(name)
    batch.set(MACS, (nf.IFNAME, nf.ETHER_ADDRESS), 16 + 8)
    for family in FAMILIES:
        batch.set(PEERS[family], (nf.IPV4_ADDRESS, _ADDRESS[family]), 4 + _BYTES[family])  # nft has no plain number
        batch.set(HERE[family], (nf.IFNAME, _ADDRESS[family]), 16 + _BYTES[family])
        batch.set(LOCAL[family], (_ADDRESS[family],), _BYTES[family])
    for way in WAYS.values():
        batch.set(way, (nf.IFNAME,), 16, nf.MAP)
    for name, (hook, _) in chains.items():
        batch.chain(name, hook)
    for name, (_, rules) in chains.items():
        batch.rules(name, rules)


def _base_chains() -> Iterator[tuple[str, tuple[tuple[int, int] | None, tuple[bytes, ...]]]]:
    """Yield the chains that are always there, by name: hook and priority, and rules."""
    yield "outside", (None, tuple(_outside()))
    yield "discovery", (None, tuple(_discovery()))
    yield "addresses", (None, tuple(_addresses()))
    yield "spoofing", ((nf.PREROUTING, _RAW), tuple(_spoofing()))
    yield "from-pods", ((nf.FORWARD, _FROM), tuple(_forwarded("Egress")))
    yield "from-pods-here", ((nf.INPUT, _FROM), tuple(_from_pods_here()))
    yield "to-pods", ((nf.FORWARD, _TO), tuple(_forwarded("Ingress")))


def ranges_set(batch: nf.Batch, name: str, family: Family) -> None:
    """Make the set of a set's ranges."""
    batch.set(ranges_of(name, family), (_ADDRESS[family],), _BYTES[family], nf.INTERVAL)


def _spoofing() -> Iterator[bytes]:
    yield nf.rule(nf.meta(nf.IIFGROUP), nf.compare(nf.host_order(GROUP), nf.NOT_EQUAL), nf.verdict(nf.GOTO, "outside"))
    known = nf.meta(nf.IIFNAME), nf.payload(nf.LINK, 6, 6, _REGISTER_5), nf.member(MACS)
    ethernet = nf.meta(nf.IIFTYPE), nf.compare(struct.pack("=H", _ETHERNET))
    yield nf.rule(*ethernet, *known, nf.verdict(nf.JUMP, "addresses"))
    yield nf.rule(nf.verdict(nf.DROP))


def _outside() -> Iterator[bytes]:
    """What comes from elsewhere has no address of a pod here; what the node says to itself may be anything."""
    yield nf.rule(nf.meta(nf.IIFNAME), nf.compare(nf.ifname("lo")), nf.verdict(nf.ACCEPT))
    for family in FAMILIES:
        source = nf.payload(nf.NETWORK, _SOURCE[family], _BYTES[family])
        yield nf.rule(_is(family), source, nf.member(LOCAL[family]), nf.verdict(nf.DROP))


def _addresses() -> Iterator[bytes]:
    """A pod sends from its own addresses, and what neighbour discovery needs; it is no router."""
    yield nf.rule(_icmpv6((_ADVERTISEMENT, _ADVERTISEMENT)), nf.verdict(nf.DROP))
    for family in FAMILIES:
        source = nf.payload(nf.NETWORK, _SOURCE[family], _BYTES[family], _REGISTER_5)
        yield nf.rule(_is(family), nf.meta(nf.IIFNAME), source, nf.member(HERE[family]), nf.verdict(nf.ACCEPT))
    link_local = nf.payload(nf.NETWORK, _SOURCE[6], 2), nf.masked(b"\xff\xc0"), nf.compare(b"\xfe\x80")
    nothing = nf.payload(nf.NETWORK, _SOURCE[6], 16), nf.compare(bytes(16))
    for source_is in (link_local, nothing):
        yield nf.rule(_is(6), *source_is, nf.verdict(nf.JUMP, "discovery"))


def _discovery() -> Iterator[bytes]:
    for types in _DISCOVERY:
        yield nf.rule(_icmpv6(types), nf.verdict(nf.ACCEPT))


def _forwarded(direction: Direction) -> Iterator[bytes]:
    """What one side's rules are asked of a forwarded packet; a pod always reaches itself."""
    group, name, there = nf.IIFGROUP, nf.IIFNAME, _TARGET
    if direction == "Ingress":
        group, name, there = nf.OIFGROUP, nf.OIFNAME, _SOURCE
    yield from _connections(group)
    for family in FAMILIES:
        other = nf.payload(nf.NETWORK, there[family], _BYTES[family], _REGISTER_5)
        yield nf.rule(_is(family), nf.meta(name), other, nf.member(HERE[family]), nf.verdict(nf.ACCEPT))
    yield nf.rule(nf.meta(name), nf.verdict_of(WAYS[direction]))
    yield nf.rule(nf.verdict(nf.DROP))


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
    yield nf.rule(nf.connection(), nf.bits(_NEW), _carries(_TCP), *flags, nf.verdict(nf.DROP))


def _icmpv6(types: tuple[int, int]) -> bytes:
    return _is(6) + _carries(_ICMPV6) + nf.payload(nf.TRANSPORT, 0, 1) + _between(*types, 1)
