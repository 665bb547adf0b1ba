"""No pod runs before what holds for it does: an ADD waits here, and its link's rules are there before the link.

Belongs here: when a pod may start, and the firewall's one thread. Does not: what the firewall does.

Crash points: an ADD that waits has allocated nothing; rules without a link are nobody's, and a DEL or the next start
removes them; a link is never without them.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pyroute2.netlink.exceptions import NetlinkError

from tortie.addressing.allocator import Address
from tortie.addressing.ranges import Range
from tortie.agent.desired import Pod
from tortie.agent.firewall import Firewall, NotEnforced
from tortie.agent.ledger import Link
from tortie.agent.policies import NOTHING
from tortie.agent.rules import Counted
from tortie.agent.settings import Policy
from tortie.agent.table import TABLE
from tortie.agent.wire import pod_mac
from tortie.api.compiled import Direction
from tortie.policy.view import Changes

_log = logging.getLogger(__name__)

T = TypeVar("T")
# Seconds until what was connected with a pod that is gone is ended: long before its address, which rests, is another's.
# Until connections that couldn't be cut are tried again, too.
SWEEP = 5.0
# Seconds between two looks at policies' counters.
COUNT = 5.0


class Closed(Exception):
    """A pod can't start now; the message says what is missing, and what to look at."""


class Tally:
    """What counters have counted, also those that began anew with a table that was made anew."""

    def __init__(self) -> None:
        self._last: Mapping[Counted, tuple[int, int]] = {}
        self.total: dict[Counted, tuple[int, int]] = {}

    def take(self, read: Mapping[Counted, tuple[int, int]]) -> None:
        """Take what counters say now; one that is no more is forgotten."""
        total = dict[Counted, tuple[int, int]]()
        for one, (packets, octets) in read.items():
            before, counted = self._last.get(one, (0, 0)), self.total.get(one, (0, 0))
            if packets < before[0] or octets < before[1]:
                before = 0, 0
            total[one] = counted[0] + packets - before[0], counted[1] + octets - before[1]
        self._last, self.total = read, total


