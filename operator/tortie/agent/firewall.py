"""The node's firewall: what policies say of its pods, in one nftables table of its own.

Belongs here: what the table has, and the transactions that change it, each as small as what changed. Does not: how a rule
is written (`tortie.agent.rules`), nor when a policy holds (`tortie.policy.view`).

Crash points: the table stays as the last transaction left it, and holds; the next agent replaces it by one transaction, in
which nothing is open. Whatever the table is found to be, other than it was left: it is replaced too.
"""

import logging
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tortie.addressing.allocator import Address
from tortie.addressing.ranges import Family, Range, parse
from tortie.agent import nfnetlink as nf
from tortie.agent import rules
from tortie.agent.conntrack import Connection, Connections, Flow
from tortie.agent.drift import Drift
from tortie.agent.netlink import Closing, Netlink
from tortie.agent.nfnetlink import Batch, Refused, Socket
from tortie.agent.rules import HERE, LOCAL, MACS, PEERS, TABLE, WAYS, Chains, Peer, Terms
from tortie.api.compiled import Direction, RuleSetSpec
from tortie.policy.verdict import Packet, decide
from tortie.policy.view import Changes, Names

_log = logging.getLogger(__name__)

_FAMILIES: tuple[Family, ...] = (4, 6)
_PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMP", 132: "SCTP"}


class Kernel(Closing):
    """What the firewall asks, in the network namespace that the thread is in when it is made."""

    def __init__(self) -> None:
        self.tables, self.connections, self.links = Socket(), Connections(), Netlink()
        self.drift = Drift(TABLE, self.tables.port)

    def close(self) -> None:
        """Close it all."""
        for one in (self.tables, self.connections, self.links, self.drift):
            one.close()


class NotEnforced(Exception):
    """The table can't be made; the message says why."""


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
class _Set:
    """A set: the constant that rules know it by, its addresses, and the families of its ranges that have a set."""

    number: int
    single: set[str] = field(default_factory=set)
    ranges: dict[Family, dict[str, Range]] = field(default_factory=dict)

    def has(self, one: Address) -> bool:
        """Whether an address is in it."""
        return str(one) in self.single or any(one.within(whole) for whole in self.ranges.get(_family(one), {}).values())


@dataclass(slots=True)
class _Work:
    """What a transaction is to look at."""

    rule_sets: dict[str, None] = field(default_factory=dict)
    lists: dict[Names, None] = field(default_factory=dict)
    hosts: dict[str, None] = field(default_factory=dict)
    added: list[tuple[int, str]] = field(default_factory=list)  # a set's constant, and an address
    removed: list[tuple[int, str]] = field(default_factory=list)
    refilled: dict[tuple[str, Family], None] = field(default_factory=dict)  # sets of ranges
    dropped: list[tuple[str, Family]] = field(default_factory=list)
    came: list[Pod] = field(default_factory=list)
    went: list[Pod] = field(default_factory=list)


Owner = str | Names  # a RuleSet, or a list of these


