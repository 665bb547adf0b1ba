"""The node's firewall: what policies say of its pods, in one nftables table of its own.

Belongs here: what the table has, and the transactions that change it, each as small as what changed. Does not: what it
should have (`tortie.agent.desired`), how a rule is written (`tortie.agent.rules`), nor when a policy holds
(`tortie.policy.view`).

Crash points: the table stays as the last transaction left it, and holds; the next agent refills it by one transaction, in
which nothing is open. Whatever the table is found to be, other than it was left: it is refilled too. What that replaces is
deleted by a second transaction, and a change may take three: what an agent leaves that ends between them holds, and the next
one finds and removes what is too much.
"""

import errno
import logging
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple

from tortie.addressing.ranges import Family, Range
from tortie.agent import matches, rules, table
from tortie.agent import nfnetlink as nf
from tortie.agent.conntrack import Connection
from tortie.agent.cuts import Cuts
from tortie.agent.desired import Desired, Owner, Pod, Work
from tortie.agent.kernel import Kernel
from tortie.agent.matches import FAMILIES
from tortie.agent.nfnetlink import Batch, Refused, Socket
from tortie.agent.rules import Chains, Counted
from tortie.agent.table import HERE, LOCAL, MACS, NATTED, PEERS, POOLS, TABLE, WAYS, Edition
from tortie.api.compiled import Direction
from tortie.policy.view import Changes, Names

_log = logging.getLogger(__name__)
_LOOKS = 10  # at what the table has, if somebody changes any table meanwhile


class NotEnforced(Exception):
    """The table can't be made; the message says why."""


class Stages(NamedTuple):
    """The transactions of a change, in order; several may be one.

    A packet goes on by the rules that it began with, but looks into sets and maps as they are when it does. So ranges, which
    the kernel shows only at a transaction's end, come before the rules that look into them, and what leads to a chain comes
    after it: to a packet that began earlier a new chain is empty.
    """

    ranges: Batch
    rules: Batch
    leads: Batch


