"""Compiled rules as nftables' rules: the chains of RuleSets, and of lists of them, which pods of equal lists share. Pure."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from tortie.addressing.ranges import BITS, Family, Range
from tortie.agent import nfnetlink as nf
from tortie.agent.matches import BYTES, SOURCE, TARGET, between, carries, is_of
from tortie.agent.table import PEERS, WAYS, Edition, ranges_of
from tortie.api.compiled import Action, Direction, Port, Rule, RuleSetSpec

LOG_GROUP = 4096  # of nflog: where denials are said
LOG_RATE, LOG_BURST = 10, 20  # packets a second that each chain says, and at once
LOG_LENGTH = 128  # bytes of each: headers

Chains = dict[str, tuple[bytes, ...]]

_LIMIT = nf.limit(LOG_RATE, LOG_BURST)
LOGGING = _LIMIT, nf.log(LOG_GROUP, "", LOG_LENGTH)  # what the kernel must know to log

_PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}

ACCEPT, CLOSED = (nf.rule(nf.verdict(nf.ACCEPT)),), (nf.rule(nf.verdict(nf.DROP)),)


class Peer(NamedTuple):
    """A set as rules name it: its constant, and the families of which it has ranges, which are in a set of their own."""

    number: int
    ranges: tuple[Family, ...] = ()


class Terms(NamedTuple):
    """What rules are written with: families in use, the sets, whether denials are logged, and whether packets are counted."""

    families: tuple[Family, ...]
    peer: Callable[[str], Peer]
    edition: Edition = Edition()
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
        size = BYTES[family]
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
        denying = (Counted(policy, direction, "Deny") for policy in policies_of(isolating, specs))
        rest.append(nf.rule(*_counting(denying, terms), verdict))
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


def policies_of(names: Iterable[str], specs: Mapping[str, RuleSetSpec]) -> list[str]:
    """Return the policies of RuleSets; parts of one that is split name the same ones."""
    return list(dict.fromkeys(policy for name in names for policy in specs[name].policies))


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
        verdict = b"".join(_counting(_counters(rule), terms)) + verdicts[rule.action]
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
    return nf.rule(_LIMIT, nf.log(LOG_GROUP, said, LOG_LENGTH)), nf.rule(nf.verdict(nf.DROP))


def counted(spec: RuleSetSpec) -> frozenset[Counted]:
    """Return what is counted of a RuleSet."""
    by_rules = {one for rule in spec.rules for one in _counters(rule)}
    return frozenset(by_rules.union(Counted(one, way, "Deny") for way in spec.isolates for one in spec.policies))


def _counters(rule: Rule) -> Iterator[Counted]:
    """Yield what counts a rule's packets: one counter for each policy that says it. What passes on isn't decided yet."""
    if rule.action != "Pass":
        for policy in dict.fromkeys(" ".join(source.split(" ", 2)[:2]) for source in rule.sources):
            yield Counted(policy, rule.direction, rule.action)


def _counting(counters: Iterable[Counted], terms: Terms) -> list[bytes]:
    return [nf.counted(one.name) for one in counters] if terms.counts else []


def _peers(rule: Rule, terms: Terms) -> Iterator[bytes]:
    if rule.peers is None:
        yield b""
        return
    where = SOURCE if rule.direction == "Ingress" else TARGET
    for name in dict.fromkeys(rule.peers):
        peer = terms.peer(name)
        for family in terms.families:
            yield b"".join((
                is_of(family), nf.constant(constant(peer.number)),
                nf.payload(nf.NETWORK, where[family], BYTES[family], nf.REGISTER_2), nf.member(terms.edition.of(PEERS[family])),
            ))  # fmt: skip
        for family in peer.ranges:
            load = nf.payload(nf.NETWORK, where[family], BYTES[family])
            yield is_of(family) + load + nf.member(terms.edition.of(ranges_of(name, family)))


def _ports(ports: Iterable[Port] | None) -> Iterator[bytes]:
    if ports is None:
        yield b""
        return
    for one in ports:
        match = carries(_PROTOCOLS[one.protocol])
        if one.port is not None:
            match += nf.payload(nf.TRANSPORT, 2, 2) + between(one.port, one.end_port or one.port, 2)
        yield match
