"""Copies of BIRD's routes, which lead while BIRD starts anew, or while its sessions change: no packet waits for it.

Belongs here: when copies are made, and when they go. Does not: writing them (`tortie.agent.forwarding`), nor what BIRD is told.

A BIRD that recovers (`-R`) keeps the routes of the one before until its peers have told theirs, and no longer: for peers that
start anew as well it doesn't wait (RFC 4724, section 4.1), and where it does it may remove a route before it adds it again.

The kernel alone remembers the copies. Crash points: an agent that ends leaves them; the next one finds them, and they go by the
same rule. One that ends before it has made all is as one that made none of the others. BIRD that ends again is copied again,
which is newer knowledge. Reorderings: a copy is made before what was decided of the others is done, or afterwards, and not
meanwhile.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

from pyroute2.netlink.exceptions import NetlinkError

from tortie.addressing.ranges import Range
from tortie.agent import forwarding
from tortie.agent.forwarding import Route
from tortie.agent.reach import leading

_log = logging.getLogger(__name__)

# Seconds for which a route of BIRD's is unchanged until it is trusted; after which copies go in any case; between two looks.
STEADY, PATIENCE, LOOK = 5.0, 60.0, 1.0
_NAMED = 3  # routes in a line of the log


class Steadiness:
    """Which copies aren't needed any more. Pure: times are seconds of a steady clock."""

    def __init__(self, now: float) -> None:
        self._seen: dict[Range, tuple[Route | None, float]] = {}  # BIRD's route that leads to what is copied, and since when
        self._until = now + PATIENCE

    def begin(self, now: float) -> None:
        """Take that BIRD's routes are about to change."""
        self._seen, self._until = {}, now + PATIENCE

    def end(self) -> None:
        """Take that copies aren't needed at all."""
        self._until = 0.0

    def over(self, now: float, copies: Iterable[Range], routes: Mapping[Range, Route]) -> list[Range]:
        """Return the copies that go: BIRD's own route there has been the same for long enough, or patience ends."""
        past, self._seen = self._seen, {}
        for one in copies:
            its, then = routes.get(one) or leading(one, routes), past.get(one)
            self._seen[one] = then if then and then[0] == its else (its, now)
        return [one for one, (its, since) in self._seen.items() if now >= self._until or (its and now - since >= STEADY)]


class Copies:
    """The copies in the kernel.

    Attributes:
        is_settled: Asked whether BIRD has done all that it was asked, so that its routes are its own.
    """

    def __init__(self) -> None:
        self.is_settled: Callable[[], Awaitable[bool]] = _yes
        self._steadiness = Steadiness(time.monotonic())
        self._there = asyncio.Event()
        self._there.set()  # an agent before may have left some
        self._lock = asyncio.Lock()

    async def make(self, *, anew: bool = True) -> bool:
        """Copy BIRD's routes, which are about to change; whether it has any, as far as the kernel says.

        `anew`: also what has a copy. Not when a change was announced: where others were faster, routes have left BIRD by now.
        """
        async with self._lock:
            self._steadiness.begin(time.monotonic())
            self._there.set()
            try:
                refused = await asyncio.to_thread(forwarding.copy_birds, anew=anew)
                there = await asyncio.to_thread(forwarding.copies)
                why = "; ".join(f"{route}: {said}" for route, said in list(refused.items())[:_NAMED])
            except (NetlinkError, OSError) as error:
                there, why = {}, str(error)
        if why:
            _log.warning(
                "BIRD's routes can't be copied: %s; packets to other nodes may be lost until its new ones are there", why
            )
        return bool(why or there)

    def give_up(self) -> None:
        """Remove all: something else leads by now."""
        self._steadiness.end()

    async def run(self) -> None:
        """Remove what isn't needed any more, until cancelled."""
        while True:
            await self._there.wait()
            self._there.clear()
            try:
                is_over = await self._settle()
            except (NetlinkError, OSError) as error:
                _log.debug("BIRD's routes can't be read: %s", error)
                is_over = False
            if not is_over:
                self._there.set()
            await asyncio.sleep(LOOK)

    async def _settle(self) -> bool:
        """Look once; whether there were no copies."""
        is_settled = await self.is_settled()
        async with self._lock:
            copies = await asyncio.to_thread(forwarding.copies)
            routes = await asyncio.to_thread(forwarding.of_bird) if copies and is_settled else {}
            over = self._steadiness.over(time.monotonic(), copies, routes)
            if over:
                await asyncio.to_thread(forwarding.remove_copies, [copies[one] for one in over])
        return not copies


async def _yes() -> bool:
    return True
