"""A real cluster of two subnets, for whoever asks how packets travel."""

from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.demo import pod, run_everywhere
from tests.cluster.deploy import rolled_out, wait


@pytest.fixture(scope="module")
def four() -> Iterator[Cluster]:
    """Nodes 1 and 2 in one subnet, 3 and 4 in another, a pod on each."""
    with Cluster(4, subnets=2) as cluster:
        cluster.install("bgp.secrets={passwords}")
        wait("pods can be made", lambda: bool(cluster.kubectl.get("serviceaccounts")["items"]))
        wait("it is rolled out", lambda: rolled_out(cluster.kubectl, 4), 120)
        cluster.kubectl.apply(*(pod(node.name) for node in cluster.nodes))
        wait("they run", lambda: run_everywhere(cluster.kubectl), 120)
        yield cluster
