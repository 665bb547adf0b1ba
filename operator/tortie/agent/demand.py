"""The pools that pods of this node ask for by name, by annotation or through their namespace: the operator is told.

A node gets blocks of other pools unasked. A pool is asked for as long as pods have addresses of it, and a while longer, so
that nobody is told of a pod's coming and going.
"""

import time
from collections.abc import Callable, Iterable

from tortie.addressing.wants import UsablePool
from tortie.agent.ledger import Ledger
from tortie.api.block import NODE_POOLS_MAX

# Seconds for which a pool that nobody uses is still asked for.
KEEP = 900.0
# Seconds after a failed ADD in which its pod counts as waiting: the kubelet tries again after 10 to 15.
AGAIN = 30.0


class Demand:
    """What was asked for, and when. `changed` is told of a pool that wasn't asked for; `now` is a steady clock."""

    def __init__(self, ledger: Ledger, changed: Callable[[], None], now: Callable[[], float] = time.monotonic) -> None:
        self._ledger, self._changed, self._now = ledger, changed, now
        self._asked: dict[str, float] = {}
        self._waiting: dict[str, tuple[frozenset[str], float]] = {}  # by pod: pools, until when

    def ask(self, pools: Iterable[str]) -> None:
        """Note that a pod wants addresses of these pools."""
        before = len(self._asked)
        self._asked.update(dict.fromkeys(pools, self._now()))
        if len(self._asked) != before:
            self._changed()

    def wait(self, pod: str, pools: Iterable[str], seconds: float) -> None:
        """Note that a pod waits so long for an address of one of these pools, and will again after that."""
        before = self.short()
        self._waiting[pod] = frozenset(pools), self._now() + seconds + AGAIN
        if self.short() != before:
            self._changed()

    def served(self, pod: str) -> None:
        """Note that a pod has what it waited for, if it did."""
        before = self.short()
        if self._waiting.pop(pod, None) and self.short() != before:
            self._changed()

    def short(self) -> tuple[str, ...]:
        """Return the pools for whose addresses pods wait now, by name."""
        self._waiting = {pod: wait for pod, wait in self._waiting.items() if wait[1] > self._now()}
        return tuple(sorted({pool for pools, _ in self._waiting.values() for pool in pools}))[:NODE_POOLS_MAX]

    def pools(self, known: Iterable[UsablePool]) -> tuple[str, ...]:
        """Return the pools that the node asks for now, by name; the first ones where there are too many."""
        used = {block.pool for block in self._ledger.allocator.blocks if self._ledger.allocator.used_in(block.range)}
        wanted = used & ({pool.name for pool in known if pool.on_demand} | self._asked.keys())
        self._asked = {p: self._now() if p in wanted else t for p, t in self._asked.items()}
        self._asked = {p: t for p, t in self._asked.items() if self._now() - t < KEEP}
        return tuple(sorted(wanted | self._asked.keys()))[:NODE_POOLS_MAX]
