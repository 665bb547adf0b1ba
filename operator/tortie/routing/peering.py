"""Who peers with whom by BGP (RFC 4271), and how: a node's sessions. Pure.

By default every node peers with every other (the mesh). BGPPeers add sessions, with routers outside of the cluster or between
nodes that labels select; of two that would be between the same addresses the one that says more about the node holds. Between
nodes a BGPPeer holds for both, so that both sides mean the same by it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec

from tortie.addressing.allocator import Address, address
from tortie.addressing.ranges import Family
from tortie.api import lean
from tortie.api.bgp_input import Configuration, ConfigurationSpec, Filter, Password, Peer
from tortie.api.block import NODE_LABELS_MAX
from tortie.routing import written
from tortie.routing.carriage import NodeAddress, node_of

DEFAULT_AS, DEFAULT_PORT = 64512, 179
# Annotations of a Node: its AS number, and the cluster whose routes it reflects (RFC 4456), as an IPv4 address.
AS_NUMBER, CLUSTER_ID = "tortie.dev/as-number", "tortie.dev/route-reflector-cluster-id"
# How often at most the own AS number may be in a path: more than any path that routers of the Internet take.
OWN_AS_MAX = 255

Secrets = written.Secrets
Problems = written.Problems
NextHop = Literal["", "self", "keep"]
_NODE, _SELECTED, _ALL, _MESH = range(4)  # the less is said about the node, the later


class Speaker(NamedTuple):
    """A node as a BGP speaker.

    Attributes:
        cluster_id: Whose routes it reflects; "": it is no route reflector.
        created: When its NodeNetwork was made; of two that say the same address, the older one's word holds.
        labels: The Node's.
    """

    name: str
    addresses: Mapping[Family, NodeAddress]
    as_number: int = DEFAULT_AS
    port: int = DEFAULT_PORT
    cluster_id: str = ""
    labels: Mapping[str, str] = {}
    created: str = ""


class Objects(NamedTuple):
    """What people wrote about BGP."""

    configurations: tuple[Configuration, ...] = ()
    peers: tuple[Peer, ...] = ()
    filters: tuple[Filter, ...] = ()

    @property
    def speak(self) -> bool:
        """Whether nodes speak BGP: as soon as there is a configuration or a peer."""
        return bool(self.configurations or self.peers)


@dataclass(frozen=True, slots=True)
class Session:
    """One session of a node.

    Attributes:
        of: The other side, for people: `node b`, or `BGPPeer tor`.
        by: What asks for it, for people: `BGPPeer tor`, or `BGPConfiguration`.
        inside: Whether the other side is a node of the cluster.
        peer, port, peer_as: Where the other side listens, and its AS number.
        local_as: The AS number that this node says to be of.
        source: The address that this node speaks from; None: any.
        direct: Whether the peer is in a subnet of this node.
        client: The cluster id, where the other side is a client of this route reflector.
        next_hop: What becomes of the next hop of routes that are passed on; "": what BGP says.
        restart: Seconds that this node's routes are kept while it restarts.
        own_as: How often this node's AS number may be in a route's path.
        ttl: Hops to the peer, checked (RFC 5082). Zero: not checked.
        via: The gateway to it.
        bfd: Whether BFD (RFC 5880) tells that the peer is dead.
        filters: BGPFilters, in order.
    """

    of: str
    inside: bool
    peer: Address
    peer_as: int
    local_as: int
    port: int = DEFAULT_PORT
    source: Address | None = None
    direct: bool = False
    client: str = ""
    next_hop: NextHop = ""
    password: str = field(default="", repr=False)
    restart: int = written.DEFAULT_RESTART
    own_as: int = 0
    ttl: int = 0
    via: Address | None = None
    bfd: bool = False
    filters: tuple[str, ...] = ()
    by: str = field(default="", compare=False)

    @property
    def external(self) -> bool:
        """Whether it is one between two AS."""
        return self.peer_as != self.local_as

    @property
    def name(self) -> str:
        """What BIRD calls it: the same as long as it is between the same addresses."""
        port = f"_port_{self.port}" if self.port != DEFAULT_PORT else ""  # a mere number could be a part of the address
        return f"bgp{self.peer.family}_{text(self.peer).replace(':', '_').replace('.', '_')}{port}"


text = lru_cache(maxsize=32768)(str)  # of an Address: written several times for each session, and anew for each change


# What both sides of a session between nodes must agree in.
MESH = ("node_to_node_mesh_enabled", "node_mesh_password", "node_mesh_max_restart_time", "node_mesh_failure_detection_mode")


def configuration(objects: Objects, node: str) -> ConfigurationSpec:
    """Return what holds for a node: the configuration `default`, and over it what `node.NAME` says of anything but the mesh."""
    named = {one.metadata.name: one.spec for one in objects.configurations}
    found = named.get("default", ConfigurationSpec())
    over = named.get(f"node.{node}", ConfigurationSpec())
    names = (name for name in over.__struct_fields__ if name not in MESH)
    said = {name: getattr(over, name) for name in names if getattr(over, name) not in (None, ())}
    return msgspec.structs.replace(found, **said)


def speaker(name: str, labels: Mapping[str, str], annotations: Mapping[str, str], objects: Objects) -> lean.NetworkBgp:
    """Return what a node says of itself as a BGP speaker; raises ValueError that names the field."""
    spec, cluster_id = configuration(objects, name), annotations.get(CLUSTER_ID, "")
    asked = annotations.get(AS_NUMBER) or spec.as_number or DEFAULT_AS
    where = f"annotation {AS_NUMBER} of Node {name}" if annotations.get(AS_NUMBER) else "BGPConfiguration: spec.asNumber"
    try:
        number = written.as_number(asked)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if cluster_id:
        _checked_cluster(cluster_id, name)
    said = tuple(f"{key}={value}" for key, value in sorted(labels.items()))[:NODE_LABELS_MAX]
    return lean.NetworkBgp(number, spec.listen_port or DEFAULT_PORT, cluster_id or None, said)


def _checked_cluster(cluster_id: str, name: str) -> None:
    try:
        is_ipv4 = address(cluster_id).family == 4
    except ValueError:
        is_ipv4 = False
    if not is_ipv4:
        where = f"annotation {CLUSTER_ID} of Node {name}"
        raise ValueError(f"{where}: {cluster_id!r} is no cluster id: write one as an IPv4 address, such as 244.0.0.1")


def speaker_of(network: lean.Network) -> Speaker | None:
    """Return the speaker that a NodeNetwork tells of, None where it tells of none; raises ValueError."""
    said = network.status.bgp
    if said is None:
        return None
    node, parts = node_of(network), (one.partition("=") for one in said.labels)
    for one in node.addresses.values():
        if why := written.unfit(one.address):
            raise ValueError(f"status.addresses: {one.address} {why}; no session is made with it")
    labels = {key: value for key, _, value in parts}
    created = network.metadata.creation_timestamp
    return Speaker(node.name, node.addresses, said.as_number, said.port, said.cluster_id or "", labels, created)


def sessions(objects: Objects, here: Speaker, others: Iterable[Speaker], secrets: Secrets) -> tuple[list[Session], Problems]:
    """Return a node's sessions, by address, and what is wrong with the objects, by where."""
    spec, found = configuration(objects, here.name), _Found(here, secrets)
    nodes = _Nodes(here, others, found.problems)
    for peer in sorted(objects.peers, key=_rank):
        where = f"BGPPeer {peer.metadata.name}"
        try:
            if far := list(_peers_of(peer, here, nodes)):
                terms = _terms(where, peer, far, spec, found.problems)
                found.add(far, terms, peer.spec.password, "spec.password", _rank(peer)[0])
        except ValueError as error:
            found.problems[where] = str(error)
    if spec.node_to_node_mesh_enabled is not False:
        far = [one for other in nodes.all for one in _sides(other, here)]
        found.add(far, _mesh(spec, found.problems), spec.node_mesh_password, "spec.nodeMeshPassword", _MESH)
    return found.sessions(), found.problems


