"""What the ledger holds as the API server is told it: few writes, and what is given up answers the question that was seen."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.agent.test_ledger import link
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import API
from tortie.addressing.ranges import parse
from tortie.addressing.wants import Wanted
from tortie.agent import translate
from tortie.agent.blocks import BLOCKS
from tortie.agent.ledger import Ledger
from tortie.agent.publisher import Publisher
from tortie.api import lean
from tortie.kube.client import Client, connect
from tortie.kube.stream import Stream

NAME = "10-1-0-0-26"
ANY4 = [Wanted(4, frozenset({"pool"}))]


@dataclass
class Node:
    """A ledger that is published, and what a stream shows of it."""

    client: Client
    ledger: Ledger
    publisher: Publisher
    seen: list[lean.Block] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    version: str = ""
    taken: lean.BlockSpec | None = None

    def on_change(self, _old: lean.Block | None, new: lean.Block | None) -> None:
        if new is not None:
            if self.seen and new.spec == self.taken:
                self.version = new.metadata.resource_version
            self.seen.append(new)
            self.news.set()

    async def until(self, holds: Any) -> lean.Block:
        """Return the block as soon as the condition holds of what is seen last."""
        async with asyncio.timeout(20):
            while not (self.seen and holds(self.seen[-1])):
                self.news.clear()
                await self.news.wait()
        return self.seen[-1]

    async def take(self) -> None:
        """Bring the block into the ledger, as it was seen last."""
        block = translate.own_block(self.seen[-1], self.ledger.epoch)
        self.version, self.taken = self.seen[-1].metadata.resource_version, self.seen[-1].spec
        await self.ledger.put_block(block)

    async def ask(self, cede: str | None) -> None:
        await self.client.patch(BLOCKS.path(NAME), {"spec": {"cede": cede}})
        await self.until(lambda block: block.spec.cede == cede)


@asynccontextmanager
async def publishing(plane: ControlPlane, kubectl: Kubectl, folder: Path) -> AsyncIterator[Node]:
    spec = {"cidr": "10.1.0.0/26", "pool": {"name": "pool", "uid": "u"}, "affinity": {"node": "a", "uid": "n"}, "active": True}
    kubectl.apply({"apiVersion": API, "kind": "IPAMBlock", "metadata": {"name": NAME}, "spec": spec})
    ledger = Ledger(folder / "ledger.db", cooldown=0)
    async with connect(str(plane.kubeconfig)) as client:
        made: Node
        async with Publisher(client, ledger, lambda _name: made.version) as publisher:
            made = Node(client, ledger, publisher)
            ledger.changed = publisher.mark_address
            stream = asyncio.create_task(Stream(client, BLOCKS.path(), lean.Block, made.on_change).run())
            try:
                await made.until(lambda _block: True)
                await made.take()
                yield made
            finally:
                stream.cancel()
                await asyncio.gather(stream, return_exceptions=True)
    await ledger.close()


async def test_forty_pods_at_once_are_a_few_writes(control_plane: ControlPlane, cluster: Kubectl, tmp_path: Path) -> None:
    async with publishing(control_plane, cluster, tmp_path) as node:
        await asyncio.gather(*(node.ledger.allocate(link(number), ANY4) for number in range(40)))
        last = await node.until(lambda block: len(block.status.allocations) == 40)
        assert len(node.seen) <= 4, "the block as made, at once, and after the interval"
        assert last.status.free == 24


async def test_given_up_when_it_is_empty(control_plane: ControlPlane, cluster: Kubectl, tmp_path: Path) -> None:
    async with publishing(control_plane, cluster, tmp_path) as node:
        await node.ledger.allocate(link(1), ANY4)
        await node.ask("10.1.0.0/26")
        await node.take()
        node.publisher.mark(NAME)
        await node.until(lambda block: block.status.free == 0)
        assert node.seen[-1].status.ceded is None
        await node.ledger.release(link(1).host)
        released = node.ledger.sequence
        await node.until(lambda block: block.status.sequence == released)
        assert node.seen[-1].status.ceded is None, "it rests: others may still hold it"
        settled = {"settled": released, "settledEpoch": node.ledger.epoch}
        await node.client.patch(BLOCKS.path(NAME), {"spec": settled})
        await node.until(lambda block: block.spec.settled == released)
        await node.take()
        node.publisher.mark(NAME)
        await node.until(lambda block: block.status.ceded == "10.1.0.0/26")


async def test_an_answer_to_a_question_that_was_taken_back_doesn_t_arrive(
    control_plane: ControlPlane, cluster: Kubectl, tmp_path: Path
) -> None:
    """The agent has seen the question and gives up; meanwhile the operator takes it back."""
    async with publishing(control_plane, cluster, tmp_path) as node:
        await node.ask("10.1.0.0/26")
        await node.take()
        await node.ask(None)
        node.publisher.mark(NAME)
        given_up = {NAME: parse("10.1.0.0/26")}
        await asyncio.to_thread(wait, "the agent gives it up", lambda: node.ledger.ceded == given_up)
        await node.take()
        node.publisher.mark(NAME)
        await node.until(lambda block: block.status.free == 64)
        assert {block.status.ceded for block in node.seen} == {None}
