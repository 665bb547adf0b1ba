"""`python -m tests.bench [GLOB]`: measure and print a line `name value unit` for each figure; also as JSON.

Each figure is measured in this run, as the median of several; one that couldn't be is printed as `name skipped reason`.
"""

import fnmatch
import json
import platform
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.bench import collect, firewall, installed, plugin, pods, policies, policies_live, routing, scale, speakers, vxlan
from tortie.addressing import ranges, selector
from tortie.addressing.planner import Delays, Timers, plan
from tortie.addressing.state import Node, Pool, State

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench-results"


def planned(cidr: str, size: int, nodes: int) -> Callable[[], None]:
    """Return a run that plans `nodes` nodes from nothing in a pool of `cidr`."""

    def run() -> None:
        state = State()
        state.put_pool(Pool("pool", "uid", "1", ranges.parse(cidr), size, selector.parse("all()")))
        for index in range(nodes):
            state.put_node(Node(f"node-{index}", f"uid-{index}", "m", {}))
        changes = plan(state, Timers(), Delays(), 0.0)
        assert len(changes) == nodes

    return run


def seconds(run: Callable[[], None], times: int = 7) -> float:
    """Return the median time of a run, in seconds."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def memory(run: Callable[[], None]) -> float:
    """Return the peak of memory that a run allocates, in bytes."""
    tracemalloc.start()
    run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def larger_over_smaller(larger: Callable[[], None], smaller: Callable[[], None]) -> float:
    """Return the larger of the two ratios, of time (pairs of runs, the median) and of memory."""
    pairs = [(seconds(larger, 5), seconds(smaller, 5)) for _ in range(9)]
    return max(statistics.median(a / b for a, b in pairs), memory(larger) / memory(smaller))


def demo_warm() -> float:
    """Return how long `make demo` takes, in seconds."""

    def run() -> None:
        subprocess.run(["make", "demo"], cwd=ROOT, capture_output=True, check=True)

    return seconds(run, 3)


# What measures, and the unit of each figure that comes of it.
BENCHES: list[tuple[dict[str, str], Callable[[], dict[str, float]]]] = [
    ({"plan_5000_nodes": "s"}, lambda: {"plan_5000_nodes": seconds(planned("10.0.0.0/8", 26, 5000))}),
    (
        {"plan_slash8_over_slash20": "ratio"},
        lambda: {
            "plan_slash8_over_slash20": larger_over_smaller(planned("10.0.0.0/8", 26, 50), planned("10.0.0.0/20", 26, 50))
        },
    ),
    (
        {"plan_v6_slash48_over_slash116": "ratio"},
        lambda: {
            "plan_v6_slash48_over_slash116": larger_over_smaller(planned("fd00::/48", 122, 50), planned("fd00::/116", 122, 50))
        },
    ),
    ({"demo_warm": "s"}, lambda: {"demo_warm": demo_warm()}),
    ({"cni_add_p50": "ms", "cni_add_p99": "ms", "cni_del_p50": "ms", "agent_rss_100_pods": "MB"}, pods.one_after_another),
    ({"cni_add_rate_8": "per_s", "cni_add_rate_8_dual": "per_s"}, pods.in_parallel),
    ({"ledger_rate_64": "per_s"}, pods.ledger),
    ({"helm_install_to_ready": "s", "upgrade_packets_lost": "count"}, installed.install_and_upgrade),
    ({"image_compressed": "MB"}, installed.compressed),
    ({"pods_100_over_hostnetwork": "ratio"}, installed.pods_over_host_network),
    ({"cni_binary_overhead": "ms", "cni_binary_size": "MB"}, plugin.cni_binary),
    ({"join_5000_nodes": "s", "join_5000_nodes_rss": "MB"}, scale.join_5000_nodes),
    (
        {"cold_start_20000_blocks": "s", "cold_start_20000_blocks_written": "objects", "cold_start_20000_blocks_rss": "MB"},
        scale.cold_start_20000_blocks,
    ),
    ({"collect_100k": "s", "collect_100k_rss": "MB", "collect_one_change": "us"}, collect.judged),
    ({"cold_start_20000_pods": "s", "cold_start_20000_pods_rss": "MB"}, scale.cold_start_20000_pods),
    *(
        ({f"policy_compile_{name}": "s", f"policy_compile_{name}_rss": "MB"}, partial(policies.compiled, name))
        for name in policies.WORKLOADS
    ),
    (
        {
            "policy_realized_p50": "ms",
            "policy_realized_p99": "ms",
            "policy_realized_all_p99": "ms",
            "address_known_p50": "ms",
            "address_known_p99": "ms",
            "bytes_per_pod_event": "bytes",
            "policy_all_pods_writes": "count",
            "writes_per_pod": "count",
            "policy_operator_rss": "MB",
            "policy_cold_start": "s",
        },
        policies_live.live,
    ),
    ({"watchers_2000_event": "ms"}, policies_live.watchers),
    (
        {
            "nft_full_program": "s",
            "nft_one_address_few": "ms",
            "nft_one_address_many": "ms",
            "nft_one_address_ipblocks": "ms",
            "agent_rss_10k_policies": "MB",
        },
        firewall.table,
    ),
    ({"throughput_10k_policies": "ratio"}, firewall.throughput),
    (
        {
            "cni_add_gated_p50": "ms",
            "policy_to_packet_p50": "ms",
            "policy_to_packet_p99": "ms",
            "policy_to_packet_denied_p50": "ms",
        },
        firewall.gated,
    ),
    ({"vxlan_program_5000": "s", "vxlan_one_node_more": "ms"}, vxlan.program),
    ({"vxlan_over_handmade": "ratio", "vxlan_device_over_handmade": "ratio"}, vxlan.over_handmade),
    (
        {
            "bgp_render_5000": "s",
            "bgp_render_5000_client": "s",
            "bgp_render_5000_reflector": "s",
            "bgp_speakers_5000": "s",
        },
        routing.rendered,
    ),
    ({"bgp_services_5000": "ms", "bgp_slice": "us"}, routing.services),
    ({"bgp_converge_mesh_100": "s"}, speakers.mesh),
    ({"bgp_converge_rr_200": "s"}, speakers.reflectors),
    ({"bgp_dead_node_bfd": "ms"}, speakers.dead),
]


def main(pattern: str = "*") -> int:
    """Measure the figures whose names match, and return the exit status."""
    measured: dict[str, dict[str, float | str]] = {}
    skipped = 0
    for units, measure in BENCHES:
        if not fnmatch.filter(units, pattern):
            continue
        try:
            values = measure()
        except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
            skipped += 1
            for name in units:
                print(f"{name} skipped {error}", flush=True)
            continue
        for name, value in values.items():
            measured[name] = {"value": round(value, 4), "unit": units[name]}
            print(f"{name} {round(value, 4)} {units[name]}", flush=True)
    _write(measured)
    return 1 if skipped else 0


def _write(measured: dict[str, dict[str, float | str]]) -> None:
    """Keep the figures as JSON, with machine and commit."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    RESULTS.mkdir(exist_ok=True)
    report = {"machine": platform.machine(), "kernel": platform.release(), "commit": commit, "figures": measured}
    (RESULTS / "latest.json").write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
