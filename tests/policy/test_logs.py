"""Which RuleSets log what they deny: those of which a policy asks for it, or the namespace of these."""

import pytest
import yaml

from tests.policy.compiling import fresh
from tortie.api.meta import LOG_DENIALS
from tortie.api.policy_input import (
    ClusterMetadata,
    ClusterNetworkPolicy,
    ClusterNetworkPolicySpec,
    LabelSelector,
    LogAnnotations,
    Subject,
)
from tortie.policy.policies import cluster_network_policy, logs

CLUSTER = """
namespaces:
- metadata: {{name: a, labels: {{}}, annotations: {namespace}}}
- metadata: {{name: b, labels: {{}}}}
nodes: []
blocks: []
pods: []
networkpolicies:
- {{metadata: {{namespace: a, name: one, annotations: {one}}}, spec: {{podSelector: {{}}}}}}
- {{metadata: {{namespace: a, name: two}}, spec: {{podSelector: {{}}}}}}
- {{metadata: {{namespace: a, name: other}}, spec: {{podSelector: {{matchLabels: {{app: x}}}}}}}}
- {{metadata: {{namespace: b, name: far}}, spec: {{podSelector: {{}}}}}}
clusternetworkpolicies:
- metadata: {{name: all, annotations: {all}}}
  spec: {{tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, egress: [{{action: Deny, to: [{{namespaces: {{}}}}]}}]}}
"""
# What is said of the namespace a, of policy one in it, and of the ClusterNetworkPolicy all; then who logs.
ROWS = {
    "nobody asks": ("", "", "", set()),
    "a policy asks, for those that are about the same pods, too": ("", "true", "", {"one", "two"}),
    "a namespace asks, for all of its policies": ("true", "", "", {"one", "two", "other"}),
    "a policy that says no has no say over its namespace": ("true", "false", "", {"one", "two", "other"}),
    "a cluster-wide one asks": ("", "", "true", {"all"}),
    "who says something else doesn't ask": ("yes", "True", "1", set()),
}


@pytest.mark.parametrize("row", ROWS)
def test_who_logs(row: str) -> None:
    *said, who = ROWS[row]
    annotations = [f"{{{LOG_DENIALS}: {one!r}}}" if one else "{}" for one in said]
    text = CLUSTER.format(namespace=annotations[0], one=annotations[1], all=annotations[2])
    found = fresh(yaml.safe_load(text)).rule_sets.values()
    assert {one.rpartition("/")[2].rpartition(" ")[2] for spec in found if spec.log for one in spec.policies} == who


@pytest.mark.parametrize("said", ["", "true", "false"])
def test_what_can_be_said(said: str) -> None:
    assert logs(LogAnnotations(said)) == (said == "true", ())


def test_what_can_t_be_said_is_a_remark() -> None:
    """All of the policy is kept, so a ClusterNetworkPolicy is accepted."""
    policy = cluster_network_policy(
        ClusterNetworkPolicy(
            ClusterMetadata("all", annotations=LogAnnotations("yes")),
            ClusterNetworkPolicySpec("Admin", 1, Subject(namespaces=LabelSelector())),
        )
    )
    assert (policy.problems, policy.log) == ((), False)
    assert policy.remarks == (
        'metadata.annotations: tortie.dev/log-denials is \'yes\', and not "true" or "false"; denials aren\'t logged',
    )
