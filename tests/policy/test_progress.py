"""How far a policy is, where `tests/cli/test_policy_live.py` on a real API server would need thousands of objects."""

import msgspec
import pytest

from tortie.api.compiled import CompiledMetadata, Endpoint, EndpointGroup, NodePolicy, NodePolicySpec, NodePolicyStatus, RuleSet
from tortie.api.policy import STATED_MAX
from tortie.api.policy_input import NetworkPolicy, Pod
from tortie.cli.ctl.policy_objects import put
from tortie.policy.progress import Written, progress
from tortie.policy.world import Objects, World

POD = {"metadata": {"name": "p", "namespace": "a", "uid": "u"}, "spec": {"nodeName": "n", "containers": []}}
POLICY = {"metadata": {"name": "deny", "namespace": "a"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}
KEY = "NetworkPolicy", "a", "deny"
# Realized generation of the NodePolicy's two: what is missing.
REALIZED = {2: "", 1: "its agent doesn't enforce all that it was told yet, and names only the first RuleSets"}


@pytest.mark.parametrize("realized", REALIZED)
def test_an_agent_that_names_only_the_first_rule_sets(realized: int) -> None:
    objects = Objects()
    put(objects, msgspec.convert(POD, Pod))
    put(objects, msgspec.convert(POLICY, NetworkPolicy))
    world = World(objects)
    (name,) = world.rule_sets_of(KEY)
    spec = NodePolicySpec((EndpointGroup((Endpoint("a", "p", "u"),), (name,)),))
    stated = {f"other-{number}": 1 for number in range(STATED_MAX)}
    said = NodePolicyStatus(realized_generation=realized, since="2026-01-02T03:04:05Z", rule_sets=stated)
    written = Written(
        {name: RuleSet(CompiledMetadata(name=name, generation=1), world.compiled.rule_set(name))},
        {"n": NodePolicy(CompiledMetadata(name="n", generation=2), spec, said)},
    )
    (found,) = progress(objects, written, [KEY])
    assert [one.why for one in found.missing] == ([REALIZED[realized]] if REALIZED[realized] else [])
