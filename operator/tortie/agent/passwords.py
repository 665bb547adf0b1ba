"""The passwords of BGP sessions, from Secrets beside the agents: those that objects name and that a Role lets agents read.

A Secret is read by its name, now and then: who may list or watch Secrets may read them all.
"""

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

from tortie.api import lean
from tortie.kube.client import ApiError, Client
from tortie.kube.errors import Forbidden, NotFound
from tortie.kube.resource import Resource
from tortie.routing.peering import Secrets

_log = logging.getLogger(__name__)

SECRETS = Resource("", "v1", "secrets", namespaced=True)
# Seconds between two readings; of one that isn't there somebody is about to make.
REREAD, MISSING = 60.0, 5.0


class Passwords:
    """Keeps them current. `changed` is called when one is another than before, or known for the first time."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client, self._namespace = client, namespace
        self.changed: Callable[[], None] = lambda: None
        self.known: Secrets = {}
        self._read: dict[str, dict[str, str]] = {}  # what is there of each Secret that was asked for
        self._wanted: frozenset[str] = frozenset()
        self._wake = asyncio.Event()

    def want(self, names: Iterable[str]) -> bool:
        """Have these Secrets read; whether they all were."""
        if (wanted := frozenset(names)) != self._wanted:
            self._wanted = wanted
            self._wake.set()
        return wanted <= self._read.keys()

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            self._wake.clear()
            await self._read_all()
            is_there = all(self._read.get(name) for name in self._wanted)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), REREAD if is_there else MISSING)

    async def _read_all(self) -> None:
        found = dict[str, dict[str, str]]()
        for name in sorted(self._wanted):
            try:
                found[name] = await self._one(name)
            except ApiError as error:  # the API server is away: what was known counts on
                _log.warning("Secret %s can't be read: %s; trying again", name, error)
                if name in self._read:
                    found[name] = self._read[name]
        if found != self._read:
            self._read = found
            self.known = {(name, key): value for name, data in found.items() for key, value in data.items()}
            self.changed()

    async def _one(self, name: str) -> dict[str, str]:
        """Return a Secret's values, without those that are no text; nothing where there is none, or agents may not read it."""
        if not self._namespace:
            return {}
        try:
            secret = await self._client.get(SECRETS.path(name, namespace=self._namespace), into=lean.Secret)
        except (NotFound, Forbidden):
            return {}
        values = dict[str, str]()
        for key, value in secret.data.items():
            with suppress(UnicodeDecodeError, binascii.Error):
                values[key] = base64.b64decode(value).decode()
        return values
