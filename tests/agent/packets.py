"""Real packets between real network namespaces: who gets what somebody sends.

Nodes, pods and the outside are namespaces without a route out. Packets are written by hand, so that one can come from any
address and be of any protocol, whether or not the kernel has sockets for it.
"""

import os
import select
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple, TypeVar

from pyroute2 import netns

from tests.agent.namespaces import namespaces, run
from tests.policy.compiling import Objects
from tortie.addressing.allocator import address
from tortie.agent.desired import Pod
from tortie.agent.firewall import Firewall
from tortie.agent.kernel import Kernel
from tortie.agent.wire import Wire, host_name, pod_mac
from tortie.api.compiled import AddressSet, CompiledMetadata, NodePolicy, NodePolicySpec, RuleSet
from tortie.api.lean import Metadata
from tortie.policy.view import View

T = TypeVar("T")
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132, "ICMP": 1, "IP-in-IP": 4}
SYN, ACK = 2, 16  # TCP's flags
_ICMPV6, _ECHO, _ECHO6 = 58, 8, 128
_HDRINCL6 = 36  # IPV6_HDRINCL, <linux/in6.h>
# A packet goes over so many links at most; each turn of a packet of our own takes all others over one more.
_HOPS = 8


class Probe(NamedTuple):
    """The first packet of a connection."""

    source: str
    target: str
    protocol: str
    port: int


def inside(namespace: str, make: Callable[[], T]) -> T:
    """Return what is made by a thread that is in a namespace."""

    def enter() -> T:
        netns.setns(namespace)
        return make()

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(enter).result()


class Place:
    """A namespace that sends and gets packets."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self._out: dict[int, socket.socket] = {}
        self._in: list[tuple[socket.socket, str, int]] = []
        inside(namespace, self._open)

    def close(self) -> None:
        for one in (*self._out.values(), *(one for one, *_ in self._in)):
            one.close()

    @contextmanager
    def has(self, addresses: Iterable[str]) -> Iterator[None]:
        """Let it have these addresses for a while."""
        listed = [f"address {{}} {one}/{32 if '.' in one else 128} dev lo" for one in addresses]
        run(["sh", "-c", _batch(one.format("add") for one in listed)], self.namespace)
        try:
            yield
        finally:
            run(["sh", "-c", _batch(one.format("del") for one in listed)], self.namespace)

    def send(self, probe: Probe, number: int, flags: int = SYN) -> None:
        """Send a probe; its source port, or echo id, is its number. So is what TCP and UDP carry: ports may be translated."""
        version = ip_address(probe.target).version
        self._out[version].sendto(packet(probe, number, flags), (probe.target, 0))

    def got(self) -> Iterator[tuple[str, int]]:
        """Yield protocol and number of what came."""
        for one, protocol, version in self._in:
            while True:
                try:
                    data = one.recv(2048)
                except BlockingIOError:
                    break
                data = data[(data[0] & 15) * 4 :] if version == 4 else data
                if protocol != "ICMP":
                    yield protocol, int.from_bytes(data[:2], "big")
                elif data[0] in (_ECHO, _ECHO6):
                    yield protocol, int.from_bytes(data[4:6], "big")

    def _open(self) -> None:
        for family, version in ((socket.AF_INET, 4), (socket.AF_INET6, 6)):
            out = self._out[version] = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
            if version == 6:
                out.setsockopt(socket.IPPROTO_IPV6, _HDRINCL6, 1)
            for protocol, number in PROTOCOLS.items():
                one = socket.socket(family, socket.SOCK_RAW, _ICMPV6 if (version, number) == (6, 1) else number)
                one.setblocking(False)
                self._in.append((one, protocol, version))


def packet(probe: Probe, number: int, flags: int = SYN) -> bytes:
    """Return a probe with its IP header; `flags` are TCP's."""
    version = ip_address(probe.target).version
    source, target = ip_address(probe.source).packed, ip_address(probe.target).packed
    protocol = _ICMPV6 if (version, probe.protocol) == (6, "ICMP") else PROTOCOLS[probe.protocol]
    pseudo = source + target + struct.pack(">IHBB", 0, 0, 0, protocol)
    match probe.protocol:
        case "TCP":
            body = struct.pack(">HHIIBBHHH", number, probe.port, number, 0, 5 << 4, flags, 1024, 0, 0)
            where = 16
        case "UDP":
            body = struct.pack(">HHHHH", number, probe.port, 10, 0, number)
            where = 6
        case "IP-in-IP":
            body, where = struct.pack(">HH", number, 0), 0
        case "SCTP":
            body = struct.pack(">HHIIBBHIIHHI", number, probe.port, 0, 0, 1, 0, 20, 1, 65536, 1, 1, 1)
            body = body[:8] + struct.pack("<I", _crc32c(body)) + body[12:]
            where = 0
        case _:
            body = struct.pack(">BBHHH", _ECHO6 if version == 6 else _ECHO, 0, 0, number, 1)
            where, pseudo = 2, pseudo if version == 6 else b""
    if where:
        if pseudo:
            pseudo = pseudo[:-8] + struct.pack(">IHBB", len(body), 0, 0, protocol)
        body = body[:where] + struct.pack(">H", _checksum(pseudo + body)) + body[where + 2 :]
    if version == 4:
        return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0) + source + target + body
    return struct.pack(">IHBB", 6 << 28, len(body), protocol, 64) + source + target + body


