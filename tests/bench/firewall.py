"""What it costs to enforce policies: the kernel's table, a policy's way to the first packet, pods' starts, packets' rates."""

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
from contextlib import closing
from typing import Any

import tortie.agent.process  # noqa: F401 - what an agent imports counts
from tests.agent.acting import AgentNode
from tests.agent.namespaces import namespaces
from tests.agent.packets import Place, Probe, net
from tests.bench import pods
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import pool
from tortie.addressing.allocator import address
from tortie.agent.desired import Pod
from tortie.agent.firewall import Firewall, remove_table
from tortie.agent.kernel import Kernel
from tortie.agent.knowledge import PODS
from tortie.api import lean
from tortie.api.compiled import CompiledMetadata, Port, Rule, RuleSet, RuleSetSpec
from tortie.kube.client import Client
from tortie.kube.resource import Resource
from tortie.policy.view import Changes

POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", namespaced=True)

_POLICIES, _MEMBERS, _FEW, _ENDPOINTS = 10_000, 10, 10, 100
_TIMES = 200
_PODS = 50  # ADDs
_TOGGLES = 100  # a policy allows and denies so often
_ROUNDS, _SECONDS = 5, 2  # of iperf3


def _rule_set(number: int) -> RuleSet:
    """Return what a usual policy is compiled to: three ports for the members of a set."""
    ports = Port("TCP", 80), Port("TCP", 8000, 9000), Port("UDP", 53)
    said = f"NetworkPolicy shop/p{number}"
    rule = Rule("Ingress", "Accept", (f"s{number}",), ports, (f"{said} ingress[0]",))
    return RuleSet(CompiledMetadata(name=f"r{number}"), RuleSetSpec("Namespace", 0, ("Ingress",), (rule,), (said,)))


def _changes(policies: int) -> Changes:
    """Return so many policies, each with a set of its own, spread over a node's pods."""
    sets = {
        f"s{n}": {f"10.{k >> 16}.{k >> 8 & 255}.{k & 255}" for k in range(n * _MEMBERS, (n + 1) * _MEMBERS)}
        for n in range(policies)
    }
    lists = {f"pod-{k}": tuple(f"r{n}" for n in range(k, policies, _ENDPOINTS)) for k in range(_ENDPOINTS)}
    return Changes(rule_sets={f"r{n}": _rule_set(n) for n in range(policies)}, added=sets, endpoints=dict(lists))


def _one_address(firewall: Firewall, first: int) -> float:
    """Return the ms in which an address is added to a set; each time another one."""
    taken = []
    for number in range(_TIMES):
        start = time.perf_counter()
        firewall.enforce(Changes(added={"s1": {f"11.{first}.{number >> 8}.{number & 255}"}}))
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1000


