"""A cluster at one moment, compiled, and everybody in it as verdicts take them; what is missing is stood in for.

A folder of manifests says of most pods neither address nor node, and they are to be asked about all the same: such a pod gets
an address of each family and is on a node of its own. The addresses are of ranges that no cluster uses.
"""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from msgspec import structs

from tortie.addressing.allocator import Address, address
from tortie.addressing.ranges import Family, parse
from tortie.api.lean import Node
from tortie.api.policy_input import ClusterNetworkPolicy, NetworkPolicy, Pod
from tortie.policy.compiler import Claim, Compiler, PodFacts
from tortie.policy.facts import node_addresses, pod_facts
from tortie.policy.policies import Policy, cluster_network_policy, network_policy
from tortie.policy.verdict import Compiled, Party

PodKey = tuple[str, str]
PolicyKey = tuple[str, str, str]
P = TypeVar("P", Pod, Node)
# The API server gives it to every namespace.
NAME_LABEL = "kubernetes.io/metadata.name"
# Reserved by RFC 1112, and a part of RFC 4193's that is drawn for nobody else: only an ipBlock as wide as 0.0.0.0/0 takes them.
_STAND_INS = {4: parse("240.0.0.0/4"), 6: parse("fd74:6f72:7469::/64")}


@dataclass(frozen=True, slots=True)
class Objects:
    """What policies are compiled from.

    Attributes:
        namespaces: Their labels. One that is missing has the label that every namespace has.
        published: The addresses that blocks publish for pods; for others their status counts.
    """

    pods: dict[PodKey, Pod] = field(default_factory=dict)
    namespaces: dict[str, Mapping[str, str]] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    policies: dict[PolicyKey, NetworkPolicy | ClusterNetworkPolicy] = field(default_factory=dict)
    published: dict[PodKey, tuple[str, ...]] = field(default_factory=dict)

    def under(self, applied: "Objects") -> "Objects":
        """Return these with `applied` put over them, as kubectl apply does: what it doesn't name stays, labels are added."""
        pods = {key: _over(self.pods[key], pod) if key in self.pods else pod for key, pod in applied.pods.items()}
        namespaces = {name: {**self.namespaces.get(name, {}), **labels} for name, labels in applied.namespaces.items()}
        nodes = {name: _over(self.nodes[name], node) if name in self.nodes else node for name, node in applied.nodes.items()}
        return replace(
            self,
            pods=self.pods | pods,
            namespaces=self.namespaces | namespaces,
            nodes=self.nodes | nodes,
            policies=self.policies | applied.policies,
        )


