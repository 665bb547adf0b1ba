"""Network namespaces for a cluster's nodes, joined by a bridge for each subnet in a namespace that routes between these.

There is no way out of them.
"""

import functools
import os
import subprocess
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path

from tests.cluster.terminal import Foreseen

NAMESPACES = Path("/run/netns")
# RFC 2544 and RFC 4193; a bridge is the first address of its subnet, and the first bridge's the control plane's.
SUBNET4, SUBNET6 = "198.18.{}.{}", "fd00:198:18:{:x}::{:x}"
PREFIX4, PREFIX6 = 24, 64
_CUT = """table inet {table} {{
    chain input {{ type filter hook input priority 0; ip saddr {address4} drop; ip6 saddr {address6} drop; }}
}}"""


@functools.cache
def why_no_namespaces() -> str:
    """Return why network namespaces can't be made here, "" where they can."""
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    done = subprocess.run(["unshare", "--net", "--mount", "true"], check=False, capture_output=True, text=True, timeout=30)
    return f"network namespaces can't be made here: {done.stderr.strip()}" if done.returncode else ""


@dataclass(frozen=True)
class Place:
    """A namespace and its addresses, in one of the subnets."""

    name: str
    address4: str
    address6: str
    subnet: int = 0

    @property
    def path(self) -> str:
        """The namespace's file."""
        return str(NAMESPACES / self.name)

    @property
    def enter(self) -> list[str]:
        """What a command is begun with to run there; `ip netns exec` would mount another /sys, without cgroups."""
        return ["nsenter", f"--net={self.path}"]


class Network:
    """The namespaces of a cluster, named by its id. `remove()` takes them away, whoever made them."""

    def __init__(self, cluster: str, nodes: int, subnets: int = 1) -> None:
        self.cluster = cluster
        self.hubs = [_place(f"{cluster}-hub", 1, subnet) for subnet in range(subnets)]
        self.hub = self.hubs[0]
        # The first half, and one more where they are odd, is in the first subnet.
        self.nodes = [_place(f"{cluster}-node-{n + 1}", n + 10, n * subnets // max(nodes, 1)) for n in range(nodes)]

    def make(self) -> None:
        """Make bridges and nodes."""
        self._namespace(self.hub)
        hub = self.hub.enter
        for one in self.hubs:
            bridge = f"br{one.subnet}"
            _run(*hub, "ip", "link", "add", bridge, "type", "bridge")
            _run(*hub, "ip", "link", "set", bridge, "up")
            _addresses(one, bridge)
        if len(self.hubs) > 1:
            for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                _run(*hub, "sh", "-c", f"echo 1 > /proc/sys/net/{name}")
        for number, node in enumerate(self.nodes):
            self._namespace(node)
            port = f"port{number}"
            _run(*hub, "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", node.name)
            _run(*hub, "ip", "link", "set", port, "master", f"br{node.subnet}", "up")
            _run(*node.enter, "ip", "link", "set", "eth0", "up")
            _addresses(node, "eth0")
            # As every node has one: without it the address of a Service is unreachable before kube-proxy can translate it. The
            # hub knows no way further, so it ends there.
            here = self.hubs[node.subnet]
            for gateway in (here.address4, here.address6):
                _run(*node.enter, "ip", "route", "add", "default", "via", gateway)

    def cut(self, node: Place) -> None:
        """Let nothing of a node through to the control plane; what it sent is lost without a word. Nodes reach each other."""
        _run(*self.hub.enter, "nft", _CUT.format(table=_table(node), **vars(node)))

    def heal(self, node: Place) -> None:
        """Let it through again."""
        _run(*self.hub.enter, "nft", f"delete table inet {_table(node)}")

    def remove(self) -> None:
        """Remove the namespaces, and with them every link and route; none there is fine."""
        for name in [path.name for path in NAMESPACES.glob(f"{self.cluster}-*")]:
            _run("ip", "netns", "del", name)

    @staticmethod
    def _namespace(place: Place) -> None:
        _run("ip", "netns", "add", place.name)
        _run(*place.enter, "ip", "link", "set", "lo", "up")


def _place(name: str, number: int, subnet: int) -> Place:
    return Place(name, SUBNET4.format(subnet, number), str(IPv6Address(SUBNET6.format(subnet, number))), subnet)


def _table(node: Place) -> str:
    return f"cut-{node.name}"


def _addresses(place: Place, link: str) -> None:
    _run(*place.enter, "ip", "addr", "add", f"{place.address4}/{PREFIX4}", "dev", link)
    _run(*place.enter, "ip", "addr", "add", f"{place.address6}/{PREFIX6}", "dev", link, "nodad")


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise Foreseen(f"{' '.join(command)}: {done.stderr.strip()}")
