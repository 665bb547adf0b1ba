"""IP-in-IP between three nodes of two subnets, by whole agents, on a kernel that has it: `test_ipip.py` runs this in a machine.

What is on the wire is counted where the nodes' links meet: what is encapsulated, and pods' packets as they are.
"""

import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

import pytest
from pyroute2 import netns

from tests.agent.acting import AgentNode
from tests.agent.namespaces import namespaces, run
from tests.agent.packets import inside
from tests.cluster.deploy import wait
from tests.cluster.network import Network
from tests.vm.api import Api
from tests.vm.forks import ForkedAgent
from tortie.addressing.ranges import parse
from tortie.agent import overlay
from tortie.agent.wire import IPIP, VXLAN

PATIENCE = 60.0  # seconds; everything is twenty times as slow here
POOL = "10.1.0.0/16"
BLOCKS = ["10.1.0.0/26", "10.1.0.64/26", "10.1.0.128/26"]
COUNT = f"""
table netdev wire {{
    counter plain {{}}
    counter ipip {{}}
    counter vxlan {{}}
    chain count {{
        type filter hook ingress devices = {{ port0, port1, port2 }} priority 0
        ip saddr {POOL} ip daddr {POOL} counter name plain
        ip protocol 4 counter name ipip
        udp dport 4789 counter name vxlan
    }}
}}
"""
NEAR, FAR = (0, 1), (0, 2)  # nodes of one subnet, and of two


@dataclass
class World:
    """The nodes, and each one's pod."""

    api: Api
    hub: str
    agents: list[AgentNode]
    pods: list[str]
    addresses: list[str] = field(default_factory=list)

    def ask(self, ipip: str = "Never", vxlan: str = "Never") -> None:
        """Let the pool's packets be carried so."""
        self.api.put("ippools", "pool", spec={"ipipMode": ipip, "vxlanMode": vxlan})

    def how(self, pair: tuple[int, int]) -> str:
        """Return how three pings and their answers travel: "" where they don't arrive."""
        source, target = pair
        run(["nft", "reset", "counters", "table", "netdev", "wire"], self.hub)
        done = ping(self.pods[source], self.addresses[target], "-c", "3", "-i", "0.1", "-W", "1")
        if "3 packets received" not in done:
            return ""
        listed = json.loads(run(["nft", "-j", "list", "counters", "table", "netdev", "wire"], self.hub))["nftables"]
        packets = {one["counter"]["name"]: one["counter"]["packets"] for one in listed if "counter" in one}
        return next((name for name, number in packets.items() if number == 6), str(packets))

    def travel(self, near: str, far: str) -> None:
        """Wait until packets do so."""
        found = dict[tuple[int, int], str]()
        wanted = {NEAR: near, NEAR[::-1]: near, FAR: far, FAR[::-1]: far}

        def so() -> bool:
            found.update({pair: self.how(pair) for pair in wanted if found.get(pair) != wanted[pair]})
            return found == wanted

        try:
            wait("packets travel so", so, PATIENCE)
        except TimeoutError:
            assert found == wanted
            raise

    def network(self, number: int) -> dict[str, object]:
        """Return what an agent says of its node."""
        found: dict[str, object] = self.api.get("nodenetworks", self.agents[number].name).get("status", {})
        return found

    def recorded(self, number: int) -> set[str]:
        """Return the addresses that a node's ledger has in use."""
        block = self.api.get("ipamblocks", self.agents[number].name)
        return {one["address"] for one in block.get("status", {}).get("allocations", ())}


def ping(namespace: str, target: str, *options: str) -> str:
    command = ["nsenter", f"--net={namespace}", "busybox", "ping", *options, target]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120).stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    network = Network("vm", 3, subnets=2)
    with ExitStack() as opened:
        opened.callback(network.remove)
        opened.callback(logs, folder)
        network.make()
        home = opened.enter_context(Path("/proc/self/ns/net").open())
        opened.callback(lambda: netns.setns(home.fileno()))
        netns.setns(network.hub.path)
        api = opened.enter_context(closing(Api(folder, network.hub)))
        wait("the API answers", api.answers, PATIENCE)
        pods = opened.enter_context(namespaces(3))
        api.put("ippools", "pool", spec={"cidr": POOL, "ipipMode": "Always", "vxlanMode": "Never"})
        agents = list[AgentNode]()
        for place, block, pod in zip(network.nodes, BLOCKS, pods, strict=True):
            name = place.name
            api.put("nodes", name, status={"addresses": [{"type": "InternalIP", "address": place.address4}]})
            uid = api.get("nodes", name)["metadata"]["uid"]
            belongs = {"pool": {"name": "pool", "uid": "p"}, "affinity": {"node": name, "uid": uid}}
            api.put("ipamblocks", name, spec={"cidr": block, "active": True, **belongs})
            api.put("nodenetworks", name, spec={"blocks": [{"name": name, "cidr": block, "pool": "pool"}]})
            (folder / name).mkdir()
            agents.append(opened.enter_context(closing(ForkedAgent(name, api, folder / name, place.path, [pod]))))
        for agent in agents:
            agent.launch()
        for agent in agents:
            wait(f"{agent.name} serves\n{agent.log.read_text()}", lambda: agent.serves, 2 * PATIENCE)  # noqa: B023
        made = World(api, network.hub.path, agents, pods)
        for number, agent in enumerate(agents):
            wait("it has a tunnel", lambda: "ipip" in made.network(number), PATIENCE)  # noqa: B023
            made.addresses += agent.add(0)
        run(["nft", COUNT], network.hub.path)
        yield made


