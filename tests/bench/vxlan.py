"""What VXLAN costs: other nodes told to the kernel, one more of them, and a pod's throughput."""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.agent.namespaces import namespaces, run
from tests.agent.packets import Net, inside, net
from tests.bench.firewall import iperf
from tortie.addressing.allocator import Address
from tortie.addressing.ranges import Family, Range, parse
from tortie.agent import forwarding, overlay
from tortie.agent.forwarding import Entry, Neighbour, Route, Thing
from tortie.agent.netlink import Netlink
from tortie.agent.reach import Reach, Terms
from tortie.agent.wire import VXLAN
from tortie.api import lean
from tortie.policy.view import Changes
from tortie.routing.carriage import Carried, Node, node_address

_NODES, _MORE = 5000, 50
_POOLS: dict[Family, Range] = {4: parse("10.0.0.0/8"), 6: parse("fd00::/48")}
_ROUNDS = 5


def _network(number: int, family: Family) -> lean.Network:
    """Return the NodeNetwork of a node: one block, at an address of its own."""
    pool = _POOLS[family]
    block = Range(family, pool.start + 64 * number, 26 if family == 4 else 122)
    name = f"node-{number}"
    vxlan = lean.NetworkVxlan(overlay.mac_of(name), (str(Address(family, block.start)),))
    at = str(Address(4, (172 << 24) + (16 << 16) + number + 1))
    status = lean.NetworkStatus((f"{at}/12",), vxlan=vxlan)
    return lean.Network(lean.Metadata(name), lean.NetworkSpec((lean.NetworkBlock(name, str(block), "pool"),)), status)


def program() -> dict[str, float]:
    """Return the seconds of the slower family until the kernel has 5,000 nodes, and the ms for one more."""
    seconds, more = list[float](), list[float]()
    for family, whole in _POOLS.items():
        terms = Terms(Node("here", {4: node_address("172.31.255.1/12")}), (Carried(whole, vxlan="Always"),))
        networks = [_network(number, family) for number in range(_NODES + _MORE)]
        with namespaces(1) as (path,):
            run(["ip", "link", "add", VXLAN, "type", "vxlan", "id", "4096", "dstport", "4789", "local", "172.31.255.1"], path)
            run(["ip", "link", "set", VXLAN, "up"], path)
            with inside(path, Netlink) as kernel:
                links, reached = {VXLAN: kernel.index(VXLAN)}, Reach()

                def take(some: list[lean.Network]) -> float:
                    start = time.perf_counter()
                    for one in some:
                        reached.put(one.metadata.name, one)  # noqa: B023 - called at once
                    gone, come = reached.settle(terms)  # noqa: B023
                    assert forwarding.write(kernel, links, gone, come) == {}  # noqa: B023
                    return time.perf_counter() - start

                seconds.append(take(networks[:_NODES]))
                more += [take([one]) * 1000 for one in networks[_NODES:]]
    return {"vxlan_program_5000": max(seconds), "vxlan_one_node_more": statistics.median(more)}


PODS = ("10.200.0.1", "10.201.0.1")


def over_handmade() -> dict[str, float]:
    """Return bytes a second of TCP between pods of two nodes by the agent's VXLAN, over those by one that `ip` made.

    With the agent's table, which one made by hand has none of; and of the devices alone, without it.
    """
    with net(2) as made:
        for number, one in enumerate(made.nodes):
            one.firewall.enforce(Changes(endpoints={f"p{number}": ()}))
            one.attach(made.free[number], f"p{number}", [PODS[number]])
        server = subprocess.Popen(["nsenter", f"--net={made.free[1]}", "iperf3", "-s"], stdout=subprocess.DEVNULL)
        ratios: dict[str, list[float]] = {"vxlan_over_handmade": [], "vxlan_device_over_handmade": []}
        try:
            for _ in range(_ROUNDS):
                rates = dict.fromkeys((*ratios, ""), 0.0)
                for which in (*rates, *reversed(rates)):
                    with _by_agents(made, table=which == "vxlan_over_handmade") if which else _by_hand(made):
                        rates[which] += iperf(made.free[0], PODS[1])
                for name, found in ratios.items():
                    found.append(rates[name] / rates[""])
        finally:
            server.terminate()
            server.wait()
    return {name: statistics.median(found) for name, found in ratios.items()}


def _outer(number: int) -> str:
    return f"192.168.10{number}.2"


_ENSURE = """
import sys
from pyroute2 import IPRoute
from tortie.addressing.allocator import address
from tortie.agent import overlay
from tortie.agent.overlay import Device
local, mac, own = sys.argv[1:]
with IPRoute() as kernel:
    overlay.ensure(kernel, Device("vxlan.tortie", address(local), 1450, frozenset({address(own)}), mac, 4096, 4789))
"""


@contextmanager
def _by_agents(made: Net, *, table: bool) -> Iterator[None]:
    """Let the nodes reach each other as agents make them, with their table or without it."""
    for number, one in enumerate(made.nodes):
        other = 1 - number
        mac, its = overlay.mac_of(f"n{number}"), overlay.mac_of(f"n{other}")
        via = Address(4, parse(f"10.20{other}.0.0/26").start)
        run([sys.executable, "-c", _ENSURE, _outer(number), mac, f"10.20{number}.0.0"], one.namespace)
        with inside(one.namespace, Netlink) as kernel:
            links = {VXLAN: kernel.index(VXLAN)}
            wanted: set[Thing] = {
                Route(parse(f"10.20{other}.0.0/26"), via, VXLAN),
                Neighbour(via, its),
                Entry(its, Address(4, parse(_outer(other)).start)),
            }
            assert forwarding.write(kernel, links, set(), wanted) == {}
        if not table:
            run(["nft", "add table inet tortie { flags dormant; }"], one.namespace)
    yield
    for one in made.nodes:
        run(["ip", "link", "del", VXLAN], one.namespace)
        if not table:
            one.firewall.program()


@contextmanager
def _by_hand(made: Net) -> Iterator[None]:
    """Let them do so by ip and bridge, without any table of the agents'."""
    for number, one in enumerate(made.nodes):
        other, its = 1 - number, f"02:00:00:00:00:0{1 - number}"
        for line in (
            f"ip link add vx type vxlan id 7 dstport 4789 nolearning local {_outer(number)}",
            f"ip link set vx address 02:00:00:00:00:0{number} mtu 1450 up",
            f"ip addr add 10.20{number}.0.0/32 dev vx",
            f"bridge fdb add {its} dev vx dst {_outer(other)}",
            f"ip neigh add 10.20{other}.0.0 lladdr {its} dev vx",
            f"ip route add 10.20{other}.0.0/26 via 10.20{other}.0.0 dev vx onlink",
        ):
            run(line.split(), one.namespace)
        run(["nft", "add table inet tortie { flags dormant; }"], one.namespace)
    yield
    for one in made.nodes:
        run(["ip", "link", "del", "vx"], one.namespace)
        one.firewall.program()
