"""The node as a BGP speaker: what it says of itself, what BIRD is told, and how its sessions are.

Belongs here: reading what people wrote, and telling BIRD. Does not: what follows from it (`tortie.routing`), when BIRD may be
told (`tortie.agent.notice`), its process (`tortie.agent.bird`), or the kernel's routes (`tortie.agent.reach`).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

from tortie.addressing.ranges import Family, Range
from tortie.agent.bird import Bird
from tortie.agent.control import BirdError, SessionState
from tortie.agent.forwarding import Route
from tortie.agent.notice import Notice
from tortie.agent.passwords import Passwords
from tortie.agent.services import ServiceWatch
from tortie.api import lean
from tortie.api.bgp_input import Configuration, Filter, Peer
from tortie.api.meta import GROUP, VERSION
from tortie.kube.client import Client
from tortie.kube.resource import Resource
from tortie.kube.stream import Stream
from tortie.routing import bird, peering, services
from tortie.routing.bird import Advertised, Plan
from tortie.routing.carriage import NodeAddress
from tortie.routing.peering import Objects, Problems, Speaker

_log = logging.getLogger(__name__)

NO_PORT = "No listening socket"  # what BIRD says where another program has its port
# Seconds between two looks at sessions.
LOOK = 5.0
# Seconds for which a session isn't up until that is a problem: one that a change ended comes back in a few.
LATE = 30.0


class Down(NamedTuple):
    """Since when a session isn't up: by a steady clock, and for people, in UTC."""

    since: float
    at: str

    @classmethod
    def now(cls) -> Self:
        """Return one that begins now."""
        return cls(time.monotonic(), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))


class Around(NamedTuple):
    """What a plan depends on, besides what people wrote about BGP.

    Attributes:
        node: The node's own Node; its annotations are read.
        past: What it said of itself before.
        own: The node's own blocks.
    """

    node: lean.OwnNode
    past: lean.NetworkBgp | None
    addresses: Mapping[Family, NodeAddress]
    own: tuple[Range, ...]
    pools: tuple[Advertised, ...]


