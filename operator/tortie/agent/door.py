"""The unix socket at which the CNI plugin knocks: one request, half-closed, one answer.

Belongs here: sockets and bytes. Does not: what a request means.
"""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)

REQUEST_MAX = 4 * 1024 * 1024  # bytes; the plugin refuses more
READ_SECONDS = 10.0  # for the whole request: the plugin sends it at once
# What the kernel and the disk do takes milliseconds; an agent that is told to end has 10 s in all.
END_SECONDS = 2.0

Answer = Callable[[bytes], Awaitable[dict[str, Any]]]


@asynccontextmanager
async def listen(path: Path, answer: Answer) -> AsyncIterator[None]:
    """Serve at `path`, for root only. A socket left by an earlier agent is replaced; what is under way ends first."""
    under_way: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        try:
            await _serve(reader, writer, answer)
        finally:
            under_way.discard(task)

    server = await asyncio.start_unix_server(serve, sock=_bound(path))
    try:
        yield
    finally:
        server.close()
        if under_way:
            await asyncio.wait(under_way, timeout=END_SECONDS)
        for task in under_way:  # an ADD that waits for an address: the plugin asks the next agent
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


def _bound(path: Path) -> socket.socket:
    """Return a socket for root only, put in place at once: the plugin never finds one that it can't use."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    beside.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.bind(str(beside))
    beside.chmod(0o600)
    bound.listen(1024)
    beside.replace(path)
    return bound


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer) -> None:
    try:
        async with asyncio.timeout(READ_SECONDS):
            data = await _read(reader)
        if data:  # else somebody only looked whether we are here
            writer.write(json.dumps(await answer(data)).encode())
            await writer.drain()
    except (TimeoutError, ConnectionError) as error:
        _log.warning("the CNI plugin went away in the middle (%s); the runtime will ask again", error or "no whole request")
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Return all until the other side's half-close; a longer one is cut, and refused as no request."""
    parts, size = [], 0
    while size <= REQUEST_MAX and (part := await reader.read(65536)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)
