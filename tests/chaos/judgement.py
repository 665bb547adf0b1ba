"""What is wrong with a cluster, judged by what was read of it (`tests.chaos.reading`). Pure, and nothing of the product's.

`always` finds what must not be at any moment; `audit` finds what must not be in quiet.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Literal, NamedTuple

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Kind = Literal["duplicate", "overlap", "outside", "leak", "dead", "stuck"]


class Pod(NamedTuple):
    """A pod as the API has it."""

    name: str  # namespace/name
    uid: str
    node: str
    phase: str = "Running"
    addresses: tuple[Address, ...] = ()
    terminating: bool = False
    host_network: bool = False

    @property
    def lives(self) -> bool:
        """Whether the addresses that it reports are its own; of one that is being deleted nobody knows."""
        return self.phase not in ("Succeeded", "Failed") and not (self.terminating or self.host_network)


class Allocation(NamedTuple):
    """An address that a block publishes as in use."""

    address: Address
    pod: str = ""  # namespace/name; both may be left out
    uid: str = ""


class Block(NamedTuple):
    """A block as the API has it."""

    name: str
    range: Network
    node: str
    active: bool = True
    without: tuple[Network, ...] = ()
    allocations: tuple[Allocation, ...] = ()

    @property
    def parts(self) -> tuple[Network, ...]:
        """What is this block's alone."""
        parts: list[Network] = [self.range]
        for hole in self.without:
            parts = [rest for part in parts for rest in _minus(part, hole)]
        return tuple(parts)


class Sandbox(NamedTuple):
    """A pod's network namespace. `link` is the index, on the node, of its eth0's other end; 0: it has no eth0."""

    id: str
    pod: str
    uid: str
    link: int = 0
    addresses: frozenset[Address] = frozenset()


class Route(NamedTuple):
    """A route to one address, through a pod's link."""

    to: Address
    link: str


@dataclass(frozen=True)
class Kernel:
    """What one node's kernel has. `links` are the pods', ours by name or by group, by index."""

    sandboxes: tuple[Sandbox, ...] = ()
    links: Mapping[int, str] = field(default_factory=dict)
    routes: frozenset[Route] = frozenset()


@dataclass(frozen=True)
class Facts:
    """What was read. `silent` are the addresses that didn't answer, each with the node from whose pod it was asked."""

    pods: tuple[Pod, ...] = ()
    blocks: tuple[Block, ...] = ()
    kernels: Mapping[str, Kernel] = field(default_factory=dict)
    silent: frozenset[tuple[str, Address]] = frozenset()


class Finding(NamedTuple):
    """One thing that is wrong."""

    kind: Kind
    what: str
    where: str
    why: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what} on {self.where}: {self.why}"


def always(facts: Facts) -> list[Finding]:
    """Return what must not be at any moment. A block that isn't active yet may overlap: that is looked at before it is."""
    return [*_duplicates(facts), *_overlaps(block for block in facts.blocks if block.active)]


def audit(facts: Facts) -> list[Finding]:
    """Return what must not be when everything works and nothing happens, the worst first."""
    parts = (_duplicates(facts), _overlaps(facts.blocks), _outside(facts), _dead(facts), _published(facts), _strays(facts))
    return [finding for part in parts for finding in part]


def _duplicates(facts: Facts) -> Iterator[Finding]:
    users = defaultdict[tuple[str, Address], set[tuple[str, str, str]]](set)  # → node, a name for people, identity
    for pod in facts.pods:
        for one in pod.addresses if pod.lives else ():
            users["reported by", one].add((pod.node, pod.name, pod.uid))
    for node, kernel in facts.kernels.items():
        for sandbox in kernel.sandboxes:
            for one in sandbox.addresses:
                users["on eth0 of", one].add((node, sandbox.pod, sandbox.id))
        for route in kernel.routes:
            users["routed to", route.to].add((node, route.link, ""))
    for (how, one), by in sorted(users.items(), key=str):
        if len(by) > 1:
            who = " and ".join(f"{name} on {node}" for node, name, _ in sorted(by))
            yield Finding("duplicate", str(one), ", ".join(sorted({node for node, *_ in by})), f"{how} {who}")


