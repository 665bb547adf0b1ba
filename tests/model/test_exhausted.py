"""Pools that are too small: every address goes out, and nobody writes for ever about one that isn't there."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.world import COOLDOWN, DELAYS, Cluster
from tortie.addressing import ranges, selector
from tortie.addressing.state import Pool

Made = Callable[..., Cluster]


def small(cidr: str, size: int, nodes: int) -> Cluster:
    """Return a cluster with a pool, and nodes that have joined at once."""
    cluster = Cluster(Pool("pool", "uid-pool", "1", ranges.parse(cidr), size, selector.parse("")))
    for number in range(nodes):
        cluster.join(f"node-{number}")
    return cluster


@pytest.fixture
def made() -> Iterator[Made]:
    clusters: list[Cluster] = []

    def make(cidr: str, size: int, nodes: int) -> Cluster:
        clusters.append(small(cidr, size, nodes))
        return clusters[-1]

    yield make
    for cluster in clusters:
        cluster.close()


def start(cluster: Cluster, counts: dict[str, int]) -> None:
    for node, count in counts.items():
        for _ in range(count):
            cluster.start_pod(node)


def settle(cluster: Cluster, rounds: int = 400) -> int:
    """Let rounds pass until nobody writes anything; return how many it took."""
    for number in range(rounds):
        before = cluster.store.version
        cluster.round()
        if cluster.store.version == before:
            return number
    raise AssertionError(f"no rest after {rounds} rounds, version {cluster.store.version}")


def waiting(cluster: Cluster) -> int:
    return sum(len(agent.waiting) for agent in cluster.agents.values())


# How the 257 pods are spread over nodes that share four blocks of 64.
SPREADS = {
    "evenly over five": {f"node-{number}": 51 for number in range(4)} | {"node-4": 53},
    "nearly all on one of four": {"node-0": 1, "node-1": 1, "node-2": 254, "node-3": 1},
    "all on the one that came last": {"node-7": 257},
}


@pytest.mark.parametrize("row", SPREADS)
def test_a_slash_24_gives_exactly_256_addresses(made: Made, row: str) -> None:
    cluster = made("10.0.0.0/24", 26, 8)
    settle(cluster)
    start(cluster, SPREADS[row])
    settle(cluster)
    given_out = {cluster.agents[node].links[pod] for pod, node in cluster.running.items()}
    assert (len(given_out), waiting(cluster)) == (256, 1)
    cluster.stop(next(iter(cluster.running)), heard=True)
    settle(cluster)
    assert waiting(cluster) == 1, "what was released rests"
    for _ in range(3):  # to be published and settled; to rest; to be given up, where it is another node's
        cluster.now += COOLDOWN + 1
        settle(cluster)
    assert (len(cluster.running), waiting(cluster)) == (256, 0)


@pytest.mark.parametrize("joined_before", [True, False])
def test_thirty_two_nodes_share_sixteen_blocks(made: Made, joined_before: bool) -> None:
    """Every node starts as many pods as there are addresses for each."""
    cluster = made("10.0.0.0/22", 26, 32)
    if joined_before:
        settle(cluster)
    start(cluster, {f"node-{number}": 32 for number in range(32)})
    settle(cluster)
    assert (len(cluster.running), waiting(cluster)) == (1024, 0)


DEMANDS = st.lists(st.integers(0, 12), min_size=3, max_size=3)


@settings(max_examples=25)
@given(demands=DEMANDS, later=DEMANDS, size=st.sampled_from([29, 30]))
def test_under_constant_demand_nobody_writes_after_a_while(demands: list[int], later: list[int], size: int) -> None:
    """What is asked back isn't missed afterwards, nor is what was given away asked back, however much pods want."""
    cluster = small("10.0.0.0/28", size, 3)
    try:
        for wanted in (demands, later):
            _have(cluster, {f"node-{number}": count for number, count in enumerate(wanted)})
            for _ in range(20):  # pieces come back one by one, each after the grace period
                settle(cluster)
                cluster.now += DELAYS.grace + COOLDOWN
            settle(cluster)
            before = cluster.store.version
            for _ in range(5):
                cluster.now += DELAYS.grace
                cluster.round()
            assert cluster.store.version == before, [replace(block, held=()) for block in cluster.store.blocks.values()]
    finally:
        cluster.close()


def _have(cluster: Cluster, counts: dict[str, int]) -> None:
    """Stop or start pods until each node has as many as it wants."""
    for node, count in counts.items():
        mine = [pod for pod, where in cluster.running.items() if where == node]
        for pod in mine[count:]:
            cluster.stop(pod, heard=True)
        start(cluster, {node: max(0, count - len(mine))})
