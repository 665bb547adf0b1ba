"""What a person asks an agent through its socket (`tortie ask`, by exec in its pod): how it is, and to free a leaked address.

One connection is one question, as with the plugin (`tortie.agent.door`): `{"question": "report"}`, or
`{"question": "release", "address": …, "epoch": …, "sequence": …}`: all addresses of a link are freed together, so the result
lists each, with its sequence. Or `{"question": "denials", "epoch": …, "number": …}`: those behind that number of that epoch.
Or `{"question": "ways"}`: what carries packets to each block. The answer is `{"result": …}` or `{"error": {"msg": …}}`.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from tortie import __version__
from tortie.addressing.allocator import OwnBlock, address
from tortie.addressing.ranges import Range
from tortie.agent import forwarding
from tortie.agent.bgp import Bgp
from tortie.agent.control import SessionState
from tortie.agent.denials import Denials, NotLogged
from tortie.agent.forwarding import Route
from tortie.agent.ledger import Entry, Ledger, NotReclaimed
from tortie.agent.node import NodeWatch
from tortie.agent.service import Service
from tortie.agent.wire import Wire
from tortie.routing.carriage import Way

Question = dict[str, Any]


def question(data: bytes) -> Question | None:
    """Return a person's question, or None: then it is the plugin's request."""
    if b'"question"' not in data:
        return None  # a pod's ADD isn't read twice
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) and "question" in body else None


class Inquiries:
    """Answers questions about one agent."""

    def __init__(
        self, name: str, ledger: Ledger, wire: Wire, node: NodeWatch, service: Service, *, denials: Denials, bgp: Bgp
    ) -> None:
        self._name, self._ledger, self._wire, self._node, self._service = name, ledger, wire, node, service
        self._denials, self._bgp = denials, bgp
        self._known: dict[str, Callable[[Question], Awaitable[Any]]] = {
            "report": self._report, "release": self._release, "denials": self._denied,
            "ways": self._ways,
        }  # fmt: skip

    async def answer(self, asked: Question) -> dict[str, Any]:
        """Return the answer; never raises for what a question can be."""
        known = self._known.get(str(asked["question"]))
        if known is None:
            return _error(f"the question {asked['question']!r} is none of {', '.join(self._known)}")
        try:
            return {"result": await known(asked)}
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            return _error(f"{asked['question']}: {error!r} is missing or wrong; are tortiectl and agent of one version?")
        except (NotReclaimed, NotLogged) as error:
            return _error(str(error))

    async def _report(self, _asked: Question) -> dict[str, Any]:
        ledger = self._ledger
        links, why = await asyncio.to_thread(self._wire.inventory), await self._service.why_not_ready()
        return {
            "node": self._name,
            "version": __version__,
            "canRecord": ledger.is_writable,
            "epoch": ledger.epoch,
            "sequence": ledger.sequence,
            "addresses": [str(one) for one in self._node.here.values()],
            "mtu": self._wire.mtu,
            "blocks": [_block(ledger, block) for block in ledger.allocator.blocks],
            "allocations": [_allocation(entry) for entries in ledger.links() for entry in entries],
            "links": {host: [str(one) for one in held] for host, held in sorted(links.items())},
            "routes": [_route(route) for _, route in sorted((await asyncio.to_thread(_routes)).items())],
            "sessions": [_session(one) for one in await self._bgp.look()],
            "problems": [
                *(f"{what}: {reason}" for what, reason in self._node.problems.items()),
                *([why] if ledger.lost and ledger.is_writable else []),
                *self._bgp.problems,
            ],
        }

    async def _ways(self, _asked: Question) -> list[dict[str, Any]]:
        there = await asyncio.to_thread(_routes)
        told = await self._bgp.routes()
        found = [_way(one, there.get(one.to), told.get(str(one.to))) for one in self._node.ways]
        known = {one["block"] for one in found}
        return found + [_no_way(what, why) for what, why in self._node.unreached.items() if what not in known]

    async def _denied(self, asked: Question) -> dict[str, Any]:
        return self._denials.after(str(asked["epoch"]), int(asked["number"]))

    async def _release(self, asked: Question) -> dict[str, Any]:
        one, epoch, sequence = address(asked["address"]), str(asked["epoch"]), int(asked["sequence"])
        freed = await self._service.reclaim(one, epoch, sequence)
        return {"freed": [{"address": str(entry.address), "sequence": entry.sequence} for entry in freed]}


def _routes() -> dict[Range, Route]:
    """Return the kernel's routes to blocks: of one block the one that it takes."""
    return {**forwarding.of_bird(), **forwarding.copies(), **{one.to: one for one in forwarding.routes()}}


def _session(one: SessionState) -> dict[str, Any]:
    return {
        "peer": one.peer, "of": one.of, "as": one.peer_as, "state": one.state, "since": one.since,
        "received": one.received, "sent": one.sent, "error": one.error,
    }  # fmt: skip


def _way(one: Way, there: Route | None, told: str | None) -> dict[str, Any]:
    in_kernel = str(there).removeprefix(f"{there.to} ") if there and there.via else None
    via = str(one.via) if one.via else None
    return {
        "block": str(one.to), "node": one.node, "carrier": one.carrier, "via": via, "kernel": in_kernel, "bird": told,
        "problem": None,
    }  # fmt: skip


def _no_way(block: str, why: str) -> dict[str, Any]:
    return {"block": block, "node": None, "carrier": None, "via": None, "kernel": None, "bird": None, "problem": why}


def _route(route: Route) -> dict[str, str | None]:
    return {"to": str(route.to), "via": str(route.via) if route.via else None, "device": route.link or None}


def _allocation(entry: Entry) -> dict[str, Any]:
    return {"address": str(entry.address), "sequence": entry.sequence, "since": entry.since, **entry.link._asdict()}


def _block(ledger: Ledger, block: OwnBlock) -> dict[str, Any]:
    ceded = ledger.ceded.get(block.name)
    return {
        "name": block.name, "cidr": str(block.range), "pool": block.pool, "active": block.active,
        "used": ledger.allocator.used_in(block.range), "free": ledger.free(block.name), "ceded": str(ceded) if ceded else None,
    }  # fmt: skip


def _error(message: str) -> dict[str, Any]:
    return {"error": {"msg": message}}
