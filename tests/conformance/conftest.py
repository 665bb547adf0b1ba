"""The town of all tests here: one cluster."""

from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.deploy import is_established, wait
from tests.conformance.town import Town
from tests.controller.policies import CLUSTER_POLICIES, DEFINITION

WORLDS = 6


@pytest.fixture(scope="package")
def town() -> Iterator[Town]:
    with Cluster(2) as cluster:
        cluster.kubectl.apply(DEFINITION)
        wait("it is served", lambda: is_established(cluster.kubectl.get("crd", CLUSTER_POLICIES)))
        with Town(cluster.install(), WORLDS) as made:
            made.settle()
            yield made
