"""What the operator counts, for Prometheus; names begin with `tortie_operator_`.

A replica that waits to lead knows nothing of pools, nodes and blocks, and says nothing of them.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from tortie.addressing import market, planner
from tortie.addressing.state import Block, Pool, State
from tortie.api.compiled import NodePolicy
from tortie.controller import status
from tortie.kube.errors import ApiError, Conflict, NotFound, NotLeading
from tortie.kube.stream import Stream
from tortie.metrics import Metrics, Values

# Nodes that are named one by one: where a pool of thousands of nodes is exhausted, the first of them are enough to look at.
NAMED = 20
# Seconds; a pass over a few nodes takes 1 ms, one over 5,000 a second.
_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10)
KINDS = ("block", "network", "status", "finalizer", "rule_set", "address_set", "node_policy", "condition")
RESULTS = ("ok", "conflict", "error")


@dataclass(frozen=True, slots=True)
class Known:
    """What a leading operator knows.

    Attributes:
        state: What plans are made from.
        invalid: Pools that can't be used, each with why.
        streams: What the state comes from.
        pending: How many writes wait or are under way.
        suspects: Allocations that seem leaked, each since when.
        node_policies: NodePolicies, with what their nodes' agents say of them.
    """

    state: State
    invalid: Mapping[str, str]
    streams: Sequence[Stream[Any]]
    pending: Callable[[], int]
    suspects: Mapping[Any, float]
    node_policies: Mapping[str, NodePolicy]


class View:
    """What one look sees: whether this replica leads, and what it knows if it does."""

    def __init__(self, known: Known | None, *, leads: bool) -> None:
        self.known, self.leads = known, leads

    @cached_property
    def pools(self) -> dict[str, dict[str, dict[str, int]]]:
        """The figures of each pool that can be used, as its status has them."""
        state = self.known.state if self.known else State()
        return {name: status.figures(state, pool) for name, pool in state.pools.items()}

    @cached_property
    def blocks(self) -> Sequence[Block]:
        """All blocks."""
        return tuple(self.known.state.blocks.values()) if self.known else ()


class Shown:
    """What the process has to show so far: it serves before it leads."""

    def __init__(self) -> None:
        self.leads: Callable[[], bool] = lambda: False
        self.known: Known | None = None

    def render(self) -> bytes:
        """Return all of it as it is now."""
        return METRICS.render(View(self.known, leads=self.leads()))


METRICS = Metrics[View]("operator")
WRITES = METRICS.counter(
    "tortie_operator_writes_total",
    "Writes that ended, by kind (block, network, status of what people wrote, finalizer of a pool, rule_set, address_set,"
    " node_policy, condition of a ClusterNetworkPolicy) and result (ok, conflict where the object has changed meanwhile, so"
    " that it is decided anew, or error).",
    ("kind", "result"),
)
LEAKS = METRICS.counter(
    "tortie_operator_leaks_total", "Allocations that were judged leaked, and whose node was asked to free them."
)
LEAKS_FREED = METRICS.counter("tortie_operator_leaks_freed_total", "Leaked allocations that their nodes freed when asked.")
_COMPILATIONS = METRICS.histogram(
    "tortie_operator_policy_compile_seconds",
    "Duration of a compilation of what changed; their count is that of passes.",
    _BUCKETS,
)
_PLANS = METRICS.histogram(
    "tortie_operator_plan_seconds", "Duration of a planning pass; their count is that of passes.", _BUCKETS
)
for _kind in KINDS:
    for _result in RESULTS:
        WRITES.labels(_kind, _result)  # there from the start: a first error is a growth


def count_write(kind: str, error: ApiError | None) -> None:
    """Count the end of a write; one that wasn't sent, because another leads, is none."""
    if not isinstance(error, NotLeading):
        decided_anew = isinstance(error, Conflict | NotFound)
        WRITES.labels(kind, "ok" if error is None else "conflict" if decided_anew else "error").inc()


@contextmanager
def plan_measured() -> Iterator[None]:
    """Measure a planning pass."""
    with _PLANS.time():
        yield


@contextmanager
def compilation_measured() -> Iterator[None]:
    """Measure a compilation."""
    with _COMPILATIONS.time():
        yield


@METRICS.gauge("tortie_operator_leading", "1 where this replica leads; one of all does.")
def _leading(view: View) -> Values:
    return {(): view.leads}


def _pool_gauge(name: str, help_: str, part: str, figure: str) -> None:
    def read(view: View) -> Values:
        return {(pool,): figures[part][figure] for pool, figures in view.pools.items()}

    METRICS.gauge(f"tortie_operator_pool_{name}", help_, ("pool",))(read)


