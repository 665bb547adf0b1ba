"""Which addresses a pod wants: of which pools, or which very ones. Pure.

Calico's annotations are understood as they are, under their own names and under ours; those on the pod come before those
on its namespace. A namespace that pools select by namespaceSelector gets addresses of those alone.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from tortie.addressing.allocator import Address, OwnBlock, address
from tortie.addressing.ranges import Family, Range, parse
from tortie.addressing.selector import Selector

Labels = Mapping[str, str]
NOTHING: Labels = MappingProxyType({})

# Calico's name, ours.
FIXED = ("cni.projectcalico.org/ipAddrs", "tortie.dev/ip-addrs")
POOLS: dict[Family, tuple[str, str]] = {
    4: ("cni.projectcalico.org/ipv4pools", "tortie.dev/ipv4-pools"),
    6: ("cni.projectcalico.org/ipv6pools", "tortie.dev/ipv6-pools"),
}


class Refused(Exception):
    """What a pod asks for can't be had; the message names annotation, value and the way out."""


class NoPool(Exception):
    """No pool gives this pod an address; one may come."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One address that is wanted: of a family, from pools, or this very one.

    Attributes:
        chosen: Whether the pod or its namespace chose the pools: then the node may have no block of them yet.
    """

    family: Family
    pools: frozenset[str] = frozenset()
    fixed: Address | None = None
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class UsablePool:
    """A pool as far as pods choose it.

    Attributes:
        automatic: Whether pods get addresses of it that don't ask for it.
        namespaces: Whose pods may have its addresses; None: everybody's.
        nodes: Which nodes get blocks of it; None: all.
    """

    name: str
    range: Range
    disabled: bool = False
    automatic: bool = True
    namespaces: Selector | None = None
    nodes: Selector | None = None

    def takes(self, namespace_labels: Labels) -> bool:
        """Whether pods of a namespace may have its addresses."""
        return self.namespaces is None or self.namespaces.matches(namespace_labels)

    @property
    def on_demand(self) -> bool:
        """Whether a node gets blocks of it only when a pod there asks."""
        return self.namespaces is not None or not self.automatic


class PodFacts(NamedTuple):
    """What is known of a pod: its annotations, and the labels and annotations of its namespace."""

    annotations: Labels = NOTHING
    namespace_labels: Labels = NOTHING
    namespace_annotations: Labels = NOTHING


@dataclass(frozen=True, slots=True)
class Landscape:
    """What a node knows of addresses: all pools, and its own blocks.

    Attributes:
        complete: Whether these are all; else what is refused now may be had in a moment.
        owner: Returns the node whose block an address lies in, "" where none is known.
        node_labels: The node's labels; None: not known, and then every pool may have blocks here.
    """

    pools: Iterable[UsablePool] = ()
    blocks: Iterable[OwnBlock] = field(default=())
    complete: bool = True
    owner: Callable[[Address], str] = lambda _one: ""
    node_labels: Labels | None = None

    def gives(self, pool: UsablePool) -> bool:
        """Whether this node has, or can get, addresses of a pool."""
        if self.node_labels is None or pool.nodes is None or pool.nodes.matches(self.node_labels):
            return True
        return any(block.pool == pool.name for block in self.blocks)


def wanted(pod: PodFacts, landscape: Landscape) -> list[Wanted]:
    """Return one entry for each address that a pod is to have; raises Refused, NoPool."""
    fixed = _annotation(pod, FIXED)
    if fixed:
        return _fixed(*fixed, pod, landscape)
    found = [_of_family(family, pod, landscape) for family in POOLS]
    if not any(found):
        raise NoPool("no IPPool that is enabled may give this pod an address: kubectl get ippools shows them; apply one")
    return [one for one in found if one]


def _fixed(key: str, texts: list[str], pod: PodFacts, landscape: Landscape) -> list[Wanted]:
    found: dict[Family, Wanted] = {}
    for text in texts:
        try:
            one = address(text)
        except ValueError as error:
            raise Refused(f'annotation {key}: {error}; write addresses such as ["10.1.0.7"]') from error
        if one.family in found:
            raise Refused(f"annotation {key}: {text} is the second IPv{one.family} address; a pod has one of each family")
        if why := _why_not(one, pod, landscape):
            raise Refused(f"annotation {key}: {why}")
        found[one.family] = Wanted(one.family, fixed=one)
    return list(found.values())


def _why_not(one: Address, pod: PodFacts, landscape: Landscape) -> str:
    """Return why a pod can't have this very address here, "" where it can."""
    pool = next((p for p in landscape.pools if one.within(p.range)), None)
    if pool is None:
        return f"{one} lies in no IPPool; choose one of a pool that kubectl get ippools shows"
    if pool.disabled:
        return f"{one} lies in IPPool {pool.name}, which is disabled; enable it, or choose an address of another"
    if not pool.takes(pod.namespace_labels):
        return f"{one} lies in IPPool {pool.name}, which is not for this namespace (its namespaceSelector)"
    if any(one.within(block.range) for block in landscape.blocks):
        return ""
    owner = landscape.owner(one)
    if not owner:
        return f"{one} of IPPool {pool.name} lies in no node's block, as far as is known here; choose one of this node's blocks"
    return f"{one} of IPPool {pool.name} belongs to node {owner}: let the pod run there, or choose one of this node's blocks"


def _of_family(family: Family, pod: PodFacts, landscape: Landscape) -> Wanted | None:
    asked = _annotation(pod, POOLS[family])
    usable = [pool for pool in landscape.pools if pool.range.family == family and not pool.disabled and landscape.gives(pool)]
    if asked:
        key, texts = asked
        return Wanted(family, frozenset(_named(key, text, usable, pod) for text in texts), chosen=True)
    special = [pool for pool in usable if pool.namespaces is not None and pool.automatic and pool.takes(pod.namespace_labels)]
    general = [pool for pool in usable if pool.namespaces is None and pool.automatic]
    found = frozenset(pool.name for pool in special or general)
    return Wanted(family, found, chosen=bool(special)) if found else None


def _named(key: str, text: str, usable: list[UsablePool], pod: PodFacts) -> str:
    """Return the pool that an annotation names, by name or by CIDR."""
    for pool in usable:
        if text in (pool.name, str(pool.range)) or ("/" in text and _same(text, pool.range)):
            if not pool.takes(pod.namespace_labels):
                raise Refused(f"annotation {key}: IPPool {pool.name} is not for this namespace (its namespaceSelector)")
            return pool.name
    raise Refused(
        f"annotation {key}: {text!r} is no enabled IPPool of that family for this node, by name or CIDR: kubectl get ippools"
    )


def _same(text: str, whole: Range) -> bool:
    try:
        return parse(text) == whole
    except ValueError:
        return False


def _annotation(pod: PodFacts, keys: Iterable[str]) -> tuple[str, list[str]] | None:
    """Return an annotation that is set, with its JSON list of texts; the pod's before its namespace's."""
    for key, text in (
        (key, source[key]) for source in (pod.annotations, pod.namespace_annotations) for key in keys if key in source
    ):
        try:
            texts = json.loads(text)
        except ValueError:
            texts = None
        if not isinstance(texts, list) or not texts or not all(isinstance(one, str) for one in texts):
            raise Refused(f'annotation {key}: must be a JSON list of texts such as ["a"], not {text[:100]!r}')
        return key, texts
    return None