def _rank(peer: Peer) -> tuple[int, str]:
    """What says more about the node comes first, and has the place."""
    return (_NODE if peer.spec.node else _SELECTED if peer.spec.node_selector else _ALL), peer.metadata.name


class _Far(NamedTuple):
    """The other side of a session, as in `Session`; `local_as` 0: the node's own."""

    of: str
    address: Address
    as_number: int
    port: int
    inside: bool
    cluster_id: str = ""
    local_as: int = 0


class _Terms(NamedTuple):
    """What a BGPPeer, or the mesh, asks of its sessions: as in `Session`."""

    by: str
    restart: int
    bfd: bool
    bound: bool = True
    keep: bool = False
    next_hop: NextHop = ""
    own_as: int = 0
    ttl: int = 0
    via: Address | None = None
    filters: tuple[str, ...] = ()


class _Nodes:
    """The other nodes, by name and by address."""

    def __init__(self, here: Speaker, others: Iterable[Speaker], problems: Problems) -> None:
        """Leave out addresses that would be taken twice: one node's word must not end others' sessions."""
        self.at = {one.address: here for one in here.addresses.values()}
        self.all = list[Speaker]()
        for other in sorted(others, key=lambda one: (one.created, one.name)):  # of two that say one address the older has it
            if other.name == here.name:
                continue
            said = other.addresses
            for one in said.values():
                if self.at.setdefault(one.address, other) is not other:
                    its = self.at[one.address].name
                    where = f"NodeNetwork {other.name}"
                    problems[where] = f"status.addresses: {one.address} is node {its}'s as well; no session is made with it"
                    said = {family: at for family, at in said.items() if at != one}
            self.all.append(other if said is other.addresses else other._replace(addresses=said))


