"""Which nodes get a compiled object: by the labels that it carries, and that agents watch. Pure.

An agent watches RuleSets and AddressSets twice: those with its node's own label, and those with the label for all. An
object used by few nodes has a label for each; one used by many has the one for all. A change of labels is one write, so
an object leaves one watch and comes with the other; an agent keeps what it needs until the other one has it.
"""

import hashlib
from collections.abc import Iterable

from tortie.api.compiled import NodePolicySpec, RuleSetSpec

# The label of an object that every node gets.
WIDE = "policy.tortie.dev/wide"
# More nodes than the first and an object goes to all; so few and it goes to each again. Labels of 64 nodes are 2.5 kB,
# about as much as a chunk of addresses.
WIDE_ABOVE, NARROW_BELOW = 64, 32
# Labels of nodes that use an object no more are left on it as long as they are no more than this, beside one for each node
# that does: pods come and go, and each change of labels is sent to all.
SPARE = 8
# When an object was compiled, RFC 3339 with microseconds: agents tell by it how long they took.
COMPILED_AT = "policy.tortie.dev/compiled-at"

Labels = frozenset[str]
_EVERYWHERE: Labels = frozenset((WIDE,))


def node_label(node: str) -> str:
    """Return the label of what a node uses; a hash, because a node's name may be longer than a label's key."""
    return f"node.policy.tortie.dev/{hashlib.blake2b(node.encode(), digest_size=8).hexdigest()}"


def labels(needed: Labels, now: Labels) -> Labels:
    """Return the labels of an object that has these `now` and that nodes with the labels `needed` use."""
    if len(needed) > (NARROW_BELOW if WIDE in now else WIDE_ABOVE):
        return _EVERYWHERE
    kept = needed | (now - _EVERYWHERE)
    return kept if len(kept) <= min(2 * len(needed) + SPARE, WIDE_ABOVE) else needed


class Delivery:
    """Who uses what: nodes their RuleSets, RuleSets their sets. Told of specs in any order; `take` says whose labels change.

    Objects are ("rule_set", name of a RuleSet) and ("address_set", name of a set).
    """

    def __init__(self) -> None:
        self._labels: dict[tuple[str, str], Labels] = {}
        self._named: dict[str, frozenset[str]] = {}  # RuleSets, by node
        self._nodes: dict[str, dict[str, None]] = {}  # their labels, by RuleSet
        self._sets: dict[str, frozenset[str]] = {}  # by RuleSet
        self._users: dict[str, dict[str, None]] = {}  # RuleSets, by set
        self._dirty: dict[tuple[str, str], None] = {}

    def put_node_policy(self, node: str, spec: NodePolicySpec | None) -> None:
        """Take what a node uses; None: nothing any more."""
        named = frozenset(name for group in spec.groups for name in group.rule_sets) if spec else frozenset[str]()
        old, label = self._named.get(node, frozenset[str]()), node_label(node)
        self._named[node] = named
        if not named:
            del self._named[node]
        for name in named - old:
            self._nodes.setdefault(name, {})[label] = None
        for name in old - named:
            del self._nodes[name][label]
            if not self._nodes[name]:
                del self._nodes[name]
        for name in named ^ old:
            self._mark(name)

    def put_rule_set(self, name: str, spec: RuleSetSpec | None) -> None:
        """Take which sets a RuleSet names; None: it is no more."""
        named = frozenset(peer for rule in spec.rules for peer in rule.peers or ()) if spec else frozenset[str]()
        old = self._sets.pop(name, frozenset[str]())
        if spec is not None:
            self._sets[name] = named
            self._mark(name)
        else:
            self._labels.pop(("rule_set", name), None)
        for one in named - old:
            self._users.setdefault(one, {})[name] = None
        for one in old - named:
            del self._users[one][name]
            if not self._users[one]:
                del self._users[one]
        self._dirty.update((("address_set", one), None) for one in named ^ old)

    def seen(self, key: tuple[str, str], now: Iterable[str]) -> None:
        """Take the labels that an object has on the API server: what is right already isn't written again."""
        self._labels[key] = frozenset(now)
        self._dirty[key] = None

    def forget(self, key: tuple[str, str]) -> None:
        """Forget the labels of an object that is no more."""
        self._labels.pop(key, None)
        self._dirty.pop(key, None)

    def labels_of(self, key: tuple[str, str]) -> Labels:
        """Return an object's labels, as `take` last decided."""
        return self._labels.get(key, frozenset())

    def take(self) -> list[tuple[str, str]]:
        """Return the objects whose labels are others now."""
        changed = []
        while self._dirty:
            key, _ = self._dirty.popitem()
            now = self._labels.get(key, frozenset[str]())
            new = labels(self._needed(key), now)
            if new != now:
                self._labels[key] = new
                changed.append(key)
        return changed

    def _mark(self, rule_set: str) -> None:
        """Look at a RuleSet's labels again, and at those of its sets, unless all nodes get them before and after."""
        if self.labels_of(("rule_set", rule_set)) != _EVERYWHERE or len(self._nodes.get(rule_set, ())) <= WIDE_ABOVE:
            self._dirty["rule_set", rule_set] = None
            self._dirty.update((("address_set", one), None) for one in self._sets.get(rule_set, ()))

    def _needed(self, key: tuple[str, str]) -> Labels:
        kind, name = key
        if kind == "rule_set":
            return frozenset(self._nodes.get(name, ()))
        found = set[str]()
        for rule_set in self._users.get(name, ()):
            found |= self._nodes.get(rule_set, {}).keys()
            if len(found) > WIDE_ABOVE:
                break
        return frozenset(found)
