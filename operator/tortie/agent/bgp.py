"""The node as a BGP speaker: what it says of itself, what BIRD is told, and how its sessions are.

Belongs here: reading what people wrote, and telling BIRD. Does not: what follows from it (`tortie.routing`), when BIRD may be
told (`tortie.agent.notice`), its process (`tortie.agent.bird`), the kernel's routes (`tortie.agent.reach`), nor for how long
there are copies of BIRD's (`tortie.agent.copies`).
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

from tortie.agent.bird import Bird
from tortie.agent.control import BirdError, SessionState
from tortie.agent.copies import Copies
from tortie.agent.notice import Notice
from tortie.agent.passwords import Passwords
from tortie.agent.services import ServiceWatch
from tortie.api import lean
from tortie.api.bgp_input import Configuration, Filter, Peer
from tortie.api.meta import GROUP, VERSION
from tortie.kube.client import Client
from tortie.kube.resource import Resource
from tortie.kube.stream import Stream
from tortie.routing import bird, peering, planning
from tortie.routing.bird import Plan
from tortie.routing.peering import Objects, Speaker
from tortie.routing.planning import Around, Known
from tortie.routing.written import Problems

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


class Bgp:
    """Follows the objects, and tells BIRD. `changed` is called when the node's ways may be others."""

    def __init__(self, client: Client, bird: Bird, copies: Copies, passwords: Passwords, services: ServiceWatch) -> None:
        self._bird, self._copies, self._passwords, self._services = bird, copies, passwords, services
        copies.is_settled = self._is_settled
        self.changed: Callable[[], None] = lambda: None
        passwords.changed = services.changed = lambda: self.changed()  # noqa: PLW0108 - it is set later
        self._streams: dict[str, Stream[Any]] = {
            kind: Stream(client, Resource(GROUP, VERSION, kind).path(), read, self._on_object)
            for kind, read in (("bgpconfigurations", Configuration), ("bgppeers", Peer), ("bgpfilters", Filter))
        }
        self._objects = Objects()
        self._speakers: dict[str, Speaker] = {}
        self._unsaid: dict[str, str] = {}  # NodeNetworks that can't be read
        self._problems, self._unserved = Problems(), Problems()
        self._waits = 0.0  # since when something that BIRD should be told of isn't known; zero: all is
        self._decided: tuple[Around, Known] | None = None  # what the last decision was made of
        self._decision: tuple[Plan | None, str, Problems] = (None, "", {})
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
    def changes(self) -> bool:
        """Whether something is to be told to BIRD, so that a look is due soon."""
        return self._notice.is_given

    @property
    def problems(self) -> list[str]:
        """What is wrong, for people: first with BIRD and its sessions, then with what was written."""
        now = time.monotonic()
        down = [self._why(one) for one in self.states if one.name in self._down and now - self._down[one.name].since >= LATE]
        own = [self._bird.problem] if self._bird.problem else []
        if self._waits and now - self._waits >= LATE:
            own.append("BGP waits: not all of its objects, or of the Secrets and Services that they name, can be read")
        return [*own, *down, *self.mistakes]

    @property
    def mistakes(self) -> list[str]:
        """What of objects can't be followed."""
        return [f"{where}: {why}" for where, why in sorted((self._problems | self._unserved).items())]

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for stream in self._streams.values():
                tasks.create_task(stream.run())
            tasks.create_task(self._bird.run())
            tasks.create_task(self._copies.run())
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
        """Return what the node says of itself: as before while it isn't known; None where nodes speak no BGP."""
        if not self.is_known:
            return past
        return planning.say(node, past, self._objects)[0] if self._objects.speak else None

    async def tell(self, around: Around) -> None:
        """Tell BIRD what it is to do now."""
        if self.is_known and not self._objects.speak:
            self._stop(around)
            return
        known = self._known(around)
        if known is not None:
            if (around, known) != self._decided:  # among 5,000 nodes a decision takes 0.15 s, and most looks bring no news
                self._decision = await asyncio.to_thread(planning.decide, around, known)
                self._decided = around, known
            plan, text, self._problems = self._decision
            if plan is not None:
                await self._change(plan, text)

    def _known(self, around: Around) -> Known | None:
        """Return all that is known, None while some isn't: what lacks would be taken from BIRD."""
        name, labels = around.node.metadata.name, around.node.metadata.labels
        spec = peering.configuration(self._objects, name)
        if not (self.is_known and self._passwords.want(_named(self._objects)) and self._services.follow(spec)):
            self._waits = self._waits or time.monotonic()
            return None
        self._waits = 0.0
        served, self._unserved = self._services.said(spec, labels)
        others = tuple(self._speakers.values())
        return Known(self._objects, others, dict(self._unsaid), self._passwords.known, frozenset(served))

    async def _change(self, plan: Plan, text: str) -> None:
        """Tell BIRD of a plan, after a notice if that ends sessions."""
        now, was_given, nodes = time.monotonic(), self._notice.is_given, frozenset(self._speakers)
        ends = self._plan is not None and planning.disturbs(self._plan, plan, nodes)
        if self._notice.is_over(now, disturbs=ends):
            if ends:
                await self._copies.make(anew=False)
            self._plan = plan
            self._bird.want(text)
        elif not was_given:
            _log.info("BGP sessions change: routes stay as they are until the new ones have brought theirs")
            await self._copies.make(anew=False)

    async def _is_settled(self) -> bool:
        """Whether BIRD was told all, has taken it, and recovers no more."""
        return not self._notice.is_given and self._bird.is_current and not await self._bird.is_recovering()

    def _stop(self, around: Around) -> None:
        """Have BIRD take its routes back, and end: nodes don't speak BGP any more, and the kernel has other routes by now."""
        self._plan, self._notice, self._waits = None, Notice(), 0.0
        self._problems, self._unserved = {}, {}
        self._copies.give_up()
        if self._bird.is_wanted:
            name = around.node.metadata.name
            text, _ = bird.render(Plan(name, bird.router_id(name, "")))
            self._bird.want(text, ends=True)

    def _on_object(self, _old: object, _new: object) -> None:
        stores = (tuple(stream.store.values()) for stream in self._streams.values())
        self._objects = Objects(*stores)
        self.changed()

    async def look(self) -> list[SessionState]:
        """Return how the sessions are now; down, where BIRD doesn't tell."""
        was = {one.name for one in self.states if one.is_up}
        try:
            self.states = await self._bird.sessions()
        except BirdError as error:
            self.states = [replace(one, state="Down", error=str(error)) for one in self.states]
        if any(one.error.endswith(NO_PORT) for one in self.states):
            await self._bird.tell_again()
        self._down = {one.name: self._down.get(one.name) or Down.now() for one in self.states if not one.is_up}
        if {one.name for one in self.states if one.is_up} != was:
            self.changed()
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
            await self.look()
            await asyncio.sleep(LOOK)

    def _why(self, one: SessionState) -> str:
        """Return a sentence that stays the same: it is in a status that all nodes read."""
        return f"no session with {one.of} ({one.peer}) since {self._down[one.name].at}"


def _named(objects: Objects) -> set[str]:
    """Return the Secrets that passwords are in."""
    said = [one.spec.node_mesh_password for one in objects.configurations] + [one.spec.password for one in objects.peers]
    return {one.secret_key_ref.name for one in said if one and one.secret_key_ref}