class Gate:
    """Lets pods in, and takes what holds into the firewall.

    Args:
        firewall: Used from a thread of the gate's own.
        policy: Whether a pod waits until it is known what holds for it (Closed), or starts without (Open).
        exempt: Namespaces whose pods never wait.
    """

    def __init__(self, firewall: Firewall, policy: Policy = "Closed", exempt: Collection[str] = ()) -> None:
        self._firewall, self._policy, self._exempt = firewall, policy, frozenset(exempt)
        # Whether what holds for a pod is enforced, should it come.
        self.knows: Callable[[str], bool] = lambda _uid: False
        # Addresses of a pod that every set holds which they belong to; None: nobody waits for that.
        self.confirmed: Callable[[str], Collection[str] | None] = lambda _uid: None
        self.is_told = False  # whether anything was ever enforced
        self.waiting = 0  # pods, for what holds for them
        self.refused = self.drifts = self.cut = 0
        self._is_mending = self._cannot_cut = self._is_closed = False
        self._sweep: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "firewall")
        self._tally = Tally()

    def close(self) -> None:
        """End the thread."""
        self._is_closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        self._thread.shutdown()

    def news(self) -> None:
        """Let those who wait look again."""
        self._news.set()
        self._news = asyncio.Event()

    async def begin(self, links: Iterable[tuple[Link, Iterable[Address]]]) -> None:
        """Tell the firewall of the links that are there; a table that is there stays until `enforce`. Raises NotEnforced."""
        await self._do(self._firewall.begin, [self._pod(link, addresses) for link, addresses in links])

    async def enforce(self, changes: Changes) -> Mapping[str, str]:
        """Let changes hold, and return what is wrong, by RuleSet, or by "" where nothing could be done."""
        try:
            wrong = await self._do(self._firewall.enforce, changes)
        except NotEnforced as error:
            _log.error("policies can't be enforced: %s; what held before holds, tried again soon", error)
            self.refused = self.rule_sets
            return {NOTHING: str(error)}
        self.is_told, self.refused = True, len(wrong)
        return wrong

    async def settled(self) -> None:
        """Let those who wait look again, and end what has begun and is forbidden now."""
        self.news()
        await self._cut()

    async def _cut(self) -> None:
        try:
            cut = await self._do(self._firewall.cut)
        except (OSError, NetlinkError) as error:
            if not self._cannot_cut:
                _log.error("connections that are forbidden now can't be cut: %s; tried again every %g s", error, SWEEP)
            self._cannot_cut = True
            self._cut_soon()
            return
        self._cannot_cut = False
        if self._firewall.has_to_cut:  # there is no table now
            self._cut_soon()
        self.cut += len(cut)
        if cut:
            _log.info("%d connections cut: a policy forbids them now, or their pod is gone", len(cut))

    async def mend(self) -> bool:
        """Replace the table, which somebody else changed; whether that could be done."""
        if not self._is_mending:
            _log.warning(
                "nftables table inet %s was changed, and not by this agent: it is replaced by what policies say", TABLE
            )
            self.drifts += 1
        self._is_mending = True
        try:
            await self._do(self._firewall.mend)
        except NotEnforced as error:
            _log.error("policies can't be enforced: %s; tried again soon", error)
            return False
        self._is_mending = False
        await self._cut()
        return True

    @property
    def counts(self) -> bool:
        """Whether policies' packets are counted."""
        return self._firewall.counts

    @property
    def rule_sets(self) -> int:
        """How many RuleSets the pods here have."""
        return self._firewall.rule_sets

    async def admit(self, link: Link, seconds: float) -> None:
        """Return when it is known what holds for a pod; raises Closed after so many seconds."""
        if self._is_open(link):
            return
        if not link.uid:
            raise Closed(
                "the runtime names no K8S_POD_UID, so no policy can be found for the pod: use containerd 1.5, CRI-O 1.21 or"
                " newer, or set policyGate: Open"
            )

        if not await self._wait(lambda: self.knows(link.uid), seconds):
            what = "this node's NodePolicy doesn't name the pod" if self.is_told else "this node's NodePolicy was never read"
            raise Closed(
                f"{what} (uid {link.uid}), so what holds for it isn't known: do the operator and the API server run?"
                " kubectl describe nodepolicy tells; the runtime tries again"
            )

    async def masquerade(self, pools: Mapping[Range, bool]) -> None:
        """Let what leaves the pools be masqueraded where they ask for it; what can't be done now is with the next table."""
        try:
            await self._do(self._firewall.masquerade, pools)
        except NotEnforced as error:
            _log.error("natOutgoing of pools can't be done: %s; tried again with the table's next replacement", error)

    async def put(self, link: Link, addresses: Iterable[Address]) -> None:
        """Let what holds for a pod hold for its link, before that is there; raises Closed."""
        try:
            await self._do(self._firewall.put, self._pod(link, addresses))
        except NotEnforced as error:
            raise Closed(f"its rules can't be made: {error}") from error

    async def rename(self, link: Link, addresses: Iterable[Address]) -> None:
        """Take whose a link is that is there already: what holds for that pod holds from now on."""
        try:
            await self.put(link, addresses)
        except Closed as error:
            _log.error("%s: %s", link.host, error)

    async def confirm(self, link: Link, addresses: Iterable[Address], seconds: float) -> None:
        """Return when every set holds a pod's addresses where a Deny is about them; raises Closed after so many seconds."""
        wanted = {str(one) for one in addresses}

        def is_confirmed() -> bool:
            found = self.confirmed(link.uid)
            return found is None or wanted.issubset(found)

        if not self._is_open(link) and not await self._wait(is_confirmed, seconds):
            raise Closed(
                "a policy denies others to talk to it, and the operator hasn't said yet that the pod's addresses are known"
                " everywhere: does the operator run? The runtime tries again"
            )

    async def drop(self, host: str) -> None:
        """Forget a link that is gone; what can't be forgotten now is with the table's next replacement."""
        try:
            await self._do(self._firewall.drop, host)
        except NotEnforced as error:
            _log.error("%s: its rules can't be removed: %s", host, error)
        self._cut_soon()

    async def denied_by(self, chain: str) -> tuple[Direction | None, tuple[str, ...]]:
        """Return which way, and by which policies, a chain denies."""
        return await self._do(self._firewall.denied_by, chain)

    async def count(self) -> None:
        """Read the policies' counters from time to time, for ever."""
        while True:
            try:
                self._tally.take(await self._do(self._firewall.counters))
            except OSError as error:
                _log.warning("policies' counters can't be read: %s; tried again in %g s", error, COUNT)
            await asyncio.sleep(COUNT)

    @property
    def counted(self) -> Mapping[Counted, tuple[int, int]]:
        """Packets and bytes for which policies decided."""
        return self._tally.total

    def covers(self, known: Collection[str]) -> bool:
        """Whether nothing that runs is closed if only these pods are known."""
        return self._firewall.covers(known)

    def _cut_soon(self) -> None:
        if self._sweep is None and not self._is_closed:
            self._sweep = asyncio.get_running_loop().call_later(SWEEP, self._start_sweep)

    def _start_sweep(self) -> None:
        self._sweep = None
        self._sweeping = asyncio.create_task(self._cut())

    def _pod(self, link: Link, addresses: Iterable[Address]) -> Pod:
        return Pod(link.host, link.uid, pod_mac(link.host), tuple(addresses), is_open=self._is_open(link))

    def _is_open(self, link: Link) -> bool:
        """Whether a link passes although nothing is known of it.

        A container that is no pod has no policies; neither has a link of a lost ledger, until it is known whose it is.
        """
        return self._policy == "Open" or not link.pod or link.namespace in self._exempt

    async def _wait(self, holds: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        self.waiting += 1
        try:
            while not holds():
                news, left = self._news, deadline - time.monotonic()
                if left <= 0:
                    return False
                try:
                    async with asyncio.timeout(left):
                        await news.wait()
                except TimeoutError:
                    continue
            return True
        finally:
            self.waiting -= 1

    async def _do(self, call: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)
