"""One kind of object, listed and watched into typed structs.

Belongs here: keeping a store equal to what the API server has, and saying each difference once, in order.
Does not: what a difference means.

The version to go on from is all that a stream has to remember: from there a watch resumes after any outage, and a
version that the server no longer keeps (410) means a new list, compared with the store, so that nothing is missed.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Generic

import msgspec

from tortie.kube.backoff import Backoff, BackoffSettings
from tortie.kube.client import Client
from tortie.kube.errors import ApiError, Gone, Undecodable, Unreachable, error_from
from tortie.kube.outage import Outage
from tortie.kube.resource import is_older, key_of
from tortie.kube.wire import Added, Bookmark, Codec, Deleted, Event, Failure, Modified, Object, Page, T, Unread, key

_log = logging.getLogger(__name__)

# A server that lags gives a list older than what was seen once or twice; an etcd restored from a backup, always.
STALE_LISTS = 3
# A watch that stands for so many seconds, or says anything, works; one that is refused late ends sooner.
PROOF = 1.0


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How a stream reads.

    Attributes:
        page: Objects on one page of a list. Default 500: 5 MB of Nodes. Zero: all on one page.
        watch: Seconds, shortest and longest, after which the server ends a watch so that watches spread over the API
            servers again. Default 300 to 600. Zero: the server's own choice (30 to 60 minutes).
        idle: Seconds of silence after which a watch is opened anew, in case its server or its connection is dead.
            Default 150: where anything changes, the server sends a bookmark every minute. Zero: never.
        turn: Seconds of work after which the event loop gets its turn. Default 0.02. Zero: after every object.
        backoff: Delays after failures. Default 0.1 to 10 seconds.
    """

    page: int = 500
    watch: tuple[int, int] = (300, 600)
    idle: float = 150.0
    turn: float = 0.02
    backoff: BackoffSettings = field(default_factory=BackoffSettings)


