"""What changes between two worlds: who reaches whom on which ports, in as few sentences as say all of it.

Left out, as no policy changes it: that a pod reaches itself, and that its own node reaches it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import pairwise
from operator import or_
from typing import NamedTuple

from msgspec import structs

from tortie.addressing.allocator import Address, address
from tortie.addressing.ranges import Family, Range, parse, without
from tortie.api.compiled import Port
from tortie.api.policy_input import ClusterNetworkPolicy, NetworkPolicy
from tortie.policy.matrix import Bits, Crowd, bits
from tortie.policy.policies import PORT_MAX, PROTOCOLS, Ports
from tortie.policy.verdict import Party, Verdict, covers
from tortie.policy.world import PodKey, World

Parties = Mapping[Family, Party]
_WHOLE: dict[Family, Range] = {4: parse("0.0.0.0/0"), 6: parse("::/0")}


class Somebody(NamedTuple):
    """A pod of its own network, a node, or addresses that are neither: one kind is set."""

    pod: PodKey | None = None
    node: str = ""
    addresses: str = ""


class Change(NamedTuple):
    """Connections that open or close, from all of `sources` to all of `targets`.

    Attributes:
        policies: Which let them pass now, or deny them now.
        lifted: Of ones that open where no policy says so: `policies` are those that denied them.
    """

    opens: bool
    sources: tuple[Somebody, ...]
    targets: tuple[Somebody, ...]
    ports: tuple[Ports, ...]
    policies: tuple[str, ...]
    lifted: bool = False


def difference(old: World, new: World) -> list[Change]:
    """Return what changes for those who are there in both, and for addresses outside."""
    return list(_Difference(old, new).changes())


class _Flow(NamedTuple):
    """What changes between two classes: whether it opens, the numbers of the kinds of port, and by which policies."""

    opens: bool
    kinds: tuple[int, ...]
    policies: tuple[str, ...]
    lifted: bool


class _Difference:
    def __init__(self, old: World, new: World) -> None:
        everybody = _everybody(old, new)
        self._who = list(everybody)
        self._parties = list(everybody.values())
        self._old, self._new = old.compiled, new.compiled
        self._kinds = _kinds(old.compiled.ports() | new.compiled.ports())
        # By kind of port, by source: to whom it opens, and to whom it closes.
        self._opened, self._closed = list[list[Bits]](), list[list[Bits]]()
        before, after = Crowd(old.compiled, self._parties), Crowd(new.compiled, self._parties)
        for one, *_ in self._kinds:
            was, now = (crowd.rows(one.protocol, one.first)[0] for crowd in (before, after))
            self._opened.append([n & ~w for w, n in zip(was, now, strict=True)])
            self._closed.append([w & ~n for w, n in zip(was, now, strict=True)])
        changed = zip(*self._opened, *self._closed, strict=True)
        self._touched = [reduce(or_, rows) for rows in changed]  # by source: to whom anything changes
        self._members = {mask for crowd in (before, after) for matrix, _ in crowd.families for mask in matrix.members}

    def changes(self) -> Iterator[Change]:
        """Yield them: what is alike is said once."""
        classes = self._classes()
        flows: dict[_Flow, dict[Bits, Bits]] = {}
        for source in classes:
            for target in classes:
                for flow in self._between(source, target):
                    reached = flows.setdefault(flow, {})
                    reached[source] = reached.get(source, 0) | target
        for flow, reached in flows.items():
            alike: dict[Bits, Bits] = {}
            for source, targets in reached.items():
                alike[targets] = alike.get(targets, 0) | source
            ports = tuple(_joined(one for number in flow.kinds for one in self._kinds[number]))
            for these, sources in alike.items():
                yield Change(flow.opens, self._named(sources), self._named(these), ports, flow.policies, flow.lifted)

    def _classes(self) -> list[Bits]:
        """Return everybody in classes: the same RuleSets hold, the same sets have them, and the same changes for them."""
        alike: dict[object, Bits] = {}
        for number, parties in enumerate(self._parties):
            one = next(iter(parties.values()))
            rows = tuple((o[number], c[number]) for o, c in zip(self._opened, self._closed, strict=True))
            key = self._old.rule_sets_of(one), self._new.rule_sets_of(one), rows
            alike[key] = alike.get(key, 0) | 1 << number
        classes = list(alike.values())
        for mask in {row for rows in (*self._opened, *self._closed) for row in rows} | self._members:
            classes = [part for one in classes for part in (one & mask, one & ~mask) if part]
        return classes

    def _between(self, source: Bits, target: Bits) -> Iterator[_Flow]:
        """Yield what opens and what closes from one class to another; nothing if both are one and the same pod."""
        first = next(bits(source))
        second = next((number for number in bits(target) if number != first), None)
        if second is None or not self._touched[first] >> second & 1:
            return
        for opens, rows in ((True, self._opened), (False, self._closed)):
            alike: dict[tuple[tuple[str, ...], bool], list[int]] = {}
            for number, row in enumerate(rows):
                if row[first] >> second & 1:
                    why = self._why(first, second, self._kinds[number][0], opens=opens)
                    alike.setdefault(why, []).append(number)
            for why, kinds in alike.items():
                yield _Flow(opens, tuple(kinds), *why)

    def _why(self, source: int, target: int, port: Ports, *, opens: bool) -> tuple[tuple[str, ...], bool]:
        """Return the policies because of which a connection changes, and whether it is because they don't deny it any more."""
        for family, party in self._parties[source].items():
            if family not in self._parties[target]:
                continue
            asked = party, self._parties[target][family], port.protocol, port.first
            now = self._new.verdict(*asked)
            if not opens and not now.allowed:
                return _deciding(now, [not one.allowed for one in (now.egress, now.ingress)]), False
            if opens and now.allowed and not (was := self._old.verdict(*asked)).allowed:
                denied = [not one.allowed for one in (was.egress, was.ingress)]
                by = _deciding(now, denied)
                return (by, False) if by else (_deciding(was, denied), True)
        raise AssertionError("some family's verdict changed")

    def _named(self, which: Bits) -> tuple[Somebody, ...]:
        return tuple(self._who[number] for number in bits(which))


