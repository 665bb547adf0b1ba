"""The agent's process: what is true is found out, then the door opens; API server or not."""

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, NamedTuple

from tortie import health
from tortie.addressing.allocator import Address, OwnBlock
from tortie.addressing.ranges import Family
from tortie.addressing.wants import Landscape
from tortie.agent import door, foreign, metrics, overlay, unready
from tortie.agent.bgp import Bgp
from tortie.agent.bird import Bird
from tortie.agent.blocks import OwnBlocks
from tortie.agent.cni import CniError
from tortie.agent.copies import Copies
from tortie.agent.deferred import Queue
from tortie.agent.demand import Demand
from tortie.agent.denials import Denials
from tortie.agent.detection import detect, source
from tortie.agent.firewall import Firewall, NotEnforced
from tortie.agent.gate import Gate
from tortie.agent.inquiries import Inquiries, question
from tortie.agent.install import LAST_CONFLIST, Plugin, install
from tortie.agent.journal import Damaged, NotDurable
from tortie.agent.kept import Kept
from tortie.agent.kernel import Kernel
from tortie.agent.knowledge import Knowledge
from tortie.agent.leave import Installation, leave
from tortie.agent.ledger import Ledger
from tortie.agent.node import Facts, NodeWatch, Vxlan
from tortie.agent.passwords import Passwords
from tortie.agent.policies import PolicyWatch
from tortie.agent.publisher import Publisher
from tortie.agent.service import Service, Surroundings
from tortie.agent.services import ServiceWatch
from tortie.agent.settings import Settings
from tortie.agent.start import reconcile
from tortie.agent.tunnels import Source, Tunnels, is_tunnel
from tortie.agent.wire import VXLAN, Wire, host_name
from tortie.kube.client import Client, connect
from tortie.kube.writer import Writer
from tortie.routing.bird import Advertised
from tortie.routing.carriage import Carried

_log = logging.getLogger(__name__)

# Another one after each boot (proc_sys_kernel(5)).
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Seconds until the folder of deferred DELs is looked at again.
REPLAY = 10.0
# Seconds that an agent waits for the one before it, which is given 10 to end.
LOCK = 15.0
# Seconds between two looks whether the ledger can be written; each is a commit of 1 ms.
PROBE = 10.0
# Seconds until a ledger that can't be opened is tried again.
REOPEN = 1.0


async def run(settings: Settings) -> None:
    """Serve until cancelled."""
    for family, method in settings.address_detection.items():
        detect(family, method, (), (), source)  # what can't be understood is said at once
    async with _alone(settings.state):
        await _run(settings)


