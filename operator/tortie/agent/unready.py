"""What is answered while the ledger can't be had: its disk is full, read-only or broken.

A DEL removes the link, which needs no record: pods that end are what makes room on a full disk. The runtime and the kubelet
are told why nothing else goes. Crash point: an agent that dies after such a DEL leaves a record without a link, which the
next start frees, because the pod's namespace is gone by then.
"""

import asyncio
from typing import Any

from tortie.agent import cni
from tortie.agent.cni import CniError
from tortie.agent.inquiries import question
from tortie.agent.wire import Wire, WireError, host_name

# The only figure that is known: the others are those of parts that aren't there.
METRICS = b"tortie_agent_ledger_writable 0\n"


class Unready:
    """Answers requests. `why` is a sentence; `unwired` are the links that were removed."""

    def __init__(self, wire: Wire, why: str) -> None:
        self._wire, self.why, self.unwired = wire, why, set[str]()

    async def answer(self, data: bytes) -> dict[str, Any]:
        """Return the answer to one request."""
        refused = CniError(cni.TRY_LATER, f"no pod can start here: {self.why}")
        if question(data):
            return refused.to_wire()
        try:
            request = cni.read(data)
            if request.command == "DEL":
                await self._unwire(host_name(request.container, request.ifname))
                return {"result": None}
        except CniError as error:
            return error.to_wire()
        if request.command == "STATUS":
            refused.code = cni.NOT_AVAILABLE
        return refused.to_wire()

    async def _unwire(self, host: str) -> None:
        try:
            await asyncio.to_thread(self._wire.detach, host)
        except WireError as error:
            raise CniError(cni.TRY_LATER, f"{host}: {error}") from error
        self.unwired.add(host)
