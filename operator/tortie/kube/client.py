"""Requests to one API server.

Belongs here: the HTTP session, its limits in time and number, and how an answer becomes bytes, an object or an error.
Does not: what is asked for, or trying again. Paths come from `Resource.path`; the errors' tree is drawn in `errors`.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar, overload

import aiohttp
import msgspec

from tortie import __version__
from tortie.kube.credentials import Credentials
from tortie.kube.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    Status,
    TooManyRequests,
    Unauthorized,
    Undecodable,
    Unreachable,
    error_from,
    error_from_answer,
)

T = TypeVar("T")
Params = Mapping[str, str]

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"  # RFC 7386; custom resources know no strategic merge


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How long and how much at once.

    Attributes:
        connect: Seconds until a connection stands, TLS included. Default 5. Zero: no limit but the system's.
        request: Seconds for a whole request, and until a watch is accepted. Default 30. Zero: no limit.
        connections: Connections at once. Default 96: 32 writes, as many reads, and the watches. Zero: no limit.
    """

    connect: float = 5.0
    request: float = 30.0
    connections: int = 96


class Client:
    """One session with one API server; made by `Client.connect`. Safe to share between tasks of one event loop."""

    def __init__(self, session: aiohttp.ClientSession, credentials: Credentials, settings: ClientSettings) -> None:
        self.credentials = credentials
        self._session = session
        self._settings = settings
        self._limits = aiohttp.ClientTimeout(total=settings.request or None, sock_connect=settings.connect or None)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, kubeconfig: str | None = None, context: str | None = None, *, settings: ClientSettings | None = None
    ) -> AsyncIterator[Self]:
        """Open a session; nothing is sent before the first request. Raises NoCredentials.

        Without a kubeconfig: $KUBECONFIG, then the pod's service account, then ~/.kube/config.
        """
        settings = settings or ClientSettings()
        credentials = await Credentials.load(kubeconfig, context)
        connector = aiohttp.TCPConnector(limit=settings.connections, ssl=credentials.endpoint.tls or True)
        # Not compressed: gzip costs the server more time than the network here gains from it.
        headers = {"User-Agent": f"tortie/{__version__}", "Accept": JSON, "Accept-Encoding": "identity"}
        async with aiohttp.ClientSession(connector=connector, headers=headers, raise_for_status=_refusal) as session:
            yield cls(session, credentials, settings)
        await asyncio.sleep(0)  # connections that were cut end in the loop's next turn

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self.credentials.endpoint.server

    @property
    def configuration(self) -> Any:
        """The kubernetes.aio Configuration behind the credentials, for libraries with a client of their own (Kopf)."""
        return self.credentials.configuration

    @overload
    async def get(self, path: str, **query: str) -> bytes: ...
    @overload
    async def get(self, path: str, *, into: type[T], **query: str) -> T: ...
    async def get(self, path: str, *, into: Any = None, **query: str) -> Any:
        """Return the object at `path`: its bytes, or decoded `into` a type."""
        return _decoded(await self.request("GET", path, params=query), into, f"GET {path}")

    async def list_page(self, path: str, *, limit: int = 500, continue_: str = "", **query: str) -> bytes:
        """Return one page of a list, consistent: as the store has it now, or as it had it at the first page.

        `limit` counts objects; zero: all on one page.
        """
        paging = {"limit": str(limit) if limit else "", "continue": continue_}
        return await self.request("GET", path, params={**query, **{k: v for k, v in paging.items() if v}})

    @overload
    async def create(self, path: str, body: Any) -> bytes: ...
    @overload
    async def create(self, path: str, body: Any, *, into: type[T]) -> T: ...
    async def create(self, path: str, body: Any, *, into: Any = None) -> Any:
        """Create an object in the collection at `path` from anything that msgspec encodes; return what was stored."""
        return _decoded(await self.request("POST", path, body), into, f"POST {path}")

    @overload
    async def replace(self, path: str, body: Any) -> bytes: ...
    @overload
    async def replace(self, path: str, body: Any, *, into: type[T]) -> T: ...
    async def replace(self, path: str, body: Any, *, into: Any = None) -> Any:
        """Replace the object or subresource at `path`; the body's `metadata.resourceVersion` is the precondition."""
        return _decoded(await self.request("PUT", path, body), into, f"PUT {path}")

    @overload
    async def patch(self, path: str, body: Any) -> bytes: ...
    @overload
    async def patch(self, path: str, body: Any, *, into: type[T]) -> T: ...
    async def patch(self, path: str, body: Any, *, into: Any = None) -> Any:
        """Merge `body` into what is at `path` (RFC 7386); a `metadata.resourceVersion` in it is the precondition."""
        return _decoded(await self.request("PATCH", path, body, content=MERGE_PATCH), into, f"PATCH {path}")

    async def delete(self, path: str, *, uid: str = "", version: str = "") -> None:
        """Delete the object at `path`, if it has this UID and this resource version. Empty: whatever it has."""
        conditions = {name: value for name, value in (("uid", uid), ("resourceVersion", version)) if value}
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        await self.request("DELETE", path, {**body, "preconditions": conditions} if conditions else body)

    async def request(
        self, method: str, path: str, body: Any = None, *, params: Params | None = None, content: str = JSON
    ) -> bytes:
        """Send any request and return the answer's body; bytes are sent as they are. Raises ApiError."""
        data = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        async with self._open(method, path, self._limits, data=data, params=params, content=content) as response:
            try:
                return await response.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise self._unreachable(error, f"{method} {path}") from error

    @asynccontextmanager
    async def watch(self, path: str, *, idle: float, **query: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch and give its bytes as they come.

        It ends when the server ends it, or after `idle` seconds of silence (zero: never): nothing tells a quiet kind from
        a server that hangs but asking again.
        What is raised inside the `with` passes through as it is.
        """
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._settings.connect or None, sock_read=idle or None)
        async with (
            self._open("GET", path, limits, params={**query, "watch": "true"}) as response,
            aclosing(self._chunks(response, f"WATCH {path}")) as chunks,
        ):
            yield chunks

    @asynccontextmanager
    async def websocket(
        self, path: str, query: Sequence[tuple[str, str]], protocols: Sequence[str], *, idle: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a websocket and give its binary messages; it ends when the server ends it. Raises ApiError.

        `idle` seconds of silence are an error; zero: none are.
        """
        try:
            async with await self._upgrade(path, query, protocols, idle) as socket:
                yield (message.data async for message in socket if message.type is aiohttp.WSMsgType.BINARY)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error, path) from error

    async def _upgrade(
        self, path: str, query: Sequence[tuple[str, str]], protocols: Sequence[str], idle: float
    ) -> aiohttp.ClientWebSocketResponse:
        endpoint = self.credentials.endpoint
        authorization = await self.credentials.authorization()
        headers = {"Authorization": authorization} if authorization else {}
        limits = aiohttp.ClientWSTimeout(ws_receive=idle or None, ws_close=1.0)
        try:
            async with asyncio.timeout(self._settings.request or None):
                return await self._session.ws_connect(
                    endpoint.server + path, params=query, protocols=protocols, headers=headers, timeout=limits,
                    max_msg_size=0, proxy=endpoint.proxy, server_hostname=endpoint.server_name,
                )  # fmt: skip
        except Unauthorized:
            self.credentials.refused()
            raise
        except aiohttp.WSServerHandshakeError as error:  # an upgrade that is none: an answer below 400
            raise error_from(Status(message=error.message, code=error.status), f"GET {path}") from error

    @asynccontextmanager
    async def _open(
        self, method: str, path: str, limits: aiohttp.ClientTimeout, *, params: Any, data: Any = None, content: str = ""
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        endpoint, where = self.credentials.endpoint, f"{method} {path}"
        headers = {"Content-Type": content} if data is not None else {}
        if authorization := await self.credentials.authorization():
            headers["Authorization"] = authorization
        try:
            async with asyncio.timeout(self._settings.request or None):
                response = await self._session.request(
                    method, endpoint.server + path, data=data, params=params, headers=headers, timeout=limits,
                    proxy=endpoint.proxy, server_hostname=endpoint.server_name, allow_redirects=False, raise_for_status=False,
                )  # fmt: skip
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error, where) from error
        try:
            if response.status >= 300:
                await self._refuse(response, where)
            yield response
        finally:
            _end(response)

    async def _refuse(self, response: aiohttp.ClientResponse, where: str) -> None:
        try:
            async with asyncio.timeout(self._settings.request or None):
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            body = b""  # the status alone says enough
        if response.status == 401:
            self.credentials.refused()
        raise error_from_answer(response.status, body, where, response.headers.get("Retry-After"))

    async def _chunks(self, response: aiohttp.ClientResponse, where: str) -> AsyncGenerator[bytes, None]:
        while True:
            try:
                chunk = await response.content.readany()
            except aiohttp.SocketTimeoutError:
                return
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise self._unreachable(error, where) from error
            if not chunk:
                return
            yield chunk

    def _unreachable(self, error: Exception, where: str) -> Unreachable:
        said = str(error) or type(error).__name__
        return Unreachable(f"the API server gave no answer ({said})", f"{where} on {self.server}")


async def _refusal(response: aiohttp.ClientResponse) -> None:
    """Raise what the API server says instead of upgrading: aiohttp asks this before it gives the body up."""
    if response.status >= 400:
        where = f"{response.method} {response.url.path}"
        raise error_from_answer(response.status, await response.read(), where, response.headers.get("Retry-After"))


def _end(response: aiohttp.ClientResponse) -> None:
    """Give the connection back; one with an unread rest is cut at once: TLS would wait 30 s for a server that's gone."""
    if response.connection and response.connection.transport:
        response.connection.transport.abort()
    response.close()


def _decoded(answer: bytes, into: Any, where: str) -> Any:
    if into is None:
        return answer
    try:
        return msgspec.json.decode(answer, type=into)
    except msgspec.DecodeError as error:
        raise Undecodable(str(error), where) from error


connect = Client.connect

__all__ = [
    "AlreadyExists",
    "ApiError",
    "Client",
    "ClientSettings",
    "Conflict",
    "Forbidden",
    "Gone",
    "Invalid",
    "NotFound",
    "TooManyRequests",
    "Undecodable",
    "Unreachable",
    "connect",
]
