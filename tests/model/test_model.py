"""Whatever happens in whatever order: no address has two live pods, no live address is freed, blocks don't overlap.

And in quiet, what leaked is back, and every node that needs an address has one.
"""

import os
from dataclasses import replace
from itertools import combinations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.model.world import Cluster, Leader
from tortie.addressing import ranges, selector
from tortie.addressing.state import Pool

NODES = 4
# Steps of one run, and runs: two minutes in all; a million steps in the nightly form.
STEPS, RUNS = 60, 16700 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 300
number = st.integers(0, 10**6)
nodes = st.integers(0, NODES - 1)


class Machine(RuleBasedStateMachine):
    """Pods, nodes, crashes, and writes that arrive late, twice or never."""

    pool = Pool("pool", "uid-pool", "1", ranges.parse("10.0.0.0/27"), 29, selector.parse(""))

    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster(self.pool)
        self.store, self.agents, self.running = self.cluster.store, self.cluster.agents, self.cluster.running
        for index in range(2):
            self.join(index)

    # What people and machines do.

    @rule(index=nodes)
    def join(self, index: int) -> None:
        if f"node-{index}" not in self.store.nodes:
            self.cluster.join(f"node-{index}")

    @rule(index=nodes)
    def leave(self, index: int) -> None:
        """The Node object goes, which says that its machine is gone; only pods that still report an address may run on."""
        name = f"node-{index}"
        self.store.nodes.pop(name, None)
        for pod in [pod for pod, node in self.running.items() if node == name]:
            known = self.store.pods.get(f"ns/{pod}")
            if known is None or not known.addresses:
                self.cluster.die(pod)
        if name in self.agents:
            self.agents[name].waiting.clear()  # nothing starts any more on a machine that is gone

    @rule(index=nodes, count=st.integers(1, 6))
    def start_pods(self, index: int, count: int) -> None:
        if f"node-{index}" in self.store.nodes:
            for _ in range(count):
                self.cluster.start_pod(f"node-{index}")

    def _one_of(self, which: int) -> str:
        return sorted(self.running)[which % len(self.running)]

    @precondition(lambda self: self.running)
    @rule(which=number)
    def kubelet_reports(self, which: int) -> None:
        pod = self._one_of(which)
        known = self.store.pods.get(f"ns/{pod}")
        if known is not None:
            self.store.pods[f"ns/{pod}"] = known._replace(addresses=(self.agents[self.running[pod]].links[pod],))

    @precondition(lambda self: self.running)
    @rule(which=number, heard=st.booleans())
    def stop_pod(self, which: int, heard: bool) -> None:
        """Its sandbox goes; `heard`: the DEL arrives, else its address leaks."""
        self.cluster.stop(self._one_of(which), heard=heard)

    @precondition(lambda self: self.running)
    @rule(which=number)
    def delete_by_force(self, which: int) -> None:
        """The object goes; the pod runs on, as on a node that doesn't answer."""
        pod = self._one_of(which)
        self.store.pods.pop(f"ns/{pod}", None)
        if self.running[pod] not in self.store.nodes:  # nothing speaks for it any more
            self.cluster.die(pod)

    @rule(seconds=st.sampled_from([1, 5, 31, 70, 310, 1000]))
    def time_passes(self, seconds: int) -> None:
        self.cluster.now += seconds

    @rule(which=number)
    def somebody_takes_a_question_back(self, which: int) -> None:
        """Somebody edits a block of which a range is asked back, whatever its agent has answered."""
        asked = sorted(name for name, block in self.store.blocks.items() if block.cede is not None)
        if asked:
            self.store.put(replace(self.store.blocks[asked[which % len(asked)]], cede=None))

    # What the parts do, and what goes wrong between them.

    @rule()
    def plan(self) -> None:
        self.cluster.flight += self.cluster.leader.plan(self.cluster.now)

    @rule(which=number)
    def operator_sees_a_block(self, which: int) -> None:
        leader = self.cluster.leader
        names = sorted({*self.store.blocks, *leader.state.blocks})
        if names:
            leader.see_block(names[which % len(names)], self.cluster.now)

    @rule()
    def operator_sees_everything(self) -> None:
        self.cluster.leader.look(self.cluster.now)

    @rule(index=nodes)
    def agent_sees_everything(self, index: int) -> None:
        if f"node-{index}" in self.agents:
            self.agents[f"node-{index}"].look()

    @rule(index=nodes, which=number)
    def agent_sees_a_block(self, index: int, which: int) -> None:
        agent = self.agents.get(f"node-{index}")
        if agent is not None:
            listed, _ = self.store.networks.get(agent.node, ((), False))
            names = sorted({*listed, *agent.blocks})
            if names:
                agent.see_block(names[which % len(names)])

    @rule(index=nodes)
    def agent_publishes(self, index: int) -> None:
        agent = self.agents.get(f"node-{index}")
        if agent is not None:
            self.cluster.flight += agent.publications()
            agent.wishes()

    @precondition(lambda self: self.cluster.flight)
    @rule(which=number, twice=st.booleans())
    def a_write_arrives(self, which: int, twice: bool) -> None:
        flight = self.cluster.flight
        write = flight[which % len(flight)]
        write()
        if not twice:
            flight.remove(write)

    @precondition(lambda self: self.cluster.flight)
    @rule(which=number)
    def a_write_is_lost(self, which: int) -> None:
        self.cluster.flight.pop(which % len(self.cluster.flight))

    @rule()
    def another_leads(self) -> None:
        """What the one before decided may still be under way."""
        self.cluster.leader = Leader(self.store, self.cluster.pool, self.cluster.now)

    @rule(index=nodes)
    def agent_crashes(self, index: int) -> None:
        agent = self.agents.get(f"node-{index}")
        if agent is not None:
            agent.end()
            agent.start()

    @rule(index=nodes)
    def a_disk_is_lost(self, index: int) -> None:
        if f"node-{index}" in self.agents:
            self.cluster.lose_disk(f"node-{index}")

    @rule(rounds=st.integers(1, 3))
    def quiet(self, rounds: int) -> None:
        for _ in range(rounds):
            self.cluster.round()

    # What must hold.

    @invariant()
    def no_address_has_two_pods(self) -> None:
        used = [(self.agents[node].links[pod], pod) for pod, node in self.running.items()]
        assert len({one for one, _ in used}) == len(used), sorted(used)

    @invariant()
    def nothing_that_runs_was_freed(self) -> None:
        for pod, node in self.running.items():
            assert pod in self.agents[node].entries, f"{pod} runs on {node}, and its address was freed"

    @invariant()
    def active_blocks_are_disjoint(self) -> None:
        active = [block for block in self.store.blocks.values() if block.active]
        for one, other in combinations(active, 2):
            assert not any(a.overlaps(b) for a in one.parts for b in other.parts), f"{one.name} overlaps {other.name}"

    def teardown(self) -> None:
        try:
            self._in_quiet()
        finally:
            self.cluster.close()

    def _in_quiet(self) -> None:
        """What leaked comes back, and whoever waits gets an address as long as there is one."""
        for _ in range(60):
            self.cluster.round()
            self.cluster.now += 31
        for name in self.store.nodes:
            leaked = self.agents[name].entries.keys() - {pod for pod, node in self.running.items() if node == name}
            assert not leaked, f"leaked on {name}: {leaked}"
        waiting = {pod for name in self.store.nodes for pod in self.agents[name].waiting}
        # A block of a node that is gone stays as long as a pod reports an address of it, and is nobody's meanwhile.
        left = [block for block in self.store.blocks.values() if block.node not in self.store.nodes]
        served = [pod for pod, node in self.running.items() if node in self.store.nodes]
        free = self.cluster.pool.range.size - len(served) - sum(part.size for block in left for part in block.parts)
        assert not (waiting and free), f"{len(waiting)} wait, {len(self.running)} run, and addresses are free: {free}"


class Crowded(Machine):
    """A pool that is exhausted all the time: blocks are asked for a part, again and again."""

    pool = Pool("pool", "uid-pool", "1", ranges.parse("10.0.0.0/29"), 30, selector.parse(""))


Machine.TestCase.settings = Crowded.TestCase.settings = settings(max_examples=RUNS, stateful_step_count=STEPS, deadline=None)
TestModel, TestCrowded = Machine.TestCase, Crowded.TestCase