def _crc32c(data: bytes) -> int:
    """Return SCTP's checksum (RFC 9260, appendix A): a packet with another one is invalid, and kube-proxy drops it."""
    found = 0xFFFFFFFF
    for byte in data:
        found ^= byte
        for _ in range(8):
            found = found >> 1 ^ (0x82F63B78 if found & 1 else 0)
    return found ^ 0xFFFFFFFF


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass
class Node:
    """A node's namespace: its pods' wires, and its firewall."""

    name: str
    namespace: str
    wire: Wire
    thread: ThreadPoolExecutor
    kernel: Kernel
    firewall: Firewall
    view: View = field(default_factory=View)
    pods: dict[str, str] = field(default_factory=dict)  # namespaces, by the host's end
    known: dict[str, Pod] = field(default_factory=dict)

    def begin_anew(self) -> None:
        """Forget all policies; the next ones replace what the kernel has."""
        self.view, self._seen = View(), {}
        self.firewall = Firewall(self.kernel)

    def do(self, call: Callable[..., T], *arguments: object) -> T:
        return self.thread.submit(call, *arguments).result()

    def attach(self, namespace: str, uid: str, addresses: Sequence[str]) -> str:
        """Give a namespace a pod's wire; its rules come first."""
        host = host_name(f"{uid}-{namespace}", "eth0")
        made = tuple(map(address, addresses))
        self.known[host] = Pod(host, uid, pod_mac(host), made)
        self.firewall.put(self.known[host])
        self.do(self.wire.attach, namespace, "eth0", host, made)
        self.pods[host] = namespace
        return host

    def detach(self, host: str) -> None:
        """Take it away."""
        self.do(self.wire.detach, host)
        self.firewall.drop(host)
        del self.pods[host], self.known[host]

    def enforce(self, objects: Objects, number: int) -> None:
        """Let the objects that an API server has hold; `number` grows with each call."""

        def meta(name: str) -> CompiledMetadata:
            return CompiledMetadata(name=name, generation=number, resource_version=str(number))

        view, before = self.view, self._seen
        for name, spec in objects.rule_sets.items():
            view.put_rule_set("wide", RuleSet(meta(name), spec))
        for name, chunk in objects.address_sets.items():
            made = AddressSet(Metadata(name=name, resource_version=str(number)), chunk)
            view.put_chunk("wide", made, before.get(name))
            before[name] = made
        for name in before.keys() - objects.address_sets.keys():
            view.drop_chunk("wide", before.pop(name))
        policy = objects.node_policies.get(self.name, NodePolicySpec())
        view.put_node_policy(NodePolicy(meta(self.name), policy))
        assert self.firewall.enforce(view.take()) == {}
        self.firewall.cut()

    _seen: dict[str, AddressSet] = field(default_factory=dict)


