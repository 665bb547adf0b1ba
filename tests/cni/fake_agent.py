"""An agent that is a real server on a unix socket, and says what a test tells it to."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

Request = dict[str, Any]
Manner = Callable[["FakeAgent", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

RESULT: dict[str, Any] = {
    "interfaces": [
        {"name": "cali0123456789a", "mac": "ee:ee:ee:ee:ee:ee"},
        {"name": "eth0", "mac": "0a:00:00:00:00:01", "sandbox": "/run/netns/a"},
    ],
    "ips": [
        {"address": "10.1.0.7/32", "gateway": "169.254.1.1", "interface": 1},
        {"address": "fd00:10:1::7/128", "gateway": "fe80::ecee:eeff:feee:eeee", "interface": 1},
    ],
    "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}, {"dst": "::/0", "gw": "fe80::ecee:eeff:feee:eeee"}],
}


def says(answer: object) -> Manner:
    """Return the manner of an agent that hears the whole request and answers; text as it is, else as JSON."""

    async def manner(agent: "FakeAgent", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await agent.hear(reader)
        writer.write((answer if isinstance(answer, str) else json.dumps(answer)).encode())

    return manner


async def serves(agent: "FakeAgent", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve as the real one does: a result that names the request's container for ADD, null for the others."""
    request = await agent.hear(reader)
    interface = {"name": request["ifname"], "sandbox": request["containerID"]}
    result = {**RESULT, "interfaces": [RESULT["interfaces"][0], interface]} if request["command"] == "ADD" else None
    writer.write(json.dumps({"result": result}).encode())


async def hangs_up(agent: "FakeAgent", reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Die between request and answer."""
    await agent.hear(reader)


async def hangs_up_at_once(_: "FakeAgent", __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Die in the middle of the request."""
    writer.transport.abort()


class FakeAgent:
    """A server that treats each connection as the next of `manners` says, the last one for ever.

    `requests` are those that were heard whole; `connections` counts all; `on_request` is called before each is answered.
    """

    def __init__(self, socket: Path, *manners: Manner) -> None:
        self.socket = socket
        self.requests: list[Request] = []
        self.connections = 0
        self.on_request: Callable[[], None] = lambda: None
        self.was_connected = asyncio.Event()
        self._manners = list(manners)
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self.socket, limit=1 << 23)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()
        self.socket.unlink(missing_ok=True)

    async def hear(self, reader: asyncio.StreamReader) -> Request:
        """Return the next request, once the other side has said that it is whole."""
        request: Request = json.loads(await reader.read())
        self.requests.append(request)
        self.on_request()
        return request

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        manner = self._manners.pop(0) if len(self._manners) > 1 else self._manners[0]
        await manner(self, reader, writer)
        self.was_connected.set()
        writer.close()
        await writer.wait_closed()
