"""Which allocations are leaked, kept current: each change costs what it changes, not what exists. Pure, time passed in.

An allocation whose pod can't use it (`why_leaked`) is a candidate. After the grace period its pod is to be read once more,
live; what is still so then is condemned: the block's agent is asked to free it. A doubt counts as in use: a pod without a name,
a block that isn't known, an answer that didn't come.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from tortie.addressing.leaks import Claim, PodState, why_leaked
from tortie.addressing.state import Block, Held, Release

Key = tuple[str, Held]  # the block's name, the allocation


class Suspect(NamedTuple):
    """A candidate whose grace period is over."""

    block: str
    held: Held
    node: str
    epoch: str

    @property
    def pod(self) -> tuple[str, str]:
        """Namespace and name of the pod that is to be read."""
        return self.held.namespace, self.held.pod

    def condemned(self, live: PodState | None) -> Release | None:
        """Return the release to ask for, after a live reading of the pod (None: there is none); None where it is in use."""
        why = why_leaked(claim(self.node, self.held), live)
        return Release(self.held.address, self.held.sequence, self.epoch, why) if why else None


def claim(node: str, held: Held) -> Claim:
    """Return whom an allocation of a node's block says that it is for."""
    return Claim(node, held.namespace, held.pod, held.uid)


class Collector:
    """The candidates. `find(namespace/name)` returns a pod as it is known, None: there is none.

    Pods are not kept here: who keeps them says which changed.
    """

    def __init__(self, find: Callable[[str], PodState | None], grace: float) -> None:
        self._find, self._grace = find, grace
        self._blocks: dict[str, Block] = {}
        self._claims: dict[str, tuple[Key, ...]] = {}  # by pod
        self.since: dict[Key, float] = {}  # since when each candidate is one

    def put_block(self, block: Block, now: float) -> None:
        """Take in a block as it is published now."""
        old = self._blocks.get(block.name)
        comparable = old is not None and (old.node, old.published[0]) == (block.node, block.published[0])
        before, after = set(old.held if old else ()), set(block.held)
        if old is not None:
            self._forget(old, before - after if comparable else before)
        self._blocks[block.name] = block
        for held in after - before if comparable else after:
            key = (block.name, held)
            if held.pod:
                name = f"{held.namespace}/{held.pod}"
                self._claims[name] = (*self._claims.get(name, ()), key)
            self._judge(key, now)

    def drop_block(self, name: str) -> None:
        """Forget a block that is gone, and its candidates."""
        block = self._blocks.pop(name, None)
        if block is not None:
            self._forget(block, block.held)

    def pod_changed(self, name: str, now: float) -> None:
        """Judge again what a pod, `namespace/name`, is said to have."""
        for key in self._claims.get(name, ()):
            self._judge(key, now)

    def due(self, now: float) -> list[Suspect]:
        """Return the candidates whose grace period is over; each comes again after another one."""
        found = []
        for key, since in self.since.items():
            if now - since >= self._grace:
                self.since[key] = now
                block = self._blocks[key[0]]
                found.append(Suspect(key[0], key[1], block.node, block.published[0]))
        return found

    def next_due(self) -> float | None:
        """Return when the next one is due, None where there is none."""
        return min(self.since.values()) + self._grace if self.since else None

    def _judge(self, key: Key, now: float) -> None:
        name, held = key
        pod = self._find(f"{held.namespace}/{held.pod}") if held.pod else None
        if why_leaked(claim(self._blocks[name].node, held), pod):
            self.since.setdefault(key, now)
        else:
            self.since.pop(key, None)

    def _forget(self, block: Block, gone: Iterable[Held]) -> None:
        for held in gone:
            key = (block.name, held)
            self.since.pop(key, None)
            name = f"{held.namespace}/{held.pod}"
            left = tuple(one for one in self._claims.get(name, ()) if one != key)
            if left:
                self._claims[name] = left
            else:
                self._claims.pop(name, None)
