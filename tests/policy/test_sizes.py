"""However large policies are, every object stays under 1 MB, and means what they say."""

from collections.abc import Callable

import msgspec
import pytest
from msgspec import structs

from tests.policy.compiling import Objects, put
from tests.policy.oracle import Object
from tortie.addressing.ranges import Range
from tortie.api.compiled import size
from tortie.api.policy_input import NetworkPolicy
from tortie.policy.compiler import Compiler, PodFacts
from tortie.policy.policies import ALL_PODS, CidrPeer, NamedPort, Policy, Rule, network_policy

MOST = 1_000_000
# The largest NetworkPolicies that the API server takes by a margin, in bytes.
LARGE = 900_000


def filled(one: Callable[[int], Object]) -> list[Object]:
    """As many of these as a large policy has room for."""
    return [one(n) for n in range(LARGE // (size(one(99_999)) + 1))]


def ingress(**rule: list[Object]) -> Object:
    return {"ingress": [rule]}


def address(n: int) -> str:
    """Every second address, so that they are no range together."""
    return f"10.{n >> 15 & 255}.{n >> 7 & 255}.{n << 1 & 255}"


def policies(*specs: Object) -> list[Policy]:
    made = [{"metadata": {"namespace": "a", "name": f"np{n}"}, "spec": spec} for n, spec in enumerate(specs)]
    return [network_policy(msgspec.convert(one, NetworkPolicy)) for one in made]


def other_ports(count: int) -> list[Policy]:
    """Policies with another rule each, about the same pods."""
    peer = {"podSelector": {"matchLabels": {"app": "web"}}}
    return policies(*({"ingress": [{"from": [peer], "ports": [{"port": n + 1}]}]} for n in range(count)))


def by_cidr(count: int) -> list[Policy]:
    ranges = tuple(Range(4, (10 << 24) + 2 * n, 32) for n in range(count))
    rule = Rule("Egress", "Deny", (CidrPeer(ranges),), None, "egress[0]")
    return [Policy(("ClusterNetworkPolicy", "", "cnp"), "Admin", 1, ALL_PODS, frozenset(), (rule,))]


# What is compiled, and how many rules and members of sets there are in all.
ROWS: dict[str, tuple[Callable[[], list[Policy]], int, int]] = {
    "one policy full of ipBlocks": (
        lambda: policies(ingress(**{"from": filled(lambda n: {"ipBlock": {"cidr": f"{address(n)}/32"}})})), 1, 24_324),
    "one policy full of labels": (
        lambda: policies(ingress(**{"from": filled(lambda n: {"podSelector": {"matchLabels": {"app": f"a{n}"}}})})), 19, 0),
    "one policy full of ports": (
        lambda: policies(ingress(ports=filled(lambda n: {"protocol": "TCP", "port": n + 1}))), 28, 0),
    "10,000 policies with another rule each": (lambda: other_ports(10_000), 10_000, 0),
    "a network of 100,000 ranges": (lambda: by_cidr(100_000), 1, 100_000),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_every_object_is_small(row: str) -> None:
    made, rules, members = ROWS[row]
    compiler, objects = Compiler(), Objects()
    put(compiler, "namespaces", {"metadata": {"name": "a", "labels": {}}})
    compiler.put_pod(PodFacts("a", "p", "u", "n1", ()))
    for policy in made():
        compiler.put_policy(policy)
    objects.write(compiler.take())
    assert_small(objects)
    assert sum(len(one.rules) for one in objects.rule_sets.values()) == rules
    assert sum(map(len, objects.sets().values())) == members
    (group,) = objects.node_policies["n1"].groups
    assert set(group.rule_sets) == set(objects.rule_sets)


def test_a_node_of_500_pods_with_100_rule_sets_each_is_small() -> None:
    compiler, objects = Compiler(), Objects()
    put(compiler, "namespaces", {"metadata": {"name": "a", "labels": {}}})
    for n in range(500):
        uid = f"00000000-0000-4000-8000-{n:012}"
        compiler.put_pod(PodFacts("a", f"replica-7d4b9c8f6d-{n:05}", uid, "n1", (("pod", str(n)),)))
        subjects = ({"matchExpressions": [{"key": "pod", "operator": "In", "values": [str(n), f"x{k}"]}]} for k in range(100))
        for policy in policies(*({"podSelector": subject} for subject in subjects)):
            compiler.put_policy(structs.replace(policy, key=("NetworkPolicy", "a", f"{n}-{policy.key[2]}")))
    objects.write(compiler.take())
    assert len(objects.rule_sets) == 50_000
    # The API server and etcd take 1.5 MB; the rest is left to metadata and status.
    assert size(objects.node_policies["n1"]) < 1_000_000


def test_the_order_of_a_cluster_policys_rules_is_kept() -> None:
    """An egress port that pods call so by 2,500 numbers is as many rules, between one before it and one after it."""
    compiler, objects = Compiler(), Objects()
    put(compiler, "namespaces", {"metadata": {"name": "a", "labels": {}}})
    for n in range(2500):
        compiler.put_pod(PodFacts("a", f"p{n}", f"u{n}", "n1", (), (("http", "TCP", n + 1),)))
    before, after = (Rule("Egress", action, None, None, action) for action in ("Pass", "Deny"))
    named = Rule("Egress", "Accept", (ALL_PODS,), (NamedPort("http", None),), "named")
    compiler.put_policy(Policy(("ClusterNetworkPolicy", "", "cnp"), "Admin", 1, ALL_PODS, frozenset(), (before, named, after)))
    objects.write(compiler.take())
    assert_small(objects)
    listed = objects.node_policies["n1"].groups[0].rule_sets
    assert len(listed) > 1
    rules = [rule for name in listed for rule in objects.rule_sets[name].rules]
    assert [rule.action for rule in rules] == ["Pass", *["Accept"] * 2500, "Deny"]
    assert [rule.ports[0].port for rule in rules[1:-1] if rule.ports] == list(range(1, 2501))


def test_one_policy_less_rewrites_one_part() -> None:
    compiler = Compiler()
    compiler.put_pod(PodFacts("a", "p", "u", "n1", ()))
    for policy in other_ports(10_000):
        compiler.put_policy(policy)
    before = compiler.take().rule_sets
    compiler.drop_policy(("NetworkPolicy", "a", "np5000"))
    changed = {name for name, spec in compiler.take().rule_sets.items() if spec != before[name]}
    assert len(before) > 2
    assert len(changed) == 1


def test_parts_that_are_no_more_go_and_the_lists_follow() -> None:
    compiler, objects = Compiler(), Objects()
    put(compiler, "namespaces", {"metadata": {"name": "a", "labels": {}}})
    compiler.put_pod(PodFacts("a", "p", "u", "n1", ()))
    for policy in other_ports(3000):
        compiler.put_policy(policy)
    objects.write(compiler.take())
    assert len(objects.rule_sets) == 2
    for n in range(1500, 3000):
        compiler.drop_policy(("NetworkPolicy", "a", f"np{n}"))
    objects.write(compiler.take())
    assert objects.node_policies["n1"].groups[0].rule_sets == tuple(objects.rule_sets)
    assert len(objects.rule_sets) == 1


def assert_small(objects: Objects) -> None:
    for held in (objects.rule_sets, objects.address_sets, objects.node_policies):
        assert max(map(size, held.values()), default=0) < MOST
