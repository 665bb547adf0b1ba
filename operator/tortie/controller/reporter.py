"""What people see of their objects: status, conditions, Events, and the finalizer that keeps a pool while it is in use.

Belongs here: comparing what should be said with what stands there, and writing the difference.
Does not: what should be said (`status`).
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from tortie.addressing import market, planner
from tortie.addressing.state import State
from tortie.api.meta import API_VERSION
from tortie.controller import status, translate
from tortie.controller.manifests import POOLS, SPOKEN, WRITTEN_BY_PEOPLE, Body, Manifests
from tortie.kube.client import Client
from tortie.kube.events import EventPoster, Reference

# Seconds between two looks; status is promised to be true within two.
INTERVAL = 0.5
# Seconds for which nothing must be left until a pool is called exhausted: what nodes give each other is nobody's for a moment.
LASTS = 2.0

Submit = Callable[[tuple[str, ...], Callable[[], Any], str], None]


class Reporter:
    """Reports on every object that people wrote. `submit(key, write, version)` starts a write; it may be left out."""

    def __init__(self, client: Client, manifests: Manifests, state: State, events: EventPoster, submit: Submit) -> None:
        self.invalid: dict[str, str] = {}  # pools that can't be used, each with why
        self._client = client
        self._manifests = manifests
        self._state = state
        self._events = events
        self._submit = submit
        self._since: dict[str, float] = {}  # by pool of which nothing is left while pods wait
        self._told: set[tuple[str, str]] = set()  # nodes, and exhausted pools of which their pods wait for an address

    async def run(self) -> None:
        """Look again and again; one look at 100 pools takes a few milliseconds."""
        while True:
            refused, exhausted = planner.refused_pools(self._state), self._exhausted(time.monotonic())
            self._tell_nodes(exhausted)
            for name, body in self._manifests.of[POOLS].items():
                self._guard(name, body)
                self._report(POOLS, name, body, self._pool_status(name, body, refused, exhausted.get(name, ())))
            for kind in SPOKEN:
                for name, body in self._manifests.of[kind].items():
                    self._report(kind, name, body, status.spoken(body))
            await asyncio.sleep(INTERVAL)

    def _exhausted(self, now: float) -> dict[str, list[str]]:
        found = market.exhausted(self._state)
        self._since = {name: self._since.get(name, now) for name in found}
        return {name: nodes for name, nodes in found.items() if now - self._since[name] >= LASTS}

    def _tell_nodes(self, exhausted: dict[str, list[str]]) -> None:
        """Post an Event about each node whose pods have begun to wait for an address that nobody has."""
        waiting = {(node, pool) for pool, nodes in exhausted.items() for node in nodes}
        for name, pool in sorted(waiting - self._told):
            node = self._state.nodes.get(name)
            if node is not None:
                about = Reference("v1", "Node", name, node.uid)
                self._events.post(about, "Warning", status.ADDRESSES_EXHAUSTED, status.waits(pool))
        self._told = waiting

    def _pool_status(self, name: str, body: Body, refused: dict[str, str], waiting: Sequence[str]) -> Body:
        pool = self._state.pools.get(name)
        if pool is None:
            return status.invalid(self.invalid.get(name, "it can't be read"))
        return status.pool_status(self._state, pool, body["spec"], refused, waiting)

    def _guard(self, name: str, body: Body) -> None:
        """Keep our finalizer on the pool while it lives, and take it off when it is deleted and has no blocks."""
        meta = body["metadata"]
        held = list(meta.get("finalizers", ()))
        wanted = [f for f in held if f != translate.FINALIZER]
        if "deletionTimestamp" not in meta:
            wanted.append(translate.FINALIZER)
        elif self._state.blocks_in.get(meta["uid"]):
            wanted = held  # none can be added to what is being deleted
        if sorted(wanted) == sorted(held):
            return
        patch = {"metadata": {"finalizers": wanted, "resourceVersion": meta["resourceVersion"]}}
        path = WRITTEN_BY_PEOPLE[POOLS].path(name)

        async def write() -> None:
            answer = await self._client.patch(path, patch)
            if "deletionTimestamp" not in meta:  # else it is gone now, and its watch says so
                self._manifests.take(POOLS, name, msgspec.json.decode(answer))

        self._submit(("finalizer", name), write, meta["resourceVersion"])

    def _report(self, kind: str, name: str, body: Body, bare: Body) -> None:
        """Write the status where it isn't true, and an Event where a condition changed."""
        meta, old = body["metadata"], body.get("status") or {}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        new = status.with_times(bare, old, int(meta.get("generation", 0)), now)
        if new == old:
            return
        path = WRITTEN_BY_PEOPLE[kind].path(name, subresource="status")
        removed = dict.fromkeys(old.keys() - new.keys())  # a merge patch keeps what it doesn't name
        patch = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": {**removed, **new}}

        async def write() -> None:
            self._manifests.take(kind, name, msgspec.json.decode(await self._client.patch(path, patch)))
            self._announce(body, new)

        self._submit(("status", kind, name), write, "")

    def _announce(self, body: Body, new: Body) -> None:
        meta = body["metadata"]
        about = Reference(API_VERSION, body["kind"], meta["name"], meta["uid"])
        before = {c["type"]: c["reason"] for c in (body.get("status") or {}).get("conditions", ())}
        for condition in new["conditions"]:
            if before.get(condition["type"]) != condition["reason"]:
                severity: Literal["Normal", "Warning"] = "Normal" if condition["status"] == "True" else "Warning"
                self._events.post(about, severity, condition["reason"], f"{meta['name']}: {condition['message']}")
