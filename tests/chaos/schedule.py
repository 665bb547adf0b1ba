"""What is done to a cluster and when: a pure function of the seed."""

import random
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

Action = Literal["kill", "start", "pause", "resume", "cut", "heal", "scale", "delete", "force-delete", "job"]
CHURN: frozenset[Action] = frozenset({"scale", "delete", "force-delete", "job"})

DEPLOYMENTS, STATEFUL_SETS = ("web-0", "web-1", "web-2"), ("store-0", "store-1")
MEMBERS = 4  # of a StatefulSet
_REPLICAS, _JOB = 8, 4  # pods, at most

# Mean seconds between two of a kind; what comes without memory also comes in bursts.
_FAULT_EVERY, _CHURN_EVERY = 4.0, 2.0
_SHORTEST = 1.0  # seconds


class Step(NamedTuple):
    """One thing to do. `number` is how many pods, or which one of those that are there, counted round."""

    at: float  # seconds since the beginning
    action: Action
    target: str
    number: int = 0

    def __str__(self) -> str:
        many = f" {self.number}" if self.action in CHURN else ""
        return f"{self.at:6.1f} s  {self.action} {self.target}{many}"


class _Fault(NamedTuple):
    """How a target of a kind is hurt, and for how many seconds at most. `end` is "" where it ends by itself."""

    kind: str
    begin: Action
    end: Action | Literal[""]
    longest: float = 0.0


# They come as cards of a deck that is mixed anew when it is used up, so a short run has all of them. A kubelet is away for
# less than the cooldown: a pod's status must be right again before its address may be another's.
_DECK = (
    _Fault("agent", "kill", ""), _Fault("agent", "kill", ""), _Fault("agent", "pause", "resume", 20),
    _Fault("operator", "kill", ""), _Fault("operator", "pause", "resume", 20),
    _Fault("kubelet", "kill", "start", 12), _Fault("kubelet", "pause", "resume", 12),
    _Fault("kube-apiserver", "kill", "start", 8), _Fault("kube-apiserver", "pause", "resume", 8),
    _Fault("etcd", "kill", "start", 8), _Fault("etcd", "pause", "resume", 8),
    _Fault("link", "cut", "heal", 20), _Fault("link", "cut", "heal", 20),
)  # fmt: skip


def schedule(seed: int, seconds: float, nodes: Sequence[str]) -> list[Step]:
    """Return everything that is done, by its time. What is hurt is mended before the end."""
    chance = random.Random(seed)
    return sorted([*_faults(chance, seconds, nodes), *_churn(chance, seconds)])


def _faults(chance: random.Random, seconds: float, nodes: Sequence[str]) -> Iterator[Step]:
    busy: dict[str, float] = {}  # until when a target is being hurt
    deck: list[_Fault] = []
    for at in _moments(chance, seconds, _FAULT_EVERY):
        deck = deck or chance.sample(_DECK, len(_DECK))
        fault = deck.pop()
        target = chance.choice(_targets(fault.kind, nodes))
        over = at
        if fault.end:
            over = min(seconds, round(at + chance.uniform(_SHORTEST, fault.longest), 1))
        if at > busy.get(target, -1.0):
            busy[target] = over
            yield Step(at, fault.begin, target)
            if fault.end:
                yield Step(over, fault.end, target)


def _targets(kind: str, nodes: Sequence[str]) -> list[str]:
    instances = {"operator": ("0", "1"), "etcd": ("",), "kube-apiserver": ("",)}.get(kind, tuple(nodes))
    return [f"{kind}/{one}" if one else kind for one in instances]


def _churn(chance: random.Random, seconds: float) -> Iterator[Step]:
    for number, at in enumerate(_moments(chance, seconds, _CHURN_EVERY)):
        action: Action = chance.choice(("scale", "scale", "delete", "force-delete", "job"))
        if action == "scale":
            yield Step(at, action, chance.choice(DEPLOYMENTS), chance.randint(0, _REPLICAS))
        elif action == "job":
            yield Step(at, action, f"job-{number}", chance.randint(1, _JOB))
        else:
            among = DEPLOYMENTS if action == "delete" else STATEFUL_SETS
            yield Step(at, action, chance.choice(among), chance.randrange(MEMBERS))


def _moments(chance: random.Random, seconds: float, every: float) -> Iterator[float]:
    at = 0.0
    while (at := round(at + chance.expovariate(1 / every), 1)) < seconds:
        yield at