class Net:
    """Two nodes, namespaces for pods, and the outside, which is the router between the nodes and everybody else."""

    def __init__(self, stack: ExitStack, pods: int) -> None:
        outside, *paths = stack.enter_context(namespaces(3 + pods))
        self.outside = Place(outside)
        stack.callback(self.outside.close)
        self.nodes = [self._node(stack, number, path) for number, path in enumerate(paths[:2])]
        self.places: dict[str, Place] = {}
        for path in paths:
            self.places[path] = Place(path)
            stack.callback(self.places[path].close)
        self.free = paths[2:]
        self._turn = inside(outside, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        stack.callback(self._turn.close)
        self._turn.bind(("127.0.0.1", 0))

    def exchange(self, probes: Iterable[tuple[Place, Probe]]) -> dict[Probe, list[Place]]:
        """Send each of them, and return who got it."""
        cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cpus)})  # so that packets wait in one queue, in order
        try:
            numbered = dict(enumerate(probes, 20_000))
            for number, (place, probe) in numbered.items():
                place.send(probe, number)
            self._turns()
        finally:
            os.sched_setaffinity(0, cpus)
        found: dict[Probe, list[Place]] = {probe: [] for _, probe in numbered.values()}
        for place in (self.outside, *self.places.values()):
            for protocol, number in place.got():
                if number in numbered and numbered[number][1].protocol == protocol:
                    found[numbered[number][1]].append(place)
        return found

    def settle(self) -> None:
        """Return when all that was sent has arrived, or never will."""
        cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cpus)})
        try:
            self._turns()
        finally:
            os.sched_setaffinity(0, cpus)

    def _turns(self) -> None:
        for _ in range(_HOPS):
            self._turn.sendto(b"turn", self._turn.getsockname())
            assert select.select([self._turn], [], [], 30)[0], "no packet of our own came back"
            self._turn.recv(16)

    def _node(self, stack: ExitStack, number: int, path: str) -> Node:
        outside = self.outside.namespace
        near = f"node{number}"
        run(["ip", "link", "add", near, "type", "veth", "peer", "name", "uplink", "netns", path.rpartition("/")[2]], outside)
        for end, where, last in ((near, outside, 1), ("uplink", path, 2)):
            run(["ip", "addr", "add", f"192.168.{100 + number}.{last}/24", "dev", end], where)
            run(["ip", "addr", "add", f"fd0f:{number}::{last}/64", "dev", end, "nodad"], where)
            run(["ip", "link", "set", end, "address", f"02:00:00:0f:0{number}:0{last}", "up"], where)
        for end, where, last in ((near, outside, 2), ("uplink", path, 1)):  # no packet waits for its neighbour's answer
            for one in (f"192.168.{100 + number}.{last}", f"fd0f:{number}::{last}"):
                run(["ip", "neigh", "replace", one, "lladdr", f"02:00:00:0f:0{number}:0{last}", "dev", end], where)
        run(["sh", "-c", "ip link set lo up; echo 1 > /proc/sys/net/ipv4/ip_forward"], outside)
        for where in (outside, path):
            run(["sh", "-c", "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done"], where)
        run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"], outside)
        run(["ip", "link", "set", "lo", "up"], path)
        run(["ip", "route", "add", "default", "via", f"192.168.{100 + number}.1"], path)
        run(["ip", "-6", "route", "add", "default", "via", f"fd0f:{number}::1"], path)
        wire = Wire(1400, path)
        thread = ThreadPoolExecutor(1)
        stack.callback(thread.shutdown)
        thread.submit(wire.prepare).result()
        stack.callback(lambda: thread.submit(wire.close).result())
        kernel = inside(path, Kernel)
        stack.callback(kernel.close)
        return Node(f"n{number + 1}", path, wire, thread, kernel, Firewall(kernel))

    def lead(self, number: int, ranges: Iterable[str]) -> None:
        """Let the outside lead to ranges by a node."""
        for one in ranges:
            version = ip_address(one.partition("/")[0]).version
            via = f"192.168.{100 + number}.2" if version == 4 else f"fd0f:{number}::2"
            run(["ip", f"-{version}", "route", "replace", one, "via", via], self.outside.namespace)


def _batch(commands: Iterable[str]) -> str:
    return "ip -batch - <<END\n" + "\n".join(commands) + "\nEND"


@contextmanager
def net(pods: int) -> Iterator[Net]:
    """Give a net with so many namespaces for pods."""
    with ExitStack() as stack:
        yield Net(stack, pods)
