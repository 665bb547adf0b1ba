"""`tortie probe`: the two ends of `tortiectl connectivity test`, run in pods that it starts."""

import asyncio
import json
import os
import time
from pathlib import Path

import click

# Seconds until a try that gets no answer is given up: a lost SYN is repeated after 1 and 3 s.
_PATIENCE = 5.0
# A path that isn't open is tried once more, so many seconds later: a Service may be new to a node.
_PAUSE = 1.0
GREETING = b"tortie\n"


@click.group("probe")
def command() -> None:
    """Serve and reach TCP ports, to see which paths are open."""


@command.command()
@click.option("--port", type=int, default=8080, show_default=True, help="TCP port, on all addresses of both families.")
@click.option("--ready-file", type=click.Path(path_type=Path), help="File that is made as soon as the port is served.")
def serve(port: int, ready_file: Path | None) -> None:
    """Greet everybody who connects, for ever."""

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        writer.close()

    async def run() -> None:
        try:
            server = await asyncio.start_server(greet, None, port)
        except OSError as error:
            raise click.ClickException(f"TCP port {port} can't be served: {error.strerror}") from error
        if ready_file is not None:
            await asyncio.to_thread(ready_file.touch)
        await server.serve_forever()

    asyncio.run(run())


@command.command()
@click.argument("targets", nargs=-1, metavar="ADDRESS|PORT...")
def reach(targets: tuple[str, ...]) -> None:
    """Try each of ADDRESS|PORT, one that is closed twice; print a JSON object: milliseconds, or why not."""

    async def run() -> list[float | str]:
        return list(await asyncio.gather(*map(_reach_soon, targets)))

    click.echo(json.dumps(dict(zip(targets, asyncio.run(run()), strict=True))))


async def _reach_soon(target: str) -> float | str:
    first = await _reach(target)
    if not isinstance(first, str):
        return first
    await asyncio.sleep(_PAUSE)
    return await _reach(target)


async def _reach(target: str) -> float | str:
    host, _, port = target.rpartition("|")
    began = time.monotonic()
    try:
        async with asyncio.timeout(_PATIENCE):
            _, writer = await asyncio.open_connection(host, int(port))
    except TimeoutError:
        return f"no answer within {_PATIENCE:g} s"
    except OSError as error:  # asyncio's own text is about its call, and not about the network
        return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    except ValueError as error:
        return str(error)
    writer.close()
    return round((time.monotonic() - began) * 1000, 1)
