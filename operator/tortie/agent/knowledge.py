"""What the agent knows without asking: pools, namespaces, and the pods of its own node.

Watched ahead, so that no request goes out during an ADD. Pools are kept on disk as well: without an API server a
restarted agent still knows what to give.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from tortie.addressing.wants import PodFacts, UsablePool
from tortie.agent import translate
from tortie.agent.cni import Request
from tortie.agent.journal import NotDurable
from tortie.agent.ledger import Ledger
from tortie.agent.translate import ForwardedPool
from tortie.api import lean
from tortie.api.meta import GROUP, VERSION
from tortie.kube.client import Client
from tortie.kube.resource import Resource, key_of
from tortie.kube.stream import Stream

_log = logging.getLogger(__name__)

PODS = Resource("", "v1", "pods", namespaced=True)
NAMESPACES = Resource("", "v1", "namespaces")
POOLS = Resource(GROUP, VERSION, "ippools")

# Seconds that an ADD waits for its pod to show up in the watch: the kubelet's own watch is a little ahead now and then.
POD_SECONDS = 2.0
# A static pod is known to the runtime by this; its mirror at the API server has a uid of its own.
_STATIC = "kubernetes.io/config.hash"
_KEPT = "pools"  # the key under which the ledger keeps them


class Knowledge:
    """The streams; `run()` keeps them current. `pools` are those that can be read; `on_pools` is told when they changed."""

    def __init__(self, client: Client, node: str, ledger: Ledger) -> None:
        self.pools: dict[str, UsablePool] = {}
        self.forwarded: dict[str, ForwardedPool] = {}  # how packets of the same pools are carried
        self._ledger = ledger
        self.on_pools: Callable[[], None] = lambda: None
        self._pods = Stream(client, PODS.path(), lean.Annotated, self._on_shown, field_selector=f"spec.nodeName={node}")
        self._namespaces = Stream(client, NAMESPACES.path(), lean.Annotated, self._on_shown)
        self._pool_stream = Stream(client, POOLS.path(), lean.Pool, self._on_pool)
        self._seen = asyncio.Event()
        self._pools_changed = asyncio.Event()
        for pool in translate.load_pools(ledger.meta.get(_KEPT, "[]")):
            self._take(pool)

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for stream in (self._pods, self._namespaces, self._pool_stream):
                tasks.create_task(stream.run())
            await self._pool_stream.synced.wait()
            for name in set(self.pools) - set(self._pool_stream.store):
                del self.pools[name], self.forwarded[name]
            self.on_pools()
            while True:
                await self._keep()
                await self._pools_changed.wait()
                self._pools_changed.clear()

    async def _keep(self) -> None:
        """Keep the pools for a start without an API server; where that can't be done now, it is with their next change."""
        try:
            await self._ledger.note(_KEPT, translate.dump_pools(self._pool_stream.store.values()))
        except NotDurable as error:
            _log.error("the pools can't be kept for a start without an API server: %s", error)

    @property
    def pools_are_known(self) -> bool:
        """Whether all pools were seen."""
        return self._pool_stream.synced.is_set()

    @property
    def pools_are_current(self) -> bool:
        """Whether all pools were seen and the API server tells of their changes."""
        return self.pools_are_known and not self._pool_stream.is_lost

    async def facts(self, request: Request) -> PodFacts:
        """Return what is known of a request's pod and namespace; what doesn't show up in time has no wishes."""
        namespace, name = (request.args.get(f"K8S_POD_{key}", "") for key in ("NAMESPACE", "NAME"))
        if not name:
            return PodFacts()
        deadline = time.monotonic() + POD_SECONDS
        pod = await self._pod(key_of(name, namespace), request.args.get("K8S_POD_UID", ""), deadline)
        room = await self._shown(self._namespaces, namespace, deadline)
        return PodFacts(
            pod.metadata.annotations if pod else {},
            room.metadata.labels if room else {},
            room.metadata.annotations if room else {},
        )

    async def _pod(self, key: str, uid: str, deadline: float) -> lean.Annotated | None:
        def is_it(pod: lean.Annotated) -> bool:
            return uid in ("", pod.metadata.uid, pod.metadata.annotations.get(_STATIC))

        return await self._shown(self._pods, key, deadline, is_it)

    async def _shown(
        self,
        stream: Stream[lean.Annotated],
        key: str,
        deadline: float,
        is_it: Callable[[lean.Annotated], bool] = lambda _found: True,
    ) -> lean.Annotated | None:
        """Return an object as soon as its stream shows it; None after the deadline, or when the API server is away."""
        while True:
            seen, found = self._seen, stream.store.get(key)
            if found is not None and is_it(found):
                return found
            left = deadline - time.monotonic()
            if left <= 0 or stream.is_lost:
                return None
            try:
                async with asyncio.timeout(left):
                    await seen.wait()
            except TimeoutError:
                continue

    def _on_shown(self, _old: lean.Annotated | None, new: lean.Annotated | None) -> None:
        if new is not None:
            self._seen.set()
            self._seen = asyncio.Event()

    def _on_pool(self, old: lean.Pool | None, new: lean.Pool | None) -> None:
        if new is not None:
            self._take(new)
        elif old is not None:
            self._forget(old.metadata.name)
        self._pools_changed.set()
        self.on_pools()

    def _take(self, pool: lean.Pool) -> None:
        name = pool.metadata.name
        try:
            self.pools[name], self.forwarded[name] = translate.usable_pool(pool), translate.forwarded_pool(pool)
        except ValueError as error:
            self._forget(name)
            _log.error("IPPool %s: spec: %s; no pod gets an address of it", name, error)

    def _forget(self, name: str) -> None:
        self.pools.pop(name, None)
        self.forwarded.pop(name, None)
