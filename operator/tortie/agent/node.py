"""The node's part in the pod network: what NodeNetwork.status says of it, and its routes to the other nodes' blocks."""

import asyncio
import errno
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tortie.addressing.allocator import Address, OwnBlock
from tortie.addressing.ranges import Family, Range, parse
from tortie.agent import detection, forwarding, overlay, reach
from tortie.agent.bgp import LATE, Bgp
from tortie.agent.forwarding import Route, Thing
from tortie.agent.netlink import Netlink
from tortie.agent.overlay import Device
from tortie.agent.reach import Reach, Terms
from tortie.agent.tunnels import Source, Tunnels
from tortie.agent.wire import IPIP, VXLAN
from tortie.api import lean
from tortie.api.block import SESSIONS_UP
from tortie.api.meta import GROUP, MESSAGE_MAX, VERSION
from tortie.kube.client import ApiError, Client
from tortie.kube.resource import Resource
from tortie.kube.stream import Stream
from tortie.routing.bird import Advertised
from tortie.routing.carriage import Carried, Node, NodeAddress, Way, encapsulates
from tortie.routing.planning import Around

_log = logging.getLogger(__name__)

NETWORKS = Resource(GROUP, VERSION, "nodenetworks")
NODES = Resource("", "v1", "nodes")
STRATEGIC = "application/strategic-merge-patch+json"
# Seconds: changes of a moment are one look at the kernel; what failed, and what others changed, is mended so often.
SETTLE, MEND = 0.05, 10.0
# Seconds between two looks at BIRD's routes while some are awaited.
SOON = 0.5
_FAMILIES: tuple[Family, ...] = (4, 6)
# Why SESSIONS_UP is False: a session stays down, or BIRD isn't as it should be; or somebody wrote what can't be followed.
SESSION_DOWN, OBJECT_NOT_FOLLOWED = "SessionDown", "ObjectNotFollowed"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the node's other parts know.

    Attributes:
        own: The node's own blocks.
        pools: The pools that pods here ask for.
        short: The pools for whose addresses pods here wait.
        firewalls: A sentence for each foreign chain that drops forwarded packets.
        carried: The pools, as far as packets are carried; None: they aren't known yet.
        advertised: The same, as far as BGP tells of them.
        sources: The pools that a tunnel may have its address from.
        mtu: Bytes that a pod's packet may have.
        methods: How the node's address of each family is found (`tortie.agent.detection`).
    """

    own: Callable[[], Iterable[OwnBlock]]
    pools: Callable[[], tuple[str, ...]]
    short: Callable[[], tuple[str, ...]]
    firewalls: Callable[[], Iterable[str]]
    carried: Callable[[], tuple[Carried, ...] | None]
    advertised: Callable[[], tuple[Advertised, ...]]
    sources: Callable[[str], Iterable[Source]]
    mtu: Callable[[], int]
    methods: Mapping[Family, str]


class Vxlan(NamedTuple):
    """What all nodes' VXLAN devices have in common: the network's identifier, of 24 bits, and the UDP port."""

    vni: int
    port: int


class NodeWatch:
    """Follows Nodes' addresses and NodeNetworks. `listed` is told which blocks the operator says are this node's."""

    def __init__(self, client: Client, node: str, facts: Facts, tunnels: Tunnels, vxlan: Vxlan, *, bgp: Bgp) -> None:
        self._client, self._node, self._facts, self._tunnels, self._vxlan = client, node, facts, tunnels, vxlan
        self._bgp, self._reach = bgp, Reach()
        self._lacking: dict[Range, float] = {}  # since when BIRD has no route to a block that BGP carries
        self._own: set[Thing] = set()
        self._links: dict[str, int] = {}  # the tunnels' indices
        self._mended = float("-inf")  # when all that the kernel has was looked at
        self._said = lean.NetworkStatus()  # of the tunnels
        self.listed: Callable[[list[str]], None] = lambda _names: None
        self.detected: Callable[[], None] = lambda: None  # told when the node has another address
        self._networks = Stream(client, NETWORKS.path(), lean.Network, self._on_network)
        self._nodes = Stream(client, NODES.path(), lean.OwnNode, self._on_node, field_selector=f"metadata.name={node}")
        self._wake = asyncio.Event()
        self.here: dict[Family, NodeAddress] = {}
        self._cleared = ""  # the uid of the Node that was told that its network is there
        self.problems: dict[str, str] = {}  # what can't be reached, and why

    def owns(self, affinity: lean.Affinity) -> bool:
        """Whether a block is this machine's, and not another's that had the node's name: by the Node's uid or machine id."""
        node = self._nodes.store.get(self._node)
        if node is None or affinity.node != self._node:
            return affinity.node == self._node
        machine = node.status.node_info.machine_id
        return affinity.uid == node.metadata.uid or (machine != "" and affinity.machine_id == machine)

    @property
    def ways(self) -> list[Way]:
        """How packets travel to each block of other nodes, by block."""
        return sorted(self._reach.ways)

    @property
    def unreached(self) -> dict[str, str]:
        """The blocks that can't be reached, each with its own reason."""
        return {what: why for what, why in (self.problems | self._reach.problems).items() if "/" in what and " " not in what}

    @property
    def missing(self) -> int:
        """How many blocks of other nodes can't be reached."""
        return len(self.problems)

    def wake(self) -> None:
        """Look at everything again: something that `facts` tells changed."""
        self._wake.set()

    @property
    def labels(self) -> Mapping[str, str] | None:
        """The Node's labels, None where it isn't known."""
        node = self._nodes.store.get(self._node)
        return node.metadata.labels if node else None

    def owner_of(self, one: Address) -> str:
        """Return the node whose block an address lies in, "" where none is known."""
        found = [
            (block.prefix, network.metadata.name)
            for network in self._networks.store.values()
            for block in (parse(block.cidr) for block in network.spec.blocks)
            if one.within(block)
        ]
        return max(found)[1] if found else ""  # a block within another's range was given up there

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._networks.run())
            tasks.create_task(self._nodes.run())
            await self._networks.synced.wait()
            await self._nodes.synced.wait()  # else the routes of a moment would be those of an address found otherwise
            self._list()
            while True:
                try:
                    await self._detect()
                    await self._forward()
                except (NetlinkError, OSError, ValueError) as error:  # no file is left, say, or the InternalIP is no address
                    _log.error("the node's addresses and routes can't be looked at: %s; tried again in %g s", error, MEND)
                await self._publish()
                try:
                    async with asyncio.timeout(SOON if self._is_awaiting() else MEND):
                        await self._wake.wait()
                except TimeoutError:
                    continue
                await asyncio.sleep(SETTLE)
                self._wake.clear()

    def _on_network(self, old: lean.Network | None, new: lean.Network | None) -> None:
        if seen := new or old:
            self._reach.put(seen.metadata.name, new)
            self._bgp.put(seen.metadata.name, new)
        self._list()

    def _on_node(self, _old: lean.OwnNode | None, _new: lean.OwnNode | None) -> None:
        self._list()

    def _list(self) -> None:
        """Tell which blocks are this node's, once all is known: before, they might be another machine's."""
        if self._networks.synced.is_set() and self._nodes.synced.is_set():
            network = self._networks.store.get(self._node, lean.Network(lean.Metadata(self._node)))
            self.listed([block.name for block in network.spec.blocks])
        self._wake.set()

    async def _detect(self) -> None:
        """Find the node's addresses. What was found before stays while nothing is found: a link may be down for a moment."""
        node = self._nodes.store.get(self._node)
        internal = [a.address for a in node.status.addresses if a.type == "InternalIP"] if node else []
        links = await asyncio.to_thread(detection.interfaces)
        for family in _FAMILIES:
            found = detection.detect(family, self._facts.methods[family], internal, links, detection.source)
            if found and found != self.here.get(family):
                _log.info("node address: %s", found)
                self.here[family] = found
                self.detected()

    async def _forward(self) -> None:
        """Make the kernel lead to the other nodes' blocks: tunnels first, then what leads into them."""
        pools = self._facts.carried()
        if pools is None:  # what is there stays
            return
        links, without = await self._tunnel(pools)
        own = frozenset(block.range for block in self._facts.own())
        if self._mended < 0:  # the first look
            self._reach.begin(await asyncio.to_thread(forwarding.routes))
        bird = await asyncio.to_thread(forwarding.of_bird) if self._bgp.speaks else {}
        terms = Terms(Node(self._node, dict(self.here)), pools, own=own, bgp=self._bgp.speaks)
        gone, come = self._reach.settle(terms, bird)
        used = {one.link for one in self._reach.things if isinstance(one, Route)}  # by what BIRD's routes are about to replace
        links |= {name: index for name, index in self._links.items() if name in used and name not in links}
        past, self._own = self._own, reach.own(own)
        mended, self._mended = self._mended, float("-inf")  # until it is done
        if links != self._links or time.monotonic() >= mended + MEND:
            self._links, mended = links, time.monotonic()
            failed = await asyncio.to_thread(_mend, links, self._reach.things | self._own)
        else:
            failed = await asyncio.to_thread(_change, links, gone | (past - self._own), come | (self._own - past))
        if not failed:
            self._mended = mended
        problems = self._tunnels.problems | self._reach.problems_without(without)
        if not self.here:
            problems["this node"] = f"no address of it was found by {' or '.join(set(self._facts.methods.values()))}"
        problems |= {str(thing): why for thing, why in failed.items() if forwarding.link_of(thing) not in without}
        problems |= self._await(bird)
        await self._tell(own)
        for what, why in problems.items():
            if what not in self.problems:
                _log.error("route %s: %s", what, why)
        self.problems = problems

    def _is_awaiting(self) -> bool:
        """Whether BIRD is about to give a route, or to be told something."""
        late = time.monotonic() - LATE
        return self._bgp.changes or any(since > late for since in self._lacking.values())

    def _await(self, bird: Mapping[Range, Route]) -> dict[str, str]:
        """Return the blocks that BGP should carry and for long has given no route to."""
        now, carried = time.monotonic(), {one.to: one for one in self._reach.ways if one.carrier == "BGP"}
        self._lacking = {to: self._lacking.get(to, now) for to in carried if reach.leading(to, bird) is None}
        return {
            str(to): f"BGP gives no route to node {carried[to].node}; look at its sessions: tortiectl node status"
            for to, since in self._lacking.items()
            if now - since >= LATE
        }

    async def _tell(self, own: Iterable[Range]) -> None:
        """Tell BIRD what it is to do, once what isn't its work any more is done."""
        node = self._nodes.store.get(self._node)
        if node is not None and self.here:
            network = self._networks.store.get(self._node)
            past = network.status.bgp if network else None
            # What BIRD carries stays its work until the kernel has what takes its place.
            still = [one.to for one in self._reach.ways if one.carrier == "BGP"]
            pools = tuple(
                pool._replace(by_bgp=pool.by_bgp or any(pool.range.contains(to) for to in still))
                for pool in self._facts.advertised()
            )
            around = Around(node, past, dict(self.here), tuple(sorted(own)), pools)
            await self._bgp.tell(around)

    async def _tunnel(self, pools: Iterable[Carried]) -> tuple[dict[str, int], dict[str, str]]:
        """Make the tunnels that these pools take; return their indices, and why others can't be made."""
        needed = [reach.LINKS[carrier] for carrier in encapsulates(pools)]
        devices, without, addresses = list[Device](), dict[str, str](), dict[str, Mapping[Family, Address]]()
        for name in (VXLAN, IPIP):
            sources = self._facts.sources(name) if name in needed else ()
            addresses[name] = await self._tunnels.addresses(name, sources)
        for name in needed:
            local = self.here.get(4) or (self.here.get(6) if name == VXLAN else None)
            if local is None:
                without[name] = "this node has no address that it could send from"
                continue
            its = Device(name, local.address, self._facts.mtu(), frozenset(addresses[name].values()))
            devices.append(its._replace(mac=overlay.mac_of(self._node), **self._vxlan._asdict()) if name == VXLAN else its)
        links, refused = await asyncio.to_thread(_make, devices) if devices else ({}, {})
        vxlan, ipip = addresses[VXLAN], addresses[IPIP]
        self._said = lean.NetworkStatus(
            vxlan=lean.NetworkVxlan(overlay.mac_of(self._node), tuple(map(str, vxlan.values()))) if VXLAN in links else None,
            ipip=str(ipip[4]) if IPIP in links and 4 in ipip else None,
        )
        return links, without | refused

    async def _publish(self) -> None:
        """Say what is true of the node, where it isn't said yet, and that its network is there."""
        node, network = self._nodes.store.get(self._node), self._networks.store.get(self._node)
        if node is None or network is None:
            return
        status = self._status(node, network.status)
        try:
            if status != network.status:
                body = {"status": msgspec.to_builtins(status)}
                await self._client.patch(NETWORKS.path(self._node, subresource="status"), body)
            if self.here and self._cleared != node.metadata.uid:
                await self._clear()
                self._cleared = node.metadata.uid
        except ApiError as error:
            _log.warning("the node's network can't be said: %s; trying again", error)

    def _sessions(self, past: lean.NetworkStatus) -> list[lean.Condition]:
        """Return the condition of the BGP sessions, if nodes speak BGP: as it was, while that isn't known."""
        if not self._bgp.is_known:
            return [one for one in past.conditions if one.type == SESSIONS_UP]
        problems = self._bgp.problems
        reason = OBJECT_NOT_FOLLOWED if problems == self._bgp.mistakes else SESSION_DOWN
        return [_condition(past, SESSIONS_UP, problems, reason, "all BGP sessions are up")] if self._bgp.speaks else []

    async def _clear(self) -> None:
        condition = {
            "type": "NetworkUnavailable", "status": "False", "reason": "TortieIsUp",
            "message": "the tortie agent gives addresses to pods on this node",
        }  # fmt: skip
        path, status = NODES.path(self._node, subresource="status"), {"status": {"conditions": [condition]}}
        await self._client.request("PATCH", path, json.dumps(status).encode(), content=STRATEGIC)

    def _status(self, node: lean.OwnNode, past: lean.NetworkStatus) -> lean.NetworkStatus:
        sessions = self._sessions(past)
        firewalls = sorted(self._facts.firewalls())
        # In order of their names: that of the last change would be another sentence each time, which all nodes hear.
        routes = sorted(f"{what}: {why}" for what, why in self.problems.items())
        return lean.NetworkStatus(
            addresses=tuple(str(self.here[family]) for family in _FAMILIES if family in self.here),
            vxlan=self._said.vxlan,
            ipip=self._said.ipip,
            bgp=self._bgp.said(node, past.bgp),
            mtu=self._facts.mtu(),
            pools=self._facts.pools(),
            short=self._facts.short(),
            conditions=(
                _condition(past, "RoutesSet", routes, "RouteMissing", "the other nodes' blocks can be reached"),
                _condition(past, "FirewallClear", firewalls, "ForeignFirewallDrops", "nobody else drops forwarded packets"),
                *sessions,
            ),
        )


