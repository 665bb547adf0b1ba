"""Leader election on a coordination.k8s.io/v1 Lease.

Belongs here: reading and writing the Lease, and running something while it is held. Does not: the rules (`election`).
"""

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from tortie.kube.client import Client
from tortie.kube.election import Elector, Record, Timing, Wait
from tortie.kube.errors import ApiError, Conflict, LeaseLost, NotFound
from tortie.kube.resource import Resource

_log = logging.getLogger(__name__)

LEASES = Resource("coordination.k8s.io", "v1", "leases", namespaced=True)

# A suspended machine's time counts, too, where the system can tell (CLOCK_MONOTONIC stands still meanwhile).
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class _Spec(msgspec.Struct, rename="camel", omit_defaults=True):
    """`spec` of a Lease; all of it is optional."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class _Lease(msgspec.Struct, rename="camel"):
    """A Lease; others' labels and annotations in its metadata are written back as they are."""

    metadata: dict[str, Any]
    spec: _Spec = msgspec.field(default_factory=_Spec)
    api_version: str = LEASES.api_version
    kind: str = "Lease"


class Lease:
    """One candidate for one Lease."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        identity: str,
        timing: Timing | None = None,
        *,
        clock: Callable[[], float] = lambda: time.clock_gettime(_CLOCK),
    ) -> None:
        # Two processes may be given one name, as two pods in their host's network are: then both would lead.
        self.identity = f"{identity}_{uuid.uuid4().hex[:8]}"
        self._client = client
        self._collection = LEASES.path(namespace=namespace)
        self._path = LEASES.path(name, namespace=namespace)
        self._name = name
        self._timing = timing or Timing()
        self._elector = Elector(self.identity, self._timing)
        self._clock = clock
        self._failing = False

    def holds(self) -> bool:
        """Whether this candidate leads now, for certain: also right after the process was stopped for a while."""
        return self._elector.holds(self._clock())

    async def run(self, on_started: Callable[[], Awaitable[None]]) -> None:
        """Wait to lead, run `on_started()` while leading, let go. Raises LeaseLost; then `on_started` was cancelled."""
        await self.acquire()
        work = asyncio.ensure_future(on_started())
        keeping = asyncio.create_task(self.keep())
        try:
            await asyncio.wait({work, keeping}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise LeaseLost("this process no longer leads", self._path)
        finally:
            work.cancel()
            keeping.cancel()
            await asyncio.gather(work, keeping, return_exceptions=True)
            await self.release()
        await work

    async def acquire(self) -> None:
        """Return when this candidate leads."""
        while not self.holds():
            await self._try()
            if not self.holds():
                await asyncio.sleep(self._pause())
        _log.info("lease %s: leading as %s", self._name, self.identity)

    async def keep(self) -> None:
        """Renew until that fails for too long, or another leads; then return: the caller must stop at once."""
        while (left := self._elector.left(self._clock())) > 0:
            await asyncio.sleep(min(self._timing.retry, left))
            try:
                async with asyncio.timeout(max(0.0, self._elector.left(self._clock()))):
                    await self._try()
            except TimeoutError:
                break
        self._elector.resign()
        _log.warning("lease %s: lost: another one leads, or it wasn't renewed in %g s", self._name, self._timing.deadline)

    async def release(self) -> None:
        """Let go, so that the next one needn't wait; nothing happens if it isn't held."""
        if not self.holds():
            return
        self._elector.resign()
        try:
            async with asyncio.timeout(self._timing.retry):
                lease = await self._client.get(self._path, into=_Lease)
                if lease.spec.holder_identity == self.identity:
                    now = _now()
                    lease.spec = _Spec("", 1, now, now, lease.spec.lease_transitions)
                    await self._client.replace(self._path, lease)
        except (ApiError, TimeoutError) as error:
            _log.warning("lease %s: not released (%s); the next one waits until it expires", self._name, error)

    def _pause(self) -> float:
        decision = self._elector.decide(self._clock())
        spread = self._timing.retry * random.uniform(1.0, 1.2)  # noqa: S311 (candidates that don't collide)
        return min(decision.seconds, spread) if isinstance(decision, Wait) else spread

    async def _try(self) -> None:
        """Look at the lease and do what the rules say; failures are logged once and tried again by the caller."""
        try:
            lease = await self._read()
            now = self._clock()
            self._elector.observe(_record(lease), now)
            if not isinstance(self._elector.decide(now), Wait):
                await self._write(lease)
        except ApiError as error:
            if not self._failing:
                _log.warning("lease %s: %s; trying again", self._name, error)
            self._failing = True
        else:
            self._failing = False

    async def _read(self) -> _Lease | None:
        try:
            return await self._client.get(self._path, into=_Lease)
        except NotFound:
            return None

    async def _write(self, lease: _Lease | None) -> None:
        """Write ourselves into the lease that was read; if it has changed since, another was quicker."""
        new = _Lease(lease.metadata if lease else {"name": self._name}, self._spec(lease.spec if lease else _Spec()))
        sent = self._clock()
        try:
            if lease:
                stored = await self._client.replace(self._path, new, into=_Lease)
            else:
                stored = await self._client.create(self._collection, new, into=_Lease)
        except Conflict:
            return
        self._elector.observe(_record(stored), self._clock())
        self._elector.renewed(sent)

    def _spec(self, old: _Spec) -> _Spec:
        now, ours = _now(), old.holder_identity == self.identity
        return _Spec(
            holder_identity=self.identity,
            lease_duration_seconds=self._timing.duration,
            acquire_time=old.acquire_time if ours else now,
            renew_time=now,
            lease_transitions=(old.lease_transitions or 0) + (0 if ours or old.holder_identity is None else 1),
        )


def _record(lease: _Lease | None) -> Record:
    if lease is None:
        return Record()
    spec = lease.spec
    return Record(lease.metadata["resourceVersion"], spec.holder_identity or "", spec.lease_duration_seconds or 0)


def _now() -> str:
    """Return the wall clock as a MicroTime: for people; nothing is decided by it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
