"""Events that people see in `kubectl describe`.

Belongs here: posting core/v1 Events, which is what `describe` looks for, and counting repetitions.
Does not: what is worth an Event.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, Self

from tortie.kube.client import Client
from tortie.kube.errors import ApiError, NotFound
from tortie.kube.resource import Resource
from tortie.kube.writer import Writer, WriterSettings

_log = logging.getLogger(__name__)

EVENTS = Resource("", "v1", "events", namespaced=True)


@dataclass(frozen=True, slots=True)
class Reference:
    """The object that an Event is about."""

    api_version: str
    kind: str
    name: str
    uid: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class EventSettings:
    """How Events are posted.

    Attributes:
        repeat: Seconds in which the same Event again is counted, not posted anew. Default 600. Zero: never counted.
        remembered: Events that are remembered for that, and that wait while the API server is away. Default 1,000;
            more than that are dropped. Zero: none is posted.
        concurrency: Requests at once. Default 2: Events can wait.
    """

    repeat: float = 600.0
    remembered: int = 1000
    concurrency: int = 2


@dataclass(slots=True)
class _Posted:
    """One Event as it stands or will stand on the API server."""

    body: dict[str, Any]
    path: str
    at: float
    stored: bool = False


class EventPoster:
    """Posts Events in the background: never blocks, never raises. Use it as `async with EventPoster(…)`."""

    def __init__(
        self,
        client: Client,
        component: str,
        *,
        gate: Callable[[], bool] = lambda: True,
        settings: EventSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._component = component
        self._settings = settings or EventSettings()
        self._clock = clock
        self._posted: OrderedDict[Hashable, _Posted] = OrderedDict()  # the one longest ago first
        self._failing = False
        self._writer = Writer(gate, self._done, self._settings.concurrency, settings=WriterSettings(retry=True))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._writer.close()

    def post(self, about: Reference, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Tell people that something happened to an object; the same again within ten minutes is counted."""
        key = (about, kind, reason, message)
        now = _now()
        posted = self._posted.get(key)
        if posted is None or self._clock() - posted.at >= self._settings.repeat:
            if len(self._writer) >= self._settings.remembered:
                return
            posted = self._posted[key] = self._new(about, kind, reason, message, now)
        else:
            posted.body["count"] += 1
            posted.body["lastTimestamp"] = now
        self._posted.move_to_end(key)
        self._writer.submit(key, lambda: self._write(posted))
        while len(self._posted) > self._settings.remembered:
            self._posted.popitem(last=False)

    async def drain(self) -> None:
        """Wait until all Events are posted."""
        await self._writer.drain()

    def _new(self, about: Reference, kind: str, reason: str, message: str, now: str) -> _Posted:
        namespace = about.namespace or "default"  # where the API server wants Events about cluster-scoped objects
        name = f"{about.name[:230]}.{time.time_ns():x}"
        involved = {"apiVersion": about.api_version, "kind": about.kind, "name": about.name, "uid": about.uid}
        body = {
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {**involved, **({"namespace": about.namespace} if about.namespace else {})},
            "type": kind, "reason": reason, "message": message[:1024], "count": 1,
            "firstTimestamp": now, "lastTimestamp": now,
            "source": {"component": self._component}, "reportingComponent": self._component,
        }  # fmt: skip
        return _Posted(body, EVENTS.path(name, namespace=namespace), self._clock())

    async def _write(self, posted: _Posted) -> None:
        if posted.stored:
            try:
                counted = {field: posted.body[field] for field in ("count", "lastTimestamp")}
                await self._client.patch(posted.path, counted)
            except NotFound:  # Events live an hour, or as long as the API server is told
                posted.stored = False
        if not posted.stored:
            await self._client.create(posted.path.rpartition("/")[0], posted.body)
            posted.stored = True

    def _done(self, _key: Hashable, error: ApiError | None) -> None:
        if error and not self._failing:
            _log.warning("an Event could not be posted: %s; the next line about Events is when it works again", error)
        elif self._failing and not error:
            _log.warning("Events are posted again")
        self._failing = error is not None


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
