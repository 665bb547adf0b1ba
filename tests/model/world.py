"""A cluster without a network: a store with versions, an operator and agents that see it late, and pods that come and go.

What decides is the real thing: planner, collector, and each node's ledger with its allocator, on a disk in memory. What is
modelled is what lies between: a write is under way until it is carried out, dropped, or carried out twice; each observer sees
an object as it is whenever it looks.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tortie.addressing import planner
from tortie.addressing.allocator import Address, OwnBlock
from tortie.addressing.collector import Collector
from tortie.addressing.leaks import PodState
from tortie.addressing.planner import Create, Delays, Delete, DeleteNetwork, Timers, Update, WriteNetwork
from tortie.addressing.state import Block, Held, Node, Pool, State
from tortie.addressing.wants import Wanted
from tortie.agent.ledger import Entry, Exhausted, Ledger, Link

COOLDOWN = 30.0
DELAYS = Delays(reclaim=300, grace=900)
LEAK_GRACE = 60.0
POOLS = frozenset({"pool"})
Write = Callable[[], None]


@dataclass
class Store:
    """What the API server has. Every object has a version; a write that was decided on another one does nothing."""

    blocks: dict[str, Block] = field(default_factory=dict)
    networks: dict[str, tuple[tuple[str, ...], bool]] = field(default_factory=dict)  # listed blocks; whether pods wait
    nodes: dict[str, Node] = field(default_factory=dict)
    pods: dict[str, PodState] = field(default_factory=dict)
    version: int = 0  # grows with every write of a block or a network

    def put(self, block: Block) -> None:
        self.version += 1
        self.blocks[block.name] = replace(block, version=str(self.version), provisional=False)

    def create(self, block: Block) -> None:
        if block.name not in self.blocks:
            self.put(replace(block, created=f"{self.version:09}", uid=f"uid-{self.version}"))

    def update(self, wanted: Block) -> None:
        """Write a spec, if the block is as it was seen; its status stays."""
        now = self.blocks.get(wanted.name)
        if now is not None and now.version == wanted.version:
            spec = {name: getattr(wanted, name) for name in _SPEC}
            self.put(replace(now, **spec))

    def delete(self, block: Block) -> None:
        now = self.blocks.get(block.name)
        if now is not None and now.version == block.version:
            del self.blocks[block.name]

    def put_network(self, node: str, blocks: tuple[str, ...], *, waits: bool) -> None:
        self.version += 1
        self.networks[node] = (blocks, waits)


_SPEC = ("node_uid", "active", "reserved", "without", "releases", "cede", "settled")


class Agent:
    """One node's agent. The ledger's file survives a crash, and so do the links, which are the kernel's."""

    def __init__(self, store: Store, node: str, loop: asyncio.AbstractEventLoop, open_: Callable[[], Ledger]) -> None:
        self.store, self.node = store, node
        self._run, self._open = loop.run_until_complete, open_
        self.links: dict[str, Address] = {}  # by pod
        self.start()

    @property
    def entries(self) -> dict[str, Entry]:
        """What is in use, by pod."""
        return {entry.link.pod: entry for entries in self.ledger.links() for entry in entries}

    @property
    def blocks(self) -> dict[str, OwnBlock]:
        """The blocks that the ledger knows."""
        return {block.name: block for block in self.ledger.allocator.blocks}

    def start(self) -> None:
        """Come up from the ledger's file."""
        self.waiting: set[str] = set()
        self._versions: dict[str, str] = {}  # of blocks, as seen since
        self.ledger = self._open()

    def end(self) -> None:
        self._run(self.ledger.close())

    def look(self) -> None:
        """See every block that the node is listed or has."""
        listed, _ = self.store.networks.get(self.node, ((), False))
        for name in sorted({*listed, *self.blocks}):
            self.see_block(name)

    def see_block(self, name: str) -> None:
        """See a block as it is now: as the stream of that name shows it."""
        seen, known = self.store.blocks.get(name), self.blocks.get(name)
        if seen is not None and seen.node == self.node:
            for leak in seen.releases:
                self._reclaim(leak.address, leak.sequence, leak.epoch)
            settled = seen.settled[1] if seen.settled[0] == self.ledger.epoch else 0
            own = OwnBlock(name, seen.range, seen.pool_name, seen.active, seen.reserved, seen.cede, settled, seen.without)
            if own != known:
                self._run(self.ledger.put_block(own))
            self._versions[name] = seen.version
        elif known is not None:
            self._run(self.ledger.drop_block(known))
            self._versions.pop(name, None)

    def _reclaim(self, one: Address, sequence: int, epoch: str) -> None:
        pod = next((pod for pod, e in self.entries.items() if (e.address, e.sequence) == (one, sequence)), None)
        if epoch == self.ledger.epoch and pod is not None and one not in self.links.values():
            self.release(pod)

    def add(self, pod: str) -> Address | None:
        """Do an ADD of a pod; None where it must wait."""
        link = Link(pod, namespace="ns", pod=pod, uid=f"uid-{pod}")
        try:
            (entry,) = self.ledger.find(pod) or self._run(self.ledger.allocate(link, [Wanted(4, POOLS)]))
        except Exhausted:
            self.waiting.add(pod)
            return None
        self.waiting.discard(pod)
        self.links[pod] = entry.address
        return entry.address

    def release(self, pod: str) -> None:
        """Do a DEL, or free what is leaked; the unknown is fine."""
        self.links.pop(pod, None)
        self.waiting.discard(pod)
        self._run(self.ledger.release(pod))

    def publications(self) -> Iterator[Write]:
        """Yield a write of each block's status as it is now; what is given up only on the version that asked."""
        for own in self.ledger.allocator.blocks:
            yield self._publication(own, self._versions.get(own.name))

    def _publication(self, own: OwnBlock, version: str | None) -> Write:
        ledger, sequence = self.ledger, self.ledger.sequence
        ceded = self._run(ledger.cede(own)) if version else None
        held = tuple(Held(e.address, e.sequence, e.link.namespace, e.link.pod, e.link.uid) for e in ledger.entries_of(own))
        free, published = ledger.free(own.name), (ledger.epoch, sequence)

        def write() -> None:
            now = self.store.blocks.get(own.name)
            if now is None or now.node != self.node or (ceded is not None and now.version != version):
                return
            said = replace(now, held=held, allocated=len(held), published_free=free, ceded=ceded, published=published)
            if said != now:
                self.store.put(said)
            ledger.published(own.name, sequence)

        return write

    def wishes(self) -> None:
        """Say whether pods wait, in the node's NodeNetwork."""
        listed, said = self.store.networks.get(self.node, ((), False))
        if self.node in self.store.networks and said != bool(self.waiting):
            self.store.put_network(self.node, listed, waits=bool(self.waiting))


