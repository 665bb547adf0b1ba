"""Carries TCP connections from one network namespace into another: no link, no route, so nothing else gets through.

`python -m tests.cluster.relay LISTEN_NS LISTEN_PORT CONNECT_NS CONNECT_PORT`; a namespace is a path, or `-` for the
process's own. Everything is on 127.0.0.1, unless a port is written as ADDRESS:PORT.
"""

import asyncio
import os
import socket
import sys
from contextlib import suppress

from pyroute2 import netns

from tests.cluster.terminal import run


def enter(namespace: str) -> None:
    """Let this process be in a namespace; sockets that it has stay where they are."""
    if namespace != "-":
        netns.setns(namespace)


def place(text: str) -> tuple[str, int]:
    """Return address and port."""
    host, _, port = text.rpartition(":")
    return host or "127.0.0.1", int(port)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry one direction until its end."""
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


def main() -> None:
    """Serve until killed."""
    listen_ns, listen_at, connect_ns, connect_at = sys.argv[1:]
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    enter(listen_ns)
    server = socket.create_server(place(listen_at), backlog=512, reuse_port=True)
    netns.setns(home)
    enter(connect_ns)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(*place(connect_at))
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, back), pump(there, writer))
        for one in (writer, back):
            one.close()

    async def serve() -> None:
        async with await asyncio.start_server(carry, sock=server) as served:
            await served.serve_forever()

    asyncio.run(serve())


if __name__ == "__main__":
    run(main)
