"""Kubernetes' own tests of network policies on a real cluster: three in `make test`, all of them in `make nightly`."""

import os
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster, why_not
from tests.e2e.suite import keep_logs, prepare, run

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

ALL = "Netpol"
# Each has nine pods in three namespaces and tries all 81 ways between them; one that is refused takes a second.
THREE = (
    "should support a 'default-deny-ingress' policy",
    "should enforce policy based on PodSelector and NamespaceSelector",
    "should deny egress from pods based on PodSelector",
)
FOCUS = f"Netpol NetworkPolicy between server and client ({'|'.join(THREE)})"


@pytest.fixture(scope="module")
def two() -> Iterator[Cluster]:
    with Cluster(2) as cluster:
        yield cluster.install()


def test_the_policies_hold(two: Cluster) -> None:
    nightly = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
    prepare(two)
    outcome = run(two, ALL if nightly else FOCUS)
    assert not outcome.failed, f"the logs are in {keep_logs(two)}"
    assert outcome.status == 0
    assert nightly or len(outcome.passed) == len(THREE)
