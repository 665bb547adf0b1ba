"""A node's part in policies: watches what it is to enforce, has it enforced, and says so in NodePolicy.status.

Belongs here: the watches, and when something is enforced and said. Does not: what follows from what the watches saw
(`tortie.policy.view`), nor how it is enforced (the `Realizer`).
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime

from tortie.agent.kept import Kept, Object
from tortie.api.compiled import AddressSet, NodePolicy, NodePolicyStatus, RuleSet
from tortie.api.meta import API_VERSION, GROUP, VERSION
from tortie.kube.client import ApiError, Client
from tortie.kube.errors import Conflict, NotFound
from tortie.kube.resource import Resource
from tortie.kube.stream import Stream, StreamSettings
from tortie.kube.writer import Writer
from tortie.policy.delivery import WIDE, node_label
from tortie.policy.view import Changes, Source, View

_log = logging.getLogger(__name__)

NODE_POLICIES = Resource(GROUP, VERSION, "nodepolicies")
RULE_SETS = Resource(GROUP, VERSION, "rulesets")
ADDRESS_SETS = Resource(GROUP, VERSION, "addresssets")
# Seconds between two transactions: what changes meanwhile is one.
SETTLE = 0.02
# Seconds, at least and at most, until what was enforced is said; what can't be enforced is said at once. A policy for all of
# 500 nodes is half as many writes until the last of them has it, when what the first ones say comes after that.
SAY = 2.0, 5.0

# Seconds until what couldn't be enforced is tried again.
RETRY = 2.0

# Enforces changes, and returns what is wrong, by RuleSet: of those that it was given now or before. None of these is
# enforced in its new form. NOTHING: nothing is; asked again, without changes.
NOTHING = ""
Realizer = Callable[[Changes], Awaitable[Mapping[str, str]]]


async def _nothing() -> None:
    pass


class PolicyWatch:
    """Follows what a node is to enforce. The owner of `writer`, which several may share, tells `done` of each write's end."""

    def __init__(
        self,
        client: Client,
        node: str,
        realize: Realizer,
        writer: Writer,
        *,
        kept: Kept | None = None,
        settings: StreamSettings | None = None,
    ) -> None:
        self.node = node
        self.view = View()
        self.settled: Callable[[], Awaitable[None]] = _nothing  # told whenever something was taken in, and is enforced
        self.covers: Callable[[frozenset[str]], bool] = lambda _known: True  # whether what was kept may hold again
        self._client, self._realize, self._writer, self._kept = client, realize, writer, kept
        self._to_keep: dict[tuple[str, str], None] = {}
        self._due = asyncio.Event()
        self._to_say: asyncio.TimerHandle | None = None
        self._began = self._started = False
        self._known: frozenset[str] = frozenset()
        self._confirmed: Mapping[str, frozenset[str]] = {}
        self._errors: Mapping[str, str] = {}
        self._desired: NodePolicyStatus | None = None
        self._policies = Stream(
            client, NODE_POLICIES.path(), NodePolicy, self._on_policy, field_selector=f"metadata.name={node}", settings=settings
        )
        self._labelled: list[Stream[RuleSet] | Stream[AddressSet]] = []
        sources: tuple[tuple[Source, str], ...] = (("own", node_label(node)), ("wide", WIDE))
        for source, label in sources:
            self._labelled += [
                Stream(client, RULE_SETS.path(), RuleSet, self._on_rule_set(source), label_selector=label, settings=settings),
                Stream(
                    client, ADDRESS_SETS.path(), AddressSet, self._on_chunk(source), label_selector=label, settings=settings
                ),
            ]

    async def run(self) -> None:
        """Watch, enforce and report for ever. First holds what an earlier agent was told.

        Nothing else is done before all lists are there: it would close what was open.
        """
        try:
            async with asyncio.TaskGroup() as group:
                if self._kept is not None and self._take_kept(self._kept) and self.covers(self.view.known()):
                    await self._settle()
                for stream in (self._policies, *self._labelled):
                    group.create_task(stream.run())
                await self.synced()
                self.view.drop_kept()
                self._started = True
                while True:
                    await self._settle()
                    await self._wait()
        finally:
            if self._to_say is not None:
                self._to_say.cancel()
            self._to_say = None
            self._writer.withdraw(self.node)

    async def synced(self) -> None:
        """Wait until each watch gave its first list."""
        for stream in (self._policies, *self._labelled):
            await stream.synced.wait()

    @property
    def has_news(self) -> bool:
        """Whether it will say something, so far as it knows."""
        return self._to_say is not None

    def knows(self, uid: str) -> bool:
        """Whether what holds for an endpoint is enforced, should it come."""
        return uid in self._known

    def confirmed(self, uid: str) -> frozenset[str] | None:
        """Return which of an endpoint's addresses are in every set that they belong to; None: nobody is to wait for that."""
        return self._confirmed.get(uid)

    def done(self, error: ApiError | None) -> None:
        """Take how a write of the status ended; one of a NodePolicy that is gone isn't repeated."""
        if error is None or isinstance(error, NotFound):
            return
        if not (error.retryable or isinstance(error, Conflict)):  # a newer one is on its way to the store
            _log.error("NodePolicy %s: its status can't be written: %s; trying again", self.node, error)
        self._submit()

    def _on_policy(self, _old: NodePolicy | None, new: NodePolicy | None) -> None:
        self.view.put_node_policy(new)
        if new is not None:  # a deleted one holds until it is made again, also after a restart
            self._soon(new)

    def _on_rule_set(self, source: Source) -> Callable[[RuleSet | None, RuleSet | None], None]:
        def on_change(old: RuleSet | None, new: RuleSet | None) -> None:
            if new is not None:
                self.view.put_rule_set(source, new)
            elif old is not None:
                self.view.drop_rule_set(source, old)
            self._soon(new or old)

        return on_change

    def _on_chunk(self, source: Source) -> Callable[[AddressSet | None, AddressSet | None], None]:
        def on_change(old: AddressSet | None, new: AddressSet | None) -> None:
            if new is not None:
                self.view.put_chunk(source, new, old)
            elif old is not None:
                self.view.drop_chunk(source, old)
            self._soon(new or old)

        return on_change

    def _soon(self, item: Object | None) -> None:
        if self._kept is not None and item is not None:
            self._to_keep[type(item).__name__, item.metadata.name] = None
        if self._started:
            self._due.set()

    async def _wait(self) -> None:
        """Return when something changed, a moment after the last time, or when what was wrong is to be tried again."""
        now = asyncio.get_running_loop().time
        settled = now()
        try:
            async with asyncio.timeout(RETRY if NOTHING in self._errors else None):
                await self._due.wait()
        except TimeoutError:
            return
        await asyncio.sleep(settled + SETTLE - now())
        self._due.clear()

    async def _settle(self) -> None:
        """Enforce what changed, and say it where what is said is another."""
        changes, known, confirmed = self.view.take(), self.view.known(), self.view.confirmed
        before = self._errors
        if changes.is_for_the_kernel or NOTHING in before or not self._began:
            self._began = True
            self._errors = dict(await self._realize(changes))
        if NOTHING not in self._errors:  # and not before what came with it is enforced
            self._known, self._confirmed = known, confirmed
        await self.settled()
        if changes.restated or self._errors != before:
            self._desired = self.view.status(datetime.now(UTC), self._errors)
            if self._errors != before:
                self._submit()
            elif self._to_say is None:
                self._to_say = asyncio.get_running_loop().call_later(
                    random.uniform(*SAY),  # noqa: S311 - no secret
                    self._submit,
                )
        await self._keep()

    def _take_kept(self, kept: Kept) -> bool:
        """Take what an earlier agent was told; whether that was anything."""
        policy: NodePolicy | None = None
        for item in kept.objects():
            self._to_keep[type(item).__name__, item.metadata.name] = None  # it may be gone since
            match item:
                case RuleSet():
                    self.view.put_rule_set("kept", item)
                case AddressSet():
                    self.view.put_chunk("kept", item)
                case NodePolicy() if item.metadata.name == self.node:
                    policy = item
        if policy is not None:
            self.view.put_node_policy(policy)
        return policy is not None

    async def _keep(self) -> None:
        """Keep what is known now of what changed; what the watches have no more is kept as long as it is needed."""
        if self._kept is None or not self._started:
            return
        now: dict[tuple[str, str], Object | None] = {}
        for kind, name in self._to_keep:
            stores = [stream.store for stream in (self._policies, *self._labelled) if stream.kind.__name__ == kind]
            found: list[Object] = [store[name] for store in stores if name in store]
            if found:
                now[kind, name] = max(found, key=lambda item: int(item.metadata.resource_version or 0))
            elif kind != "NodePolicy" and not self.view.needs(name):
                now[kind, name] = None
        self._to_keep.clear()
        if now and not await self._kept.keep(now):
            self._to_keep.update(dict.fromkeys(now))

    def _submit(self) -> None:
        if self._to_say is not None:
            self._to_say.cancel()
            self._to_say = None
        if self._unsaid() is not None:
            self._writer.submit(self.node, self._write)

    def _unsaid(self) -> NodePolicy | None:
        """Return the NodePolicy whose status isn't what is to be said."""
        stands = self._policies.store.get(self.node)
        return stands if stands is not None and self._desired not in (None, stands.status) else None

    async def _write(self) -> None:
        # What is true now: the NodePolicy may be another than when this was submitted.
        stands = self._unsaid()
        if stands is not None:
            meta = {"name": self.node, "resourceVersion": stands.metadata.resource_version}
            body = {"apiVersion": API_VERSION, "kind": "NodePolicy", "metadata": meta, "status": self._desired}
            await self._client.replace(NODE_POLICIES.path(self.node, subresource="status"), body)
