"""What a node's table should have: its pods' links, what policies say, and what of this a change touches. Pure.

Belongs here: the state, and which rules depend on which part of it. Does not: how a rule is written (`tortie.agent.rules`),
nor what the kernel has of it (`tortie.agent.firewall`).
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from tortie.addressing.allocator import Address
from tortie.addressing.ranges import Family, Range, parse
from tortie.agent import rules
from tortie.agent.matches import FAMILIES, family_of
from tortie.agent.rules import Chains, Peer, Terms
from tortie.agent.table import WAYS, Edition
from tortie.api.compiled import RuleSetSpec
from tortie.policy.view import Changes, Names

Owner = str | Names  # a RuleSet, or a list of these


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod's link: the host's end, the pod's uid as the runtime knows it, its MAC, its addresses.

    Attributes:
        is_open: Whether everything passes as long as it isn't known what holds for it.
    """

    host: str
    uid: str
    mac: str
    addresses: tuple[Address, ...]
    is_open: bool = False


@dataclass(slots=True)
class Work:
    """What a transaction is to look at."""

    rule_sets: dict[str, None] = field(default_factory=dict)
    lists: dict[Names, None] = field(default_factory=dict)
    hosts: dict[str, None] = field(default_factory=dict)
    added: list[tuple[int, str]] = field(default_factory=list)  # a set's constant, and an address
    removed: list[tuple[int, str]] = field(default_factory=list)
    left: list[tuple[int, str]] = field(default_factory=list)  # goes last: see `take`
    refilled: dict[tuple[str, Family], None] = field(default_factory=dict)  # sets of ranges
    dropped: list[tuple[str, Family]] = field(default_factory=list)
    came: list[Pod] = field(default_factory=list)
    went: list[Pod] = field(default_factory=list)
    pools: bool = False


@dataclass(slots=True)
class _Set:
    """A set: the constant that rules know it by, its addresses, and the families of its ranges that have a set."""

    number: int
    single: set[str] = field(default_factory=set)
    ranges: dict[Family, dict[str, Range]] = field(default_factory=dict)

    def has(self, one: Address) -> bool:
        """Whether an address is in it."""
        return str(one) in self.single or any(one.within(whole) for whole in self.ranges.get(one.family, {}).values())


