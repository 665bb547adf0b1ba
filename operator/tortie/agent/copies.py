"""Copies of BIRD's routes, which lead while BIRD starts anew, or while its sessions change: no packet waits for it.

Belongs here: when copies are made, and when they go. Does not: writing them (`tortie.agent.forwarding`), nor what BIRD is told.

A BIRD that recovers (`-R`) keeps the routes of the one before until its peers have told theirs, and no longer: for peers that
start anew as well it doesn't wait (RFC 4724, section 4.1), and where it does it may remove a route before it adds it again.

The kernel alone remembers the copies. Crash points: an agent that ends leaves them; the next one finds them, and they go by the
same rule. One that ends before it has made all is as one that made none of the others. BIRD that ends again is copied again:
what has a copy keeps that one.
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

# Seconds for which BIRD's routes are unchanged until they are trusted; after which copies go in any case; between two looks.
STEADY, PATIENCE, LOOK = 5.0, 60.0, 0.5


class Steadiness:
    """Which copies aren't needed any more. Pure: times are seconds of a steady clock."""

    def __init__(self, now: float) -> None:
        self._routes: Mapping[Range, Route] = {}
        self._since, self._until = now, now + PATIENCE

    def begin(self, now: float) -> None:
        """Take that BIRD's routes are about to change."""
        self._since, self._until = now, now + PATIENCE

    def end(self) -> None:
        """Take that copies aren't needed at all."""
        self._until = 0.0

    def over(self, now: float, copies: Iterable[Range], routes: Mapping[Range, Route], *, is_settled: bool) -> list[Range]:
        """Return the copies that go: their way is BIRD's by now; `is_settled`: whether it has done all that it was asked."""
        if routes != self._routes or not is_settled:
            self._routes, self._since = dict(routes), now
        if now >= self._until:
            return list(copies)
        steady = now - self._since >= STEADY
        return [one for one in copies if steady and (one in routes or leading(one, routes))]


class Copies:
    """The copies in the kernel. `is_settled` is asked whether BIRD has done all that it was asked, and recovered."""

    def __init__(self) -> None:
        self.is_settled: Callable[[], Awaitable[bool]]
        self._steadiness = Steadiness(time.monotonic())
        self._there = asyncio.Event()
        self._there.set()  # an agent before may have left some

    async def make(self) -> bool:
        """Copy BIRD's routes, which are about to change; whether there are any."""
        self._steadiness.begin(time.monotonic())
        self._there.set()
        try:
            return await asyncio.to_thread(forwarding.copy_birds)
        except (NetlinkError, OSError) as error:
            _log.warning(
                "BIRD's routes can't be copied: %s; packets to other nodes may be lost until its new ones are there", error
            )
            return True  # the safe guess: what BIRD finds there stays for a moment

    def give_up(self) -> None:
        """Remove all: something else leads by now."""
        self._steadiness.end()

    async def run(self) -> None:
        """Remove what isn't needed any more, until cancelled."""
        while True:
            await self._there.wait()
            self._there.clear()
            try:
                left = await self._settle()
            except (NetlinkError, OSError) as error:
                _log.debug("BIRD's routes can't be read: %s", error)
                left = True
            if left:
                self._there.set()
            await asyncio.sleep(LOOK)

    async def _settle(self) -> bool:
        """Look once; whether copies are left."""
        is_settled = await self.is_settled()
        if not is_settled:  # what BIRD has by now would be lost as well
            await asyncio.to_thread(forwarding.copy_birds)
        copies, routes = await asyncio.to_thread(forwarding.copies), await asyncio.to_thread(forwarding.of_bird)
        over = self._steadiness.over(time.monotonic(), copies, routes, is_settled=is_settled)
        if over:
            await asyncio.to_thread(forwarding.remove_copies, [copies[one] for one in over])
        return len(over) < len(copies)
