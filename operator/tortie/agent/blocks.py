"""The node's own blocks, followed by name: as NodeNetwork lists them, and as the ledger remembers them.

Each is watched by its name, which the API server indexes: 5,000 agents that watched all blocks would be told of each one
5,000 times.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

from tortie.addressing.allocator import Address, OwnBlock, address
from tortie.agent import translate
from tortie.agent.journal import NotDurable
from tortie.agent.ledger import InUse, Ledger, Link, NotReclaimed
from tortie.api import lean
from tortie.api.meta import GROUP, VERSION
from tortie.kube.client import Client
from tortie.kube.resource import Resource
from tortie.kube.stream import Stream

_log = logging.getLogger(__name__)

BLOCKS = Resource(GROUP, VERSION, "ipamblocks")
# Seconds until what could not be recorded is tried again.
RETRY = 1.0
# Seconds until an address that is judged leaked, and that an interface uses, is looked at again.
LEAKS = 15.0


async def _nobody(_link: Link, _addresses: list[Address]) -> None:
    pass


class OwnBlocks:
    """Brings blocks into the ledger and takes them out. `on_change` is told of each, when the ledger has it.

    `owns` says whether an affinity is this machine's: another one may have had the node's name. `reclaim` frees what the
    operator judged leaked, if nothing uses it.
    """

    def __init__(
        self,
        client: Client,
        ledger: Ledger,
        owns: Callable[[lean.Affinity], bool],
        reclaim: Callable[[Address, str, int], Awaitable[object]],
        on_change: Callable[[OwnBlock], None],
    ) -> None:
        self._client, self._ledger, self._owns, self._on_change = client, ledger, owns, on_change
        self._reclaim = reclaim
        self.named: Callable[[Link, list[Address]], Awaitable[None]] = _nobody  # told whose a link is that was found
        self._versions: dict[str, str] = {}
        self._leaks: dict[str, dict[lean.BlockRelease, Address]] = {}  # by block: what is judged leaked
        self._refused: dict[str, set[lean.BlockRelease]] = {}  # by block: of these, what an interface uses
        self._listed: frozenset[str] = frozenset()
        self._followed: dict[str, asyncio.Task[None]] = {}
        self._confirmed: set[str] = set()  # seen since we run, not only remembered
        self._queue: asyncio.Queue[tuple[str, lean.Block | None]] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._was_listed = False

    @property
    def are_known(self) -> bool:
        """Whether every block that the operator lists was seen."""
        return self._was_listed and self._listed <= self._confirmed

    @property
    def refused(self) -> int:
        """How many addresses were judged leaked and aren't freed, because something uses them."""
        return sum(map(len, self._refused.values()))

    def version(self, name: str) -> str:
        """Return the resource version of a block as it was seen last, "" before that."""
        return self._versions.get(name, "")

    def list(self, names: Iterable[str]) -> None:
        """Take the names that the node's NodeNetwork lists now; nothing is followed before the first time."""
        self._listed, self._was_listed = frozenset(names), True
        self._changed.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._apply_all())
            tasks.create_task(self._free_forever())
            while True:
                await self._changed.wait()
                self._changed.clear()
                wanted = self._listed | {block.name for block in self._ledger.allocator.blocks}
                for name in wanted - self._followed.keys():
                    self._followed[name] = tasks.create_task(self._follow(name))
                for name in self._followed.keys() - wanted:
                    self._followed.pop(name).cancel()
                await self._note_found()

    async def _follow(self, name: str) -> None:
        def pass_on(_old: lean.Block | None, new: lean.Block | None) -> None:
            self._queue.put_nowait((name, new))

        stream = Stream(self._client, BLOCKS.path(), lean.Block, pass_on, field_selector=f"metadata.name={name}")
        running = asyncio.create_task(stream.run())
        try:
            await stream.synced.wait()
            if name not in stream.store:  # it went while nobody looked
                self._queue.put_nowait((name, None))
            await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _apply_all(self) -> None:
        while True:
            name, seen = await self._queue.get()
            while True:
                try:
                    await self._apply(name, seen)
                    break
                except NotDurable as error:
                    _log.error("IPAMBlock %s: %s; trying again", name, error)
                    await asyncio.sleep(RETRY)
                except ValueError as error:
                    _log.error("IPAMBlock %s: spec: %s; no pod gets an address of it", name, error)
                    break

    async def _apply(self, name: str, seen: lean.Block | None) -> None:
        known = next((block for block in self._ledger.allocator.blocks if block.name == name), None)
        if seen is not None and self._owns(seen.spec.affinity):
            leaks = {leak: address(leak.address) for leak in seen.spec.releases}
            if leaks != self._leaks.get(name, {}):  # each look reads the kernel's links, and this node's own writes come here
                self._leaks[name] = leaks
                await self._free_leaks(name)
            said = seen.status
            if said.epoch == self._ledger.epoch and said.sequence > self._ledger.sequence:
                await self._begin_anew(name, said.sequence)
            block = translate.own_block(seen, self._ledger.epoch)
            if said.epoch not in ("", self._ledger.epoch) and name not in self._confirmed:
                await self._rest(block, said)
            if block == known and name in self._confirmed:
                self._versions[name] = seen.metadata.resource_version
                if said.sequence < self._ledger.told(name):
                    self._on_change(block)  # an older status than ours is there: the API server's storage was restored
                return
            await self._ledger.put_block(block)
            self._versions[name] = seen.metadata.resource_version  # what it asks is known, so it may be answered
            self._confirmed.add(name)
            if known is None:
                _log.info("IPAMBlock %s of IPPool %s: this node owns it", name, block.pool)
            self._on_change(block)
        elif known is not None:
            await self._ledger.drop_block(known)
            self._leaks.pop(name, None)
            self._versions.pop(name, None)
            self._refused.pop(name, None)
            self._confirmed.discard(name)
            _log.info("IPAMBlock %s: this node owns it no more", name)
            self._on_change(known)
        self._changed.set()

    async def _free_forever(self) -> None:
        """Try again what could not be freed: an interface may go without a word."""
        while True:
            await asyncio.sleep(LEAKS)
            for name in list(self._leaks):
                await self._free_leaks(name)
            await self._note_found()

    async def _free_leaks(self, name: str) -> None:
        """Free what the operator judged leaked, as far as no interface uses it."""
        known, refused = self._refused.get(name, set()), set[lean.BlockRelease]()
        for leak, one in self._leaks.get(name, {}).items():
            try:
                await self._reclaim(one, leak.epoch, leak.sequence)
            except InUse as error:
                refused.add(leak)
                if leak not in known:
                    _log.info("IPAMBlock %s: not freed, though judged leaked (%s): %s", name, leak.reason, error)
            except NotReclaimed as error:
                _log.debug("IPAMBlock %s: judged leaked (%s): %s", name, leak.reason, error)
            else:
                _log.info("IPAMBlock %s: %s freed: %s", name, leak.address, leak.reason)
        self._refused[name] = refused

    async def _begin_anew(self, name: str, published: int) -> None:
        """Begin a new epoch, and look at every block as for the first time: the ledger is older than what it published."""
        why = f"the ledger is an old one (change {self._ledger.sequence}, IPAMBlock {name} has published {published})"
        await self._ledger.begin_anew(why)
        _log.warning("%s: all that was published is read again", why)
        self._confirmed.clear()
        self._versions.clear()  # none is published before it was read again
        while self._followed:
            self._followed.popitem()[1].cancel()

    async def _rest(self, block: OwnBlock, said: lean.BlockStatus) -> None:
        """Let rest what a ledger that was lost has published and no link uses: others' sets may still hold it.

        Where that ledger counted fewer free addresses than it had, some rested, and nobody knows which: then all do.
        """
        published = {address(one.address) for one in said.allocations}
        # What is asked back, too: what rests isn't given up.
        offered = {Address(block.range.family, value) for value in replace(block, cede=None).offered()} - published
        resting = offered if said.free is None or said.free < len(offered) else set()
        used = {entry.address: entry.link for entries in self._ledger.links() for entry in entries}
        await self._name(said.allocations, used)
        past = sorted((published | resting) - used.keys())
        await self._ledger.rest(past)
        _log.warning(
            "IPAMBlock %s: another ledger published its status, ours was lost: %d addresses rest", block.name, len(past)
        )

    async def _name(self, published: Iterable[lean.BlockAllocation], used: Mapping[Address, Link]) -> None:
        """Say whose the links are that were only found in the kernel: policies hold for pods, not for addresses."""
        for one in published:
            link = used.get(address(one.address))
            if link is not None and one.uid and not (link.container or link.uid):
                entries = await self._ledger.name(link._replace(namespace=one.namespace, pod=one.pod, uid=one.uid))
                if entries:
                    await self.named(entries[0].link, [entry.address for entry in entries])

    async def _note_found(self) -> None:
        """Say it when a ledger that lost records knows all that was published; where that can't be noted, it is later."""
        if self._ledger.lost and self.are_known:
            with suppress(NotDurable):
                await self._ledger.found()
                _log.warning("the ledger is whole again: all that was published has been read")