class Desired:
    """Told of changes; each call returns what it touches. `logs`, `counts`: whether denials are said, and all is counted.

    Attributes:
        specs: The RuleSets, by name.
        endpoints: The RuleSets that hold for each, by uid.
        pods: The links, by the host's end.
        errors: RuleSets that the kernel refused, and why: what they are about is closed.
        users: The RuleSets that name a set.
        uses: How many endpoints have each list of RuleSets.
        pools: The pools' ranges, and of each whether what leaves all pools is masqueraded.
        edition: The sets that rules name.
    """

    def __init__(self, *, logs: bool = True, counts: bool = False) -> None:
        self.specs: dict[str, RuleSetSpec] = {}
        self.endpoints: dict[str, Names] = {}
        self.pods: dict[str, Pod] = {}
        self.errors: dict[str, str] = {}
        self.users: dict[str, set[str]] = {}
        self.uses: Counter[Names] = Counter({(): 1})  # the list of none is always there: for those that are open
        self.pools: dict[Range, bool] = {}
        self.edition = Edition()
        self._sets: dict[str, _Set] = {}
        self._numbers = 0
        self._families: tuple[Family, ...] = (4,)
        self._logs, self._counts = logs, counts

    def take(self, changes: Changes) -> Work:
        """Take what policies say otherwise.

        What goes last: of sets that no rule names any more, and addresses that move to another set; a packet that is being
        asked in that moment would else find them in neither.
        """
        work = Work()
        for name in changes.forgotten:
            self._forget_set(name, work)
        for name, addresses in changes.added.items():
            self._add(name, addresses, work)
        for name, addresses in changes.removed.items():
            self._remove(name, addresses, work)
        for name, rule_set in changes.rule_sets.items():
            self._take_rule_set(name, rule_set.spec if rule_set else None, work)
        for uid, names in changes.endpoints.items():
            self._take_endpoint(uid, names, work)
        came = set(work.added) if work.removed else set()
        moved = {text for _, text in came}
        work.left.extend(one for one in work.removed if one[1] in moved and one not in came)
        work.removed = [one for one in work.removed if one[1] not in moved or one in came]
        return work

    def put(self, pod: Pod) -> Work:
        """Take a link."""
        old = self.pods.get(pod.host)
        self.pods[pod.host] = pod
        return Work(hosts={pod.host: None}, came=[pod], went=[old] if old else [])

    def drop(self, pod: Pod) -> Work:
        """Forget a link."""
        del self.pods[pod.host]
        return Work(hosts={pod.host: None}, went=[pod])

    # --- what should be

    def everything(self) -> Work:
        """Return all that there is."""
        return Work(
            rule_sets=dict.fromkeys(self.specs),
            lists=dict.fromkeys(self.uses),
            hosts=dict.fromkeys(self.pods),
            added=[(one.number, text) for one in self._sets.values() for text in one.single],
            refilled={(name, family): None for name, one in self._sets.items() for family in one.ranges},
            came=list(self.pods.values()),
            pools=True,
        )

    def chains(self, owner: Owner) -> Chains:
        """Return the chains of a RuleSet, or of a list of them; none: it isn't needed, or can't be had."""
        if isinstance(owner, str):
            spec = self.specs.get(owner)
            return rules.rule_set_chains(owner, spec, self._terms()) if spec and owner not in self.errors else {}
        if owner not in self.uses:
            return {}
        if any(name in self.errors for name in owner):
            return {rules.list_name(owner, direction): rules.CLOSED for direction in WAYS}
        return rules.list_chains(owner, self.specs, self._terms())

    def lead(self, host: str) -> Names | None:
        """Return the list that holds for a link, () also for one that is open; None: it is closed."""
        pod = self.pods.get(host)
        return self.endpoints.get(pod.uid, () if pod.is_open else None) if pod else None

    def elements(self, name: str, family: Family) -> Iterator[bytes]:
        """Yield the elements of a set's ranges."""
        return rules.intervals(family, self._sets[name].ranges[family].values())

    def holds(self, names: Iterable[str], one: Address) -> bool:
        """Whether an address is in one of these sets."""
        return any(self._sets[name].has(one) for name in names)

    # --- what follows from a change

    def _take_rule_set(self, name: str, spec: RuleSetSpec | None, work: Work) -> None:
        old = self.specs.pop(name, None)
        for peer in _peers(old):
            self.users[peer].discard(name)
            if not self.users[peer]:
                del self.users[peer]
        if spec is not None:
            self.specs[name] = spec
        for peer in _peers(spec):
            self.users.setdefault(peer, set()).add(name)
        work.rule_sets[name] = None
        was_wrong = self.errors.pop(name, None) is not None
        if spec is not None and (was_wrong or old is None or _shape(old) != _shape(spec) or rules.passes(spec)):
            work.lists.update((names, None) for names in self.uses if name in names)

    def _take_endpoint(self, uid: str, names: Names | None, work: Work) -> None:
        old = self.endpoints.pop(uid, None)
        if names is None:  # it has ended, whoever still runs there
            mine = [host for host, pod in self.pods.items() if pod.uid == uid and pod.is_open]
            self.pods.update((host, replace(self.pods[host], is_open=False)) for host in mine)
        if names is not None:
            self.endpoints[uid] = names
            self.uses[names] += 1
            work.lists[names] = None
        if old is not None:
            self.uses[old] -= 1
            if not self.uses[old]:
                del self.uses[old]
            work.lists[old] = None
        work.hosts.update((host, None) for host, pod in self.pods.items() if pod.uid == uid)

    def _add(self, name: str, addresses: Iterable[str], work: Work) -> None:
        one = self._sets.get(name)
        if one is None:
            self._numbers += 1
            one = self._sets[name] = _Set(self._numbers)
        for text in addresses:
            version = family_of(text)
            if "/" not in text:
                one.single.add(text)
                work.added.append((one.number, text))
                self._use_family(version, work)
                continue
            if version not in one.ranges:
                one.ranges[version] = {}
                self._rewrite(name, work)
            one.ranges[version][text] = parse(text)
            work.refilled[name, version] = None

    def _remove(self, name: str, addresses: Iterable[str], work: Work) -> None:
        one = self._sets[name]
        for text in addresses:
            if "/" in text:
                version = family_of(text)
                one.ranges[version].pop(text, None)
                work.refilled[name, version] = None
            else:
                one.single.discard(text)
                work.removed.append((one.number, text))

    def _forget_set(self, name: str, work: Work) -> None:
        one = self._sets.pop(name, None)
        if one is None:  # it came and went between two calls
            return
        work.left.extend((one.number, text) for text in one.single)
        work.dropped.extend((name, family) for family in one.ranges)

    def _use_family(self, version: Family, work: Work) -> None:
        if version not in self._families:
            self._families = FAMILIES
            work.rule_sets.update(dict.fromkeys(self.specs))
            work.lists.update(dict.fromkeys(self.uses))

    def _rewrite(self, name: str, work: Work) -> None:
        """Let all rules that name a set be written again."""
        for rule_set in self.users.get(name, ()):
            work.rule_sets[rule_set] = None
            if rules.passes(self.specs[rule_set]):
                work.lists.update((names, None) for names in self.uses if rule_set in names)

    def _terms(self) -> Terms:
        return Terms(self._families, self._peer, self.edition, self._logs, self._counts)

    def _peer(self, name: str) -> Peer:
        one = self._sets[name]
        return Peer(one.number, tuple(one.ranges))


def _peers(spec: RuleSetSpec | None) -> set[str]:
    return {peer for rule in spec.rules for peer in rule.peers or ()} if spec else set()


def _shape(spec: RuleSetSpec) -> object:
    """Return what a list's chain depends on of a RuleSet."""
    return spec.tier, spec.isolates, {rule.direction for rule in spec.rules}, rules.passes(spec), spec.log, spec.policies
