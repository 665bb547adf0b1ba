"""What was denied where a policy asks for that to be said: kept for those who ask, and a line of the agent's log.

Belongs here: whose a denied packet was, and what is kept. Does not: which ones are said, and how many (`tortie.agent.rules`).
"""

import asyncio
import logging
import secrets
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from tortie.agent.nflog import Packet, PacketLog
from tortie.api.compiled import Direction

_log = logging.getLogger(__name__)

KEPT = 1000  # denials; with the rates of the rules those of ten seconds, or of days
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
    """

    def __init__(self, log: PacketLog | None, deciders: Deciders, pod_at: Callable[[str], str | None]) -> None:
        self._log, self._deciders, self._pod_at = log, deciders, pod_at
        self._epoch = secrets.token_hex(4)  # another one for each agent: its numbers begin anew
        self._kept: deque[tuple[int, Denial]] = deque(maxlen=KEPT)
        self._last = 0
        self._news = asyncio.Event()

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

    async def after(self, epoch: str, number: int, seconds: float) -> dict[str, Any]:
        """Return what is kept behind a number, waiting so long for any: the newest one's number, and how many are missing.

        Raises NotLogged.
        """
        if self._log is None:
            raise NotLogged("this node can't log what is denied: its agent's log says why")
        if epoch != self._epoch:
            number = 0
        if self._last <= number:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), seconds)
        found = [(one, denial) for one, denial in self._kept if one > number][:_ANSWER]
        last = found[-1][0] if len(found) == _ANSWER else self._last
        return {
            "epoch": self._epoch, "number": last, "missed": last - number - len(found) if number else 0,
            "denials": [denial for _, denial in found],
        }  # fmt: skip

    async def _take(self, packets: Iterable[Packet | None]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        for packet in packets:
            self._last += 1  # also for one that was lost: a number without a denial
            if packet is not None:
                denial = await self._denial(packet, now)
                self._kept.append((self._last, denial))
                _log.info("%s", told(denial))
        self._news.set()
        self._news = asyncio.Event()

    async def _denial(self, packet: Packet, now: str) -> Denial:
        direction, policies = await self._deciders(packet.said)
        source, target = _text(packet.source), _text(packet.target)
        return {
            "time": now, "direction": direction, "policies": list(policies),
            "from": source, "fromPod": self._pod_at(source), "to": target, "toPod": self._pod_at(target),
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


def _text(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
