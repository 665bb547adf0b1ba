"""Answers that come too late: what an agent gave up counts for the question that it was asked, and for no other."""

from dataclasses import replace

import pytest

from tests.model.world import Cluster, Write
from tortie.addressing import ranges, selector
from tortie.addressing.state import Pool


@pytest.fixture
def cluster() -> Cluster:
    """Give two nodes, one of which has the pool's only block, and is asked for half of it, because a pod waits on the other."""
    cluster = Cluster(Pool("pool", "uid-pool", "1", ranges.parse("10.0.0.0/30"), 30, selector.parse("")))
    cluster.join("a")
    for _ in range(4):
        cluster.round()
    cluster.join("b")
    cluster.start_pod("b")
    (block,) = cluster.store.blocks
    while cluster.store.blocks[block].cede is None:
        cluster.leader.look(cluster.now)
        for write in cluster.leader.plan(cluster.now):
            write()
        cluster.agents["b"].wishes()
    return cluster


def take_back(cluster: Cluster) -> None:
    (block,) = cluster.store.blocks.values()
    cluster.store.put(replace(block, cede=None))


def fill(cluster: Cluster) -> None:
    """Start as many pods on the block's node as it has addresses."""
    cluster.agents["a"].look()
    for _ in range(4):
        cluster.start_pod("a")


def answer(cluster: Cluster) -> list[Write]:
    cluster.agents["a"].look()
    return list(cluster.agents["a"].publications())


def end(cluster: Cluster) -> None:
    """Let everything come to rest: an address with two pods raises meanwhile."""
    for _ in range(20):
        cluster.round()
        cluster.now += 31
    assert (len(cluster.running), len(cluster.agents["b"].waiting)) == (4, 1)
    cluster.close()


def test_a_question_that_somebody_takes_back_after_it_was_answered(cluster: Cluster) -> None:
    """The operator sees an answer and no question, while pods of the node have the addresses."""
    for write in answer(cluster):
        write()
    take_back(cluster)
    fill(cluster)
    end(cluster)


def test_an_answer_that_comes_when_the_same_is_asked_again(cluster: Cluster) -> None:
    """In between, the node's pods have taken the addresses."""
    (late,) = answer(cluster)
    (asked,) = cluster.store.blocks.values()
    take_back(cluster)
    fill(cluster)
    cluster.store.put(replace(cluster.store.blocks[asked.name], cede=asked.cede))
    late()
    end(cluster)


def test_an_agent_that_restarts_gives_its_answer_on_the_version_that_it_sees(cluster: Cluster) -> None:
    """Its ledger remembers what it gave up, and not which version asked for it."""
    answer(cluster)
    agent = cluster.agents["a"]
    agent.end()
    agent.start()
    (late,) = agent.publications()
    (asked,) = cluster.store.blocks.values()
    take_back(cluster)
    fill(cluster)
    cluster.store.put(replace(cluster.store.blocks[asked.name], cede=asked.cede))
    late()
    end(cluster)
