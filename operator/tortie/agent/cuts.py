"""Which connections are to be cut: those that a changed policy forbids, and those of pods that are gone.

Belongs here: whose connections may be forbidden since the last look, and whether one is, as the table would see its first
packet. Does not: how the kernel says and deletes them (`tortie.agent.conntrack`).
"""

from collections.abc import Collection, Iterable, Iterator

from tortie.agent.conntrack import Connection, Flow
from tortie.agent.desired import Desired, Pod
from tortie.agent.matches import address_of, bytes_of
from tortie.api.compiled import Direction, RuleSetSpec
from tortie.policy.verdict import Packet, decide
from tortie.policy.view import Changes

_PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMP", 132: "SCTP"}


class Cuts:
    """Suspects whom a change may have forbidden something; a `Search` looks at their connections."""

    def __init__(self, desired: Desired) -> None:
        self._desired = desired
        self.uids: set[str] = set()
        self.gone: set[bytes] = set()  # addresses of links that are no more

    def suspect(self, changes: Changes) -> None:
        """Note whose connections may be forbidden now: who has other rules, and who has rules with other sets."""
        desired, changed = self._desired, set(changes.rule_sets)
        for sets, harmless in ((changes.removed, "Deny"), (changes.added, "Accept")):
            for name in sets:
                changed.update(one for one in desired.users.get(name, ()) if _decides(desired.specs[one], name, harmless))
        self.uids.update(uid for uid, names in changes.endpoints.items() if names is not None)
        if changed:
            lists = {names for names in desired.uses if not changed.isdisjoint(names)}
            self.uids.update(uid for uid, names in desired.endpoints.items() if names in lists)

    def leave(self, pod: Pod) -> None:
        """Note that a link is gone."""
        self.gone.update(map(bytes_of, pod.addresses))

    def search(self) -> "Search":
        """Return what is to be looked for now."""
        return Search(self._desired, frozenset(self.uids), frozenset(self.gone))

    def found(self, search: "Search") -> None:
        """Note that all that a search was about is cut."""
        self.uids -= search.uids
        self.gone -= search.gone


class Search:
    """What is looked for in the kernel's connections.

    Attributes:
        addresses: Those that begin or end at one of these are looked at.
    """

    def __init__(self, desired: Desired, uids: frozenset[str], gone: frozenset[bytes]) -> None:
        self._desired, self.uids, self.gone = desired, uids, gone
        here = {bytes_of(one): pod for pod in desired.pods.values() for one in pod.addresses}
        self._pods = {one: pod for one, pod in here.items() if pod.uid in uids}
        self._over = gone - here.keys()
        self.addresses = frozenset(self._pods) | self._over

    def forbidden(self, connections: Iterable[Connection], node: Collection[bytes]) -> Iterator[Connection]:
        """Yield those that may not go on; `node` are the node's own addresses."""
        for one in connections:
            ends = one.original, one.reply
            # Nobody knows who began one that was picked up: while there was no table of ours, a pod's answer was enough.
            ways = [ends, ends[::-1]] if one.is_picked_up else [ends]
            if any(end.source in self._over for end in ends) or any(self._forbids(*way, node) for way in ways):
                yield one

    def _forbids(self, original: Flow, reply: Flow, node: Collection[bytes]) -> bool:
        """Whether one side's rules wouldn't let a connection begin, as `from-pods` and `to-pods` would see it."""
        first, last = original.source, reply.source
        if first == last:
            return False
        sides: list[tuple[Pod | None, Direction, bytes]] = [(self._pods.get(first), "Egress", last)]
        if first not in node and not (len(first) == 4 and first[0] == 127):
            sides.append((self._pods.get(last), "Ingress", first))
        return any(pod and not self._allows(pod, direction, other, reply) for pod, direction, other in sides)

    def _allows(self, pod: Pod, direction: Direction, other: bytes, reply: Flow) -> bool:
        desired = self._desired
        names = desired.endpoints.get(pod.uid)
        if names is None:
            return pod.is_open
        if any(name in desired.errors for name in names):
            return False
        protocol = _PROTOCOLS.get(reply.protocol, str(reply.protocol))
        at = address_of(other)
        packet = Packet(direction, at, protocol, reply.source_port, desired.holds)
        return decide([desired.specs[name] for name in names], packet).allowed


def _decides(spec: RuleSetSpec, name: str, only: str) -> bool:
    """Whether a rule that names a set does anything but this."""
    return any(rule.action != only and name in (rule.peers or ()) for rule in spec.rules)