def logs(folder: Path) -> None:
    """Show what all processes said, where a test failed."""
    for log in sorted(folder.rglob("*.log")):
        sys.stderr.write(f"--- {log.name}\n{log.read_text()}")


class Mode(NamedTuple):
    """What is asked of the pool, and how packets travel inside of a subnet and between two."""

    ipip: str
    vxlan: str
    near: str
    far: str


MODES = {
    "always": Mode("Always", "Never", "ipip", "ipip"),
    "across subnets": Mode("CrossSubnet", "Never", "plain", "ipip"),
    "never": Mode("Never", "Never", "plain", ""),
    "always again": Mode("Always", "Never", "ipip", "ipip"),
}


@pytest.mark.parametrize("row", MODES)
def test_all_pairs(world: World, row: str) -> None:
    mode = MODES[row]
    world.ask(mode.ipip, mode.vxlan)
    world.travel(mode.near, mode.far)


def test_the_device_has_an_address_of_the_ledger_and_an_mtu_that_fits(world: World) -> None:
    world.travel("ipip", "ipip")
    for number, agent in enumerate(world.agents):
        said = world.network(number)
        own = str(said["ipip"])
        assert f"inet {own}/32" in run(["ip", "addr", "show", "dev", IPIP], agent.path)
        assert parse(BLOCKS[number]).contains(parse(own))
        assert said["mtu"] == 1480
        assert [one["status"] for one in said["conditions"]] == ["True", "True"]  # type: ignore[attr-defined]
        wait("it is on record", lambda: own in world.recorded(number), PATIENCE)  # noqa: B023
        for link, where in ((IPIP, agent.path), ("eth0", world.pods[number])):
            assert "mtu 1480" in run(["ip", "link", "show", "dev", link], where)
    # What fills a packet whole passes: 20 of IPv4, 8 of ICMP. The node is on the wire as the outer packet's source, whose whole
    # size is what the links carry.
    assert "2 packets received" in ping(world.pods[FAR[0]], world.addresses[FAR[1]], "-c", "2", "-s", str(1480 - 28))


# What is done by hand to the devices of three nodes at once.
HANDS = (
    (
        ("it is deleted", f"ip link del {IPIP}"),
        ("it is down", f"ip link set {IPIP} down"),
        ("it has no address", f"ip addr flush dev {IPIP}"),
    ),
    (
        ("another one is there", f"ip link del {IPIP} && ip link add {IPIP} type ipip local 192.0.2.1"),
        ("it has another MTU", f"ip link set {IPIP} mtu 1300"),
        ("it leads nowhere", f"ip route flush dev {IPIP}"),
    ),
)


@pytest.mark.parametrize("hands", HANDS, ids=lambda hands: ", ".join(what for what, _ in hands))
def test_what_somebody_did_to_the_device_is_mended(world: World, hands: tuple[tuple[str, str], ...]) -> None:
    paths = [agent.path for agent in world.agents]
    before = [looks(path) for path in paths]
    for (what, command), path, past in zip(hands, paths, before, strict=True):
        run(["sh", "-c", command], path)
        assert looks(path) != past, what
    try:
        wait("all is mended", lambda: [looks(path) for path in paths] == before, PATIENCE)
    except TimeoutError:
        assert [looks(path) for path in paths] == before
        raise
    world.travel("ipip", "ipip")


def looks(path: str) -> dict[str, object]:
    """Return what the device is, and the routes through it; nothing where it isn't there."""
    for link in json.loads(run(["ip", "-d", "-j", "addr", "show"], path)):
        if link["ifname"] == IPIP:
            held = sorted(one["local"] for one in link["addr_info"] if one["family"] == "inet")
            routes = run(["ip", "route", "show", "dev", IPIP], path)
            return {key: link[key] for key in ("mtu", "flags", "linkinfo")} | {"addresses": held, "routes": routes}
    return {}


