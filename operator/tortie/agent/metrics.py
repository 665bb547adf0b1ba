"""What the agent counts, for Prometheus; names begin with `tortie_agent_`."""

from collections import Counter
from dataclasses import dataclass

from tortie.agent import foreign
from tortie.agent.bgp import Bgp
from tortie.agent.blocks import OwnBlocks
from tortie.agent.deferred import Queue
from tortie.agent.demand import Demand
from tortie.agent.gate import Gate
from tortie.agent.knowledge import Knowledge
from tortie.agent.ledger import Ledger
from tortie.agent.node import NodeWatch
from tortie.agent.publisher import Publisher
from tortie.metrics import Metrics, Values


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of an agent that tell something."""

    ledger: Ledger
    publisher: Publisher
    knowledge: Knowledge
    node: NodeWatch
    firewall: foreign.Watch
    demand: Demand
    queue: Queue
    blocks: OwnBlocks
    gate: Gate
    bgp: Bgp


METRICS = Metrics[Parts]("agent")
# Seconds; an ADD takes 5 ms, one that waits for a block up to a minute.
_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 15, 60)
REQUESTS = METRICS.histogram(
    "tortie_agent_requests_seconds",
    "Duration of CNI requests, by command and result: ok, the CNI code of the error, or defect.",
    _BUCKETS,
    ("command", "result"),
)


@METRICS.read_counter(
    "tortie_agent_firewall_drifts_total", "Times that somebody else changed the agent's nftables table; it was replaced."
)
def _drifts(parts: Parts) -> Values:
    return {(): parts.gate.drifts}


@METRICS.read_counter(
    "tortie_agent_connections_cut_total", "Connections that were ended: a policy forbids them, or their pod is gone."
)
def _cut(parts: Parts) -> Values:
    return {(): parts.gate.cut}


@METRICS.gauge(
    "tortie_agent_pods_waiting_for_policies", "Pods whose start waits until it is known which policies hold for them."
)
def _waiting(parts: Parts) -> Values:
    return {(): parts.gate.waiting}


@METRICS.gauge("tortie_agent_rule_sets", "RuleSets that pods here have, by whether the kernel took their rules.", ("enforced",))
def _rule_sets(parts: Parts) -> Values:
    return {("true",): parts.gate.rule_sets - parts.gate.refused, ("false",): parts.gate.refused}


def _counted(parts: Parts, which: int) -> Values:
    return {tuple(one): numbers[which] for one, numbers in parts.gate.counted.items()}


_DECIDED = "that a policy's rules accepted or denied, of an accepted connection the first one's; with agent.policyCounters."


@METRICS.read_counter("tortie_agent_policy_packets_total", f"Packets {_DECIDED}", ("policy", "direction", "action"))
def _packets(parts: Parts) -> Values:
    return _counted(parts, 0)


@METRICS.read_counter("tortie_agent_policy_bytes_total", f"Bytes {_DECIDED}", ("policy", "direction", "action"))
def _bytes(parts: Parts) -> Values:
    return _counted(parts, 1)


@METRICS.gauge("tortie_agent_addresses_in_use", "Addresses on record.")
def _used(parts: Parts) -> Values:
    return {(): len(parts.ledger)}


@METRICS.gauge("tortie_agent_addresses_free", "Addresses of this node's blocks that a pod can get now.", ("pool",))
def _free(parts: Parts) -> Values:
    free = Counter[tuple[str, ...]]()
    for block in parts.ledger.allocator.blocks:
        free[(block.pool,)] += parts.ledger.free(block.name)
    return free


@METRICS.gauge("tortie_agent_leaks_refused", "Addresses that were judged leaked and aren't freed: an interface uses them.")
def _refused(parts: Parts) -> Values:
    return {(): parts.blocks.refused}


@METRICS.gauge("tortie_agent_blocks", "Blocks of this node.", ("pool",))
def _blocks(parts: Parts) -> Values:
    return Counter((block.pool,) for block in parts.ledger.allocator.blocks)


@METRICS.gauge(
    "tortie_agent_ledger_writable", "1 where the last commit of the ledger reached the disk; one is tried every 10 s."
)
def _writable(parts: Parts) -> Values:
    return {(): parts.ledger.is_writable}


@METRICS.gauge(
    "tortie_agent_ledger_lost",
    "1 where records of the ledger are missing, until all that the node's blocks published has been read.",
)
def _lost(parts: Parts) -> Values:
    return {(): bool(parts.ledger.lost)}


@METRICS.gauge("tortie_agent_deferred_dels", "DELs that the plugin queued while no agent was there and that aren't done yet.")
def _deferred(parts: Parts) -> Values:
    return {(): len(parts.queue)}


@METRICS.gauge("tortie_agent_blocks_unpublished", "Blocks with a change that the API server doesn't have yet.")
def _unpublished(parts: Parts) -> Values:
    return {(): len(parts.publisher.unpublished)}


@METRICS.gauge(
    "tortie_agent_unpublished_seconds", "Age of the oldest change that the API server doesn't have yet; 0: there is none."
)
def _age(parts: Parts) -> Values:
    return {(): max(parts.publisher.unpublished.values(), default=0.0)}


@METRICS.gauge("tortie_agent_api_server_up", "1 where all pools were read and the API server answers their watch.")
def _api_server(parts: Parts) -> Values:
    return {(): parts.knowledge.pools_are_current}


@METRICS.gauge("tortie_agent_pools_asked", "Pools that pods here asked for, by name or through their namespace.")
def _asked(parts: Parts) -> Values:
    return {(): len(parts.demand.pools(parts.knowledge.pools.values()))}


@METRICS.gauge(
    "tortie_agent_routes_missing", "Routes to other nodes' blocks that this node lacks; 1 where it has no address of its own."
)
def _routes(parts: Parts) -> Values:
    return {(): parts.node.missing}


@METRICS.gauge("tortie_agent_bgp_sessions", "BGP sessions that this node should have, by whether they are up.", ("up",))
def _sessions(parts: Parts) -> Values:
    up = sum(one.is_up for one in parts.bgp.states)
    return {("true",): up, ("false",): len(parts.bgp.states) - up}


@METRICS.gauge(
    "tortie_agent_bgp_routes", "Routes of all BGP sessions: received ones that were taken, and sent ones.", ("direction",)
)
def _bgp_routes(parts: Parts) -> Values:
    states = parts.bgp.states
    return {("received",): sum(one.received for one in states), ("sent",): sum(one.sent for one in states)}


@METRICS.gauge("tortie_agent_foreign_firewall", "1 where somebody else's firewall drops forwarded packets.")
def _firewall(parts: Parts) -> Values:
    return {(): bool(parts.firewall.found)}
