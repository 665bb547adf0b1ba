"""What a process says of itself on 127.0.0.1: /healthz and /readyz while its loop turns, /metrics where it counts."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def serve(port: int, metrics: Callable[[], bytes] = bytes) -> AsyncIterator[None]:
    """Answer on a port; zero: not at all. `metrics` returns the Prometheus text format."""
    if not port:
        yield
        return

    async def alive(_request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def measured(_request: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    application = web.Application()
    application.router.add_get("/healthz", alive)
    application.router.add_get("/readyz", alive)
    application.router.add_get("/metrics", measured)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield
    finally:
        await runner.cleanup()