# Between nodes of two subnets there is no other way than in something.
CHANGES = {
    "to direct where they share a subnet": Mode("CrossSubnet", "Never", "plain", "ipip"),
    "to VXLAN": Mode("Never", "Always", "vxlan", "vxlan"),
    "to IP-in-IP": Mode("Always", "Never", "ipip", "ipip"),
}


def test_no_packet_is_lost_while_the_mode_changes(world: World) -> None:
    world.ask("Always")
    world.travel("ipip", "ipip")
    with Talk(world, [NEAR, NEAR[::-1], FAR, FAR[::-1]]) as talk:
        for row, mode in CHANGES.items():
            before = talk.asked
            world.ask(mode.ipip, mode.vxlan)
            wait(row, lambda: leads(world, mode), PATIENCE)  # noqa: B023
            sys.stdout.write(f"{row}: from packet {before} to {talk.asked}\n")
            time.sleep(2)
    sys.stdout.write(f"{talk.asked} packets of each pair\n")
    assert talk.asked > 300, "they talked all the while"
    assert talk.lost() == {}


class Talk(threading.Thread):
    """Pods ping each other every 10 ms. Busybox' ping won't do: its socket holds 7 KB, and while it waits it loses answers."""

    def __init__(self, world: World, pairs: list[tuple[int, int]]) -> None:
        super().__init__(daemon=True)
        self._sockets = {pair: inside(world.pods[pair[0]], _echoing) for pair in pairs}
        self._targets = {pair: world.addresses[pair[1]] for pair in pairs}
        self._answered: dict[tuple[int, int], set[int]] = {pair: set() for pair in pairs}
        self._over = threading.Event()
        self.asked = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()
        for one in self._sockets.values():
            one.close()

    def run(self) -> None:
        while not self._over.wait(0.01):
            for pair, one in self._sockets.items():
                one.sendto(struct.pack(">BBHHH", 8, 0, 0, 0, self.asked), (self._targets[pair], 0))
            self.asked += 1
            self._hear()
        deadline = time.monotonic() + 5
        while self.lost() and time.monotonic() < deadline:
            self._hear()

    def lost(self) -> dict[tuple[int, int], list[int]]:
        """Return what wasn't answered."""
        asked = set(range(self.asked))
        return {pair: sorted(asked - answered) for pair, answered in self._answered.items() if asked - answered}

    def _hear(self) -> None:
        for pair, one in self._sockets.items():
            with suppress(BlockingIOError):
                while True:
                    self._answered[pair].add(int.from_bytes(one.recv(64)[6:8], "big"))


def _echoing() -> socket.socket:
    Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 0")  # of the namespace that the thread is in
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    made.setblocking(False)
    return made


LINKS = {"plain": "eth0", "ipip": IPIP, "vxlan": VXLAN}


def leads(world: World, mode: Mode) -> bool:
    """Whether the nodes' routes are as a mode asks: counting is of no use while all pods talk."""
    for here, there in (NEAR, NEAR[::-1], FAR, FAR[::-1]):
        wanted = LINKS[mode.near if (here, there) in (NEAR, NEAR[::-1]) else mode.far]
        if f"dev {wanted} " not in run(["ip", "route", "get", world.addresses[there]], world.agents[here].path):
            return False
    return True


def test_the_device_has_no_address_when_no_pool_needs_it(world: World) -> None:
    """And stays: what nodes still send that haven't seen the pool's change is taken."""
    world.ask("Always")
    world.travel("ipip", "ipip")
    own = [str(world.network(number)["ipip"]) for number in range(3)]
    world.ask(vxlan="Always")
    world.travel("vxlan", "vxlan")
    for number, agent in enumerate(world.agents):

        def gone(number: int = number, agent: AgentNode = agent) -> bool:
            freed = own[number] not in world.recorded(number) and "ipip" not in world.network(number)
            return freed and "inet " not in run(["ip", "addr", "show", "dev", IPIP, "scope", "global"], agent.path)

        wait("it is freed", gone, PATIENCE)
        assert run(["ip", "route", "show", "dev", IPIP], agent.path) == ""


def test_uninstalled_nothing_is_left(world: World) -> None:
    """Neither where the last pod goes after the agent, nor where the agent itself removes the devices."""
    for agent in world.agents:
        agent.close()
        assert IPIP in run(["ip", "-o", "link"], agent.path)
    inside(world.agents[0].path, lambda: world.agents[0].cni("DEL", 0, uninstalled=True, remove=[]))
    inside(world.agents[1].path, overlay.remove_all)
    for agent in world.agents[:2]:
        links = run(["ip", "-o", "link"], agent.path)
        assert IPIP not in links
        assert VXLAN not in links
