"""How packets travel between the pods of a cluster of two subnets: asked for, watched on the wire, and talking meanwhile."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from tests.cluster.cluster import Cluster
from tests.cluster.deploy import NAMESPACE, wait
from tests.cluster.kubectl import Kubectl
from tortie.cli.ctl.main import main

POOLS = ("default-ipv4-ippool", "default-ipv6-ippool")
FAMILIES = (4, 6)
ECHO = Path(__file__).with_name("echo.py")
AFTER = 3.0  # seconds that they go on talking: what a change costs may come late
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
PAIRS = [("node-1", "node-2"), ("node-2", "node-1"), ("node-1", "node-3"), ("node-4", "node-2")]
CARRIERS = {"": None, "plain": "Direct", "vxlan": "VXLAN"}


def arrives(cluster: Cluster, near: str, far: str, carriers: Mapping[str, str | None] = CARRIERS) -> None:
    """Wait until packets of all pairs travel so inside of a subnet and between two, and tortiectl says what carries them."""
    addresses = pods(cluster.kubectl)
    expected = {
        (source, target, family): near if subnet(cluster, source) == subnet(cluster, target) else far
        for source, target in product(addresses, addresses)
        for family in FAMILIES
        if source != target
    }
    found: dict[tuple[str, str, int], str] = {}

    def right() -> bool:
        found.update({pair: how(cluster, pair, addresses) for pair in expected if found.get(pair) != expected[pair]})
        return found == expected

    def said() -> bool:
        return ways(cluster) == {
            (source, target): carriers[way] for (source, target, family), way in expected.items() if family == 4
        }

    try:
        wait("all packets travel as they should", right, 60)
        wait("tortiectl says so", said, 60)
    except TimeoutError:
        assert {pair: way for pair, way in found.items() if way != expected[pair]} == {}
        raise


def ways(cluster: Cluster) -> dict[tuple[str, str], str | None]:
    """Return what tortiectl says of who carries IPv4 from each node to each other one; its route is the kernel's."""
    found: dict[tuple[str, str], str | None] = {}
    blocks = {block["spec"]["cidr"]: block["spec"]["affinity"]["node"] for block in cluster.kubectl.get("ipamblocks")["items"]}
    for node in cluster.nodes:
        words = ["node", "routes", node.name, "-o", "json", "--kubeconfig", str(cluster.plane.kubeconfig)]
        rows = json.loads(CliRunner().invoke(main, words).stdout)
        for row in rows:
            assert bool(row["problem"]) == (row["carrier"] is None)
            assert row["carrier"] in (None, "BGP") or row["via"] in row["kernel"]
            assert row["carrier"] != "BGP" or row["kernel"].split()[1] in row["bird"]
            if ":" not in row["block"]:
                found[f"pod-on-{node.name}", f"pod-on-{blocks[row['block']]}"] = row["carrier"]
    return found


def agents(kubectl: Kubectl) -> set[str]:
    listed = kubectl.get("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=agent")["items"]
    return {one["metadata"]["uid"] for one in listed}


# In the network namespace of the pod with an address: an exec would end with the API server.
IN_POD = """
for one in /run/netns/*; do
    nsenter --net=$one ip -o addr | grep -qF " {address}/" || continue
    exec nsenter --net=$one {command}
done
"""


def _echo(cluster: Cluster, source: str, target: str, times: str = "") -> subprocess.Popen[str]:
    """Start pings from a pod, by its address, to another address."""
    family = 6 if ":" in source else 4
    name = next(name for name, its in pods(cluster.kubectl).items() if its[family] == source)
    node = next(one for one in cluster.nodes if name.endswith(one.name))
    script = IN_POD.format(address=source, command=f"{sys.executable} {ECHO} {target} {times}")
    return subprocess.Popen(
        [*node.enter, "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def answered(cluster: Cluster, asked: Mapping[tuple[str, int], tuple[str, str]]) -> set[tuple[str, int]]:
    """Return which of these, each a pod's address and another address, get an answer."""
    echoes = {one: _echo(cluster, *where, "1") for one, where in asked.items()}
    return {one for one, echo in echoes.items() if echo.communicate()[0].split() == ["1"]}


@contextmanager
def talking(cluster: Cluster) -> Iterator[dict[str, list[int]]]:
    """Let pods of both subnets ping each other every 10 ms meanwhile; afterwards the dictionary has who lost which packets."""
    addresses, lost = pods(cluster.kubectl), dict[str, list[int]]()
    echoes = {}
    for (source, target), family in product(PAIRS, FAMILIES):
        here, there = (addresses[f"pod-on-{name}"][family] for name in (source, target))
        echoes[f"{source} to {target}, IPv{family}"] = _echo(cluster, here, there)
    try:
        yield lost
        time.sleep(AFTER)
    finally:
        said = {who: echo.communicate() for who, echo in echoes.items()}  # which ends their input
    for who, (numbers, error) in said.items():
        sent, *missing = map(int, numbers.split())
        assert sent > 100 * AFTER, error
        if missing:
            lost[who] = missing


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