class Leader:
    """One term of leading: it begins with a list of everything, and forgets when it ends."""

    def __init__(self, store: Store, pool: Pool, now: float) -> None:
        self.store, self.pool = store, pool
        self.state, self.timers = State(), Timers()
        self.pods: dict[str, PodState] = {}
        self.collector = Collector(self.pods.get, LEAK_GRACE)
        self.state.put_pool(pool)
        self.look(now)

    def look(self, now: float) -> None:
        """See everything as it is now."""
        for name in {*self.store.nodes, *self.state.nodes}:
            self.see_node(name)
        for name in {*self.store.blocks, *self.state.blocks}:
            self.see_block(name, now)
        for name in {*self.store.networks, *self.state.networks}:
            self.see_network(name)
        for name in {*self.store.pods, *self.pods}:
            self.see_pod(name, now)

    def see_node(self, name: str) -> None:
        node = self.store.nodes.get(name)
        self.state.put_node(node) if node else self.state.drop_node(name)

    def see_block(self, name: str, now: float) -> None:
        block = self.store.blocks.get(name)
        if block is None:
            self.state.drop_block(name)
            self.collector.drop_block(name)
        else:
            self.state.put_block(block)
            self.collector.put_block(block, now)

    def see_network(self, name: str) -> None:
        if name in self.store.networks:
            listed, waits = self.store.networks[name]
            self.state.put_network(name, listed, frozenset(), POOLS if waits else frozenset())
        else:
            self.state.drop_network(name)

    def see_pod(self, name: str, now: float) -> None:
        pod = self.store.pods.get(name)
        if pod is None:
            self.pods.pop(name, None)
        else:
            self.pods[name] = pod
        self.state.put_reports(name, pod.addresses if pod and not pod.ended else ())
        self.collector.pod_changed(name, now)

    def plan(self, now: float) -> list[Write]:
        """Return the writes that are decided now."""
        for suspect in self.collector.due(now):
            release = suspect.condemned(self.store.pods.get("/".join(suspect.pod)))
            if release is not None:
                self.state.condemn(suspect.block, release)
        self.state.mark_all()
        return [self._write(change) for change in planner.plan(self.state, self.timers, DELAYS, now)]

    def _write(self, change: planner.Change) -> Write:
        match change:
            case Create(block):
                self.state.put_block(block)
                return lambda: self.store.create(block)
            case Update(block):
                return lambda: self.store.update(block)
            case Delete(block, _):
                return lambda: self.store.delete(block)
            case WriteNetwork(node, names):
                return lambda: self._network(node, names)
            case DeleteNetwork(node):
                return lambda: self.store.networks.pop(node, None) and None

    def _network(self, node: str, names: tuple[str, ...]) -> None:
        _, waits = self.store.networks.get(node, ((), False))
        self.store.put_network(node, names, waits=waits)