def _overlaps(blocks: Iterable[Block]) -> Iterator[Finding]:
    """Yield every two blocks that have an address in common."""
    parts = sorted((part.version, part, block) for block in blocks for part in block.parts)
    around: list[tuple[Network, Block]] = []  # CIDRs nest, so what is around one was begun before it
    for _, part, block in parts:
        around = [(outer, other) for outer, other in around if outer.version == part.version and outer.overlaps(part)]
        for _, other in around:
            why = f"{block.name} of {block.node} overlaps {other.name} ({other.range}) of {other.node}"
            yield Finding("overlap", str(part), ", ".join(sorted((other.node, block.node))), why)
        around.append((part, block))


def _outside(facts: Facts) -> Iterator[Finding]:
    own = defaultdict[str, list[Network]](list)
    for block in facts.blocks:
        own[block.node].extend(block.parts)
        for allocation in block.allocations:
            if not _within(allocation.address, block.parts):
                why = f"block {block.name} publishes it, which hasn't that address"
                yield Finding("outside", str(allocation.address), block.node, why)
    for pod in facts.pods:
        for one in pod.addresses if pod.lives else ():
            if not _within(one, own[pod.node]):
                yield Finding("outside", str(one), pod.node, f"{pod.name} reports it, and no block of its node has it")


def _dead(facts: Facts) -> Iterator[Finding]:
    for pod in facts.pods:
        if not pod.lives or pod.phase != "Running":
            continue
        kernel = facts.kernels.get(pod.node, Kernel())
        if not pod.addresses:
            yield Finding("dead", pod.name, pod.node, "it runs and reports no address")
        for one in pod.addresses:
            if why := _why_dead(pod, one, kernel, facts.silent):
                yield Finding("dead", pod.name, pod.node, why)


def _why_dead(pod: Pod, one: Address, kernel: Kernel, silent: Iterable[tuple[str, Address]]) -> str:
    sandboxes = [sandbox for sandbox in kernel.sandboxes if sandbox.uid == pod.uid]
    having = [sandbox for sandbox in sandboxes if one in sandbox.addresses]
    if not having:
        return f"{one} is not on its eth0" if sandboxes else f"it reports {one} and has no network namespace"
    if not any(Route(one, kernel.links.get(sandbox.link, "")) in kernel.routes for sandbox in having):
        return f"its node has no route to {one} through its link"
    asked = sorted(node for node, address in silent if address == one)
    return f"{one} doesn't answer pods on {', '.join(asked)}" if asked else ""


def _published(facts: Facts) -> Iterator[Finding]:
    users = {(pod.node, one): pod for pod in facts.pods if pod.lives for one in pod.addresses}
    published = set[tuple[str, Address]]()
    for block in facts.blocks:
        for one in block.allocations:
            published.add((block.node, one.address))
            user = users.get((block.node, one.address))
            if user is None or one.uid not in ("", user.uid):
                why = f"block {block.name} publishes it for {one.pod or 'a pod without a name'} ({one.uid or 'no uid'}); "
                why += f"{user.name} ({user.uid}) has it" if user else "no live pod has it"
                yield Finding("leak", str(one.address), block.node, why)
    for (node, address), pod in sorted(users.items(), key=str):
        if (node, address) not in published:
            yield Finding("outside", str(address), node, f"{pod.name} has it, and no block of its node publishes it")


def _strays(facts: Facts) -> Iterator[Finding]:
    alive = {pod.uid for pod in facts.pods if pod.lives}
    for node, kernel in facts.kernels.items():
        used = {sandbox.link: sandbox for sandbox in kernel.sandboxes if sandbox.uid in alive}
        for index, name in kernel.links.items():
            if index not in used:
                yield Finding("leak", name, node, "a pod's link, without a pod")
        needed = {Route(one, kernel.links.get(index, "")) for index, sandbox in used.items() for one in sandbox.addresses}
        for route in sorted(kernel.routes - needed, key=str):
            yield Finding(
                "leak", str(route.to), node, f"a pod's route, through {route.link}, without a pod that has the address"
            )


def _within(one: Address, parts: Iterable[Network]) -> bool:
    return any(one in part for part in parts)


def _minus(part: Any, hole: Any) -> list[Network]:
    """Return what is left of a range without another; their families are the same, which types can't say."""
    if not part.overlaps(hole):
        return [part]
    return [] if part.subnet_of(hole) else list(part.address_exclude(hole))
