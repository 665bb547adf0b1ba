"""What doesn't agree: publications, ledgers, pods, the kernels' links and routes, blocks. Pure.

What was gathered one after another may differ for a moment without being wrong, so who asks looks twice and believes what
stands in both (`lasting`). Gather ledgers and publications before pods: an allocation's pod was there before it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tortie.addressing.allocator import Address
from tortie.addressing.leaks import Claim, PodState, why_leaked
from tortie.addressing.ranges import Range, without

Kind = Literal["duplicate", "leak", "stray", "unpublished", "overlap", "route", "silent"]


class Held(NamedTuple):
    """One allocation, as a block publishes it or a ledger has it."""

    address: Address
    claim: Claim
    epoch: str = ""
    sequence: int = 0

    @property
    def who(self) -> str:
        """The pod, or what is known of it."""
        return self.name or self.claim.uid or "an unknown pod"

    @property
    def name(self) -> str:
        """The pod's namespace/name, "" where it isn't known."""
        return f"{self.claim.namespace}/{self.claim.pod}" if self.claim.pod else ""


class OwnedBlock(NamedTuple):
    """A block: its node, whether addresses are taken from it, and parts of its range that are others' now."""

    name: str
    range: Range
    node: str
    active: bool = True
    without: tuple[Range, ...] = ()

    @property
    def parts(self) -> tuple[Range, ...]:
        """The ranges that are this block's alone."""
        return tuple(without(self.range, self.without)) if self.without else (self.range,)


@dataclass(frozen=True, slots=True)
class NodeView:
    """What one agent says: its ledger, and its kernel's links (with the addresses that lead there) and routes."""

    held: tuple[Held, ...] = ()
    links: Mapping[str, tuple[Address, ...]] = field(default_factory=dict)
    routes: frozenset[Range] = frozenset()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was gathered. `views` has a node's agent, or a sentence why it didn't answer."""

    blocks: tuple[OwnedBlock, ...]
    published: tuple[Held, ...]
    pods: Mapping[str, PodState]  # by namespace/name
    pools: tuple[Range, ...]
    views: Mapping[str, NodeView | str]


class Finding(NamedTuple):
    """One thing that doesn't agree. `epoch` and `sequence` name the allocation meant, so that a later one is left alone."""

    kind: Kind
    subject: str
    node: str
    pod: str
    why: str
    uid: str = ""
    epoch: str = ""
    sequence: int = 0


def audit(seen: Snapshot) -> list[Finding]:
    """Return everything that doesn't agree, the worst first."""
    held = dict[tuple[str, Address], Held]()
    for one in (*seen.published, *(h for view in _views(seen).values() for h in view.held)):
        held[one.claim.node, one.address] = one  # the ledger's word comes last: it is the truth
    parts = (_duplicates(seen, held.values()), _leaks(seen, held.values()), _strays(seen, held), _unpublished(seen),
             _overlaps(seen), _routes(seen), _silent(seen))  # fmt: skip
    return [finding for part in parts for finding in part]


def lasting(first: Iterable[Finding], second: Iterable[Finding]) -> list[Finding]:
    """Return what stands in both of two looks."""
    before = set(first)
    return [finding for finding in second if finding in before]


def _views(seen: Snapshot) -> dict[str, NodeView]:
    return {node: view for node, view in seen.views.items() if isinstance(view, NodeView)}


def _duplicates(seen: Snapshot, held: Iterable[Held]) -> Iterator[Finding]:
    users = defaultdict[Address, dict[str, tuple[str, str]]](dict)  # address → identity → who, node
    for name, pod in seen.pods.items():
        for address in pod.addresses if _may_use(pod) else ():
            users[address][pod.uid] = name, pod.node
    whose = _Whose(seen.pods)
    for one in held:
        users[one.address].setdefault(whose(one), (one.who, one.claim.node))
    for address, by in sorted(users.items()):
        if len(by) > 1:
            nodes, who = {node for _, node in by.values()}, sorted(f"{who} on {node}" for who, node in by.values())
            yield Finding("duplicate", str(address), _list(nodes), "", f"in use {len(by)} times: {_list(who)}")


def _may_use(pod: PodState) -> bool:
    """Whether what a pod reports is surely its own; of one that is being deleted the ledger knows."""
    return not (pod.ended or pod.terminating or pod.host_network)


