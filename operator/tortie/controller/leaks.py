"""Leaked addresses: found by the collector, read once more, and asked back of the node that has them.

Belongs here: pods as they come, the live reading, and what people are told. Does not: what is a leak
(`tortie.addressing.leaks`), nor freeing it, which is the agent's.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Literal

from tortie.addressing.collector import Collector, Suspect
from tortie.addressing.leaks import PodState, pod_state
from tortie.addressing.state import Block, Release, State
from tortie.api import lean
from tortie.api.meta import API_VERSION
from tortie.controller.metrics import LEAKS, LEAKS_FREED
from tortie.kube.client import ApiError, Client
from tortie.kube.errors import NotFound
from tortie.kube.events import EventPoster, Reference
from tortie.kube.resource import Resource, key_of

_log = logging.getLogger(__name__)

PODS = Resource("", "v1", "pods", namespaced=True)
# A pod is gone, or can't use its address any more, and its node still has that on record: usually a DEL that never came.
ADDRESS_LEAKED = "AddressLeaked"
# What was leaked is free again; nothing to do.
LEAK_FREED = "LeakFreed"
# A node was asked to free a leaked address and hasn't: an interface there uses it after all, or no agent answers.
LEAK_NOT_FREED = "LeakNotFreed"
# Seconds between two looks at the candidates, at most; live readings at once.
LOOK, AT_ONCE = 5.0, 16
# Seconds after which an address that isn't freed is spoken of; agents look when they are asked and every 15 s.
LATE = 20.0


class Leaks:
    """Judges leaks while `is_current` says that all that is known is so. `wake` is told when something is to be planned.

    `pods` are those that are known, by namespace/name.
    """

    def __init__(
        self,
        client: Client,
        state: State,
        events: EventPoster,
        grace: float,
        pods: Mapping[str, lean.Pod],
        *,
        wake: Callable[[], None],
    ) -> None:
        self._client, self._state, self._events, self._grace, self._wake = client, state, events, grace, wake
        self._pods = pods
        self.collector = Collector(self._find, grace)
        self._asked: dict[str, dict[Release, float]] = {}  # by block: not freed yet, since when, infinite if that was said

    def on_pod(self, old: lean.Pod | None, new: lean.Pod | None) -> None:
        """Take in a pod's change."""
        seen = new or old
        assert seen is not None, "a change has something before or after it"
        name = key_of(seen.metadata.name, seen.metadata.namespace)
        known = pod_state(new) if new is not None else None
        uses = known is not None and not (known.ended or known.host_network)
        self._state.put_reports(name, known.addresses if known is not None and uses else ())
        self.collector.pod_changed(name, time.monotonic())
        if self._state.dirty:
            self._wake()

    def put_block(self, block: Block) -> None:
        """Take in a block as it is published now."""
        self.collector.put_block(block, time.monotonic())
        asked = self._asked.pop(block.name, {})
        if asked or block.releases:
            self._follow(block, asked, time.monotonic())

    def drop_block(self, name: str) -> None:
        """Forget a block that is gone."""
        self.collector.drop_block(name)
        self._asked.pop(name, None)

    async def run(self, is_current: Callable[[], bool]) -> None:
        """Look again and again; for ever."""
        room = asyncio.Semaphore(AT_ONCE)
        while True:
            due = self.collector.next_due()
            await asyncio.sleep(LOOK if due is None else min(LOOK, max(0.05, due - time.monotonic())))
            if is_current():
                suspects = self.collector.due(time.monotonic())
                await asyncio.gather(*(self._judge(suspect, room) for suspect in suspects))
                self._remind(time.monotonic())

    def _follow(self, block: Block, asked: dict[Release, float], now: float) -> None:
        """Say which of the addresses that were asked back of a block are free, and remember the others."""
        held = {(one.address, one.sequence) for one in block.held}
        for release in asked:
            if release.epoch == block.published[0] and release[:2] not in held:
                LEAKS_FREED.inc()
                said = f"{release.address}, which was leaked ({release.reason}), is free again"
                self._tell(block, "Normal", LEAK_FREED, said)
        left = {release: asked.get(release, now) for release in block.releases if release[:2] in held}
        if left:
            self._asked[block.name] = left

    def _remind(self, now: float) -> None:
        """Say once of each address that was asked back for long that it isn't free."""
        for name, asked in self._asked.items():
            block = self._state.blocks[name]
            for release in [release for release, since in asked.items() if now - since >= LATE]:
                asked[release] = math.inf
                said = f"{release.address} is leaked ({release.reason}), and node {block.node} doesn't free it"
                way_out = f"an interface there uses it, or its agent is away: tortiectl ipam show --ip {release.address}"
                self._tell(block, "Warning", LEAK_NOT_FREED, f"{said}; {way_out}")

    async def _judge(self, suspect: Suspect, room: asyncio.Semaphore) -> None:
        """Read a suspect's pod once more; what can't be read counts as in use."""
        namespace, name = suspect.pod
        try:
            async with room:
                live = await self._client.get(PODS.path(name, namespace=namespace), into=lean.Pod)
            found: PodState | None = pod_state(live)
        except NotFound:
            found = None
        except ApiError as error:
            _log.warning(
                "%s of pod %s/%s may be leaked; its pod can't be read: %s", suspect.held.address, namespace, name, error
            )
            return
        release = suspect.condemned(found)
        block = self._state.blocks.get(suspect.block)
        if release is None or block is None or release in block.releases:
            return
        LEAKS.inc()
        self._state.condemn(suspect.block, release)
        self._wake()
        said = (
            f"{release.address} of pod {namespace}/{name} is leaked: {release.reason}; node {suspect.node} is asked to free it"
        )
        _log.info("IPAMBlock %s: %s", block.name, said)
        self._tell(block, "Warning", ADDRESS_LEAKED, said)

    def _tell(self, block: Block, severity: Literal["Normal", "Warning"], reason: str, said: str) -> None:
        self._events.post(Reference(API_VERSION, "IPAMBlock", block.name, block.uid), severity, reason, said)

    def _find(self, name: str) -> PodState | None:
        pod = self._pods.get(name)
        return pod_state(pod) if pod is not None else None
