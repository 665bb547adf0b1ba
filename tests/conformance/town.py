"""A cluster with its people, policies that hold in it, and packets that its people send each other.

Each pod, each node and the outside is a network namespace; the test's own process has sockets in all of them, so a packet
costs no process. Packets wait in one queue of one CPU, in order, and each turn of a packet of our own takes all others over
one more link: after enough turns a packet that didn't arrive never will (`tests.agent.packets`).
"""

import itertools
import json
import os
import select
import socket
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from click.testing import CliRunner

from tests.agent.packets import Place, Probe, inside
from tests.chaos.containers import Container, containers
from tests.cluster.cluster import Cluster
from tests.cluster.deploy import rolled_out, wait
from tests.conformance.people import NAMES, NODES, OUTSIDE, SERVED, SERVICE_PORT, ZONES, Object, everybody, pod_of, spelt
from tests.conformance.rows import Asked, manifests
from tortie.cli.ctl.main import main

# Pod, node, bridge, node, pod, as often as needed to ask for a neighbour's address on the way, and all that for the answer.
_TURNS = 40
_CHUNK = 50  # packets between two turns; the kernel's queue takes 1000 (net.core.netdev_max_backlog)
_BUFFER = 1 << 22  # bytes that wait for us in a socket
_SO_RCVBUFFORCE = 33
_NUMBERS = range(1024, 30_000)  # of packets: their source ports, none of which is a node's port of a service
_SHARED = 0  # the world of nodes and hosts, which are the same in all
_RST, _SYN, _ACK = 4, 2, 16
_TIMEOUT = 60.0  # seconds


class Heard(NamedTuple):
    """A packet that came, or the answer to one."""

    protocol: str
    number: int
    is_answer: bool


class Spot(Place):
    """A namespace that sends packets, and hears them and their answers; translated ports don't hide who they are."""

    def __init__(self, name: str, namespace: str) -> None:
        super().__init__(namespace)
        self.name = name
        for one, *_ in self._in:
            one.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)

    def heard(self) -> Iterator[Heard]:
        """Yield what came since."""
        for one, protocol, version in self._in:
            while True:
                try:
                    data = one.recv(2048)
                except BlockingIOError:
                    break
                if found := _heard(protocol, data[(data[0] & 15) * 4 :] if version == 4 else data):
                    yield found


def _heard(protocol: str, data: bytes) -> Heard | None:
    def number(start: int, size: int = 2) -> int:
        return int.from_bytes(data[start : start + size], "big")

    match protocol:
        case "TCP":
            flags = data[13]
            if flags & _ACK and flags & (_RST | _SYN):
                return Heard(protocol, number(8, 4) - 1, is_answer=True)
            return Heard(protocol, number(4, 4), is_answer=False) if flags & _SYN else None
        case "UDP":
            return Heard(protocol, number(8), is_answer=False) if len(data) == 10 else None
        case "SCTP":
            return Heard(protocol, number(0), is_answer=False)
    return Heard(protocol, number(4), is_answer=data[0] in (0, 129)) if data[0] in (0, 8, 128, 129) else None


class Sent(NamedTuple):
    """A packet, and from where it is sent."""

    spot: Spot
    probe: Probe


class Outcome(NamedTuple):
    """Who got a packet, and whether its sender got an answer."""

    got: tuple[str, ...]
    answered: bool


