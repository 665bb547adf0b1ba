"""What is said to change is what changes, pair by pair and port by port."""

from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.policy.clusters import CLUSTERS, NUMBERS
from tests.policy.oracle import Cluster
from tests.policy.test_matrix import objects
from tortie.addressing.allocator import address
from tortie.addressing.ranges import Family
from tortie.policy.difference import Somebody, difference
from tortie.policy.verdict import Party
from tortie.policy.world import World

# Ports right at and beside those that policies name, and far from them.
ASKED = sorted({(protocol, n + d) for protocol in ("TCP", "UDP", "SCTP") for n in (*NUMBERS, 40_000) for d in (-1, 0, 1)})


def parties(world: World) -> dict[Somebody, dict[Family, Party]]:
    """Pods and nodes, so that nobody is on anybody's node."""
    found = {
        Somebody(pod=key): {family: one._replace(node_addresses=frozenset()) for family, one in world.parties(key).items()}
        for key, facts in world.facts.items()
        if not facts.host_network
    }
    for node in world.objects.nodes:
        of_node = [address(one) for one in world.node_addresses[node]]
        found[Somebody(node=node)] = {one.family: Party(one) for one in reversed(of_node)}
    return found


def opened(world: World) -> set[tuple[Somebody, Somebody, str, int]]:
    """All that is open, but to oneself."""
    everybody = parties(world)
    return {
        (source, target, protocol, port)
        for source, froms in everybody.items()
        for target, tos in everybody.items()
        for protocol, port in ASKED
        if source != target and any(world.compiled.verdict(froms[f], tos[f], protocol, port).allowed for f in froms if f in tos)
    }


def deciding(world: World, froms: dict[Family, Party], tos: dict[Family, Party], protocol: str, port: int) -> set[str]:
    """The policies that decide about a connection, by either family, in either direction."""
    verdicts = [world.compiled.verdict(froms[f], tos[f], protocol, port) for f in froms if f in tos]
    return {name for one in verdicts for decision in (one.egress, one.ingress) for name in decision.policies}


POLICIES = ("networkpolicies", "clusternetworkpolicies")


@given(st.tuples(CLUSTERS, CLUSTERS).map(lambda two: (two[0], {**two[0], **{kind: two[1][kind] for kind in POLICIES}})))
@settings(max_examples=60)
def test_what_is_said_to_change_changes(two: tuple[Cluster, Cluster]) -> None:
    old, new = map(World, map(objects, two))
    people = parties(old)  # who has no address yet has the same one in both
    said: dict[bool, list[tuple[Somebody, Somebody, str, int]]] = {True: [], False: []}
    for change in difference(old, new):
        found = [
            (source, target, protocol, port)
            for source in change.sources
            for target in change.targets
            for protocol, port in ASKED
            if source != target and not source.addresses and not target.addresses
            and any(one.protocol == protocol and one.first <= port <= one.last for one in change.ports)
        ]  # fmt: skip
        said[change.opens] += found
        assert change.policies, change
        for source, target, protocol, port in found:
            deciders = deciding(old if change.lifted else new, people[source], people[target], protocol, port)
            assert set(change.policies) <= deciders, (change, source, target, protocol, port)
    before, after = opened(old), opened(new)
    assert set(said[True]) == after - before
    assert set(said[False]) == before - after
    assert all(len(set(one)) == len(one) for one in said.values()), "something is said twice"
    event(f"opens {bool(said[True])}, closes {bool(said[False])}")


def test_each_is_told_by_whom_it_is_let_in() -> None:
    """Two pods that fare alike, each because of another policy."""

    def policy(name: str, *rules: dict[str, object]) -> dict[str, object]:
        return {
            "metadata": {"namespace": "a", "name": name},
            "spec": {"podSelector": {"matchLabels": {"app": "t"}}, "ingress": rules},
        }

    def admits(app: str) -> dict[str, object]:
        return policy(app, {"from": [{"podSelector": {"matchLabels": {"app": app}}}]})

    pods = [
        {"metadata": {"namespace": "a", "name": app, "labels": {"app": app}}, "spec": {"nodeName": "n", "containers": []}}
        for app in ("t", "x", "y")
    ]
    there: Cluster = {"pods": pods, "namespaces": [], "nodes": [], "clusternetworkpolicies": [], "networkpolicies": []}
    old = World(objects({**there, "networkpolicies": [policy("deny")]}))
    new = World(objects({**there, "networkpolicies": [policy("deny"), admits("x"), admits("y")]}))
    told = {(change.sources[0].pod, change.policies) for change in difference(old, new)}
    assert told == {(("a", app), (f"NetworkPolicy a/{app} ingress[0]",)) for app in ("x", "y")}