class Stream(Generic[T]):
    """A store of one resource's objects, kept current by `run()`.

    `on_change(old, new)` is called for every difference, in order, after the store has it: (None, new) for an addition,
    (old, None) for a removal. An object replaced by another of its name is a removal and an addition. It is a plain
    function, and what it raises ends the stream. `on_relist` is called after each list but the first.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        kind: type[T],
        on_change: Callable[[T | None, T | None], None],
        on_relist: Callable[[], None] | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        settings: StreamSettings | None = None,
    ) -> None:
        self.path, self.kind = path, kind
        self.store: dict[str, T] = {}  # by "name", or "namespace/name"
        self.synced = asyncio.Event()  # the first whole list was delivered
        self.resource_version = ""  # everything up to here is in the store; empty: list first
        self._client = client
        self._codec = Codec(kind)
        self._on_change = on_change
        self._on_relist = on_relist
        self._settings = settings or StreamSettings()
        selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        self._selectors: dict[str, str] = {name: value for name, value in selectors.items() if value}
        self._backoff = Backoff(self._settings.backoff)
        self._outage = Outage(path)
        self._newest = ""  # the newest version ever seen, kept across lists
        self._stale_lists = 0
        self._heard = True  # whether the last watch said anything
        self._turn_began = time.monotonic()

    @property
    def is_lost(self) -> bool:
        """Whether the API server doesn't answer this stream now."""
        return self._outage.is_on

    @property
    def is_refused(self) -> bool:
        """Whether the API server has refused this stream for longer than it takes to start."""
        return self._outage.is_refused

    async def run(self) -> None:
        """List, watch, and go on for ever. Ends by cancellation, or by what `on_change` raises."""
        while True:
            try:
                await self._watch(await self._resume() if self.resource_version else await self._list())
            except Gone as gone:
                _log.info("%s: listing again: %s", self.path, gone)
                self.resource_version = ""
                await asyncio.sleep(self._backoff.next())
            except ApiError as error:
                self._outage.lost(error, f"{len(self.store)} objects are known as of version {self._newest or 0}")
                await asyncio.sleep(max(self._backoff.next(), error.retry_after))

    async def _resume(self) -> str:
        """Make sure that the version to go on from is one of the past.

        An etcd restored from a backup is behind it, and a watch from the future would be silent until the past catches
        up. It is asked after an outage, and after a watch that said nothing, not even a bookmark: the server may have been
        replaced between two watches.
        """
        if self._outage.is_on or not self._heard:
            where = f"list of {self.path}"
            now = self._decode(await self._client.list_page(self.path, limit=1, **self._selectors)).version
            if is_older(now, self.resource_version):
                self._backoff.reset()  # it answers: what follows waits for no server
                raise Gone(f"the server is at version {now}, and {self.resource_version} was already seen", where)
        return "resumed where it was"

    async def _list(self) -> str:
        began, seen, changed, version = time.monotonic(), set[str](), 0, ""
        page: Page[T] | None = None
        while page is None or page.continue_:
            page = await self._page(page.continue_ if page else "")
            version = version or self._accept(page.version)
            for item in page.items:
                changed += self._put(item)
                seen.add(key(item))
                await self._yield()
            seen.update(name for name, _ in page.unread)  # it exists, in whatever form
            for name, why in page.unread:
                self._report_unread(name, why)
        removed = await self._remove_all_but(seen)
        self.resource_version = self._newest = version
        self._listed()
        _log.debug("%s: listed %d objects in %.2f s", self.path, len(seen), time.monotonic() - began)
        return f"listed, {changed} changed and {removed} removed of {len(seen)}, at version {version}"

    async def _page(self, continue_: str) -> Page[T]:
        limit = self._settings.page
        body = await self._client.list_page(self.path, limit=limit, continue_=continue_, **self._selectors)
        return self._decode(body)

    def _decode(self, body: bytes) -> Page[T]:
        try:
            return self._codec.page(body)
        except msgspec.DecodeError as error:
            raise Undecodable(str(error), f"list of {self.path}") from error

    def _accept(self, version: str) -> str:
        """Return a list's version if the list may be believed: nothing goes back in time because one server lags."""
        if not is_older(version, self._newest):
            self._stale_lists = 0
            return version
        self._stale_lists += 1
        said = f"the list is of version {version}, and {self._newest} was already seen"
        if self._stale_lists <= STALE_LISTS:
            raise Unreachable(said, f"list of {self.path}")
        _log.warning("%s: %s, again and again: restored from a backup? taking it as it is", self.path, said)
        self._stale_lists = 0
        return version

    async def _remove_all_but(self, seen: set[str]) -> int:
        gone = [name for name in self.store if name not in seen]
        for name in gone:
            self._drop(name)
            await self._yield()
        return len(gone)

    def _listed(self) -> None:
        if self.synced.is_set() and self._on_relist:
            self._on_relist()
        self.synced.set()

    async def _watch(self, how: str) -> None:
        """Follow one watch to its end; the end that the server announced is no failure."""
        shortest, longest = self._settings.watch
        params = {**self._selectors, "resourceVersion": self.resource_version, "allowWatchBookmarks": "true"}
        if longest:
            params["timeoutSeconds"] = str(random.randint(shortest, longest))  # noqa: S311 (spreads load, keeps no secret)
        async with self._client.watch(self.path, idle=self._settings.idle, **params) as chunks:
            proof = asyncio.get_running_loop().call_later(PROOF, self._outage.back, how)
            try:
                heard = await self._follow(chunks, how)
            finally:
                unproven = proof.when() > asyncio.get_running_loop().time()
                proof.cancel()
        self._heard = heard
        if unproven and not heard:
            raise Unreachable("the watch ended as soon as it began", f"WATCH {self.path}")

    async def _follow(self, chunks: AsyncIterator[bytes], how: str) -> bool:
        """Take in what the watch says until it ends; whether it said anything."""
        heard, tail = False, b""
        async for chunk in chunks:
            *lines, tail = (tail + chunk).split(b"\n")
            for line in lines:
                self._take(line)
                await self._yield()
            if lines and not heard:
                heard = True
                self._outage.back(how)
                self._backoff.reset()
        return heard

    def _take(self, line: bytes) -> None:
        try:
            event: Event[T] = self._codec.event(line)
        except msgspec.DecodeError as error:
            raise Undecodable(str(error), f"WATCH {self.path}") from error
        match event:
            case Added(item) | Modified(item):
                self._put(item)
                self._advance(item.metadata.resource_version)
            case Deleted(named):
                self._drop(key_of(named.metadata.name, named.metadata.namespace))
                self._advance(named.metadata.resource_version)
            case Bookmark(named):
                self._advance(named.metadata.resource_version)
            case Unread(named, why):
                self._report_unread(key_of(named.metadata.name, named.metadata.namespace), why)
                self._advance(named.metadata.resource_version)
            case Failure(status):
                raise error_from(status, f"WATCH {self.path}")

    def _advance(self, version: str) -> None:
        self.resource_version = self._newest = version

    def _put(self, item: T) -> bool:
        """Store one object and say the difference; whether there was one."""
        name = key(item)
        old = self.store.get(name)
        if old is not None and old.metadata.uid != item.metadata.uid:
            self._drop(name)
            old = None
        if old is not None and old.metadata.resource_version == item.metadata.resource_version:
            return False
        self.store[name] = item
        self._on_change(old, item)
        return True

    def _drop(self, name: str) -> None:
        old = self.store.pop(name, None)
        if old is not None:
            self._on_change(old, None)

    def _report_unread(self, name: str, why: str) -> None:
        kept = "its last readable form stays in use" if name in self.store else "it is left out"
        _log.error("%s %s: can't be read: %s; %s until it changes", self.path, name, why, kept)

    async def _yield(self) -> None:
        if time.monotonic() - self._turn_began > self._settings.turn:
            await asyncio.sleep(0)
            self._turn_began = time.monotonic()


__all__ = ["Object", "Stream", "StreamSettings"]
