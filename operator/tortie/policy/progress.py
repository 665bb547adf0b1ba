"""Is a policy enforced yet: on which of the nodes that it concerns, since when, and what is in the way on the others.

Held against each other are what policies ought to be compiled to, what the operator wrote, and what the nodes' agents say.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from tortie.api.compiled import NodePolicy, NodePolicyStatus, RuleSet
from tortie.api.policy import STATED_MAX
from tortie.policy.world import Objects, PodKey, PolicyKey, World

_BEHIND = "its agent doesn't enforce all that it was told yet, and names only the first RuleSets"


class Missing(NamedTuple):
    """A node that doesn't enforce a policy, and why."""

    node: str
    why: str


class Progress(NamedTuple):
    """How far a policy is.

    Attributes:
        nodes: How many nodes run pods that it is about.
        since: When the last one of those that enforce it reached its newest state; RFC 3339.
    """

    policy: str
    nodes: int
    since: str | None
    missing: tuple[Missing, ...]

    @property
    def enforced(self) -> int:
        """On how many nodes it is enforced."""
        return self.nodes - len(self.missing)


class Written(NamedTuple):
    """What the API server holds, by name."""

    rule_sets: Mapping[str, RuleSet]
    node_policies: Mapping[str, NodePolicy]


def progress(objects: Objects, written: Written, wanted: Iterable[PolicyKey]) -> Iterator[Progress]:
    """Yield how far these policies are."""
    # A pod without a node is on no node, and is compiled into nothing.
    world = World(replace(objects, pods={key: pod for key, pod in objects.pods.items() if pod.spec.node_name}))
    for key in wanted:
        concerned = _concerned(world, set(world.rule_sets_of(key)))
        missing, since = list[Missing](), list[str]()
        for node, pods in sorted(concerned.items()):
            why = next((why for name in sorted(pods) if (why := _missing(world, written, node, name, pods[name]))), None)
            if why is not None:
                missing.append(Missing(node, why))
            elif reached := written.node_policies[node].status.since:
                since.append(reached)
        yield Progress(world.policies[key].name, len(concerned), max(since, default=None), tuple(missing))


def _concerned(world: World, rule_sets: set[str]) -> dict[str, dict[str, set[PodKey]]]:
    """Return by node, and by which of these RuleSets, the pods that they hold for."""
    found: dict[str, dict[str, set[PodKey]]] = {}
    for key, facts in world.facts.items():
        party = next(iter(world.parties(key).values()))
        for name in rule_sets.intersection(world.compiled.rule_sets_of(party)):
            found.setdefault(facts.node, {}).setdefault(name, set()).add(key)
    return found


def _missing(world: World, written: Written, node: str, name: str, pods: set[PodKey]) -> str | None:
    """Return why a node doesn't enforce a RuleSet for these pods; None if it does."""
    rule_set, policy = written.rule_sets.get(name), written.node_policies.get(node)
    if rule_set is None or rule_set.spec != world.compiled.rule_set(name):
        return f"the operator hasn't written RuleSet {name} as the policies are now; tortiectl status says whether it runs"
    groups = [group for group in policy.spec.groups if name in group.rule_sets] if policy else []
    if late := sorted(pods - {(one.namespace, one.name) for group in groups for one in group.endpoints}):
        which = "/".join(late[0]) + (f" and {len(late) - 1} more" if len(late) > 1 else "")
        return f"the operator hasn't told the node of {which} and RuleSet {name}; tortiectl status says whether it runs"
    assert policy is not None, "it has these groups"
    if len(policy.status.rule_sets) == STATED_MAX and name not in policy.status.rule_sets:  # it names no more of them
        return None if policy.status.realized_generation == policy.metadata.generation else _BEHIND
    return _unrealized(policy.status, name, rule_set.metadata.generation)


def _unrealized(status: NodePolicyStatus, name: str, generation: int) -> str | None:
    """Return why an agent doesn't enforce a RuleSet's newest generation; None if it does."""
    if error := next((one.message for one in status.errors if one.rule_set == name), None):
        return error
    has = status.rule_sets.get(name)
    if has == generation:
        return None
    if has is not None:
        return f"its agent enforces generation {has} of RuleSet {name}, and {generation} is the newest"
    if status.waiting:
        return f"its agent waits for {', '.join(status.waiting)}"
    return f"its agent doesn't say that it enforces RuleSet {name}; tortiectl node status says whether it runs"
