"""What the agent counts, for Prometheus; names begin with `tortie_agent_`."""

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest

from tortie.agent.ledger import Ledger

REGISTRY = CollectorRegistry()
# Seconds; an ADD takes 5 ms, one that waits for a block up to a minute.
_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 15, 60)
REQUESTS = Histogram(
    "tortie_agent_requests_seconds", "CNI requests, by command and result (ok, or the error's code).",
    ("command", "result"), registry=REGISTRY, buckets=_BUCKETS,
)  # fmt: skip
_USED = Gauge("tortie_agent_addresses_in_use", "Addresses on record.", registry=REGISTRY)
_FREE = Gauge("tortie_agent_addresses_free", "Addresses that a pod can get now.", ("block", "pool"), registry=REGISTRY)


def render(ledger: Ledger) -> bytes:
    """Return all of it as it is now."""
    _USED.set(len(ledger))
    _FREE.clear()
    for block in ledger.allocator.blocks:
        _FREE.labels(block.name, block.pool).set(ledger.free(block.name))
    return generate_latest(REGISTRY)