class _Whose:
    """Tells the uid of an allocation's pod, or something that stands for a pod that isn't known."""

    def __init__(self, pods: Mapping[str, PodState]) -> None:
        self._pods = pods
        self._mirrors = {pod.static: pod.uid for pod in pods.values() if pod.static}
        self._at = {(pod.node, one): pod.uid for pod in pods.values() if _may_use(pod) for one in pod.addresses}

    def __call__(self, one: Held) -> str:
        if one.claim.uid:
            return self._mirrors.get(one.claim.uid, one.claim.uid)
        named = self._pods.get(one.name)
        if named and named.node == one.claim.node:
            return named.uid
        # Nameless: left out for lack of room, or a link that was found after a lost ledger.
        at = None if one.name else self._at.get((one.claim.node, one.address))
        return at or f"{one.who} on {one.claim.node}"


def _leaks(seen: Snapshot, held: Iterable[Held]) -> Iterator[Finding]:
    for one in sorted(held):
        why = why_leaked(one.claim, seen.pods.get(f"{one.claim.namespace}/{one.claim.pod}"))
        if why:
            view = seen.views.get(one.claim.node)
            linked = isinstance(view, NodeView) and any(one.address in addresses for addresses in view.links.values())
            why += "; its interface is still there" if linked else ""
            yield Finding("leak", str(one.address), one.claim.node, one.who, why, one.claim.uid, one.epoch, one.sequence)


def _strays(seen: Snapshot, held: Mapping[tuple[str, Address], Held]) -> Iterator[Finding]:
    for name, pod in sorted(seen.pods.items()):
        if not _may_use(pod) or isinstance(seen.views.get(pod.node), str):
            continue  # an agent that is silent may not have published it
        for address in pod.addresses:
            if any(address.within(pool) for pool in seen.pools) and (pod.node, address) not in held:
                why = "the pod has it, and no block or ledger of its node says so"
                yield Finding("stray", str(address), pod.node, name, why, pod.uid)
    for node, view in sorted(_views(seen).items()):
        recorded = {one.address for one in view.held}
        linked = {address for addresses in view.links.values() for address in addresses}
        for address in sorted(linked - recorded):
            yield Finding("stray", str(address), node, "", "an interface of the node has it, and its ledger doesn't")


def _unpublished(seen: Snapshot) -> Iterator[Finding]:
    blocks = defaultdict[str, list[Range]](list)
    published = defaultdict[str, set[Held]](set)
    for block in seen.blocks:
        blocks[block.node].extend(block.parts)
    for one in seen.published:
        published[one.claim.node].add(one)
    for node, view in sorted(_views(seen).items()):
        for mine, others, why in (
            (view.held, published[node], "in the ledger, and not in its block's status"),
            (published[node], view.held, "in its block's status, and not in the ledger"),
        ):
            known = {(other.address, other.sequence) for other in others}
            for one in sorted(one for one in mine if (one.address, one.sequence) not in known):
                if any(one.address.within(whole) for whole in blocks[node]):
                    yield Finding("unpublished", str(one.address), node, one.who, why, one.claim.uid, one.epoch, one.sequence)


def _overlaps(seen: Snapshot) -> Iterator[Finding]:
    """Yield every two blocks that have an address in common: CIDRs nest, so what is around one was begun before it."""
    around = list[tuple[Range, OwnedBlock]]()
    parts = sorted((part.family, part.start, part.prefix, block, part) for block in seen.blocks for part in block.parts)
    pairs = set[tuple[str, str]]()
    for *_, block, part in parts:
        around = [(outer, other) for outer, other in around if outer.overlaps(part)]
        for _, other in around:
            if other != block and (other.name, block.name) not in pairs:
                pairs.add((other.name, block.name))
                nodes = f"{other.node}, {block.node}"
                yield Finding("overlap", str(block.range), nodes, "", f"{block.name} overlaps {other.name} ({other.range})")
        around.append((part, block))


def _routes(seen: Snapshot) -> Iterator[Finding]:
    for node, view in sorted(_views(seen).items()):
        wanted = {block.range for block in seen.blocks if block.active and (block.node != node or block.range.size > 1)}
        for missing in sorted(wanted - view.routes):
            yield Finding("route", str(missing), node, "", "the node has no route to this block")
        for stale in sorted(view.routes - {block.range for block in seen.blocks}):
            yield Finding("route", str(stale), node, "", "the node has a route to this range, and no block has it")


def _silent(seen: Snapshot) -> Iterator[Finding]:
    for node, why in sorted(seen.views.items()):
        if isinstance(why, str):
            yield Finding(
                "silent", node, node, "", f"its agent didn't answer, so its ledger and kernel weren't looked at: {why}"
            )


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
