"""The CNI service: what the plugin carries here is decided, recorded, wired and answered.

Order of an ADD: wait for what holds, record, wait until others know, guard, wire, answer; of a DEL: unwire, unguard,
unrecord, answer. Crash points: an ADD that is recorded and not answered is answered the same when it is repeated, and
undone by the DEL that the runtime sends otherwise; a DEL that is not answered is repeated by the runtime.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from tortie.addressing.allocator import Address
from tortie.addressing.wants import Landscape, NoPool, PodFacts, Refused, wanted
from tortie.agent import cni
from tortie.agent.cni import CniError, Request
from tortie.agent.faults import point
from tortie.agent.gate import Closed
from tortie.agent.journal import NotDurable
from tortie.agent.ledger import Entry, Exhausted, InUse, Ledger, Link, NotReclaimed
from tortie.agent.metrics import REQUESTS
from tortie.agent.tunnels import is_tunnel
from tortie.agent.wire import WireError, host_name

_log = logging.getLogger(__name__)

# Seconds that an ADD waits for an address; the kubelet tries again 10 s after a failure, and gives a sandbox 4 minutes.
WAIT = 60.0
# Seconds left for wire and answer.
RESERVE = 2.0
# Netlink is the kernel's, one at a time; more threads only fight for Python's lock.
WORKERS = 3


class Wire(Protocol):
    """The wires of pods; `tortie.agent.wire` in the kernel. Called in threads."""

    def attach(self, netns: str, ifname: str, host: str, addresses: Sequence[Address]) -> tuple[str, str]:
        """Make the link, or what is missing of it; return the MAC of the host's end and of the pod's."""

    def detach(self, host: str) -> None:
        """Remove the link; one that isn't there is fine."""

    def check(self, netns: str, ifname: str, host: str, addresses: Sequence[Address]) -> None:
        """Raise WireError where anything isn't as `attach` made it."""

    def inventory(self) -> dict[str, list[Address]]:
        """Return the host's ends that are there, with the addresses that lead there; raises WireError."""


class Guard(Protocol):
    """What keeps a pod in its bounds; `tortie.agent.gate`. Its methods raise Closed, but for `drop`."""

    async def admit(self, link: Link, seconds: float) -> None:
        """Return when it is known what holds for a pod."""

    async def put(self, link: Link, addresses: Iterable[Address]) -> None:
        """Let that hold for its link, which isn't there yet."""

    async def confirm(self, link: Link, addresses: Iterable[Address], seconds: float) -> None:
        """Return when others know its addresses, where they are denied to talk to it."""

    async def drop(self, host: str) -> None:
        """Forget a link that is gone."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the agent's other parts know, and want to know.

    Attributes:
        landscape: Returns pools and own blocks.
        facts: Returns what is known of a request's pod.
        ask: Is told of pools that a pod chose, of which the node may have no block.
        forget: Is told of container and interface of an ADD: a DEL of before is over.
        wait: Is told of a pod that waits for an address of these pools, for so many seconds.
        served: Is told of a pod that got what it wanted.
    """

    landscape: Callable[[], Landscape]
    facts: Callable[[Request], Awaitable[PodFacts]]
    ask: Callable[[Iterable[str]], None]
    forget: Callable[[str, str], None]
    wait: Callable[[str, Iterable[str], float], None]
    served: Callable[[str], None]