def _table() -> dict[str, float]:
    """Measure in the namespace that this process is in; what an agent imports is imported."""
    kernel = Kernel()
    few = Firewall(kernel)
    few.enforce(_changes(_FEW))
    figures = {"nft_one_address_few": _one_address(few, 1)}
    remove_table(kernel.tables)
    changes, firewall = _changes(_POLICIES), Firewall(kernel)
    pods = [Pod(f"cali{k}", f"pod-{k}", "02:00:00:00:00:01", (address(f"10.200.0.{k}"),)) for k in range(_ENDPOINTS)]
    start = time.perf_counter()
    firewall.begin(pods)
    firewall.enforce(changes)
    figures["nft_full_program"] = time.perf_counter() - start
    figures["nft_one_address_many"] = _one_address(firewall, 2)
    figures["agent_rss_10k_policies"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    blocks = {f"b{n}": {f"{20 + (k >> 8)}.{k & 255}.{n}.0/24" for k in range(1000)} for n in range(100)}
    firewall.enforce(Changes(added=blocks))
    figures["nft_one_address_ipblocks"] = _one_address(firewall, 3)
    return figures


def table() -> dict[str, float]:
    """Return the figures of the kernel's table, of a process of its own in a namespace of its own."""
    with namespaces(1) as (path,):
        enter = ["nsenter", f"--net={path}", sys.executable, "-m", __name__]
        done = subprocess.run(enter, capture_output=True, text=True, check=True)
    return {str(name): float(value) for name, value in json.loads(done.stdout).items()}


def throughput() -> dict[str, float]:
    """Return the smaller ratio, of bytes and of small packets a second, with 10,000 policies over none.

    Each round runs them in the order with, without, without, with: what grows or shrinks with time counts for both.
    """
    with net(2) as made:
        node = made.nodes[0]
        changes = _changes(_POLICIES)
        changes.endpoints |= {"a": (), "b": tuple(f"r{n}" for n in range(_ENDPOINTS - 1, _POLICIES, _ENDPOINTS))}
        for number, uid in enumerate("ab"):
            node.attach(made.free[number], uid, [f"10.200.1.{number}"])
        changes.added[f"s{_POLICIES - 1}"].add("10.200.1.0")
        changes.rule_sets[f"r{_POLICIES - 1}"] = _any_port(_rule_set(_POLICIES - 1))
        server = subprocess.Popen(["nsenter", f"--net={made.free[1]}", "iperf3", "-s"], stdout=subprocess.DEVNULL)
        none = Firewall(node.kernel)
        try:
            for pod in node.known.values():
                none.put(pod)
            none.enforce(Changes(endpoints={"a": (), "b": ()}))
            node.firewall.enforce(changes)
            ratios: dict[bool, list[float]] = {True: [], False: []}
            for _ in range(_ROUNDS):
                for small, found in ratios.items():
                    rates: dict[Firewall, float] = {node.firewall: 0.0, none: 0.0}
                    for one in (node.firewall, none, none, node.firewall):
                        one.program()
                        rates[one] += iperf(made.free[0], small=small)
                    found.append(rates[node.firewall] / rates[none])
        finally:
            server.terminate()
            server.wait()
    return {"throughput_10k_policies": min(statistics.median(found) for found in ratios.values())}


def _any_port(rule_set: RuleSet) -> RuleSet:
    rule = Rule("Ingress", "Accept", rule_set.spec.rules[0].peers)
    return RuleSet(rule_set.metadata, RuleSetSpec("Namespace", 0, ("Ingress",), (rule,)))


def iperf(namespace: str, target: str = "10.200.1.1", *, small: bool = False) -> float:
    """Return bytes a second of TCP, or packets a second of 64 bytes that arrive."""
    how = ["-u", "-l", "64", "-b", "0"] if small else []
    command = ["iperf3", "-c", target, "-t", str(_SECONDS), "-J", *how]
    for _ in range(50):  # the server may not listen yet
        done = subprocess.run(["nsenter", f"--net={namespace}", *command], capture_output=True, text=True, check=False)
        found = json.loads(done.stdout)
        if "error" not in found:
            break
        time.sleep(0.1)
    end: dict[str, Any] = found["end"]
    if small:
        return float(end["sum"]["packets"] - end["sum"]["lost_packets"])
    return float(end["sum_received"]["bits_per_second"])


def gated() -> dict[str, float]:
    """Return the ms of an ADD that begins as soon as its Pod is there, and of a policy until packets obey it."""
    with pods.served(_PODS, pool(blockSize=22), options=("--policy-gate", "Closed")) as node, asyncio.Runner() as runner:
        opened = Client.connect(str(node.plane.kubeconfig))
        client = runner.run(opened.__aenter__())
        try:
            adds = [_add_at_once(node, number, client, runner) for number in range(_PODS)]
            with closing(Way(node, client, runner)) as way:
                return {"cni_add_gated_p50": statistics.median(adds), **way.figures()}
        finally:
            runner.run(opened.__aexit__(None, None, None))


def _add_at_once(node: AgentNode, number: int, client: Client, runner: asyncio.Runner) -> float:
    made = pods.pod_object(number) | {}
    made["metadata"] = {"name": f"pod-{number}", "labels": {"app": f"app-{number}"}}
    there = runner.run(client.create(PODS.path(namespace="default"), made, into=lean.Labelled))
    start = time.perf_counter()
    node.cni("ADD", number, uid=there.metadata.uid)
    return (time.perf_counter() - start) * 1000


class Way:
    """The way of a policy to packets from pod 0 to pod 1."""

    def __init__(self, node: AgentNode, client: Client, runner: asyncio.Runner) -> None:
        self._client, self._runner = client, runner
        self._places = [Place(node.pods[number]) for number in (0, 1)]
        blocks = Kubectl(node.plane.kubeconfig).get("ipamblocks")["items"]
        self._addresses = {one["pod"]: one["address"] for block in blocks for one in block["status"]["allocations"]}
        self._number = 1024

    def close(self) -> None:
        for place in self._places:
            place.close()

    def figures(self) -> dict[str, float]:
        """Let a policy allow and deny by turns, and return the ms from its change to the first packet that obeys."""
        self._runner.run(self._client.create(POLICIES.path(namespace="default"), _policy("nobody")))
        self._wait(passes=False)
        taken: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(_TOGGLES):
            for passes, found in taken.items():
                start = time.perf_counter()
                body = _policy("app-0" if passes else "nobody")
                self._runner.run(self._client.patch(POLICIES.path("p", namespace="default"), body))
                found.append((self._wait(passes=passes) - start) * 1000)
        both = sorted(taken[True] + taken[False])
        return {
            "policy_to_packet_p50": statistics.median(both), "policy_to_packet_p99": both[int(len(both) * 0.99) - 1],
            "policy_to_packet_denied_p50": statistics.median(taken[False]),
        }  # fmt: skip

    def _wait(self, *, passes: bool) -> float:
        """Return when a packet was sent that arrived, or that didn't."""
        while True:
            self._number = 1024 + (self._number - 1023) % 60_000
            sent = time.perf_counter()
            self._places[0].send(Probe(self._addresses["pod-0"], self._addresses["pod-1"], "UDP", 80), self._number)
            time.sleep(0.001)
            if (("UDP", self._number) in set(self._places[1].got())) == passes:
                return sent


def _policy(peer: str) -> dict[str, Any]:
    """Let pods of one label alone talk to pod 1."""
    spec = {
        "podSelector": {"matchLabels": {"app": "app-1"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": peer}}}]}],
    }
    return {"metadata": {"name": "p"}, "spec": spec}


if __name__ == "__main__":
    print(json.dumps(_table()))
