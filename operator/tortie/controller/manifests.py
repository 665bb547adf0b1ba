"""What people write in our group, as it is known here.

Belongs here: keeping the newest version of each object, from Kopf's events and from whole readings.
Does not: what they mean (`translate`), or writing.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from tortie.api.ippool import IPPool
from tortie.api.kinds import WRITTEN
from tortie.api.meta import GROUP, VERSION
from tortie.api.settings import IPAMConfiguration, IPReservation
from tortie.kube.client import ApiError, Client, NotFound
from tortie.kube.resource import Resource

_log = logging.getLogger(__name__)

POOLS, RESERVATIONS, CONFIGURATIONS = IPPool.plural, IPReservation.plural, IPAMConfiguration.plural
WRITTEN_BY_PEOPLE = {kind.plural: Resource(GROUP, VERSION, kind.plural) for kind in WRITTEN}
# What nodes speak BGP by.
SPOKEN = tuple(plural for plural in WRITTEN_BY_PEOPLE if plural not in (POOLS, RESERVATIONS, CONFIGURATIONS))
# Seconds between full readings: Kopf's watches don't tell of deletions missed while they were down.
RESYNC = 60.0
# Seconds until a reading that failed is tried again.
RETRY = 1.0
# So many of the last deleted objects are remembered: an answer, or a list, from before their deletion may still arrive.
GONE = 1000

Body = dict[str, Any]


class Manifests:
    """The newest known body of every object, by kind (plural) and name. `on_change(kind, name)` follows each change."""

    def __init__(self, client: Client, on_change: Callable[[str, str], None]) -> None:
        self.of: dict[str, dict[str, Body]] = {kind: {} for kind in WRITTEN_BY_PEOPLE}
        self._client = client
        self._on_change = on_change
        self._reread = asyncio.Event()
        self._gone: deque[str] = deque(maxlen=GONE)  # uids

    def take(self, kind: str, name: str, body: Body | None) -> None:
        """Take in an object, or that it is gone; older versions than the known one, and what is gone, are ignored."""
        known = self.of[kind].get(name)
        if body is None and known is not None:
            del self.of[kind][name]
            self._gone.append(known["metadata"]["uid"])
        elif body is not None and body["metadata"]["uid"] not in self._gone and _is_newer(body, known):
            self.of[kind][name] = body
        else:
            return
        self._on_change(kind, name)

    def reread(self) -> None:
        """Have everything read again soon: something may have been missed."""
        self._reread.set()

    async def read_forever(self) -> None:
        """Read everything when asked to, and every minute."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESYNC):
                    await self._reread.wait()
            self._reread.clear()
            await self.read_all()

    async def read_all(self) -> None:
        """Read every kind and forget what is no more; tries until the API server answers."""
        for kind in WRITTEN_BY_PEOPLE:
            listed = await self._list(kind)
            names = {item["metadata"]["name"] for item in listed["items"]}
            for item in listed["items"]:
                self.take(kind, item["metadata"]["name"], item)
            for name, body in list(self.of[kind].items()):
                if name not in names and _version(body) <= _version(listed):
                    self.take(kind, name, None)

    async def _list(self, kind: str) -> Body:
        failing = False
        while True:
            try:
                listed: Body = msgspec.json.decode(await self._client.get(WRITTEN_BY_PEOPLE[kind].path()))
            except ApiError as error:
                way_out = "install the chart, or kubectl apply -f crds/" if isinstance(error, NotFound) else "trying again"
                if not failing:
                    _log.warning("%s can't be read: %s; %s", kind, error, way_out)
                failing = True
                await asyncio.sleep(max(RETRY, error.retry_after))
            else:
                return listed


def _is_newer(body: Body, known: Body | None) -> bool:
    return known is None or _version(body) > _version(known)


def _version(body: Body) -> int:
    return int(body["metadata"]["resourceVersion"])
