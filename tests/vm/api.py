"""As much of an API server as agents need: objects are listed, watched and patched. The real one starts too slowly.

It stands in where its answers don't matter and the kernel is what is tested: nothing is checked, and nobody is refused.
"""

import asyncio
import itertools
import json
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.cluster.network import Place
from tests.vm.forks import Fork

Object = dict[str, Any]
KINDS = {kind: f"/apis/tortie.dev/v1alpha1/{kind}" for kind in ("ippools", "ipamblocks", "nodenetworks")}
KINDS["nodes"] = "/api/v1/nodes"
_PORT = 8080


class Api:
    """The process, and what a test asks of it, which is in the same namespace."""

    def __init__(self, folder: Path, place: Place) -> None:
        self.server = f"http://{place.address4}:{_PORT}"
        self.kubeconfig = folder / "kubeconfig"
        parts: Object = {"clusters": {"cluster": {"server": self.server}}, "users": {"user": {}}}
        parts["contexts"] = {"context": {"cluster": "it", "user": "it"}}
        named = {kind: [{"name": "it", **one}] for kind, one in parts.items()}
        self.kubeconfig.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "it", **named}))
        self._fork = Fork(place.path, folder / "api.log", serve)

    def close(self) -> None:
        """End it."""
        self._fork.close()

    def answers(self) -> bool:
        """Whether it does by now."""
        try:
            return self._ask("GET", KINDS["nodes"]) is not None
        except OSError:
            return False

    def put(self, kind: str, name: str, **parts: Any) -> None:
        """Make an object, or merge parts into it."""
        self._ask("PATCH", f"{KINDS[kind]}/{name}", parts)

    def get(self, kind: str, name: str) -> Object:
        """Return it as it is now."""
        found: Object = self._ask("GET", f"{KINDS[kind]}/{name}")
        return found

    def _ask(self, method: str, path: str, body: Object | None = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.server + path, data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


class Store:
    """All objects, by path, and what became of them."""

    def __init__(self) -> None:
        self._objects: dict[str, Object] = {}
        self._said: list[tuple[str, Object]] = []  # path and event; the version is the place, from one
        self._news = asyncio.Condition()

    async def read(self, request: web.Request) -> web.StreamResponse:
        path, query = request.path, request.query
        if path in self._objects:
            return web.json_response(self._objects[path])
        field, _, name = query.get("fieldSelector", "").partition("=")

        def shown(where: str) -> bool:
            return where.startswith(f"{path}/") and (field != "metadata.name" or where == f"{path}/{name}")

        if "watch" not in query:
            items = [one for where, one in self._objects.items() if shown(where)]
            return web.json_response({"metadata": {"resourceVersion": str(len(self._said))}, "items": items})
        response = web.StreamResponse()
        await response.prepare(request)
        async for where, event in self._since(int(query["resourceVersion"])):
            if shown(where):
                await response.write(json.dumps(event).encode() + b"\n")
        return response

    async def write(self, request: web.Request) -> web.Response:
        body = await request.json()
        if request.method != "PATCH":
            return web.json_response(body)  # an Event
        path = request.path.removesuffix("/status")
        old = self._objects.get(path, {"metadata": {"name": path.rpartition("/")[2], "uid": f"of {path}"}})
        made = _merged(old, body)
        made["metadata"] = {**made["metadata"], "resourceVersion": str(len(self._said) + 1)}
        async with self._news:
            self._said.append((path, {"type": "MODIFIED" if path in self._objects else "ADDED", "object": made}))
            self._objects[path] = made
            self._news.notify_all()
        return web.json_response(made)

    async def _since(self, version: int) -> AsyncIterator[tuple[str, Object]]:
        for number in itertools.count(version):
            async with self._news:
                while number >= len(self._said):
                    await self._news.wait()
            yield self._said[number]


def _merged(old: Any, new: Any) -> Any:
    """Return what a merge patch makes of something (RFC 7386)."""
    if not isinstance(new, dict):
        return new
    made = dict(old) if isinstance(old, dict) else {}
    for key, value in new.items():
        made[key] = _merged(made.get(key), value)
    return {key: value for key, value in made.items() if value is not None}


def serve() -> None:
    """Serve until killed."""
    store, app = Store(), web.Application()
    app.router.add_get("/{path:.*}", store.read)
    app.router.add_route("*", "/{path:.*}", store.write)
    web.run_app(app, port=_PORT, print=None, access_log=None)