class Firewall:
    """Takes changes of policies and of pods into the kernel, one at a time."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._specs: dict[str, RuleSetSpec] = {}
        self._sets: dict[str, _Set] = {}
        self._numbers = 0
        self._endpoints: dict[str, Names] = {}
        self._uses: Counter[Names] = Counter({(): 1})  # the list of none is always there: for those that are open
        self._pods: dict[str, Pod] = {}
        self._families: tuple[Family, ...] = (4,)
        self._errors: dict[str, str] = {}
        self._users: dict[str, set[str]] = {}  # the RuleSets that name a set
        self._suspects: set[str] = set()  # endpoints whose connections may be forbidden since the last `cut`
        # What the kernel has, as far as it isn't said by the above.
        self._is_there = False
        self._is_inherited = False  # it has the table of the last agent, and nothing is known yet
        self._gone: set[bytes] = set()  # addresses of links that went since the last `cut`
        self._chains: dict[Owner, Chains] = {}
        self._leads: dict[str, Names | None] = {}  # by interface: the list that holds, () also for one that is open
        self._has_ranges: set[tuple[str, Family]] = set()

    # --- what is told

    def begin(self, pods: Iterable[Pod]) -> None:
        """Take the links that are there. The last agent's table stays until policies are known; raises NotEnforced."""
        self._pods = {pod.host: pod for pod in pods}
        self._is_inherited = self._has_table()
        if not self._is_inherited:
            self.program()

    def covers(self, known: Collection[str]) -> bool:
        """Whether nothing that runs is closed if only this is known of it; without a last agent's table all is."""
        return not self._is_inherited or all(pod.is_open or pod.uid in known for pod in self._pods.values())

    def enforce(self, changes: Changes) -> Mapping[str, str]:
        """Let changed policies hold, and return what is wrong, by RuleSet; raises NotEnforced."""
        work = _Work()
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
        self._suspect(changes)
        self._commit(work)
        return dict(self._errors)

    def cut(self) -> list[Connection]:
        """Delete the connections that are forbidden now, and return them; raises OSError."""
        if not self._is_there:  # what it would be cut for doesn't hold yet
            return []
        uids, gone = set(self._suspects), set(self._gone)
        mine = [(pod, one) for pod in self._pods.values() if pod.uid in uids for one in pod.addresses]
        pods = {rules.packed(_family(one), str(one)): pod for pod, one in mine}
        over = gone.difference(rules.packed(_family(one), str(one)) for pod in self._pods.values() for one in pod.addresses)
        wrong = list[Connection]()
        if pods or over:
            listed = self._kernel.links.addresses(everywhere=False)
            node = {rules.packed(rules.family_of(one), one) for one in map(_text, listed)}
            every = self._kernel.connections.of(frozenset(pods) | over)
            wrong = [one for one in every if _is_of(one, over) or self._forbids(one, pods, node)]
            self._kernel.connections.delete(wrong)
        self._suspects -= uids
        self._gone -= gone
        return wrong

    def put(self, pod: Pod) -> None:
        """Let what holds for a pod hold for its link, which may not be there yet; raises NotEnforced."""
        old = self._pods.get(pod.host)
        if old == pod and self._is_there:
            return
        self._pods[pod.host] = pod
        if self._is_inherited:
            self._add_to_inherited(pod)
        else:
            self._commit(_Work(hosts={pod.host: None}, came=[pod], went=[old] if old else []))

    def drop(self, host: str) -> None:
        """Forget a link that is gone; raises NotEnforced."""
        pod = self._pods.pop(host, None)
        self._gone.update(rules.packed(_family(one), str(one)) for one in (pod.addresses if pod else ()))
        if pod is not None and self._is_there:
            self._commit(_Work(hosts={host: None}, went=[pod]))

    def mend(self) -> None:
        """Replace a table of ours that somebody changed; one of the last agent's stays until policies are known."""
        if not (self._is_inherited and self._has_table()):
            self.program()
            self._suspects.update(self._endpoints)  # who knows what began meanwhile

    @property
    def rule_sets(self) -> int:
        """How many RuleSets there are."""
        return len(self._specs)

    def program(self) -> None:
        """Replace whatever the table has by what it should have, in one transaction; raises NotEnforced."""
        before, self._errors = self._errors, {}
        while True:
            batch, chains, leads = self._whole()
            try:
                self._kernel.tables.commit(batch)
            except Refused as refused:
                if not self._blame(refused, before):
                    self._is_there = False
                    raise NotEnforced(f"nftables table inet {TABLE}: the kernel refused it: {refused}") from refused
            except OSError as error:
                self._is_there = False
                raise NotEnforced(f"nftables table inet {TABLE}: {error}") from error
            else:
                break
        self._is_there, self._is_inherited, self._chains, self._leads = True, False, chains, leads
        self._has_ranges = set(self._ranges())

    # --- what follows from it

    def _take_rule_set(self, name: str, spec: RuleSetSpec | None, work: _Work) -> None:
        old = self._specs.pop(name, None)
        for peer in _peers(old):
            self._users[peer].discard(name)
            if not self._users[peer]:
                del self._users[peer]
        if spec is not None:
            self._specs[name] = spec
        for peer in _peers(spec):
            self._users.setdefault(peer, set()).add(name)
        work.rule_sets[name] = None
        was_wrong = self._errors.pop(name, None) is not None
        if spec is not None and (was_wrong or old is None or _shape(old) != _shape(spec) or rules.passes(spec)):
            work.lists.update((names, None) for names in self._uses if name in names)

    def _take_endpoint(self, uid: str, names: Names | None, work: _Work) -> None:
        old = self._endpoints.pop(uid, None)
        if names is None:  # it has ended, whoever still runs there
            mine = [host for host, pod in self._pods.items() if pod.uid == uid and pod.is_open]
            self._pods.update((host, replace(self._pods[host], is_open=False)) for host in mine)
        if names is not None:
            self._endpoints[uid] = names
            self._uses[names] += 1
            work.lists[names] = None
        if old is not None:
            self._uses[old] -= 1
            if not self._uses[old]:
                del self._uses[old]
            work.lists[old] = None
        work.hosts.update((host, None) for host, pod in self._pods.items() if pod.uid == uid)

    def _add(self, name: str, addresses: Iterable[str], work: _Work) -> None:
        one = self._sets.get(name)
        if one is None:
            self._numbers += 1
            one = self._sets[name] = _Set(self._numbers)
        for text in addresses:
            family = rules.family_of(text)
            if "/" not in text:
                one.single.add(text)
                work.added.append((one.number, text))
                self._use_family(family, work)
                continue
            if family not in one.ranges:
                one.ranges[family] = {}
                self._rewrite(name, work)
            one.ranges[family][text] = parse(text)
            work.refilled[name, family] = None

    def _remove(self, name: str, addresses: Iterable[str], work: _Work) -> None:
        one = self._sets[name]
        for text in addresses:
            if "/" in text:
                family = rules.family_of(text)
                one.ranges[family].pop(text, None)
                work.refilled[name, family] = None
            else:
                one.single.discard(text)
                work.removed.append((one.number, text))

    def _forget_set(self, name: str, work: _Work) -> None:
        one = self._sets.pop(name, None)
        if one is None:  # it came and went between two calls
            return
        work.removed.extend((one.number, text) for text in one.single)
        work.dropped.extend((name, family) for family in one.ranges)

    def _use_family(self, family: Family, work: _Work) -> None:
        if family not in self._families:
            self._families = _FAMILIES
            work.rule_sets.update(dict.fromkeys(self._specs))
            work.lists.update(dict.fromkeys(self._uses))

    def _rewrite(self, name: str, work: _Work) -> None:
        """Let all rules that name a set be written again."""
        for rule_set in self._users.get(name, ()):
            work.rule_sets[rule_set] = None
            if rules.passes(self._specs[rule_set]):
                work.lists.update((names, None) for names in self._uses if rule_set in names)

    def _suspect(self, changes: Changes) -> None:
        """Note whose connections may be forbidden now: who has other rules, and who has rules with other sets."""
        changed = set(changes.rule_sets)
        for sets, harmless in ((changes.removed, "Deny"), (changes.added, "Accept")):
            for name in sets:
                changed.update(one for one in self._users.get(name, ()) if _decides(self._specs[one], name, harmless))
        self._suspects.update(uid for uid, names in changes.endpoints.items() if names is not None)
        if changed:
            lists = {names for names in self._uses if not changed.isdisjoint(names)}
            self._suspects.update(uid for uid, names in self._endpoints.items() if names in lists)

    def _forbids(self, one: Connection, pods: Mapping[bytes, Pod], node: Collection[bytes]) -> bool:
        """Whether one side's rules wouldn't let a connection begin, as `from-pods` and `to-pods` would see it."""
        first, last = one.original.source, one.reply.source
        if first == last:
            return False
        sides: list[tuple[Pod | None, Direction, bytes]] = [(pods.get(first), "Egress", last)]
        if first not in node and not (len(first) == 4 and first[0] == 127):
            sides.append((pods.get(last), "Ingress", first))
        return any(pod and not self._allows(pod, direction, other, one.reply) for pod, direction, other in sides)

    def _allows(self, pod: Pod, direction: Direction, other: bytes, reply: Flow) -> bool:
        names = self._endpoints.get(pod.uid)
        if names is None:
            return pod.is_open
        if any(name in self._errors for name in names):
            return False
        protocol = _PROTOCOLS.get(reply.protocol, str(reply.protocol))
        family: Family = 4 if len(other) == 4 else 6
        at = Address(family, int.from_bytes(other, "big"))
        packet = Packet(direction, at, protocol, reply.source_port, self._holds)
        return decide([self._specs[name] for name in names], packet).allowed

    def _holds(self, names: Iterable[str], one: Address) -> bool:
        return any(self._sets[name].has(one) for name in names)

    # --- transactions

    def _commit(self, work: _Work) -> None:
        """Do it by a transaction of what changed, or else by one of everything."""
        if not self._is_there:
            self.program()
            return
        chains = {name: self._rule_set(name) for name in work.rule_sets} | {names: self._list(names) for names in work.lists}
        leads = {host: self._lead(host) for host in work.hosts}
        batch = self._delta(work, chains, leads)
        if len(batch):
            try:
                self._kernel.tables.commit(batch)
            except Refused as refused:
                before = set(self._errors)
                self.program()
                if self._errors.keys() <= before:
                    _log.warning("nftables table inet %s wasn't as it was left (%s): it was replaced", TABLE, refused)
                return
            except OSError as error:
                self._is_there = False
                raise NotEnforced(f"nftables table inet {TABLE}: {error}") from error
        for owner, made in chains.items():
            if made:
                self._chains[owner] = made
            else:
                self._chains.pop(owner, None)
        for host, names in leads.items():
            if names is None:
                self._leads.pop(host, None)
            else:
                self._leads[host] = names
        self._has_ranges.update(work.refilled)
        self._has_ranges.difference_update(key for key in work.dropped if key not in work.refilled)

    def _add_to_inherited(self, pod: Pod) -> None:
        """Add a link to the last agent's table, which stays until policies are known: open, or closed until then."""
        batch = Batch(TABLE)
        self._write_pods(_Work(came=[pod]), {pod.host: () if pod.is_open else None}, batch)
        try:
            self._kernel.tables.commit(batch)
        except (Refused, OSError) as error:
            raise NotEnforced(f"nftables table inet {TABLE}, of the last agent: {error}") from error

    def _has_table(self) -> bool:
        try:
            return self._kernel.tables.has_table(TABLE)
        except OSError as error:
            raise NotEnforced(f"nftables table inet {TABLE}: {error}") from error

    def _blame(self, refused: Refused, before: Collection[str]) -> bool:
        """Take note of the RuleSets that the kernel refused; whether there are any that weren't known."""
        wrong = {name: code for name, code in refused.owners.items() if name in self._specs and name not in self._errors}
        for name, code in wrong.items():
            self._errors[name] = f"the kernel refused its rules: {os.strerror(code)}"
            policies = ", ".join(self._specs[name].policies)
            if name not in before:
                _log.error(
                    "RuleSet %s (%s): %s; pods that it is about are closed on this node", name, policies, self._errors[name]
                )
        return bool(wrong)

    def _whole(self) -> tuple[Batch, dict[Owner, Chains], dict[str, Names | None]]:
        """Return the transaction that makes everything, and what there is then."""
        batch = Batch(TABLE)
        rules.prepare(batch)
        work = _Work(
            added=[(one.number, text) for one in self._sets.values() for text in one.single],
            refilled=dict.fromkeys(self._ranges()),
            came=list(self._pods.values()),
        )
        chains: dict[Owner, Chains] = {name: self._rule_set(name) for name in self._specs}
        chains |= {names: self._list(names) for names in self._uses}
        leads = {host: self._lead(host) for host in self._pods}
        self._chains, self._leads, self._has_ranges = {}, {}, set()
        self._delta(work, chains, leads, batch)
        return batch, chains, {host: names for host, names in leads.items() if names is not None}

    def _delta(
        self,
        work: _Work,
        chains: Mapping[Owner, Chains],
        leads: Mapping[str, Names | None],
        batch: Batch | None = None,
    ) -> Batch:
        """Write what leads from what the kernel has to what it should have: what is referred to comes first and goes last."""
        batch = batch if batch is not None else Batch(TABLE)
        old: dict[Owner, Chains] = {owner: self._chains.get(owner, {}) for owner in chains}
        for owner, made in chains.items():
            for chain in made.keys() - old[owner].keys():
                batch.chain(chain, owner=_blamed(owner))
        self._write_sets(work, batch)
        for owner, made in chains.items():
            _write_chains(owner, old[owner], made, batch)
        gone = [chain for owner, made in chains.items() for chain in old[owner].keys() - made.keys()]
        for chain in gone:
            batch.flush(chain)
        self._write_pods(work, leads, batch)
        for chain in gone:
            batch.delete_chain(chain)
        for name, family in work.dropped:
            if (name, family) in self._has_ranges and (name, family) not in work.refilled:
                batch.delete_set(rules.ranges_of(name, family))
        return batch

    def _write_sets(self, work: _Work, batch: Batch) -> None:
        for family in _FAMILIES:
            for texts, delete in ((work.removed, True), (work.added, False)):
                batch.elements(
                    PEERS[family],
                    (
                        nf.element(rules.constant(number) + rules.packed(family, text))
                        for number, text in texts
                        if rules.family_of(text) == family
                    ),
                    delete=delete,
                )
        for name, family in work.refilled:
            there = rules.ranges_of(name, family)
            if (name, family) in self._has_ranges:
                batch.clear(there)
            else:
                rules.ranges_set(batch, name, family)
            batch.elements(there, rules.intervals(family, self._sets[name].ranges[family].values()))

    def _write_pods(self, work: _Work, leads: Mapping[str, Names | None], batch: Batch) -> None:
        for host, names in leads.items():
            before = self._leads.get(host)
            for direction, way in WAYS.items():
                key = nf.ifname(host)
                if before is not None and before != names:
                    batch.elements(way, [nf.element(key)], delete=True)
                if names is not None and before != names:
                    batch.elements(way, [nf.mapping(key, nf.GOTO, rules.list_name(names, direction))])
        for pod, delete in (*((pod, True) for pod in work.went), *((pod, False) for pod in work.came)):
            self._write_pod(pod, batch, delete=delete)

    def _write_pod(self, pod: Pod, batch: Batch, *, delete: bool) -> None:
        name = nf.ifname(pod.host)
        mac = bytes.fromhex(pod.mac.replace(":", ""))
        batch.elements(MACS, [nf.element(name + mac + bytes(2))], delete=delete)
        for one in pod.addresses:
            family = _family(one)
            packed = rules.packed(family, str(one))
            batch.elements(HERE[family], [nf.element(name + packed)], delete=delete)
            if not (delete and any(one in other.addresses for other in self._pods.values())):
                batch.elements(LOCAL[family], [nf.element(packed)], delete=delete)

    # --- what should be

    def _rule_set(self, name: str) -> Chains:
        spec = self._specs.get(name)
        return rules.rule_set_chains(name, spec, self._terms()) if spec and name not in self._errors else {}

    def _list(self, names: Names) -> Chains:
        if names not in self._uses:
            return {}
        if any(name in self._errors for name in names):
            return {rules.list_name(names, direction): rules.CLOSED for direction in WAYS}
        return rules.list_chains(names, self._specs, self._terms())

    def _lead(self, host: str) -> Names | None:
        pod = self._pods.get(host)
        if pod is None:
            return None
        return self._endpoints.get(pod.uid, () if pod.is_open else None)

    def _terms(self) -> Terms:
        return Terms(self._families, self._peer)

    def _peer(self, name: str) -> Peer:
        one = self._sets[name]
        return Peer(one.number, tuple(one.ranges))

    def _ranges(self) -> Iterator[tuple[str, Family]]:
        return ((name, family) for name, one in self._sets.items() for family in one.ranges)