class Service:
    """Answers requests."""

    def __init__(self, ledger: Ledger, wire: Wire, guard: Guard, around: Surroundings, unwired: Iterable[str] = ()) -> None:
        self._ledger, self._wire, self._guard, self._around = ledger, wire, guard, around
        self._unwired = set(unwired)  # links that are gone and whose addresses couldn't be freed yet
        self._threads = ThreadPoolExecutor(WORKERS, "wire")
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._news = asyncio.Event()

    def news(self) -> None:
        """Let those who wait for an address look again: a pool or a block came, or an address."""
        self._news.set()
        self._news = asyncio.Event()

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    async def answer(self, data: bytes) -> dict[str, Any]:
        """Return the answer to one request; never raises for what a request or the machine can be."""
        command, code, began = "unknown", "defect", time.monotonic()
        try:
            request = cni.read(data)
            command = request.command
            outcome = await self._do(request)
            code = "ok"
            if request.command in ("ADD", "DEL"):
                milliseconds = round((time.monotonic() - began) * 1000, 1)
                told = {"pod": request.pod, "address": outcome[1], "ms": milliseconds, "container": request.container[:12]}
                _log.info("%s %s: %s, %g ms", request.command, request.pod, outcome[1], milliseconds, extra=told)
            return {"result": outcome[0]}
        except CniError as error:
            code = str(error.code)
            _log.warning("%s", error)
            return error.to_wire()
        except Exception:
            _log.exception("a request could not be answered; this is a defect of the agent, please report it")
            return CniError(cni.TRY_LATER, "the agent has met a defect; its log on this node tells more").to_wire()
        finally:
            REQUESTS.labels(command, code).observe(time.monotonic() - began)

    async def _do(self, request: Request) -> tuple[dict[str, Any] | None, str]:
        match request.command:
            case "ADD":
                return await self._add(request)
            case "DEL":
                return None, await self.delete(host_name(request.container, request.ifname))
            case "CHECK":
                return None, await self._check(request)
            case "GC":
                return None, await self._collect(request)
            case "STATUS":
                return None, await self._status()

    async def _add(self, request: Request) -> tuple[dict[str, Any], str]:
        host = host_name(request.container, request.ifname)
        named = (request.args.get(f"K8S_POD_{key}", "") for key in ("NAMESPACE", "NAME", "UID"))
        link = Link(host, request.container, request.ifname, request.netns, *named)
        deadline = time.monotonic() + max(0.0, min(WAIT, request.timeout - RESERVE))
        with _closed(request):  # nobody is kept from deleting what waits
            await self._guard.admit(link, deadline - time.monotonic())
        async with self._alone(host):
            point("add received")
            try:
                self._around.forget(request.container, request.ifname)
            except OSError as error:
                raise CniError(cni.TRY_LATER, f"{request.pod}: its DEL of before can't be removed: {error}") from error
            self._unwired.discard(host)
            entries = self._ledger.find(host) or await self._allocate(link, request, deadline)
            point("add recorded")
            addresses = [entry.address for entry in entries]
            with _closed(request):
                await self._guard.confirm(link, addresses, deadline - time.monotonic())
                await self._guard.put(link, addresses)
            point("add guarded")
            try:
                macs = await self._in_thread(self._wire.attach, request.netns, request.ifname, host, addresses)
            except WireError as error:
                await self._undo(host)
                raise CniError(cni.WIRE, f"{request.pod}: {error}") from error
        point("add answered")
        text = ", ".join(str(one) for one in addresses)
        return cni.result(request.netns, request.ifname, host, macs, addresses), text

    async def _allocate(self, link: Link, request: Request, deadline: float) -> tuple[Entry, ...]:
        facts = await self._around.facts(request)
        while True:
            news, landscape = self._news, self._around.landscape()
            try:
                wishes = wanted(facts, landscape)
                self._around.ask(pool for wish in wishes if wish.chosen for pool in wish.pools)
                entries = await self._ledger.allocate(link, wishes)
            except Refused as error:
                left = deadline - time.monotonic()
                if landscape.complete or left <= 0:
                    raise CniError(cni.REFUSED, f"{request.pod}: {error}") from error
                await _wait(news, left)
            except NotDurable as error:
                raise CniError(cni.TRY_LATER, f"{request.pod}: {error}") from error
            except (NoPool, Exhausted) as error:
                left = deadline - time.monotonic()
                if left <= 0:
                    why = "; ".join(filter(None, (str(error), self._ledger.why_not_ready, "the runtime tries again")))
                    raise CniError(cni.TRY_LATER, f"{request.pod}: {why}") from error
                rests = self._ledger.seconds_to_rest()
                if isinstance(error, Exhausted):
                    self._around.wait(request.pod, (pool for wish in wishes for pool in wish.pools), left)
                await _wait(news, left if rests is None else min(left, rests + 0.01))
            else:
                self._around.served(request.pod)
                return entries

    async def _undo(self, host: str) -> None:
        """Take back an ADD whose wire failed; what can't be taken back now goes with the runtime's DEL."""
        try:
            await self._in_thread(self._wire.detach, host)
            await self._guard.drop(host)
            await self._ledger.release(host)
        except (WireError, NotDurable) as error:
            _log.warning("%s: %s; it is tried again when the runtime deletes the pod", host, error)

    async def delete(self, host: str, meant: Callable[[], bool] = lambda: True) -> str:
        """Unwire a link and free what it has; the unknown is fine. Raises CniError.

        `meant` is asked when no other request does something to the link: it may have been added again.
        """
        async with self._alone(host):
            if not meant():
                return "nothing: it was added again"
            point("del received")
            try:
                await self._in_thread(self._wire.detach, host)
                await self._guard.drop(host)
                point("del unwired")
                freed = await self._ledger.release(host)
                point("del released")
            except WireError as error:
                raise CniError(cni.TRY_LATER, f"{host}: {error}") from error
            except NotDurable:
                self._unwired.add(host)
                return "its link is gone; its addresses stay in use until that can be recorded"
        return ", ".join(str(entry.address) for entry in freed) or "nothing was known of it"

    async def free_unwired(self) -> None:
        """Free what links had that are gone already, now that the ledger can be written; raises NotDurable.

        Pods that end are what makes room on a full disk, so a DEL doesn't wait for it. Crash point: an agent that dies in
        between has a record without a link, which its next start frees, because the pod's namespace is gone by then.
        """
        for host in list(self._unwired):
            async with self._alone(host):
                if host in self._unwired:
                    await self._guard.drop(host)
                    freed = await self._ledger.release(host)
                    self._unwired.discard(host)
                    _log.info("%s: %s freed", host, ", ".join(str(entry.address) for entry in freed) or "nothing")

    async def reclaim(self, one: Address, epoch: str, sequence: int) -> tuple[Entry, ...]:
        """Free what the link of an allocation has, and return it; raises NotReclaimed.

        Only if the ledger still holds that very allocation and no interface uses the address: who judged it leaked may
        have seen an older state.
        """
        found = next(
            (e for entries in self._ledger.links() for e in entries if (e.address, e.sequence) == (one, sequence)), None
        )
        if epoch != self._ledger.epoch or found is None:
            raise NotReclaimed(f"{one}: allocation {sequence} of ledger {epoch or '-'} isn't there any more; look again")
        host = found.link.host
        async with self._alone(host):
            if found not in self._ledger.find(host):
                raise NotReclaimed(f"{one}: it was released meanwhile")
            try:
                links = await self._in_thread(self._wire.inventory)
            except WireError as error:
                raise NotReclaimed(f"{one}: {error}") from error
            if users := [name for name, held in links.items() if name == host or one in held]:
                raise InUse(f"{one}: the interface {users[0]} uses it; it is freed when that is deleted")
            await self._guard.drop(host)
            try:
                return await self._ledger.release(host)
            except NotDurable as error:
                raise NotReclaimed(f"{one}: {error}") from error

    async def why_not_ready(self) -> str:
        """Return why no pod can start here, "" where it can."""
        with suppress(NotDurable):  # the ledger says so itself
            await self._ledger.probe()
        return self._ledger.why_not_ready

    async def _check(self, request: Request) -> str:
        host = host_name(request.container, request.ifname)
        async with self._alone(host):
            addresses = [entry.address for entry in self._ledger.find(host)]
            if not addresses:
                raise CniError(
                    cni.UNKNOWN_CONTAINER, f"{request.pod}: no address is on record for {request.ifname} of this container"
                )
            try:
                await self._in_thread(self._wire.check, request.netns, request.ifname, host, addresses)
            except WireError as error:
                raise CniError(cni.CHECK_FAILED, f"{request.pod}: {error}") from error
        return "is as it was made"

    async def _collect(self, request: Request) -> str:
        if "cni.dev/valid-attachments" not in request.config:
            raise CniError(
                cni.INVALID_CONFIG, "GC: the configuration has no cni.dev/valid-attachments, so nothing is collected"
            )
        alive = {host_name(container, ifname) for container, ifname in request.attachments}
        hosts = (entries[0].link.host for entries in self._ledger.links())
        gone = [host for host in hosts if host not in alive and not is_tunnel(host)]
        for host in gone:
            _log.info("GC: %s: the runtime has it no more: %s freed", host, await self.delete(host))
        return f"{len(gone)} freed"

    async def _status(self) -> str:
        if why := await self.why_not_ready():
            raise CniError(cni.NOT_AVAILABLE, f"no pod can start here: {why}")
        return "ready"

    @asynccontextmanager
    async def _alone(self, host: str) -> AsyncIterator[None]:
        """Let one request at a time do something to a link."""
        lock, users = self._locks.get(host, (asyncio.Lock(), 0))
        self._locks[host] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[host]
            self._locks[host] = lock, users - 1
            if users == 1:
                del self._locks[host]

    async def _in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)


@contextmanager
def _closed(request: Request) -> Iterator[None]:
    """Answer that the pod can't start now; the runtime tries again."""
    try:
        yield
    except Closed as error:
        raise CniError(cni.TRY_LATER, f"{request.pod}: {error}") from error


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