def _condition(past: lean.NetworkStatus, kind: str, problems: Sequence[str], reason: str, fine: str) -> lean.Condition:
    """Return a condition that holds where there is no problem; its time is that of the last change of its status."""
    status = "False" if problems else "True"
    before = next((c.last_transition_time for c in past.conditions if c.type == kind and c.status == status), "")
    since = before or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return lean.Condition(kind, status, reason if problems else kind, "; ".join(problems)[:MESSAGE_MAX] or fine, since)


def _make(devices: Iterable[Device]) -> tuple[dict[str, int], dict[str, str]]:
    """Make devices, and return the indices of those that there are, and why others can't be made."""
    links, refused = dict[str, int](), dict[str, str]()
    with IPRoute() as kernel:
        for device in devices:
            try:
                links[device.name] = overlay.ensure(kernel, device)
            except (NetlinkError, OSError) as error:
                refused[device.name] = _why_not_made(device.kind, error)
    return links, refused


def _why_not_made(kind: str, error: NetlinkError | OSError) -> str:
    code = error.code if isinstance(error, NetlinkError) else error.errno
    if code == errno.EOPNOTSUPP:
        mode = "ipipMode" if kind == "ipip" else "vxlanMode"
        return (
            f"the device can't be made: the kernel has no module {kind}; load it (modprobe {kind}), take a kernel that has it,"
            f" or let no IPPool have another {mode} than Never"
        )
    return f"the device can't be made: {os.strerror(code) if code else error}"


def _mend(links: Mapping[str, int], wanted: set[Thing]) -> dict[Thing, str]:
    """Make the kernel match, whatever it has."""
    with Netlink() as kernel:
        return forwarding.write(kernel, links, forwarding.read(kernel, links), wanted)


def _change(links: Mapping[str, int], gone: set[Thing], come: set[Thing]) -> dict[Thing, str]:
    with Netlink() as kernel:
        return forwarding.write(kernel, links, gone, come)