class World:
    """Objects, compiled.

    Attributes:
        policies: Their meaning.
        facts: The pods that can talk, so not those that have ended; each with a node.
        addresses: Of each of these.
        invented: Those that have none yet, so theirs stand in.
    """

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.policies: dict[PolicyKey, Policy] = {key: _meaning(one) for key, one in sorted(objects.policies.items())}
        placed = {key: _placed(key, pod) for key, pod in sorted(objects.pods.items())}
        self.facts = {key: facts for key, facts in placed.items() if not facts.ended}
        self.namespaces = {
            name: {NAME_LABEL: name, **objects.namespaces.get(name, {})}
            for name in sorted({*objects.namespaces, *(namespace for namespace, _ in objects.pods)})
        }
        self._spare = _spare(objects)
        self.node_addresses = self._of_nodes()
        self.invented: set[PodKey] = set()
        self.addresses = {key: self._of_pod(key, facts) for key, facts in self.facts.items()}
        self._compiler = Compiler()
        self.compiled = self._compile()

    def parties(self, key: PodKey) -> dict[Family, Party]:
        """Return a pod as it is asked about, by family; one in its node's network is none of the policies' endpoints."""
        facts = self.facts[key]
        own = frozenset(map(address, self.node_addresses[facts.node]))
        found = dict[Family, Party]()
        for text in self.addresses[key]:
            one = address(text)
            found.setdefault(one.family, Party(one, None if facts.host_network else key, own))
        return found

    def rule_sets_of(self, policy: PolicyKey) -> tuple[str, ...]:
        """Return the names of the RuleSets that a policy is compiled to, with others where they are about the same pods."""
        return self._compiler.rule_sets_of(policy)

    def _compile(self) -> Compiled:
        compiler = self._compiler
        for namespace, labels in self.namespaces.items():
            compiler.put_namespace(namespace, labels)
        for node, addresses in self.node_addresses.items():
            there = self.objects.nodes.get(node)
            compiler.put_node(node, there.metadata.labels if there else {}, addresses)
        claims: dict[str, list[Claim]] = {}
        for key, facts in self.facts.items():
            compiler.put_pod(facts)
            if facts.counts:
                claims.setdefault(facts.node, []).extend(Claim(one, facts.uid) for one in self.addresses[key])
        for node, claimed in claims.items():
            compiler.put_block(node, node, claimed)
        for policy in self.policies.values():
            compiler.put_policy(policy)
        made = compiler.take()
        rule_sets = {name: spec for name, spec in made.rule_sets.items() if spec is not None}
        return Compiled(rule_sets, filter(None, made.address_sets.values()), filter(None, made.node_policies.values()))

    def _of_nodes(self) -> dict[str, tuple[str, ...]]:
        """Return every node's addresses: its own, else those of the pods in its network, else some that stand in."""
        lent: dict[str, dict[str, None]] = {}
        for key, facts in self.facts.items():
            if facts.host_network:
                lent.setdefault(facts.node, {}).update(dict.fromkeys(_known(self.objects, key)))
        names = sorted({*self.objects.nodes, *(facts.node for facts in self.facts.values())})
        found = {name: node_addresses(self.objects.nodes[name]) if name in self.objects.nodes else () for name in names}
        return {name: own or tuple(lent.get(name, ())) or self._invent() for name, own in found.items()}

    def _of_pod(self, key: PodKey, facts: PodFacts) -> tuple[str, ...]:
        if facts.host_network:
            return self.node_addresses[facts.node]
        if known := _known(self.objects, key):
            return known
        self.invented.add(key)
        return self._invent()

    def _invent(self) -> tuple[str, ...]:
        return tuple(str(next(free)) for free in self._spare)


def _over(there: P, applied: P) -> P:
    """Return what is there with labels added; a pod's containers and node, and anybody's status, stay."""
    labels = {**there.metadata.labels, **applied.metadata.labels}
    return structs.replace(there, metadata=structs.replace(there.metadata, labels=labels))


def _meaning(policy: NetworkPolicy | ClusterNetworkPolicy) -> Policy:
    return network_policy(policy) if isinstance(policy, NetworkPolicy) else cluster_network_policy(policy)


def _placed(key: PodKey, pod: Pod) -> PodFacts:
    """Return a pod's facts: with a node, whose name no real one has, and a uid, which files lack."""
    name = "/".join(key)
    facts = pod_facts(pod)
    return facts._replace(uid=name, node=facts.node or f"of {name}")


def _known(objects: Objects, key: PodKey) -> tuple[str, ...]:
    return objects.published.get(key) or tuple(one.ip for one in objects.pods[key].status.pod_ips)


def _spare(objects: Objects) -> tuple[Iterator[Address], Iterator[Address]]:
    """Return the addresses that may stand in, of each family."""
    taken = {address(one) for key in objects.pods for one in _known(objects, key)}
    taken |= {address(one) for node in objects.nodes.values() for one in node_addresses(node)}
    return _free(4, taken), _free(6, taken)


def _free(family: Family, taken: Container[Address]) -> Iterator[Address]:
    whole = _STAND_INS[family]
    found = (Address(family, value) for value in range(whole.start + 1, whole.last))
    return (one for one in found if one not in taken)