class Firewall:
    """Takes changes of policies and of pods into the kernel, one at a time.

    Args:
        kernel: Where the table is.
        counts: Whether policies' packets are counted.
        vxlan_port: The nodes' UDP port, to which no pod sends.
    """

    def __init__(self, kernel: Kernel, *, counts: bool = False, vxlan_port: int = 4789) -> None:
        self._kernel, self._vxlan_port = kernel, vxlan_port
        self._desired = Desired(logs=kernel.log is not None, counts=counts)
        self._cuts = Cuts(self._desired)
        self.counts = counts
        # What the kernel has, as far as it isn't said by the above.
        self._is_there = False
        self._is_inherited = False  # it has the table of the last agent, and nothing is known yet
        self._chains: dict[Owner, Chains] = {}
        self._leads: dict[str, Names | None] = {}  # by interface: the list that holds, () also for one that is open
        self._has_ranges: set[tuple[str, Family]] = set()
        self._counters: dict[str, frozenset[Counted]] = {}  # by RuleSet
        self._counter_users = Counter[Counted]()  # how many RuleSets have each

    # --- what is told

    def begin(self, pods: Iterable[Pod]) -> None:
        """Take the links that are there. The last agent's table stays until policies are known; raises NotEnforced."""
        self._desired.pods = {pod.host: pod for pod in pods}
        self._is_inherited = self._has_table()
        if not self._is_inherited:
            self.program()
        elif there := self._contents():
            self._desired.edition = table.edition_in_force(there.sets)

    def covers(self, known: Collection[str]) -> bool:
        """Whether nothing that runs is closed if only this is known of it; without a last agent's table all is."""
        return not self._is_inherited or all(pod.is_open or pod.uid in known for pod in self._desired.pods.values())

    def enforce(self, changes: Changes) -> Mapping[str, str]:
        """Let changed policies hold, and return what is wrong, by RuleSet; raises NotEnforced."""
        work = self._desired.take(changes)
        self._cuts.suspect(changes)
        self._commit(work)
        return dict(self._desired.errors)

    def cut(self) -> list[Connection]:
        """Delete the connections that are forbidden now, and return them; raises OSError."""
        if not self._is_there:  # what it would be cut for doesn't hold yet
            return []
        search, wrong = self._cuts.search(), list[Connection]()
        if search.addresses:
            node = {matches.packed(matches.family_of(one), one) for one in self._node_addresses()}
            wrong = list(search.forbidden(self._kernel.connections.of(search.addresses), node))
            self._kernel.connections.delete(wrong)
        self._cuts.found(search)
        return wrong

    @property
    def has_to_cut(self) -> bool:
        """Whether anybody's connections are still to be looked at."""
        return bool(self._cuts.uids or self._cuts.gone)

    def masquerade(self, pools: Mapping[Range, bool]) -> None:
        """Take the pools, and of which what leaves all pools is masqueraded; raises NotEnforced."""
        if pools == self._desired.pools:
            return
        if any(pools.values()) and not self._kernel.masquerades:
            raise NotEnforced("the kernel has no nft_masq")
        self._desired.pools = dict(pools)
        if self._is_inherited:
            self._write_to_inherited(Work(pools=True))
        else:
            self._commit(Work(pools=True))

    def put(self, pod: Pod) -> None:
        """Let what holds for a pod hold for its link, which may not be there yet; raises NotEnforced."""
        if self._desired.pods.get(pod.host) == pod and self._is_there:
            return
        work = self._desired.put(pod)
        if self._is_inherited:
            self._write_to_inherited(Work(came=[pod]), {pod.host: () if pod.is_open else None})
        else:
            self._commit(work)

    def drop(self, host: str) -> None:
        """Forget a link that is gone; raises NotEnforced."""
        pod = self._desired.pods.get(host)
        if pod is not None:
            work = self._desired.drop(pod)
            self._cuts.leave(pod)
            if self._is_there:
                self._commit(work)

    def mend(self) -> None:
        """Replace a table of ours that somebody changed; one of the last agent's stays until policies are known."""
        if not (self._is_inherited and self._has_table()):
            self.program()
            with suppress(OSError):
                self._kernel.tables.outwait()  # what passed meanwhile is a connection now
            self._cuts.uids.update(self._desired.endpoints)  # who knows what began

    # --- what is asked

    @property
    def rule_sets(self) -> int:
        """How many RuleSets there are."""
        return len(self._desired.specs)

    def counters(self) -> dict[Counted, tuple[int, int]]:
        """Return the packets and bytes for which each policy decided since its counter is there; raises OSError."""
        if not (self.counts and self._is_there):
            return {}
        found = self._kernel.tables.counters(TABLE)
        return {one: found[one.name] for one in self._counter_users if one.name in found}

    def denied_by(self, chain: str) -> tuple[Direction | None, tuple[str, ...]]:
        """Return the direction and the policies of which a chain says that it denied; no policies for one that is no more."""
        for direction, way in WAYS.items():
            name, specs = chain.removesuffix(f"-{way}"), self._desired.specs
            if name == chain:
                continue
            if name in specs:
                return direction, specs[name].policies
            names = next((one for one in self._desired.uses if rules.list_name(one, direction) == chain), ())
            return direction, tuple(rules.policies_of(rules.isolators(names, specs, direction), specs))
        return None, ()

    # --- transactions

    def program(self) -> None:
        """Replace whatever the table has by what it should have, which one transaction decides; raises NotEnforced."""
        before, self._desired.errors = self._desired.errors, {}
        there, held = self._contents(), self._desired.edition
        if there is not None and not table.can_be_refilled(there, masquerades=self._kernel.masquerades):
            there = None
        while True:
            try:
                self._replace(there)
            except Refused as refused:
                if self._blame(refused, before):
                    continue
                if there is not None:  # it is too strange to be refilled
                    there, self._desired.errors = None, {}
                    continue
                self._is_there, self._desired.edition = False, held
                raise NotEnforced(f"nftables table inet {TABLE}: the kernel refused it: {refused}") from refused
            except OSError as error:
                self._is_there, self._desired.edition = False, held
                raise NotEnforced(f"nftables table inet {TABLE}: {error}") from error
            break

    def _replace(self, there: nf.Contents | None) -> None:
        """Replace it, and delete what was replaced once no packet is asked by it; raises Refused and OSError."""
        self._desired.edition = table.next_edition(there.sets) if there else Edition()
        self._chains, self._leads, self._has_ranges, self._counters, self._counter_users = {}, {}, set(), {}, Counter()
        work, batch = self._desired.everything(), Batch(TABLE)
        chains, leads, ranges = self._what_is_due(work), self._where_it_leads(work), Batch(TABLE) if there else batch
        left = table.prepare(
            batch, ranges, there, self._desired.edition, self._vxlan_port, masquerades=self._kernel.masquerades,
            chains={chain for made in chains.values() for chain in made},
            counters={one.name for name in work.rule_sets for one in self._counters_of(name)},
        )  # fmt: skip
        self._delta(work, chains, leads, Stages(ranges, batch, batch))
        self._send(ranges, batch)
        self._is_there, self._is_inherited = True, False
        self._note(work, chains, leads)
        rest = Batch(TABLE)
        table.tidy(rest, left)
        self._send_last(rest)

    def _commit(self, work: Work) -> None:
        """Do it by transactions of what changed, or else by one of everything."""
        if not self._is_there:
            self.program()
            return
        try:
            self._change(work)
        except Refused as refused:
            before = set(self._desired.errors)
            self.program()
            if self._desired.errors.keys() <= before:
                _log.warning("nftables table inet %s wasn't as it was left (%s): it was replaced", TABLE, refused)
        except OSError as error:
            self._is_there = False
            raise NotEnforced(f"nftables table inet {TABLE}: {error}") from error

    def _change(self, work: Work) -> None:
        """Change what is touched, in as many stages as it takes; raises Refused and OSError."""
        chains, leads, rest = self._what_is_due(work), self._where_it_leads(work), Batch(TABLE)
        anew = {owner for owner, made in chains.items() if made and owner not in self._chains}
        batch = Batch(TABLE)
        stages = Stages(
            Batch(TABLE) if work.refilled and chains else batch,
            batch,
            Batch(TABLE) if anew.intersection(leads.values()) else batch,
        )
        self._delta(work, chains, leads, stages)
        self._write_rest(work, rest)
        self._send(*stages)
        self._note(work, chains, leads)
        self._send_last(rest)

    def _send_last(self, rest: Batch) -> None:
        """Commit what takes away that by which packets may still be asked."""
        if len(rest):
            self._kernel.tables.outwait()
            self._send(rest)

    def _send(self, *batches: Batch) -> None:
        """Commit one after the other, those that are one only once."""
        for batch in dict.fromkeys(batches):
            if len(batch):
                self._kernel.tables.commit(batch)

    def _what_is_due(self, work: Work) -> dict[Owner, Chains]:
        owners: tuple[Owner, ...] = (*work.rule_sets, *work.lists)
        return {owner: self._desired.chains(owner) for owner in owners}

    def _where_it_leads(self, work: Work) -> dict[str, Names | None]:
        return {host: self._desired.lead(host) for host in work.hosts}

    def _note(self, work: Work, chains: Mapping[Owner, Chains], leads: Mapping[str, Names | None]) -> None:
        """Take note of what the kernel has now."""
        self._chains.update(chains)
        self._leads.update(leads)
        for owner in [owner for owner, made in chains.items() if not made]:
            del self._chains[owner]
        for host in [host for host, names in leads.items() if names is None]:
            del self._leads[host]
        self._has_ranges.update(work.refilled)
        self._has_ranges.difference_update(key for key in work.dropped if key not in work.refilled)
        for name in work.rule_sets:
            for one in self._counters.pop(name, ()):
                self._counter_users[one] -= 1
                if not self._counter_users[one]:
                    del self._counter_users[one]
            if counters := self._counters_of(name):
                self._counters[name] = counters
                self._counter_users.update(counters)

    def _write_to_inherited(self, work: Work, leads: Mapping[str, Names | None] = MappingProxyType({})) -> None:
        """Write to the last agent's table, which stays until policies are known: links that came are open, or closed."""
        batch = Batch(TABLE)
        self._write_ranges(work, batch)
        self._write_pods(work, leads, batch)
        try:
            self._kernel.tables.commit(batch)
        except (Refused, OSError) as error:
            raise NotEnforced(f"nftables table inet {TABLE}, of the last agent: {error}") from error

    def _has_table(self) -> bool:
        try:
            return self._kernel.tables.has_table(TABLE)
        except OSError as error:
            raise NotEnforced(f"nftables table inet {TABLE}: {error}") from error

    def _contents(self) -> nf.Contents | None:
        for _ in range(_LOOKS):
            try:
                return self._kernel.tables.contents(TABLE)
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    break
        return None  # then all of it is made anew

    def _node_addresses(self) -> set[str]:
        return {str(one.get("address")) for one in self._kernel.links.addresses(everywhere=False)}

    def _blame(self, refused: Refused, before: Collection[str]) -> bool:
        """Take note of the RuleSets that the kernel refused; whether there are any that weren't known."""
        specs, errors = self._desired.specs, self._desired.errors
        wrong = {name: code for name, code in refused.owners.items() if name in specs and name not in errors}
        for name, code in wrong.items():
            errors[name] = f"the kernel refused its rules: {os.strerror(code)}"
            policies = ", ".join(specs[name].policies)
            if name not in before:
                _log.error("RuleSet %s (%s): %s; pods that it is about are closed on this node", name, policies, errors[name])
        return bool(wrong)

    def _delta(self, work: Work, chains: Mapping[Owner, Chains], leads: Mapping[str, Names | None], stages: Stages) -> None:
        """Write what leads from what the kernel has to what it should have: what is referred to comes first and goes last."""
        old: dict[Owner, Chains] = {owner: self._chains.get(owner, {}) for owner in chains}
        self._write_ranges(work, stages.ranges)
        for owner, made in chains.items():
            for chain in made.keys() - old[owner].keys():
                stages.rules.chain(chain, owner=_blamed(owner))
        self._write_peers(work.removed, stages.rules, delete=True)
        self._write_peers(work.added, stages.rules)
        for name in work.rule_sets:
            for one in self._counters_of(name) - self._counters.get(name, frozenset()):
                stages.rules.counter(one.name, name)
        for owner, made in chains.items():
            _write_chains(owner, old[owner], made, stages.rules)
        gone = [chain for owner, made in chains.items() for chain in old[owner].keys() - made.keys()]
        for chain in gone:
            stages.leads.flush(chain)
        self._write_pods(work, leads, stages.leads)
        for chain in gone:
            stages.leads.delete_chain(chain)
        self._delete_counters(work, stages.leads)

    def _counters_of(self, name: str) -> frozenset[Counted]:
        spec = self._desired.specs.get(name)
        return rules.counted(spec) if self.counts and spec and name not in self._desired.errors else frozenset()

    def _delete_counters(self, work: Work, batch: Batch) -> None:
        left = Counter[Counted]()
        for name in work.rule_sets:
            left.update(self._counters_of(name))
            left.subtract(self._counters.get(name, ()))
        for one, change in left.items():
            if change < 0 and self._counter_users[one] + change == 0:
                batch.delete_counter(one.name)

    def _write_ranges(self, work: Work, batch: Batch) -> None:
        named = self._desired.edition.of
        for name, family in work.refilled:
            there = named(table.ranges_of(name, family))
            if (name, family) in self._has_ranges:
                batch.clear(there)
            else:
                table.ranges_set(batch, self._desired.edition, name, family)
            batch.elements(there, self._desired.elements(name, family))
        for family in FAMILIES if work.pools else ():
            pools = {one: nat for one, nat in self._desired.pools.items() if one.family == family}
            for name, ranges in ((POOLS[family], pools), (NATTED[family], [one for one, nat in pools.items() if nat])):
                batch.clear(named(name))
                batch.elements(named(name), rules.intervals(family, ranges))

    def _write_rest(self, work: Work, batch: Batch) -> None:
        """Write what goes last."""
        self._write_peers(work.left, batch, delete=True)
        for name, family in work.dropped:
            if (name, family) in self._has_ranges and (name, family) not in work.refilled:
                batch.delete_set(self._desired.edition.of(table.ranges_of(name, family)))

    def _write_peers(self, texts: Collection[tuple[int, str]], batch: Batch, *, delete: bool = False) -> None:
        for family in FAMILIES:
            elements = (
                nf.element(rules.constant(number) + matches.packed(family, text))
                for number, text in texts
                if matches.family_of(text) == family
            )
            batch.elements(self._desired.edition.of(PEERS[family]), elements, delete=delete)

    def _write_pods(self, work: Work, leads: Mapping[str, Names | None], batch: Batch) -> None:
        for host, names in leads.items():
            before = self._leads.get(host)
            for direction, way in WAYS.items():
                key, there = nf.ifname(host), self._desired.edition.of(way)
                if before is not None and before != names:
                    batch.elements(there, [nf.element(key)], delete=True)
                if names is not None and before != names:
                    batch.elements(there, [nf.mapping(key, nf.JUMP, rules.list_name(names, direction))])
        for pod, delete in (*((pod, True) for pod in work.went), *((pod, False) for pod in work.came)):
            self._write_pod(pod, batch, delete=delete)

    def _write_pod(self, pod: Pod, batch: Batch, *, delete: bool) -> None:
        name, others, named = nf.ifname(pod.host), self._desired.pods.values(), self._desired.edition.of
        mac = bytes.fromhex(pod.mac.replace(":", ""))
        batch.elements(named(MACS), [nf.element(name + mac + bytes(2))], delete=delete)
        for one in pod.addresses:
            packed = matches.bytes_of(one)
            batch.elements(named(HERE[one.family]), [nf.element(name + packed)], delete=delete)
            if not (delete and any(one in other.addresses for other in others)):
                batch.elements(named(LOCAL[one.family]), [nf.element(packed)], delete=delete)


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


def _blamed(owner: Owner) -> str:
    return owner if isinstance(owner, str) else ""