class Town:
    """A cluster that runs, and its people, in so many worlds; the `with` closes the sockets."""

    def __init__(self, cluster: Cluster, worlds: int) -> None:
        self.cluster, self.kubectl, self.worlds = cluster, cluster.kubectl, range(1, worlds + 1)
        self._stack = ExitStack()
        self._numbers = itertools.cycle(_NUMBERS)
        self.number = 0  # how often policies were made to hold
        self._held: dict[int, str] = {}  # how policies' names begin, by world
        self._nodes = dict(zip(NODES, cluster.nodes, strict=True))
        self._spots: dict[tuple[int, str], Spot] = {}
        self._addresses: dict[tuple[int, str], tuple[str, str]] = {}
        self._services: dict[tuple[int, str], tuple[dict[str, str], dict[str, int]]] = {}

    def __enter__(self) -> "Town":
        return self

    def __exit__(self, *_: object) -> None:
        for spot in self._spots.values():
            spot.close()
        self._stack.close()

    # --- its people

    def settle(self) -> None:
        """Make everybody, and return when they can be asked."""
        for name, zone in ZONES.items():
            self.kubectl.run("label", "node", self._nodes[name].name, f"zone={zone}")
        wait("pods can be made", lambda: bool(self.kubectl.get("serviceaccounts")["items"]))
        made = [one for world in self.worlds for one in everybody(world)]
        spaces = [one for one in made if one["kind"] == "Namespace"]
        self.kubectl.apply(*spaces)
        self.kubectl.apply(*(one for one in made if one["kind"] != "Namespace"))
        wait("all pods run", self._run, 180)
        self._open_outside()
        for world in self.worlds:
            for name, node in self._nodes.items():
                self._addresses[world, name] = (node.place.address4, node.place.address6)
            self._addresses |= {(world, name): pair for name, pair in OUTSIDE.items()}
            for pod in NAMES:
                self._find(world, pod)
            for pod in SERVED:
                self._find_service(world, pod)

    def remake(self, world: int, pod: str) -> None:
        """Delete a pod and make it again."""
        namespace, name = spelt(pod, world)
        self._spots.pop((world, pod)).close()
        self.kubectl.run("delete", "pod", name, "-n", namespace, "--wait")
        self.kubectl.apply(pod_of(pod, world))
        wait(f"{namespace}/{name} runs", self._run, _TIMEOUT)
        self._find(world, pod)

    def agent(self, node: str) -> Container | None:
        """Return a node's agent, where it runs."""
        found = containers(self._nodes[node])
        return next((one for one in found if one.name == "agent" and one.pod.startswith("tortie-system/")), None)

    def nft(self, node: str, *command: str, stdin: str | None = None) -> str:
        """Return what `nft` prints on a node."""
        line = [*self._nodes[node].place.enter, "nft", *command]
        return subprocess.run(line, input=stdin, text=True, check=True, capture_output=True).stdout

    def agent_is_back(self, node: str, old: str) -> bool:
        """Whether another agent than that container runs, and is ready."""
        agent = self.agent(node)
        return agent is not None and agent.id != old and rolled_out(self.kubectl, len(self._nodes))

    def restore_all(self) -> None:
        """Give everybody in every world the labels of the beginning."""
        for world in self.worlds:
            self.restore(world)

    def restore(self, world: int) -> None:
        """Give everybody the labels of the beginning."""
        for wanted in everybody(world):
            kind, meta = wanted["kind"].lower(), wanted["metadata"]
            where = ("-n", meta["namespace"]) if "namespace" in meta else ()
            has = self.kubectl.get(kind, meta["name"], *where)["metadata"].get("labels", {})
            right = (
                dict.fromkeys(has) | meta.get("labels", {}) | {k: v for k, v in has.items() if k.startswith("kubernetes.io/")}
            )
            if has != right:
                patch = json.dumps({"metadata": {"labels": right}})
                self.kubectl.run("patch", kind, meta["name"], *where, "--type=merge", "-p", patch)

    def addresses(self, world: int) -> dict[str, tuple[str, str]]:
        """Return everybody's addresses."""
        return {name: pair for (of, name), pair in self._addresses.items() if of == world}

    def _run(self) -> bool:
        pods = self.kubectl.get("pods", "-A", "-l", "pod")["items"]
        ready = [one for one in pods if one["status"]["phase"] == "Running" and len(one["status"].get("podIPs", ())) == 2]
        return len(ready) == len(pods) == len(self.worlds) * len(NAMES)

    def _find(self, world: int, pod: str) -> None:
        namespace, name = spelt(pod, world)
        seen = self.kubectl.get("pod", name, "-n", namespace)
        first, second = (one["ip"] for one in seen["status"]["podIPs"])
        self._addresses[world, pod] = (first, second)
        node = next(one for one in self.cluster.nodes if one.name == seen["spec"]["nodeName"])
        sandbox = next(one for one in containers(node) if one.uid == seen["metadata"]["uid"] and not one.name)
        self._spots[world, pod] = Spot(f"{namespace}/{name}", f"/proc/{sandbox.pid}/ns/net")

    def _find_service(self, world: int, pod: str) -> None:
        namespace, name = spelt(pod, world)
        spec = self.kubectl.get("service", name, "-n", namespace)["spec"]
        by_family = {"v6" if ":" in one else "v4": one for one in spec["clusterIPs"]}
        self._services[world, pod] = by_family, {one["protocol"]: one["nodePort"] for one in spec["ports"]}

    def _open_outside(self) -> None:
        """Let the bridge's namespace be the hosts outside, and the way from them to pods."""
        hub = self.cluster.network.hub
        lines = [f"address add {one} dev lo" for pair in OUTSIDE.values() for one in pair]
        via = {node.name: (node.place.address4, node.place.address6) for node in self.cluster.nodes}
        for block in self.kubectl.get("ipamblocks")["items"]:
            cidr = block["spec"]["cidr"]
            lines.append(f"route replace {cidr} via {via[block['spec']['affinity']['node']][':' in cidr]}")
        subprocess.run([*hub.enter, "ip", "-batch", "-"], input="\n".join(lines), text=True, check=True, capture_output=True)
        for name, node in self._nodes.items():
            self._spots[_SHARED, name] = Spot(name, node.place.path)
        self._spots[_SHARED, "outside"] = Spot("outside", hub.path)
        self._turn = inside(hub.path, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._stack.callback(self._turn.close)
        self._turn.bind(("127.0.0.1", 0))

    # --- policies

    def hold(self, policies: Mapping[int, str]) -> None:
        """Let these policies hold, by world, and no others; return when every node says that it enforces them."""
        self.number += 1
        self._held = {world: f"p{self.number}-{world}" for world in self.worlds}
        wanted = [one for world, text in policies.items() for one in self._manifests(world, text)]
        if gone := self._policies():
            self._delete(gone)
        if wanted:
            self.kubectl.apply(*wanted)
        wait("the policies are enforced", self.enforces, _TIMEOUT)

    def change(self, world: int, policies: str) -> None:
        """Let a world have these policies in place of those that it has; those of one place in the list are one object."""
        wanted = self._manifests(world, policies)
        names = {_name(one) for one in wanted}
        held = (one for one in self._policies() if one["metadata"]["name"].startswith(f"{self._held[world]}-"))
        if gone := [one for one in held if _name(one) not in names]:
            self._delete(gone)
        if wanted:
            self.kubectl.apply(*wanted)

    def _manifests(self, world: int, policies: str) -> list[Object]:
        return manifests(policies, world, self._held[world], self.addresses(world))

    def _delete(self, gone: Iterable[Object]) -> None:
        self.kubectl.run("delete", "-f", "-", stdin="\n---\n".join(json.dumps(one) for one in gone))

    def enforces(self) -> bool:
        """Whether every node enforces the policies that there are now, and no others."""
        there = {_name(one) for one in self._policies()}
        rule_sets = {one["metadata"]["name"]: one for one in self.kubectl.get("rulesets")["items"]}
        if not {name for one in rule_sets.values() for name in one["spec"].get("policies", ())} <= there:
            return False
        for one in self.kubectl.get("nodepolicies")["items"]:
            named = {name for group in one["spec"].get("groups", ()) for name in group.get("ruleSets", ())}
            status = one.get("status", {})
            if not named <= rule_sets.keys() or status.get("realizedGeneration") != one["metadata"]["generation"]:
                return False
        line = ["--kubeconfig", str(self.cluster.plane.kubeconfig), "policy", "status", "-o", "json"]
        said = CliRunner().invoke(main, line)
        return said.exit_code == 0 and {one["policy"] for one in json.loads(said.stdout)} == there

    def _policies(self) -> list[Object]:
        found: list[Object] = self.kubectl.get("networkpolicies,clusternetworkpolicies", "-A")["items"]
        return found

    # --- packets

    def ask(self, world: int, asked: Iterable[Asked]) -> dict[Asked, Outcome]:
        """Send the packets that are asked about, and return what came of each."""
        listed = list(asked)
        return dict(zip(listed, self.exchange([self.sent(world, one) for one in listed]), strict=True))

    def wrong(self, world: int, expected: Mapping[Asked, bool]) -> list[str]:
        """Return what isn't as it should be, a sentence each."""
        return [f"{asked}: {why}" for asked, why in self.amiss(world, expected).items()]

    def amiss(self, world: int, expected: Mapping[Asked, bool]) -> dict[Asked, str]:
        """Return the packets that didn't fare as they should, and how they fared."""
        found = self.ask(world, expected)
        return {asked: why for asked, outcome in found.items() if (why := self._why(world, asked, outcome, expected))}

    def exchange(self, sent: Sequence[Sent]) -> list[Outcome]:
        """Send packets, and return what came of each, in their order."""
        for spot in self._spots.values():
            _drain(spot)
        numbers = [next(self._numbers) for _ in sent]
        with self.arriving():
            for start in range(0, len(sent), _CHUNK):
                for (spot, probe), number in zip(sent[start : start + _CHUNK], numbers[start:], strict=False):
                    spot.send(probe, number)
                self._turns(1)
        got: dict[tuple[str, int], list[str]] = {}
        answers = set[tuple[str, str, int]]()
        for spot in self._spots.values():
            for heard in spot.heard():
                if heard.is_answer:
                    answers.add((spot.name, heard.protocol, heard.number))
                else:
                    got.setdefault((heard.protocol, heard.number), []).append(spot.name)
        return [
            Outcome(tuple(got.get((probe.protocol, number), ())), (spot.name, probe.protocol, number) in answers)
            for (spot, probe), number in zip(sent, numbers, strict=True)
        ]

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """What is sent inside has arrived when it ends, or never will."""
        cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cpus)})
        try:
            yield
            self._turns(_TURNS)
        finally:
            os.sched_setaffinity(0, cpus)

    def spot(self, world: int, name: str) -> Spot:
        """Return where somebody is."""
        if name in NAMES:
            return self._spots[world, name]
        return self._spots[_SHARED, name if name in NODES else "outside"]

    def target(self, world: int, asked: Asked) -> tuple[str, int]:
        """Return address and port that a packet is sent to."""
        protocol, _, port = asked.on.partition(" ")
        which = asked.family == "v6"
        if not asked.via:
            return self._addresses[world, asked.target][which], int(port or 0)
        by_family, node_ports = self._services[world, asked.target]
        if asked.via == "service":
            return by_family[asked.family], SERVICE_PORT
        return self._addresses[world, asked.via][which], node_ports[protocol]

    def sent(self, world: int, asked: Asked) -> Sent:
        """Return the packet that is asked about."""
        source = self._addresses[world, asked.source][asked.family == "v6"]
        target, port = self.target(world, asked)
        return Sent(self.spot(world, asked.source), Probe(source, target, asked.on.partition(" ")[0], port))

    def _why(self, world: int, asked: Asked, outcome: Outcome, expected: Mapping[Asked, bool]) -> str:
        whole = (self.spot(world, asked.target).name,)
        if not expected[asked]:
            return f"it came to {', '.join(outcome.got)}, and must not" if outcome.got else ""
        if outcome.got != whole:
            return f"it came to {', '.join(outcome.got) or 'nobody'}, and should come to {whole[0]}"
        has_answers = asked.on.startswith(("TCP", "ICMP"))
        return "it came, and its answer was lost" if has_answers and not outcome.answered else ""

    def _turns(self, count: int) -> None:
        for _ in range(count):
            self._turn.sendto(b"turn", self._turn.getsockname())
            assert select.select([self._turn], [], [], 30)[0], "no packet of our own came back"
            self._turn.recv(16)


def _drain(spot: Spot) -> None:
    for _ in spot.heard():
        pass


def _name(policy: Object) -> str:
    """Return a policy's name as `tortiectl policy` spells it."""
    meta = policy["metadata"]
    return f"{policy['kind']} " + (f"{meta['namespace']}/{meta['name']}" if "namespace" in meta else meta["name"])
