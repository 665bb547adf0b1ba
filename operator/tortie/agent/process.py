"""The agent's process: what is true is found out, then the door opens; API server or not."""

import asyncio
import logging
import time
from pathlib import Path

from tortie import health
from tortie.addressing.allocator import OwnBlock
from tortie.addressing.wants import Landscape
from tortie.agent import door, foreign, metrics
from tortie.agent.blocks import OwnBlocks
from tortie.agent.cni import CniError
from tortie.agent.deferred import Queue
from tortie.agent.install import Plugin, install
from tortie.agent.knowledge import Knowledge
from tortie.agent.ledger import Ledger
from tortie.agent.node import NodeWatch
from tortie.agent.publisher import Publisher
from tortie.agent.service import Service
from tortie.agent.settings import Settings
from tortie.agent.start import reconcile
from tortie.agent.wire import Wire, host_name
from tortie.kube.client import Client, connect

_log = logging.getLogger(__name__)

# Seconds until the folder of deferred DELs is looked at again.
REPLAY = 10.0


async def run(settings: Settings) -> None:
    """Serve until cancelled."""
    wire = Wire(settings.mtu)
    ledger = Ledger(settings.ledger, cooldown=settings.cooldown)
    try:
        await asyncio.to_thread(wire.prepare)
        await reconcile(ledger, await asyncio.to_thread(wire.inventory))
        async with connect(settings.kubeconfig) as client:
            await _serve(settings, client, ledger, wire)
    finally:
        await ledger.close()
        wire.close()


async def _serve(settings: Settings, client: Client, ledger: Ledger, wire: Wire) -> None:
    knowledge = Knowledge(client, settings.node, ledger)
    service = Service(ledger, wire, lambda: Landscape(knowledge.pools.values(), ledger.allocator.blocks), knowledge.facts)
    knowledge.on_pools = service.news
    async with Publisher(client, ledger) as publisher:

        def on_change(block: OwnBlock) -> None:
            publisher.mark(block.name)
            service.news()
            node.wake()

        blocks = OwnBlocks(client, settings.node, ledger, on_change)
        node = NodeWatch(client, settings.node, lambda: ledger.allocator.blocks, blocks.list)
        ledger.changed = publisher.mark_address
        queue = Queue(settings.deferred)
        await _play(queue, service)
        try:
            async with (
                door.listen(settings.socket, service.answer),
                health.serve(settings.health_port, lambda: metrics.render(ledger)),
                asyncio.TaskGroup() as tasks,
            ):
                tasks.create_task(_play_forever(queue, service))
                tasks.create_task(foreign.watch())
                await asyncio.to_thread(_install, settings)
                _log.info("ready: %d addresses in use, %d blocks", len(ledger), len(ledger.allocator.blocks))
                for part in (knowledge, blocks, node):
                    tasks.create_task(part.run())
        finally:
            service.close()


async def _play(queue: Queue, service: Service) -> None:
    """Do the DELs that came while no agent was there; what can't be done now stays for the next time."""
    for deferred in await asyncio.to_thread(queue.waiting):
        request = deferred.request
        try:
            freed = await service.delete(host_name(request.container_id, request.ifname))
        except CniError as error:
            _log.error("deferred DEL %s: %s; it is tried again in %g s", deferred.path.name, error, REPLAY)
            continue
        _log.info("deferred DEL of container %s: %s", request.container_id[:12], freed)
        await asyncio.to_thread(queue.done, [deferred])


async def _play_forever(queue: Queue, service: Service) -> None:
    """The plugin may have found nobody just before the door opened, or when too many knocked at once."""
    while True:
        await _play(queue, service)
        await asyncio.to_thread(queue.clean, time.time())
        await asyncio.sleep(REPLAY)


def _install(settings: Settings) -> None:
    """Put the plugin where the runtime looks, and note that the agent was ready once since the boot."""
    if settings.plugin and settings.cni_bin and settings.cni_conf:
        configured = Plugin(socket=settings.socket, deferred=settings.deferred)
        done = install(Path(settings.plugin), Path(settings.cni_bin), Path(settings.cni_conf), configured)
        for path in done.changed:
            _log.info("installed %s", path)
        if done.warning:
            _log.warning("%s: %s", settings.cni_conf, done.warning)
    settings.was_ready.touch()
