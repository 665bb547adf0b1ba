"""Who reaches whom, and how, on a real cluster of two subnets: by each of the pools' modes.

What is on the wire is counted where the nodes' links meet: packets that are encapsulated, and pods' packets as they are.
"""

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from tests.cluster.cluster import Cluster, why_not
from tests.cluster.demo import pod, run_everywhere
from tests.cluster.deploy import NAMESPACE, rolled_out, wait
from tests.cluster.kubectl import Kubectl
from tortie.cli.ctl.main import main

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
POOLS = ("default-ipv4-ippool", "default-ipv6-ippool")
FAMILIES = (4, 6)
PODS4, PODS6 = "10.1.0.0/16", "fd00:10:1::/48"
# Counters of what passes the bridges, as it is and in VXLAN.
COUNT = f"""
table netdev wire {{
    counter plain {{}}
    counter vxlan {{}}
    chain count {{
        ip saddr {PODS4} ip daddr {PODS4} counter name plain
        ip6 saddr {PODS6} ip6 daddr {PODS6} counter name plain
        udp dport 4789 counter name vxlan
    }}
}}
"""


@pytest.fixture(scope="module")
def four() -> Iterator[Cluster]:
    """Nodes 1 and 2 in one subnet, 3 and 4 in another, a pod on each."""
    with Cluster(4, subnets=2) as cluster:
        cluster.install()
        wait("pods can be made", lambda: bool(cluster.kubectl.get("serviceaccounts")["items"]))
        wait("it is rolled out", lambda: rolled_out(cluster.kubectl, 4), 120)
        cluster.kubectl.apply(*(pod(node.name) for node in cluster.nodes))
        wait("they run", lambda: run_everywhere(cluster.kubectl), 120)
        yield cluster


class Mode(NamedTuple):
    """What is asked of both pools, and how packets travel inside of a subnet and between two: "" is not at all."""

    spec: dict[str, Any]
    near: str
    far: str


MODES = {
    "direct": Mode({"vxlanMode": "Never"}, "plain", ""),
    "VXLAN always": Mode({"vxlanMode": "Always"}, "vxlan", "vxlan"),
    "VXLAN across subnets": Mode({"vxlanMode": "CrossSubnet"}, "plain", "vxlan"),
    "direct again": Mode({"vxlanMode": "Never"}, "plain", ""),
}


@pytest.mark.parametrize("row", MODES)
def test_all_pairs(four: Cluster, row: str) -> None:
    mode = MODES[row]
    ask(four.kubectl, mode.spec)
    addresses = pods(four.kubectl)
    expected = {
        (source, target, family): mode.near if subnet(four, source) == subnet(four, target) else mode.far
        for source, target in product(addresses, addresses)
        for family in FAMILIES
        if source != target
    }
    found: dict[tuple[str, str, int], str] = {}

    def right() -> bool:
        found.update({pair: how(four, pair, addresses) for pair in expected if found.get(pair) != expected[pair]})
        return found == expected

    def said() -> bool:
        return ways(four) == {
            (source, target): CARRIERS[way] for (source, target, family), way in expected.items() if family == 4
        }

    try:
        wait("all packets travel as they should", right, 60)
        wait("tortiectl says so", said, 60)
    except TimeoutError:
        assert {pair: way for pair, way in found.items() if way != expected[pair]} == {}
        raise


CARRIERS = {"": None, "plain": "Direct", "vxlan": "VXLAN"}


def ways(cluster: Cluster) -> dict[tuple[str, str], str | None]:
    """Return what tortiectl says of who carries IPv4 from each node to each other one; its route is the kernel's."""
    found: dict[tuple[str, str], str | None] = {}
    blocks = {block["spec"]["cidr"]: block["spec"]["affinity"]["node"] for block in cluster.kubectl.get("ipamblocks")["items"]}
    for node in cluster.nodes:
        words = ["node", "routes", node.name, "-o", "json", "--kubeconfig", str(cluster.plane.kubeconfig)]
        rows = json.loads(CliRunner().invoke(main, words).stdout)
        for row in rows:
            assert bool(row["problem"]) == (row["carrier"] is None)
            assert row["carrier"] is None or row["via"] in row["kernel"]
            if ":" not in row["block"]:
                found[f"pod-on-{node.name}", f"pod-on-{blocks[row['block']]}"] = row["carrier"]
    return found


PAIRS = [("node-1", "node-2"), ("node-2", "node-1"), ("node-1", "node-3"), ("node-4", "node-2")]
# What is done while pods talk, behind what was asked before.
WHILE = {
    "VXLAN to direct, where nodes share a subnet": ({"vxlanMode": "Always"}, {"vxlanMode": "CrossSubnet"}),
    "direct to VXLAN": ({"vxlanMode": "CrossSubnet"}, {"vxlanMode": "Always"}),
}


