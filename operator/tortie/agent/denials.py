"""What was denied where a policy asks for that to be said: kept for those who ask, and a line of the agent's log.

Belongs here: whose a denied packet was, and what is kept. Does not: which ones are said, and how many (`tortie.agent.rules`).
"""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from tortie.addressing.allocator import Address
from tortie.agent.matches import address_of
from tortie.agent.nflog import Packet, PacketLog
from tortie.api.compiled import Direction

_log = logging.getLogger(__name__)

KEPT = 1000  # denials; those of ten seconds, or of days
MOST = 100  # a second, of all policies: one takes a third of a millisecond, and a line of the log
_PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
_ANSWER = 500  # at most, of one question

Denial = dict[str, Any]
# By the chain that denied: which way the packet went, and the policies.
Deciders = Callable[[str], Awaitable[tuple[Direction | None, tuple[str, ...]]]]


class NotLogged(Exception):
    """The kernel can't log."""


class Denials:
    """Takes denied packets from the kernel.

    Args:
        log: Where they come from; None: the kernel can't log.
        deciders: Who denied.
        pod_at: The pod of this node that has an address, as namespace/name.
        now: A steady clock, in seconds.
    """

    def __init__(
        self,
        log: PacketLog | None,
        deciders: Deciders,
        pod_at: Callable[[Address], str | None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._deciders, self._pod_at, self._now = log, deciders, pod_at, now
        self._epoch = secrets.token_hex(4)  # another one for each agent: its numbers begin anew
        self._kept: deque[tuple[int, Denial]] = deque(maxlen=KEPT)
        self._last = 0
        self._second, self._in_second = 0, 0

    async def run(self) -> None:
        """Take them for ever."""
        if self._log is None:
            return
        loop, heard = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._log, heard.set)
        try:
            while True:
                await heard.wait()
                heard.clear()
                await self._take(list(self._log.read()))
        finally:
            loop.remove_reader(self._log)

    def after(self, epoch: str, number: int) -> dict[str, Any]:
        """Return what is kept behind a number of an epoch: the last one's number, how many are missing, whether there are more.

        Of another epoch all that is kept is behind it. Raises NotLogged.
        """
        if self._log is None:
            raise NotLogged("this node can't log what is denied: its agent's log says why")
        if epoch != self._epoch:
            number = 0
        found = [(one, denial) for one, denial in self._kept if one > number][:_ANSWER]
        last = found[-1][0] if len(found) == _ANSWER else self._last
        return {
            "epoch": self._epoch, "number": last, "more": last < self._last,
            "missed": last - number - len(found) if number else 0,
            "denials": [denial for _, denial in found],
        }  # fmt: skip

    async def _take(self, packets: Iterable[Packet | None]) -> None:
        deciders = dict[str, tuple[Direction | None, tuple[str, ...]]]()
        for packet in packets:
            if packet is None or self._is_too_much():
                self._last += 1  # a number without a denial
                continue
            if packet.said not in deciders:
                deciders[packet.said] = await self._deciders(packet.said)
            denial = self._denial(packet, *deciders[packet.said])
            self._last += 1
            self._kept.append((self._last, denial))
            _log.info("%s", told(denial))

    def _is_too_much(self) -> bool:
        second = int(self._now())
        self._in_second = self._in_second + 1 if second == self._second else 1
        self._second = second
        return self._in_second > MOST

    def _denial(self, packet: Packet, direction: Direction | None, policies: Sequence[str]) -> Denial:
        source, target = address_of(packet.source), address_of(packet.target)
        return {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "direction": direction, "policies": list(policies),
            "from": str(source), "fromPod": self._pod_at(source), "to": str(target), "toPod": self._pod_at(target),
            "protocol": _PROTOCOLS.get(packet.protocol, str(packet.protocol)), "port": packet.port,
        }  # fmt: skip


def told(denial: Denial) -> str:
    """Return a denial as a sentence."""
    source, target = (
        f"{denial[pod]} ({denial[end]})" if denial[pod] else denial[end] for end, pod in (("from", "fromPod"), ("to", "toPod"))
    )
    port = f"{denial['port']}/{denial['protocol']}" if denial["port"] is not None else denial["protocol"]
    policies = ", ".join(denial["policies"]) or "a policy that is no more"
    way = f" ({denial['direction']})" if denial["direction"] else ""
    return f"denied: {source} to {target}, {port}, by {policies}{way}"
