"""What is compiled means what the API says, and means the same whatever came before."""

import os
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from hypothesis import event, given, settings

from tests.policy import oracle
from tests.policy.clusters import CLUSTERS, OUTSIDE, PROBES
from tests.policy.compiling import compiled, party
from tests.policy.oracle import Cluster, Party

EXAMPLES = 10_000 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 1_000


def pairs(cluster: Cluster) -> Iterator[tuple[Party, Party]]:
    """Everybody with everybody of the same family, at least one of them a pod."""
    ended = [a for p in cluster["pods"] if not oracle.has_own_network(p) for a in oracle.addresses_of(p)]
    known = oracle.pods_and_nodes(cluster)
    strangers = [a for a in dict.fromkeys((*OUTSIDE, *ended)) if a not in {one.address for one in known}]
    everybody = [one for one in known if not one.pod or oracle.find_pod(cluster, one.pod)["spec"].get("nodeName")]
    everybody += [Party(address=one) for one in strangers]
    for source in everybody:
        for target in everybody:
            versions = {ip_address(one.address).version for one in (source, target) if one.address}
            if (source.pod or target.pod) and len(versions) == 1:
                yield source, target


@given(CLUSTERS)
@settings(max_examples=EXAMPLES)
def test_the_verdict_is_the_oracles(cluster: Cluster) -> None:
    assert_the_oracles(cluster)


@pytest.mark.usefixtures("small_rule_sets")
@given(CLUSTERS)
@settings(max_examples=EXAMPLES // 10)
def test_the_verdict_is_the_oracles_where_rule_sets_have_parts(cluster: Cluster) -> None:
    assert_the_oracles(cluster)


def assert_the_oracles(cluster: Cluster) -> None:
    objects = compiled(cluster)
    parties = {one: party(cluster, one) for pair in pairs(cluster) for one in pair}
    answers = set()
    for source, target in pairs(cluster):
        for protocol, port in PROBES:
            expected = oracle.allowed(cluster, source, target, protocol, port)
            found = objects.verdict(parties[source], parties[target], protocol, port)
            assert found.allowed == expected, (source, target, protocol, port, found)
            answers.add(expected)
    event(f"answers: {sorted(answers)}")