@pytest.mark.parametrize("row", WHILE)
def test_no_packet_is_lost_while_the_mode_changes(four: Cluster, row: str) -> None:
    before, after = WHILE[row]
    ask(four.kubectl, before)
    wait("packets travel so", lambda: travels(four, before), 60)
    with ThreadPoolExecutor(len(PAIRS) * len(FAMILIES)) as threads:
        talking = talk(four, threads)
        ask(four.kubectl, after)
        wait("packets travel otherwise", lambda: travels(four, after), 60)
        assert not any(one.done() for one in talking), "they talk all the while"
        assert [one.result() for one in talking] == ["0% packet loss"] * len(talking)


def test_no_packet_is_lost_while_agents_start_anew(four: Cluster) -> None:
    ask(four.kubectl, {"vxlanMode": "CrossSubnet"})
    wait("packets travel so", lambda: travels(four, {"vxlanMode": "CrossSubnet"}), 60)
    with ThreadPoolExecutor(len(PAIRS) * len(FAMILIES)) as threads:
        talking = talk(four, threads)
        old = agents(four.kubectl)
        four.kubectl.run("delete", "pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=agent", "--wait=false")
        wait("others are there", lambda: rolled_out(four.kubectl, 4) and not old & agents(four.kubectl), 120)
        assert [one.result() for one in talking] == ["0% packet loss"] * len(talking)


def agents(kubectl: Kubectl) -> set[str]:
    listed = kubectl.get("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=agent")["items"]
    return {one["metadata"]["uid"] for one in listed}


def talk(cluster: Cluster, threads: ThreadPoolExecutor) -> list[Future[str]]:
    """Let pods of both subnets ping each other every 10 ms for 30 s; return what becomes of it."""
    addresses = pods(cluster.kubectl)

    def ping(source: str, target: str) -> str:
        said = cluster.kubectl.run("exec", source, "--", "sh", "-c", f"ping -c 3000 -i 0.01 -W 2 {target} | tail -2")
        return said.splitlines()[0].rpartition(", ")[2]

    return [
        threads.submit(ping, f"pod-on-{source}", addresses[f"pod-on-{target}"][family])
        for (source, target), family in product(PAIRS, FAMILIES)
    ]


def travels(cluster: Cluster, spec: dict[str, Any]) -> bool:
    """Whether packets between two nodes of one subnet travel as this asks for, both ways and both families."""
    addresses = pods(cluster.kubectl)
    wanted = "vxlan" if spec["vxlanMode"] == "Always" else "plain"
    pairs = [(f"pod-on-{a}", f"pod-on-{b}", family) for a, b in PAIRS[:2] for family in FAMILIES]
    return all(how(cluster, pair, addresses) == wanted for pair in pairs)


def ask(kubectl: Kubectl, spec: dict[str, Any]) -> None:
    for name in POOLS:
        kubectl.run("patch", "ippool", name, "--type=merge", "-p", json.dumps({"spec": spec}))


def pods(kubectl: Kubectl) -> dict[str, dict[int, str]]:
    """Return the addresses of each pod, by family."""
    listed = kubectl.get("pods")["items"]
    return {
        one["metadata"]["name"]: {6 if ":" in ip["ip"] else 4: ip["ip"] for ip in one["status"]["podIPs"]} for one in listed
    }


def subnet(cluster: Cluster, name: str) -> int:
    return next(node.place.subnet for node in cluster.nodes if name.endswith(node.name))


def how(cluster: Cluster, pair: tuple[str, str, int], addresses: dict[str, dict[int, str]]) -> str:
    """Return how three pings and their answers travel: "" where they don't arrive."""
    source, target, family = pair
    node = next(one for one in cluster.nodes if source.endswith(one.name))
    with counting(node.place.enter) as count:
        ping = f"ping -{family} -c 3 -i 0.1 -W 1 {addresses[target][family]} >/dev/null && echo all || true"
        if "all" not in cluster.kubectl.run("exec", source, "--", "sh", "-c", ping):
            return ""
        packets = count()
    return next((name for name, number in packets.items() if number >= 6), str(packets))


@contextmanager
def counting(enter: list[str]) -> Iterator[Any]:
    """Count on a node's link what it sends and takes."""

    def nft(*arguments: str, stdin: str | None = None) -> str:
        done = subprocess.run([*enter, "nft", *arguments], input=stdin, capture_output=True, text=True, check=True)
        return done.stdout

    hooks = "chain in { type filter hook ingress device eth0 priority 0; jump count; }\n"
    hooks += "chain out { type filter hook egress device eth0 priority 0; jump count; }\n}"
    nft("-f", "-", stdin=COUNT.rstrip().removesuffix("}") + hooks)
    try:

        def count() -> dict[str, int]:
            listed = json.loads(nft("-j", "list", "counters", "table", "netdev", "wire"))["nftables"]
            return {one["counter"]["name"]: one["counter"]["packets"] for one in listed if "counter" in one}

        yield count
    finally:
        nft("delete", "table", "netdev", "wire")