class Cluster:
    """Nodes with their agents and pods, an operator, and what is under way between them."""

    def __init__(self, pool: Pool) -> None:
        self.store, self.pool, self.now = Store(), pool, 0.0
        self.agents: dict[str, Agent] = {}
        self.running: dict[str, str] = {}  # pod → node: those that have an address and may send
        self.flight: list[Write] = []
        self._names = 0
        self._used: dict[Address, float] = {}  # until when a pod had it
        self._loop = asyncio.new_event_loop()
        memory = Path("/dev/shm")
        self._folder = Path(tempfile.mkdtemp(prefix="tortie-model-", dir=memory if memory.is_dir() else None))
        self.leader = Leader(self.store, pool, self.now)

    def close(self) -> None:
        for agent in self.agents.values():
            agent.end()
        self._loop.close()
        shutil.rmtree(self._folder)

    def _open(self, node: str) -> Ledger:
        async def make() -> Ledger:
            return Ledger(self._folder / f"{node}.db", cooldown=COOLDOWN, now=lambda: self.now)

        return self._loop.run_until_complete(make())

    def join(self, name: str) -> None:
        """Make a Node; the machine of that name has its disk still."""
        self._names += 1
        self.store.nodes[name] = Node(name, f"uid-{name}-{self._names}", f"machine-{name}", {})
        if name not in self.agents:
            self.agents[name] = Agent(self.store, name, self._loop, lambda: self._open(name))

    def lose_disk(self, name: str) -> None:
        """A machine comes up with an empty disk: its pods are gone with it."""
        agent = self.agents[name]
        for pod in [pod for pod, node in self.running.items() if node == name]:
            self.die(pod)
        agent.end()
        for file in self._folder.glob(f"{name}.db*"):
            file.unlink()
        for one in [one for one in self._used if agent.ledger.allocator.block_of(one)]:
            del self._used[one]  # nobody knows of it any more, if it was never published
        agent.start()

    def start_pod(self, node: str) -> None:
        self._names += 1
        pod = f"pod-{self._names}"
        self.store.pods[f"ns/{pod}"] = PodState(f"uid-{pod}", node)
        self.add(node, pod)

    def add(self, node: str, pod: str) -> None:
        """Do an ADD; what it gets is nobody's, and has rested."""
        one = self.agents[node].add(pod)
        if one is None:
            return
        for other, where in self.running.items():
            assert other == pod or self.agents[where].links[other] != one, f"{one} has two pods: {other} and {pod}"
        rested = self.now - self._used.pop(one, -1e9)
        assert rested >= COOLDOWN, f"{one} is given to {pod} {rested} s after another pod had it"
        self.running[pod] = node

    def stop(self, pod: str, *, heard: bool) -> None:
        """End a pod; `heard`: its DEL arrives, else its address leaks."""
        agent = self.agents[self.running.pop(pod)]
        self.store.pods.pop(f"ns/{pod}", None)
        self._used[agent.links[pod]] = self.now
        if heard:
            agent.release(pod)
        else:
            del agent.links[pod]

    def die(self, pod: str) -> None:
        """Let a pod's processes be gone, without a word to the agent; Kubernetes deletes pods of nodes that are gone."""
        self.stop(pod, heard=False)

    def round(self) -> None:
        """Everything that is under way arrives, and everybody sees and does what is due."""
        self.leader.look(self.now)
        for write in [*self.flight, *self.leader.plan(self.now)]:
            write()
        self.flight.clear()
        for agent in self.agents.values():
            agent.look()
            for pod in sorted(agent.waiting):
                if f"ns/{pod}" in self.store.pods:
                    self.add(agent.node, pod)
                else:
                    agent.waiting.discard(pod)
            for write in agent.publications():
                write()
            agent.wishes()
