"""What a process says of itself: /healthz and /readyz on 127.0.0.1, /metrics there and where it is told to."""

import asyncio
import ipaddress
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from aiohttp import web

_log = logging.getLogger(__name__)

LOCAL = "127.0.0.1"
# Seconds until an address that couldn't be had is tried again.
AGAIN = 10.0

Handler = Callable[[web.Request], Awaitable[web.Response]]


class NotServed(OSError):
    """The port of the probes can't be had."""


@asynccontextmanager
async def serve(
    port: int, metrics: Callable[[], bytes], address: str = "", why_not_ready: Callable[[], str] = lambda: ""
) -> AsyncIterator[None]:
    """Answer on a port of 127.0.0.1, zero: not at all; and with /metrics alone on `address`, as HOST:PORT, "": nowhere.

    `metrics` returns the Prometheus text format; `why_not_ready` why the process can't do its work, "" where it can.

    Raises NotServed where the port can't be had: nobody could tell whether the process lives. An `address` that can't be had is
    tried again, since metrics are no reason to stop the rest; one that is none raises ValueError.
    """
    elsewhere = endpoint(address)

    async def alive(_request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def ready(_request: web.Request) -> web.Response:
        why = why_not_ready()
        return web.Response(text=f"not ready: {why}", status=503) if why else web.Response(text="ok")

    async def measured(_request: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async with AsyncExitStack() as opened:
        if port:
            runner = await opened.enter_async_context(_runner({"/healthz": alive, "/readyz": ready, "/metrics": measured}))
            try:
                await _listen(runner, LOCAL, port)
            except OSError as error:
                why = f"{LOCAL}:{port} can't be listened on: {error.strerror}"
                raise NotServed(f"{why}; end what has it, or choose another --health-port") from error
        if elsewhere:
            runner = await opened.enter_async_context(_runner({"/metrics": measured}))
            await opened.enter_async_context(_in_background(_offer(runner, *elsewhere)))
        yield


def endpoint(address: str) -> tuple[str, int] | None:
    """Return host and port of HOST:PORT, None for ""; raises ValueError with a sentence.

    HOST is an IP address. One in brackets is taken of either family: who puts it there may not know which it will be.
    """
    if not address:
        return None
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:  # where the address ends and the port begins is a guess
        host = ""
    number = int(port) if port.isascii() and port.isdigit() else 0
    if _is_address(host) and 1 <= number <= 65535:
        return host, number
    wanted = "must be an IP address and a port, as 192.0.2.1:9095 or [2001:db8::1]:9095"
    raise ValueError(f"{address!r} {wanted}; empty: metrics are served on {LOCAL} alone")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@asynccontextmanager
async def _runner(pages: Mapping[str, Handler]) -> AsyncIterator[web.AppRunner]:
    application = web.Application()
    for path, handler in pages.items():
        application.router.add_get(path, handler)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
    except OSError:
        await site.stop()
        raise


async def _offer(runner: web.AppRunner, host: str, port: int) -> None:
    """Listen as soon as that can be; say once that it can't, and that it can again."""
    failed = False
    while True:
        try:
            await _listen(runner, host, port)
        except OSError as error:
            if not failed:
                _log.error("metrics can't be served on %s port %d: %s; trying again every %g s", host, port, error, AGAIN)
            failed = True
            await asyncio.sleep(AGAIN)
        else:
            if failed:
                _log.warning("metrics are served on %s port %d now", host, port)
            return


@asynccontextmanager
async def _in_background(work: Awaitable[None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
