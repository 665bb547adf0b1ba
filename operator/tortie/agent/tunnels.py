"""Addresses for the node's tunnels, of its own blocks, on record in its ledger as a pod's are.

A tunnel keeps its address over restarts and boots, because other nodes' routes lead to it. It takes another one where its
pool may give none any more, and gives its own up when nothing needs it, so that a pool that is to go can.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple

from pyroute2.netlink.exceptions import NetlinkError

from tortie.addressing.allocator import Address
from tortie.addressing.ranges import Family
from tortie.addressing.wants import Wanted
from tortie.agent.journal import NotDurable
from tortie.agent.ledger import Exhausted, Ledger, Link
from tortie.agent.matches import FAMILIES
from tortie.agent.wire import IPIP, VXLAN

_log = logging.getLogger(__name__)


class Source(NamedTuple):
    """A pool that a tunnel may have its address from; `gives`: also a new one."""

    name: str
    family: Family
    gives: bool


def link_of(device: str, family: Family) -> str:
    """Return the name under which the ledger has a tunnel's address; it is no link of a pod."""
    return f"{device}/{family}"


def is_tunnel(host: str) -> bool:
    """Whether the ledger's link is a tunnel's."""
    return host.partition("/")[0] in (VXLAN, IPIP)


class Tunnels:
    """Gives tunnels addresses; what can't be had is a problem, named by `problems`.

    Crash points: an address is on record before the device has it, and the device loses it before it is freed (`strip`): at no
    time may a pod get what a device has.
    """

    def __init__(
        self, ledger: Ledger, strip: Callable[[str, Address], Awaitable[None]], blocks_are_known: Callable[[], bool]
    ) -> None:
        self._ledger, self._strip, self._blocks_are_known = ledger, strip, blocks_are_known
        self.problems: dict[str, str] = {}

    async def addresses(self, device: str, sources: Iterable[Source]) -> Mapping[Family, Address]:
        """Return a tunnel's address of each family of these pools; without a pool of a family what it had is freed."""
        sources = list(sources)
        found = dict[Family, Address]()
        for family in FAMILIES:
            try:
                one = await self._address(link_of(device, family), family, [one for one in sources if one.family == family])
            except (Exhausted, NotDurable, NetlinkError, OSError) as error:
                self._fail(f"IPv{family} address of {device}", str(error))
                continue
            self.problems.pop(f"IPv{family} address of {device}", None)
            if one is not None:
                found[family] = one
        return found

    async def _address(self, host: str, family: Family, sources: list[Source]) -> Address | None:
        held = next((entry.address for entry in self._ledger.find(host)), None)
        wanted = Wanted(family, frozenset(one.name for one in sources if one.gives))
        if held is not None:
            if self._stays(held, sources, wanted):
                return held
            await self._strip(host.partition("/")[0], held)
            await self._ledger.release(host)
        if not wanted.pools:
            return None
        (entry,) = await self._ledger.allocate(Link(host), [wanted])
        _log.info("%s has %s", host, entry.address)
        return entry.address

    def _stays(self, held: Address, sources: list[Source], wanted: Wanted) -> bool:
        """Whether an address is kept: its pool still gives, or nothing better can be had."""
        block = self._ledger.allocator.block_of(held)
        if block is None:
            return not self._blocks_are_known()
        cede = block.cede
        if cede is not None and held.within(cede) and self._ledger.allocator.used_in(cede) == 1:
            return False  # it is the last one in what is asked back
        known = any(one.name == block.pool for one in sources)
        return known and (block.pool in wanted.pools or not self._ledger.can_give(wanted))

    def _fail(self, what: str, why: str) -> None:
        if self.problems.get(what) != why:
            _log.error("%s: %s; pods here can't be reached by it until there is one", what, why)
        self.problems[what] = why