class _Found:
    """The sessions found so far, the first between the same addresses holds; and what is wrong."""

    def __init__(self, here: Speaker, secrets: Secrets) -> None:
        self.problems = Problems()
        self._here, self._secrets = here, secrets
        self._by_name = dict[str, tuple[int, Session]]()
        self._closed = set[str]()

    def add(self, far: Iterable[_Far], terms: _Terms, password: Password | None, where: str, rank: int) -> None:
        """Add the sessions of a BGPPeer or the mesh; without the password that they need they only take their place."""
        try:
            secret = written.password(password, self._secrets, where)
        except ValueError as error:
            self.problems[terms.by] = str(error)
            self._closed.add(terms.by)
            secret = ""
        for other in far:
            one = _session(self._here, other, terms, secret)
            before, its = self._by_name.setdefault(one.name, (rank, one))
            if before == rank and its.by != one.by:
                self.problems[terms.by] = f"{its.by} says what holds for {one.peer} on this node; delete one, or narrow it"

    def sessions(self) -> list[Session]:
        """Return all that can be."""
        found = (one for _, one in self._by_name.values() if one.by not in self._closed)
        return sorted(found, key=lambda one: (one.peer, one.port))


def _session(here: Speaker, far: _Far, terms: _Terms, password: str) -> Session:
    mine, local_as = here.addresses[far.address.family], far.local_as or here.as_number
    direct = far.address.within(mine.subnet)
    inner = local_as == far.as_number and here.cluster_id not in ("", far.cluster_id)
    return Session(
        far.of,
        far.inside,
        far.address,
        far.as_number,
        local_as,
        far.port,
        source=mine.address if terms.bound else None,
        direct=direct,
        client=here.cluster_id if inner else "",
        # In one AS the next hop is kept in any case: as in Calico, keepOriginalNextHop is about sessions between two.
        next_hop="keep" if terms.keep and local_as != far.as_number else terms.next_hop,
        password=password,
        restart=terms.restart,
        own_as=terms.own_as,
        ttl=terms.ttl,
        via=terms.via if terms.via and terms.via.family == far.address.family else None,
        bfd=terms.bfd and direct and terms.ttl <= 1,
        filters=terms.filters,
        by=terms.by,
    )


def _mesh(spec: ConfigurationSpec, problems: Problems) -> _Terms:
    restart = written.restart(spec.node_mesh_max_restart_time, "spec.nodeMeshMaxRestartTime", "BGPConfiguration", problems)
    return _Terms("BGPConfiguration", restart, spec.node_mesh_failure_detection_mode == "BFDIfDirectlyConnected")