_pool_gauge("addresses_capacity", "Addresses that the pool has; 2^53-1 stands for more.", "addresses", "capacity")
_pool_gauge("addresses_allocated", "Addresses of the pool that pods have, as nodes published it.", "addresses", "allocated")
_pool_gauge("addresses_available", "Addresses of the pool that are neither in use nor reserved.", "addresses", "available")
_pool_gauge("blocks_assigned", "Blocks of the pool that nodes have.", "blocks", "assigned")
_pool_gauge("blocks_free", "Blocks of the pool that a node could still get; 2^53-1 stands for more.", "blocks", "free")


@METRICS.gauge(
    "tortie_operator_pool_allocatable", "1 where nodes get blocks of the pool; its condition says why not.", ("pool",)
)
def _allocatable(view: View) -> Values:
    if view.known is None:
        return {}
    refused = planner.refused_pools(view.known.state)
    usable = {name: status.allocatable(pool, 0, refused) for name, pool in view.known.state.pools.items()}
    values: Values = {(name,): condition["status"] == "True" for name, condition in usable.items()}
    return {**values, **{(name,): 0 for name in view.known.invalid}}


@METRICS.gauge(
    "tortie_operator_pool_sufficient",
    "0 where the pool has fewer blocks than nodes, or where pods wait and nothing is left; its condition says which.",
    ("pool",),
)
def _sufficient(view: View) -> Values:
    if view.known is None:
        return {}
    state = view.known.state
    refused, waiting = planner.refused_pools(state), market.exhausted(state)

    def holds(pool: Pool) -> bool:
        gives = status.allocatable(pool, 0, refused)["status"] == "True"
        return status.sufficient(state, pool, waiting.get(pool.name, ()), gives=gives)["status"] == "True"

    return {(name,): holds(pool) for name, pool in state.pools.items()}


@METRICS.gauge("tortie_operator_nodes", "Nodes of the cluster.")
def _nodes(view: View) -> Values:
    return {(): len(view.known.state.nodes)} if view.known else {}


@METRICS.gauge("tortie_operator_nodes_starving", "Nodes that need a block and can't have one.")
def _starving(view: View) -> Values:
    return {(): len(view.known.state.starving)} if view.known else {}


@METRICS.gauge("tortie_operator_node_starving", f"1 for a node that starves, by name; the first {NAMED} of them.", ("node",))
def _who_starves(view: View) -> Values:
    return {(node,): 1 for node in sorted(view.known.state.starving)[:NAMED]} if view.known else {}


@METRICS.gauge(
    "tortie_operator_blocks", "Blocks by state: inert until checked, active, asked_back from their nodes.", ("state",)
)
def _blocks(view: View) -> Values:
    if view.known is None:
        return {}
    counted = Counter("asked_back" if b.cede else "active" if b.active else "inert" for b in view.blocks)
    return {(state,): counted[state] for state in ("inert", "active", "asked_back")}


@METRICS.gauge("tortie_operator_inert_block_seconds", "Age of the oldest block that isn't active yet; 0: there is none.")
def _inert(view: View) -> Values:
    if view.known is None:
        return {}
    # The API server's clock, which a provisional block hasn't met yet.
    made = (datetime.fromisoformat(b.created).timestamp() for b in view.blocks if b.created and not b.active)
    now = time.time()
    return {(): max(0.0, now - min(made, default=now))}


@METRICS.gauge(
    "tortie_operator_leak_suspects", "Allocations that seem leaked; after the grace period their pods are read once more."
)
def _suspects(view: View) -> Values:
    return {(): len(view.known.suspects)} if view.known else {}


@METRICS.gauge("tortie_operator_leaks_unfreed", "Leaked addresses that their nodes were asked to free, and still have.")
def _unfreed(view: View) -> Values:
    return {(): sum(len(block.releases) for block in view.blocks)} if view.known else {}


@METRICS.gauge("tortie_operator_nodes_behind", "Nodes whose NodePolicy is newer than what their agents say that they enforce.")
def _behind(view: View) -> Values:
    if view.known is None:
        return {}
    every = view.known.node_policies.values()
    return {(): sum(one.status.realized_generation < one.metadata.generation for one in every)}


@METRICS.gauge("tortie_operator_writes_pending", "Writes that wait or are under way.")
def _pending(view: View) -> Values:
    return {(): view.known.pending()} if view.known else {}


@METRICS.gauge(
    "tortie_operator_stream_up", "1 where all of the resource was read and the API server answers its watch.", ("resource",)
)
def _streams(view: View) -> Values:
    streams = view.known.streams if view.known else ()
    return {(s.path.rpartition("/")[2],): s.synced.is_set() and not s.is_lost for s in streams}