class Bgp:
    """Follows the objects, and tells BIRD. `changed` is called when the node's ways may be others."""

    def __init__(self, client: Client, bird: Bird, passwords: Passwords, services: ServiceWatch) -> None:
        self._bird, self._passwords, self._services = bird, passwords, services
        self.changed: Callable[[], None] = lambda: None
        passwords.changed = services.changed = self._wake
        self._streams: dict[str, Stream[Any]] = {
            kind: Stream(client, Resource(GROUP, VERSION, kind).path(), read, self._on_object)
            for kind, read in (("bgpconfigurations", Configuration), ("bgppeers", Peer), ("bgpfilters", Filter))
        }
        self._objects = Objects()
        self._speakers: dict[str, Speaker] = {}
        self._unsaid: dict[str, str] = {}  # NodeNetworks that can't be read
        self._problems = Problems()
        self._plan: Plan | None = None  # what BIRD was told last
        self._notice = Notice()
        self._down: dict[str, Down] = {}  # the sessions that aren't up
        self.states: list[SessionState] = []

    @property
    def is_known(self) -> bool:
        """Whether all that people wrote about BGP was read."""
        return all(stream.synced.is_set() for stream in self._streams.values())

    @property
    def speaks(self) -> bool:
        """Whether nodes speak BGP; as long as that isn't known, as they did."""
        return self._objects.speak if self.is_known else self._bird.is_wanted

    @property
    def holds(self) -> bool:
        """Whether the kernel should have copies of BIRD's routes."""
        return self._notice.holds

    @property
    def changes(self) -> bool:
        """Whether something is to be told to BIRD, or waits for its routes, so that a look is due soon."""
        return self._notice.is_given or self._notice.holds

    @property
    def problems(self) -> list[str]:
        """What is wrong, for people."""
        now = time.monotonic()
        down = [self._why(one) for one in self.states if one.name in self._down and now - self._down[one.name].since >= LATE]
        own = [self._bird.problem] if self._bird.problem else []
        return [*own, *(f"{where}: {why}" for where, why in sorted(self._problems.items())), *down]

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for stream in self._streams.values():
                tasks.create_task(stream.run())
            tasks.create_task(self._bird.run())
            tasks.create_task(self._passwords.run())
            tasks.create_task(self._services.run())
            tasks.create_task(self._look())

    def put(self, name: str, network: lean.Network | None) -> None:
        """Take a NodeNetwork, or that it is gone; what changes no session is nothing to BIRD."""
        try:
            found = peering.speaker_of(network) if network else None
            self._unsaid.pop(name, None)
        except ValueError as error:
            found, self._unsaid[name] = None, str(error)
        if found is None:
            self._speakers.pop(name, None)
        else:
            self._speakers[name] = found

    def said(self, node: lean.OwnNode, past: lean.NetworkBgp | None) -> lean.NetworkBgp | None:
        """Return what the node says of itself: what it said before, where that can't be told; None where nodes speak no BGP."""
        if not self.speaks:
            return None
        meta = node.metadata
        try:
            return peering.speaker(meta.name, meta.labels, meta.annotations, self._objects) if self.is_known else past
        except ValueError as error:
            self._problems[f"Node {meta.name}"] = f"{error}; what it said before holds"
            return past

    async def tell(self, around: Around, routes: Mapping[Range, Route]) -> None:
        """Tell BIRD what it is to do now; `routes` are those that it gave to the kernel."""
        if not self.is_known:
            return
        if not self._objects.speak:
            self._stop(around)
            return
        spec = peering.configuration(self._objects, around.node.metadata.name)
        if not self._passwords.want(_named(self._objects)) or not self._services.follow(spec):
            return  # what isn't known yet would be taken from BIRD
        plan, text, self._problems = await asyncio.to_thread(self._decide, around)
        if plan is None:
            return
        now, was_given = time.monotonic(), self._notice.is_given
        if self._notice.is_over(now, disturbs=self._plan is not None and self._disturbs(self._plan, plan)):
            self._plan = plan
            self._bird.want(text)
        elif not was_given:
            _log.info("BGP sessions change: routes stay as they are until the new ones have brought theirs")
        self._notice.settle(now, routes, is_current=self._bird.is_current)

    def _decide(self, around: Around) -> tuple[Plan | None, str, Problems]:
        name, objects = around.node.metadata.name, self._objects
        said = self.said(around.node, around.past)
        if said is None:
            return None, "", dict(self._problems)
        labels = around.node.metadata.labels
        here = Speaker(name, around.addresses, said.as_number, said.port, said.cluster_id or "", labels)
        found, problems = peering.sessions(objects, here, list(self._speakers.values()), self._passwords.known)
        own, spec = around.addresses.get(4), peering.configuration(objects, name)
        served, unserved = self._services.said(spec, labels)
        plan = Plan(
            node=name,
            router_id=bird.router_id(name, str(own.address) if own else ""),
            spec=spec,
            reflects=bool(said.cluster_id),
            blocks=around.own,
            services=tuple(sorted(served)),
            service_ranges=services.ranges(spec),
            pools=around.pools,
            sessions=tuple(found),
            filters=objects.filters,
        )
        text, wrong = bird.render(plan)
        return plan, text, problems | unserved | wrong | {f"NodeNetwork {other}": why for other, why in self._unsaid.items()}

    def _stop(self, around: Around) -> None:
        """Have BIRD take its routes back, and end: nodes don't speak BGP any more, and the kernel has other routes by now."""
        self._plan, self._notice, self._problems = None, Notice(), {}
        if self._bird.is_wanted:
            name = around.node.metadata.name
            text, _ = bird.render(Plan(name, bird.router_id(name, "")))
            self._bird.want(text, ends=True)

    def _disturbs(self, old: Plan, new: Plan) -> bool:
        """Whether a plan ends or alters sessions that are there; those with nodes that are gone don't count."""
        there = {one.name: one for one in new.sessions}
        nodes = {f"node {name}" for name in self._speakers}
        return any(there.get(one.name) != one and (one.of in nodes or not one.inside) for one in old.sessions)

    def _wake(self) -> None:
        self.changed()

    def _on_object(self, _old: object, _new: object) -> None:
        stores = (tuple(stream.store.values()) for stream in self._streams.values())
        self._objects = Objects(*stores)
        self.changed()

    async def look(self) -> list[SessionState]:
        """Return how the sessions are now; as they were, where BIRD doesn't tell."""
        try:
            self.states = await self._bird.sessions()
        except BirdError as error:
            _log.debug("BIRD doesn't tell of its sessions: %s", error)
        if any(one.error.endswith(NO_PORT) for one in self.states):
            await self._bird.tell_again()
        self._down = {one.name: self._down.get(one.name) or Down.now() for one in self.states if not one.is_up}
        return self.states

    async def routes(self) -> dict[str, str]:
        """Return by prefix what BIRD says of each route: its next hop, and who told of it."""
        try:
            found = await self._bird.best_routes()
        except BirdError as error:
            _log.debug("BIRD doesn't tell of its routes: %s", error)
            return {}
        whose = {one.name: one.of for one in self.states}
        return {prefix: f"via {hop}, told by {whose.get(session, session)}" for prefix, (hop, session) in found.items()}

    async def _look(self) -> None:
        while True:
            was = {one.name for one in self.states if one.is_up}
            if {one.name for one in await self.look() if one.is_up} != was:
                self.changed()
            await asyncio.sleep(LOOK)

    def _why(self, one: SessionState) -> str:
        """Return a sentence that stays the same: it is in a status that all nodes read."""
        return f"no session with {one.of} ({one.peer}) since {self._down[one.name].at}"


def _named(objects: Objects) -> set[str]:
    """Return the Secrets that passwords are in."""
    said = [one.spec.node_mesh_password for one in objects.configurations] + [one.spec.password for one in objects.peers]
    return {one.secret_key_ref.name for one in said if one and one.secret_key_ref}
