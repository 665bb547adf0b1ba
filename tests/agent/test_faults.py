"""The agent is killed at every step of ADD and DEL: no address twice, none lost, no link or route left behind."""

import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.agent.acting import AgentNode, Failed
from tests.agent.namespaces import namespaces, needs_root, run
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import active, node, pool
from tortie.agent.faults import POINTS

pytestmark = [needs_root, pytest.mark.usefixtures("operator")]
# Kills; `make nightly` makes 200 of them.
KILLS = 200 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 2 * len(POINTS)


@pytest.fixture
def one(control_plane: ControlPlane, cluster: Kubectl, tmp_path: Path) -> Iterator[AgentNode]:
    cluster.apply(pool(blockSize=24), pool("six", cidr="fd00::/64"), node("a"))
    wait("a block of each family", lambda: len(active(cluster, "a")) == 2)
    with namespaces(6) as (path, *pods), closing(AgentNode("a", control_plane, tmp_path, path, pods)) as made:
        yield made


def on_record(agent: AgentNode) -> list[str]:
    with closing(sqlite3.connect(agent.folder / "state" / "ledger.db")) as database:
        return sorted(text for (text,) in database.execute("SELECT address FROM allocations"))


def routed(agent: AgentNode) -> list[str]:
    lines = run(["ip", "route", "show", "proto", "201"], agent.path) + run(
        ["ip", "-6", "route", "show", "proto", "201"], agent.path
    )
    return sorted(line.split()[0] for line in lines.splitlines() if " dev cali" in line)


def die(agent: AgentNode, pod: int, held: dict[int, list[str]]) -> None:
    """Let the agent die in an ADD or a DEL of a pod, and the runtime hear of it."""
    if not agent.fault.startswith("del"):
        if pod in held:
            agent.cni("DEL", pod)
            del held[pod]
        with pytest.raises(Failed):
            agent.add(pod, waitSeconds=0)
    else:
        held[pod] = held.get(pod) or agent.add(pod)
        with pytest.raises(Failed):
            agent.cni("DEL", pod, deferred="/dev/null/nowhere")  # it can't be queued


def test_killed_at_every_step(one: AgentNode) -> None:
    chance = random.Random(1)
    held: dict[int, list[str]] = {}
    for number in range(KILLS):
        one.fault = POINTS[number % len(POINTS)]
        pod = chance.randrange(len(one.pods))
        one.start()
        die(one, pod, held)
        one.kill()
        one.fault = ""
        one.start()
        if chance.random() < 0.5:  # the runtime tries again, or gives up
            held[pod] = one.add(pod)
            one.cni("CHECK", pod)
        else:
            one.cni("DEL", pod)
            held.pop(pod, None)
        every = sorted(address for addresses in held.values() for address in addresses)
        assert len(every) == len(set(every))
        assert on_record(one) == every
        assert routed(one) == sorted(every)
        one.kill()