def _made(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


@asynccontextmanager
async def _alone(state: Path) -> AsyncIterator[None]:
    """Let one agent use a folder, which needs no writing; another one that ends is waited for. Raises BlockingIOError."""
    deadline, folder = time.monotonic() + LOCK, _made(state)
    try:
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BlockingIOError(f"another agent runs on this node: it holds {state}; end one of the two") from None
            await asyncio.sleep(0.1)
        yield
    finally:
        os.close(folder)


async def _run(settings: Settings) -> None:
    wire, boot = Wire(settings.mtu), await asyncio.to_thread(BOOT_ID.read_text)
    if settings.cni_conf and (Path(settings.cni_conf) / LAST_CONFLIST).exists():
        # Installed again: a last pod of before must not take with it what this agent is about to make.
        await asyncio.to_thread(_install, settings)
    try:
        await asyncio.to_thread(wire.prepare)
        async with (
            _opened(settings, wire, boot) as (ledger, unwired),
            _guarded(settings, ledger) as (kernel, gate, kept),
            connect(settings.kubeconfig) as client,
        ):
            installation = Installation(client, settings.daemonset)
            try:
                await Agent(settings, client, Here(ledger, wire, kernel, gate, kept, unwired)).serve(installation)
            except asyncio.CancelledError:
                if await installation.is_gone():
                    pods = len(await asyncio.to_thread(wire.inventory))
                    await asyncio.to_thread(leave, settings, pods=pods)
                raise
    finally:
        wire.close()


@asynccontextmanager
async def _opened(settings: Settings, wire: Wire, boot: str) -> AsyncIterator[tuple[Ledger, Iterable[str]]]:
    """Give the ledger, in line with the kernel, and the links that were removed while it couldn't be had."""
    waiting = unready.Unready(wire, "")
    ledger = await _try_open(settings, wire, boot, waiting)
    if ledger is None:
        _log.error("%s; no pod starts here until then, and DELs remove links alone", waiting.why)
        async with (
            door.listen(settings.socket, waiting.answer),
            health.serve(
                settings.health_port, lambda: unready.METRICS, settings.metrics_address, lambda: waiting.why or "starting"
            ),
        ):
            while ledger is None:
                await asyncio.sleep(REOPEN)
                ledger = await _try_open(settings, wire, boot, waiting)
        _log.warning("%s can be opened again", settings.ledger)
    try:
        yield ledger, waiting.unwired
    finally:
        await ledger.close()


async def _try_open(settings: Settings, wire: Wire, boot: str, waiting: unready.Unready) -> Ledger | None:
    """Return the ledger, or None and say to those who wait why it can't be had."""
    try:
        ledger = Ledger(settings.ledger, cooldown=settings.cooldown)
        try:
            links = await asyncio.to_thread(wire.inventory) | await asyncio.to_thread(overlay.inventory)
            await reconcile(ledger, links, boot, settings.node)
        except BaseException:
            await ledger.close()
            raise
    except NotDurable as error:
        waiting.why = str(error)
        return None
    return ledger


@asynccontextmanager
async def _guarded(settings: Settings, ledger: Ledger) -> AsyncIterator[tuple[Kernel, Gate, Kept | None]]:
    """Give the gate, which knows the links that are there, and what was kept of policies, where that can be had."""
    kept: Kept | None = None
    try:
        kept = Kept(settings.policies)
    except NotDurable as error:
        _log.error("policies can't be kept for a start without an API server: %s", error)
    with Kernel() as kernel, closing(_gate(kernel, settings)) as gate:
        pods = (entries for entries in ledger.links() if not is_tunnel(entries[0].link.host))
        links = ((entries[0].link, [entry.address for entry in entries]) for entries in pods)
        try:
            await gate.begin(links)
        except NotEnforced as error:
            _log.error("policies can't be enforced: %s; no pod starts here until then", error)
        try:
            yield kernel, gate, kept
        finally:
            if kept is not None:
                await kept.close()


async def _strip(device: str, one: Address) -> None:
    await asyncio.to_thread(overlay.strip, device, one)


def _gate(kernel: Kernel, settings: Settings) -> Gate:
    counts = settings.policy_counters and kernel.counts()
    if settings.policy_counters and not counts:
        _log.error("policies' packets can't be counted: the kernel has no nft_objref or no counters")
    firewall = Firewall(kernel, counts=counts, vxlan_port=settings.vxlan_port)
    return Gate(firewall, settings.policy_gate, settings.policy_gate_exempt)


class Here(NamedTuple):
    """What the node has: ledger, wires, firewall and gate, what was kept of policies, and links that went meanwhile."""

    ledger: Ledger
    wire: Wire
    kernel: Kernel
    gate: Gate
    kept: Kept | None
    unwired: Iterable[str]


class Agent:
    """The parts of a running agent, each told of what the others notice."""

    def __init__(self, settings: Settings, client: Client, here: Here) -> None:
        self._settings, self._ledger = settings, here.ledger
        ledger, wire, gate = here.ledger, here.wire, here.gate
        self._drift = here.kernel.drift
        self.denials = Denials(here.kernel.log, gate.denied_by, ledger.pod_at)
        self.queue = Queue(settings.deferred)
        self.knowledge = Knowledge(client, settings.node, ledger)
        self.demand, self.firewall = Demand(ledger, self._look), foreign.Watch(self._look)
        ask, wait, served = self.demand.ask, self.demand.wait, self.demand.served
        around = Surroundings(self._landscape, self.knowledge.facts, ask, self.queue.forget, wait, served)
        self.gate = gate
        self.service = Service(ledger, wire, gate, around, here.unwired)
        self._wire, self._pools_changed = wire, asyncio.Event()
        facts = Facts(
            own=lambda: ledger.allocator.blocks,
            carried=self._carried,
            advertised=self._advertised,
            sources=self._sources,
            pools=lambda: self.demand.pools(self.knowledge.pools.values()),
            short=self.demand.short,
            firewalls=lambda: self.firewall.found,
            mtu=lambda: wire.mtu,
            methods=settings.address_detection,
        )
        vxlan = Vxlan(settings.vxlan_vni, settings.vxlan_port)
        tunnels = Tunnels(ledger, _strip, lambda: self.blocks.are_known)
        copies = Copies()
        bird = Bird(settings.bird, copies.make)
        passwords = Passwords(client, settings.daemonset.partition("/")[0])
        self.bgp = Bgp(client, bird, copies, passwords, ServiceWatch(client, settings.node))
        self.node = NodeWatch(client, settings.node, facts, tunnels, vxlan, bgp=self.bgp)
        self.bgp.changed = self.node.wake
        self.node.detected = self._leave_room
        self.blocks = OwnBlocks(client, ledger, self.node.owns, self.service.reclaim, self._on_block)
        self.node.listed = self.blocks.list
        self.blocks.named = gate.rename
        self.publisher = Publisher(client, ledger, self.blocks.version)
        self.statuses = Writer(lambda: True, lambda _node, error: self.policies.done(error))
        self.policies = PolicyWatch(client, settings.node, gate.enforce, self.statuses, kept=here.kept)
        self.policies.settled = gate.settled
        self.policies.covers = gate.covers
        gate.knows, gate.confirmed = self.policies.knows, self.policies.confirmed
        self.inquiries = Inquiries(settings.node, ledger, wire, self.node, self.service, denials=self.denials, bgp=self.bgp)
        self.knowledge.on_pools = self._on_pools
        self._leave_room()
        ledger.changed = self.publisher.mark_address
        self._parts = metrics.Parts(
            ledger,
            self.publisher,
            self.knowledge,
            self.node,
            self.firewall,
            self.demand,
            self.queue,
            self.blocks,
            gate,
            self.bgp,
        )

    async def serve(self, installation: Installation) -> None:
        """Serve until cancelled: what was deferred first, then the door is open."""
        port = self._settings.health_port
        await _play(self.queue, self.service)
        try:
            async with (
                self.publisher,
                self.statuses,
                door.listen(self._settings.socket, self._answer),
                health.serve(port, self._metrics, self._settings.metrics_address, lambda: self._ledger.why_not_ready),
                asyncio.TaskGroup() as tasks,
            ):
                tasks.create_task(_play_forever(self.queue, self.service))
                tasks.create_task(self.firewall.run())
                tasks.create_task(self._drift.run(self.gate.mend))
                tasks.create_task(self.denials.run())
                tasks.create_task(self._masquerade())
                if self.gate.counts:
                    tasks.create_task(self.gate.count())
                tasks.create_task(_probe_forever(self._ledger, self.service))
                await asyncio.to_thread(_install, self._settings)
                _log.info("ready: %d addresses in use, %d blocks", len(self._ledger), len(self._ledger.allocator.blocks))
                for part in (self.policies, self.knowledge, self.blocks, self.node, self.bgp, installation):
                    tasks.create_task(part.run())
        finally:
            self.service.close()

    async def _answer(self, data: bytes) -> dict[str, Any]:
        asked = question(data)
        return await (self.inquiries.answer(asked) if asked else self.service.answer(data))

    def _metrics(self) -> bytes:
        return metrics.METRICS.render(self._parts)

    def _landscape(self) -> Landscape:
        known = self.knowledge.pools_are_known and self.blocks.are_known
        pools, blocks = self.knowledge.pools.values(), self._ledger.allocator.blocks
        return Landscape(pools, blocks, complete=known, owner=self.node.owner_of, node_labels=self.node.labels)

    def _sources(self, device: str) -> Iterator[Source]:
        """Yield the pools that a tunnel may have its address from: those of which the node has a block."""
        here = {block.pool for block in self._ledger.allocator.blocks}
        for name, pool in self.knowledge.forwarded.items():
            carried = pool.carried.vxlan if device == VXLAN else pool.carried.ipip
            if carried != "Never" and pool.tunnels and name in here:
                yield Source(name, pool.carried.range.family, pool.gives)

    def _carried(self) -> tuple[Carried, ...] | None:
        known = self.knowledge.pools_are_known or self.knowledge.forwarded
        return tuple(pool.carried for pool in self.knowledge.forwarded.values()) if known else None

    def _advertised(self) -> tuple[Advertised, ...]:
        pools = self.knowledge.forwarded.values()
        never = ((pool, (pool.carried.vxlan, pool.carried.ipip) == ("Never", "Never")) for pool in pools)
        return tuple(sorted(Advertised(pool.carried.range, pool.block, by_bgp, pool.exported) for pool, by_bgp in never))

    def _on_pools(self) -> None:
        self._leave_room()
        self.service.news()
        self.node.wake()
        self._pools_changed.set()

    async def _masquerade(self) -> None:
        """Follow natOutgoing of the pools, for ever; what is kept of them counts until all are known."""
        while True:
            self._pools_changed.clear()
            pools = {pool.carried.range: pool.nat for pool in self.knowledge.forwarded.values()}
            if pools or self.knowledge.pools_are_known:
                await self.gate.masquerade(pools)
            await self._pools_changed.wait()

    def _leave_room(self) -> None:
        """Let new pods' packets fit into what the pools' encapsulation leaves."""
        underlay: Family = 6 if 6 in self.node.here and 4 not in self.node.here else 4
        self._wire.leave_room(overlay.room((pool.carried for pool in self.knowledge.forwarded.values()), underlay))

    def _look(self) -> None:
        self.node.wake()

    def _on_block(self, block: OwnBlock) -> None:
        self.publisher.mark(block.name)
        self.service.news()
        self.node.wake()


async def _play(queue: Queue, service: Service) -> None:
    """Do the DELs that came while no agent was there; what can't be done now stays for the next time."""
    try:
        await _play_all(queue, service)
        await asyncio.to_thread(queue.clean, time.time())
    except OSError as error:
        _log.error(
            "the deferred DELs can't be read or removed: %s; tried again in %g s, look at the node's disk", error, REPLAY
        )


async def _play_all(queue: Queue, service: Service) -> None:
    for deferred in await asyncio.to_thread(queue.waiting):
        request = deferred.request
        try:
            freed = await service.delete(host_name(request.container_id, request.ifname), deferred.path.exists)
        except CniError as error:
            _log.error("deferred DEL %s: %s; it is tried again in %g s", deferred.path.name, error, REPLAY)
            continue
        _log.info("deferred DEL of container %s: %s", request.container_id[:12], freed)
        await asyncio.to_thread(queue.done, [deferred])


async def _play_forever(queue: Queue, service: Service) -> None:
    """The plugin may have found nobody just before the door opened, or when too many knocked at once."""
    while True:
        await _play(queue, service)
        await asyncio.sleep(REPLAY)


async def _probe_forever(ledger: Ledger, service: Service) -> None:
    """Notice a disk that can't be written before a pod does, and that it can again; raises Damaged."""
    while True:
        try:
            await ledger.probe()
            await service.free_unwired()
        except Damaged:
            raise  # the next start puts the file aside
        except NotDurable:
            pass  # the ledger says so
        await asyncio.sleep(PROBE)


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