def _terms(by: str, peer: Peer, far: Iterable[_Far], configured: ConfigurationSpec, problems: Problems) -> _Terms:
    """Return what a BGPPeer asks of its sessions; raises ValueError that names the field."""
    spec = peer.spec
    gateway = written.peer_address(spec.reachable_by, "spec.reachableBy") if spec.reachable_by else None
    if gateway and not spec.peer_selector and all(one.address.family != gateway.family for one in far):
        raise ValueError(f"spec.reachableBy: {gateway} isn't of the peer's family; write a gateway that is")
    modes: dict[str | None, NextHop] = {"Self": "self", "Keep": "keep"}
    return _Terms(
        by,
        written.restart(spec.max_restart_time, "spec.maxRestartTime", by, problems),
        spec.failure_detection_mode == "BFDIfDirectlyConnected",
        # What listens on the node's address alone speaks from there as well.
        bound=spec.source_address != "None" or configured.bind_mode == "NodeIP",
        keep=spec.keep_original_next_hop,
        next_hop=modes.get(spec.next_hop_mode, ""),
        own_as=min(spec.num_allowed_local_as_numbers or 0, OWN_AS_MAX),
        ttl=spec.ttl_security or 0,
        via=gateway,
        filters=spec.filters,
    )


def _peers_of(peer: Peer, here: Speaker, nodes: _Nodes) -> Iterator[_Far]:
    """Yield with whom this node peers because of a BGPPeer; raises ValueError that names the field."""
    spec = peer.spec
    if spec.local_workload_selector:
        return  # the operator says that this isn't done yet
    if spec.peer_selector:
        yield from _selected(peer, here, nodes)
    elif spec.peer_ip:
        yield from _named(peer, here, nodes)
    else:
        raise ValueError("spec: it names nobody to peer with; write peerIP, or peerSelector")


def _selected(peer: Peer, here: Speaker, nodes: _Nodes) -> Iterator[_Far]:
    """Yield the nodes that a BGPPeer's peerSelector takes; and back, unless that is to be done by hand."""
    its, takes = written.selection(peer.spec.peer_selector or "", "spec.peerSelector"), _takes(peer)
    said = written.number(peer.spec.local_as_number, "spec.localASNumber")  # for both sides
    goes, comes = takes(here), peer.spec.reverse_peering != "Manual" and its.matches(here.labels)
    for other in nodes.all if goes or comes else ():
        if (goes and its.matches(other.labels)) or (comes and takes(other)):
            yield from _sides(other, here, said, said)


def _named(peer: Peer, here: Speaker, nodes: _Nodes) -> Iterator[_Far]:
    """Yield the peer of peerIP. Where that is this node's own address: those that peer with it, unless that is done by hand."""
    spec = peer.spec
    its, port = written.endpoint(spec.peer_ip or "")
    takes, number = _takes(peer), written.number(spec.as_number, "spec.asNumber")
    said = written.number(spec.local_as_number, "spec.localASNumber")
    mine = here.addresses.get(its.family)
    if mine and mine.address == its:
        if spec.reverse_peering != "Manual" and number in (0, here.as_number) and port in (None, here.port):
            for other in nodes.all:
                if takes(other):
                    yield from (one for one in _sides(other, here, said) if one.address.family == its.family)
    elif takes(here):
        if mine is None:
            raise ValueError(f"spec.peerIP: {its}: this node has no IPv{its.family} address to speak from; give it one")
        node = nodes.at.get(its)
        number = number or (node or here).as_number
        own = node.port if node and node.as_number == number else DEFAULT_PORT
        cluster = node.cluster_id if node else ""
        yield _Far(
            f"node {node.name}" if node else f"BGPPeer {peer.metadata.name}",
            its,
            number,
            port or own,
            node is not None,
            cluster,
            said,
        )


def _sides(other: Speaker, here: Speaker, its_as: int = 0, own_as: int = 0) -> Iterator[_Far]:
    """Yield a node's addresses as peers, one for each family that both have; `its_as` and `own_as` instead of AS numbers."""
    of = f"node {other.name}"
    for family, there in other.addresses.items():
        if family in here.addresses:
            yield _Far(of, there.address, its_as or other.as_number, other.port, True, other.cluster_id, own_as)


def _takes(peer: Peer) -> Callable[[Speaker], bool]:
    """Return whether a BGPPeer is about a node."""
    if peer.spec.node:
        return lambda node: peer.spec.node == node.name
    its = written.selection(peer.spec.node_selector or "", "spec.nodeSelector")
    return lambda node: its.matches(node.labels)