def _family(one: Address) -> Family:
    return 4 if one.family == 4 else 6


def _is_of(one: Connection, addresses: Collection[bytes]) -> bool:
    return one.original.source in addresses or one.reply.source in addresses


def remove_table(kernel: Socket) -> None:
    """Leave nothing in the kernel, so that everything passes."""
    if kernel.has_table(TABLE):
        batch = Batch(TABLE)
        batch.delete_table()
        kernel.commit(batch)


def _write_chains(owner: Owner, old: Chains, made: Chains, batch: Batch) -> None:
    for chain, written in made.items():
        if chain in old and old[chain] != written:
            batch.flush(chain, _blamed(owner))
        if old.get(chain) != written:
            batch.rules(chain, written, _blamed(owner))


def _peers(spec: RuleSetSpec | None) -> set[str]:
    return {peer for rule in spec.rules for peer in rule.peers or ()} if spec else set()


def _decides(spec: RuleSetSpec, name: str, only: str) -> bool:
    """Whether a rule that names a set does anything but this."""
    return any(rule.action != only and name in (rule.peers or ()) for rule in spec.rules)


def _text(link_address: Any) -> str:
    return str(link_address.get("address"))


def _blamed(owner: Owner) -> str:
    return owner if isinstance(owner, str) else ""


def _shape(spec: RuleSetSpec) -> object:
    """Return what a list's chain depends on of a RuleSet."""
    return spec.tier, spec.isolates, {rule.direction for rule in spec.rules}, rules.passes(spec)