def _deciding(verdict: Verdict, sides: Sequence[bool]) -> tuple[str, ...]:
    decisions = (verdict.egress, verdict.ingress)
    return tuple(dict.fromkeys(name for one, counts in zip(decisions, sides, strict=True) if counts for name in one.policies))


def _kinds(named: set[Port]) -> list[list[Ports]]:
    """Return ranges of ports, all there are of each protocol; those of one kind are told apart by no rule."""
    cuts = {protocol: {1, PORT_MAX + 1} for protocol in PROTOCOLS}
    for one in named:
        if one.port is not None:
            cuts[one.protocol] |= {max(one.port, 1), (one.end_port or one.port) + 1}
    kinds: dict[frozenset[Port], list[Ports]] = {}
    for protocol, at in cuts.items():
        for first, after in pairwise(sorted(at)):
            kinds.setdefault(frozenset(one for one in named if covers(one, protocol, first)), []).append(
                Ports(protocol, first, after - 1)
            )
    return list(kinds.values())


def _joined(ports: Iterable[Ports]) -> Iterator[Ports]:
    """Yield ranges in order, with neighbours made one."""
    last: Ports | None = None
    for one in sorted(ports, key=lambda one: (PROTOCOLS.index(one.protocol), one.first)):
        if last is not None and last.protocol == one.protocol and last.last + 1 == one.first:
            last = structs.replace(last, last=one.last)
        else:
            if last is not None:
                yield last
            last = one
    if last is not None:
        yield last


def _everybody(old: World, new: World) -> dict[Somebody, Parties]:
    """Return the pods and nodes that are in both, and an address of each block that policies name, and of no block.

    Pods in their node's network are as their node. No pod has a node here, so that its own node is as others.
    """
    found: dict[Somebody, Parties] = {}
    for key, facts in old.facts.items():
        if key in new.facts and not facts.host_network:
            parties = {family: one._replace(node_addresses=frozenset()) for family, one in old.parties(key).items()}
            found[Somebody(pod=key)] = parties
    for node in old.objects.nodes:
        addresses = [address(one) for one in old.node_addresses[node]]
        found[Somebody(node=node)] = {one.family: Party(one) for one in reversed(addresses)}
    taken = {one for world in (old, new) for listed in world.addresses.values() for one in listed}
    taken |= {one for world in (old, new) for listed in world.node_addresses.values() for one in listed}
    blocks = {parse(one) for world in (old, new) for policy in world.objects.policies.values() for one in _blocks(policy)}
    for whole in sorted(blocks | set(_WHOLE.values())):
        inner = [one for one in blocks if one != whole and whole.contains(one)]
        free = next(without(whole, (*inner, *map(parse, taken))), None)
        if free is not None:
            found[Somebody(addresses=str(whole))] = {whole.family: Party(Address(whole.family, free.start))}
    return found


def _blocks(policy: NetworkPolicy | ClusterNetworkPolicy) -> Iterator[str]:
    """Yield every CIDR that a policy names; what can't be read is no CIDR."""
    if isinstance(policy, ClusterNetworkPolicy):
        networks = [one for rule in policy.spec.egress for peer in rule.to for one in peer.get("networks") or ()]
    else:
        peers = [peer for ingress in policy.spec.ingress or () for peer in ingress.from_ or ()]
        peers += [peer for egress in policy.spec.egress or () for peer in egress.to or ()]
        networks = [one for peer in peers if peer.ip_block for one in (peer.ip_block.cidr, *peer.ip_block.except_)]
    for one in networks:
        try:
            parse(one)
        except ValueError:
            continue
        yield one
