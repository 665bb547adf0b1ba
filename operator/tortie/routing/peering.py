"""Who peers with whom by BGP (RFC 4271), and how: a node's sessions. Pure.

By default every node peers with every other (the mesh). BGPPeers add sessions, with routers outside of the cluster or between
nodes that labels select; of two that would be between the same addresses the one that says more about the node holds.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import msgspec

from tortie.addressing import selector
from tortie.addressing.allocator import Address, address
from tortie.addressing.ranges import Family
from tortie.api import lean
from tortie.api.bgp_input import AsNumber, Configuration, ConfigurationSpec, Filter, Password, Peer
from tortie.api.block import NODE_LABELS_MAX
from tortie.routing.carriage import NodeAddress, node_of

DEFAULT_AS, DEFAULT_PORT = 64512, 179
# Seconds that routes of a speaker that restarts are kept; RFC 4724 has 12 bits for it.
RESTART, RESTART_MAX = 120, 4095
# Annotations of a Node: its AS number, and the cluster whose routes it reflects (RFC 4456), as an IPv4 address.
AS_NUMBER, CLUSTER_ID = "tortie.dev/as-number", "tortie.dev/route-reflector-cluster-id"
# What the kernel takes as a key of TCP MD5 (TCP_MD5SIG_MAXKEYLEN).
PASSWORD_MAX = 80
_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}

Secrets = Mapping[tuple[str, str], str]
Problems = dict[str, str]
NextHop = Literal["", "self", "keep"]


class Speaker(NamedTuple):
    """A node as a BGP speaker.

    Attributes:
        cluster_id: Whose routes it reflects; "": it is no route reflector.
        labels: The Node's.
    """

    name: str
    addresses: Mapping[Family, NodeAddress]
    as_number: int = DEFAULT_AS
    port: int = DEFAULT_PORT
    cluster_id: str = ""
    labels: Mapping[str, str] = {}


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
    restart: int = RESTART
    own_as: int = 0
    ttl: int = 0
    via: Address | None = None
    bfd: bool = False
    filters: tuple[str, ...] = ()

    @property
    def external(self) -> bool:
        """Whether it is one between two AS."""
        return self.peer_as != self.local_as

    @property
    def name(self) -> str:
        """What BIRD calls it: the same as long as it is between the same addresses."""
        port = f"_{self.port}" if self.port != DEFAULT_PORT else ""
        return f"bgp{self.peer.family}_{re.sub('[^0-9a-f]', '_', str(self.peer))}{port}"


def as_number(said: AsNumber) -> int:
    """Return the AS number of `64512`, `"64512"` or `"1.10"` (RFC 5396); raises ValueError."""
    text = str(said)
    high, dot, low = text.partition(".")
    if not text.isascii() or not high.isdigit() or (dot and not low.isdigit()):
        raise ValueError(f"{text!r} is no AS number: write 64512, or 1.10")
    number = (int(high) << 16 | int(low)) if dot else int(high)
    if not 1 <= number < 1 << 32 or (dot and int(low) >= 1 << 16):
        raise ValueError(f"{text!r} is no AS number: they go from 1 to 4294967295")
    return number


def seconds(said: str) -> int:
    """Return the whole seconds of a duration such as `2m` or `1h30m`, at least one; raises ValueError."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ns|us|ms|s|m|h)", said)
    if not parts or "".join(number + unit for number, unit in parts) != said:
        raise ValueError(f"{said!r} is no duration: write 90s, or 2m")
    found = max(1, round(sum(float(number) * _UNITS[unit] for number, unit in parts)))
    if found > RESTART_MAX:
        raise ValueError(f"{said} is longer than BGP can say: {RESTART_MAX}s at most")
    return found


def configuration(objects: Objects, node: str) -> ConfigurationSpec:
    """Return what holds for a node: the configuration `default`, and over it what `node.NAME` says."""
    named = {one.metadata.name: one.spec for one in objects.configurations}
    found = named.get("default", ConfigurationSpec())
    over = named.get(f"node.{node}", ConfigurationSpec())
    said = {name: getattr(over, name) for name in over.__struct_fields__ if getattr(over, name) not in (None, ())}
    return msgspec.structs.replace(found, **said)


def speaker(name: str, labels: Mapping[str, str], annotations: Mapping[str, str], objects: Objects) -> lean.NetworkBgp:
    """Return what a node says of itself as a BGP speaker; raises ValueError that names the field."""
    spec, cluster_id = configuration(objects, name), annotations.get(CLUSTER_ID, "")
    asked = annotations.get(AS_NUMBER) or spec.as_number or DEFAULT_AS
    where = f"annotation {AS_NUMBER} of Node {name}" if annotations.get(AS_NUMBER) else "BGPConfiguration: spec.asNumber"
    try:
        number = as_number(asked)
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
    node, labels = node_of(network), dict(one.split("=", 1) for one in said.labels)
    return Speaker(node.name, node.addresses, said.as_number, said.port, said.cluster_id or "", labels)


def sessions(objects: Objects, here: Speaker, others: Iterable[Speaker], secrets: Secrets) -> tuple[list[Session], Problems]:
    """Return a node's sessions, by name, and what is wrong with the objects, by where."""
    spec, others = configuration(objects, here.name), list(others)
    found, problems = dict[str, Session](), Problems()
    if spec.node_to_node_mesh_enabled is not False:
        try:
            found = {one.name: one for one in _mesh(spec, here, others, secrets)}
        except ValueError as error:
            problems["BGPConfiguration"] = str(error)
    for peer in sorted(objects.peers, key=_weight):
        where = f"BGPPeer {peer.metadata.name}"
        try:
            for one in _peer(peer, here, others, secrets):
                before = found.get(one.name)
                if before and not before.inside:
                    problems[where] = f"{before.of} says what holds for {one.peer} on this node; delete one, or narrow it"
                found[one.name] = one
        except ValueError as error:
            problems[where] = str(error)
    return sorted(found.values(), key=lambda one: (one.peer, one.port)), problems


def _weight(peer: Peer) -> tuple[int, str]:
    """What says more about the node comes later, and takes the others' place."""
    return (2 if peer.spec.node else 1 if peer.spec.node_selector else 0), peer.metadata.name


def _mesh(spec: ConfigurationSpec, here: Speaker, others: Iterable[Speaker], secrets: Secrets) -> Iterator[Session]:
    password = _password(spec.node_mesh_password, secrets, "spec.nodeMeshPassword")
    restart = _restart(spec.node_mesh_max_restart_time, "spec.nodeMeshMaxRestartTime")
    bfd = spec.node_mesh_failure_detection_mode == "BFDIfDirectlyConnected"
    for other in others:
        for one in _between(here, other, here.as_number, other.as_number):
            yield replace(one, password=password, restart=restart, bfd=bfd and one.direct)


def _between(here: Speaker, other: Speaker, local_as: int, peer_as: int) -> Iterator[Session]:
    """Yield the plain sessions between two nodes, one for each family that both have."""
    if other.name == here.name:
        return
    for family, there in other.addresses.items():
        mine = here.addresses.get(family)
        if mine is None:
            continue
        inner = local_as == peer_as and here.cluster_id not in ("", other.cluster_id)
        yield Session(
            f"node {other.name}", True, there.address, peer_as, local_as, other.port, mine.address,
            direct=there.address.within(mine.subnet), client=here.cluster_id if inner else "",
        )  # fmt: skip


def _peer(peer: Peer, here: Speaker, others: list[Speaker], secrets: Secrets) -> Iterator[Session]:
    """Yield the sessions of this node that a BGPPeer asks for; raises ValueError that names the field."""
    spec = peer.spec
    if spec.local_workload_selector:
        return  # the operator says that this isn't done yet
    if spec.peer_selector is not None:
        plain = list(_selected(peer, here, others))
    elif spec.peer_ip and _takes(peer, here):
        plain = [_outside(peer, here, others)]
    else:
        return
    if not plain:
        return
    password = _password(spec.password, secrets, "spec.password")
    hops = spec.ttl_security or 0
    gateway = _address(spec.reachable_by, "spec.reachableBy") if spec.reachable_by else None
    for one in plain:
        yield replace(
            one,
            password=password,
            source=None if spec.source_address == "None" else one.source,
            next_hop=_next_hop(peer),
            restart=_restart(spec.max_restart_time, "spec.maxRestartTime"),
            own_as=spec.num_allowed_local_as_numbers or 0,
            ttl=hops,
            via=gateway if gateway and gateway.family == one.peer.family else None,
            bfd=spec.failure_detection_mode == "BFDIfDirectlyConnected" and one.direct,
            filters=spec.filters,
        )


def _selected(peer: Peer, here: Speaker, others: list[Speaker]) -> Iterator[Session]:
    """Yield the sessions with nodes that a BGPPeer's peerSelector takes; and back, unless that is to be done by hand."""
    spec = peer.spec
    its = _selector(spec.peer_selector or "", "spec.peerSelector")
    said = _number(spec.local_as_number, "spec.localASNumber")  # for both sides
    goes, comes = _takes(peer, here), spec.reverse_peering != "Manual" and its.matches(here.labels)
    for other in others if goes or comes else ():
        if (goes and its.matches(other.labels)) or (comes and _takes(peer, other)):
            yield from _between(here, other, said or here.as_number, said or other.as_number)


def _outside(peer: Peer, here: Speaker, others: list[Speaker]) -> Session:
    spec = peer.spec
    its, port = _endpoint(spec.peer_ip or "")
    mine = here.addresses.get(its.family)
    if mine is None:
        raise ValueError(f"spec.peerIP: {its}: this node has no IPv{its.family} address to speak from; give it one")
    local_as = _number(spec.local_as_number, "spec.localASNumber") or here.as_number
    peer_as = _number(spec.as_number, "spec.asNumber") or here.as_number
    node = next((one for one in others if any(at.address == its for at in one.addresses.values())), None)
    inner = peer_as == local_as and here.cluster_id not in ("", node.cluster_id if node else "")
    return Session(
        f"BGPPeer {peer.metadata.name}", node is not None, its, peer_as, local_as, port, mine.address,
        direct=its.within(mine.subnet), client=here.cluster_id if inner else "",
    )  # fmt: skip


def _takes(peer: Peer, node: Speaker) -> bool:
    """Whether a BGPPeer is about a node."""
    if peer.spec.node:
        return peer.spec.node == node.name
    return _selector(peer.spec.node_selector or "", "spec.nodeSelector").matches(node.labels)


def _next_hop(peer: Peer) -> NextHop:
    if peer.spec.keep_original_next_hop:
        return "keep"
    modes: dict[str | None, NextHop] = {"Self": "self", "Keep": "keep"}
    return modes.get(peer.spec.next_hop_mode, "")


def _endpoint(text: str) -> tuple[Address, int]:
    """Return the address and port of 10.0.0.1, 10.0.0.1:1179, fd00::1 or [fd00::1]:1179; raises ValueError."""
    bracketed = re.fullmatch(r"\[(.*)\]:([0-9]{1,5})", text) or re.fullmatch(r"([^:]*):([0-9]{1,5})", text)
    plain, port = bracketed.groups() if bracketed else (text, str(DEFAULT_PORT))
    if not 1 <= int(port) <= 65535:
        raise ValueError(f"spec.peerIP: {text!r} has no port from 1 to 65535")
    return _address(plain, "spec.peerIP"), int(port)


def _address(text: str, where: str) -> Address:
    try:
        return address(text)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _number(said: AsNumber | None, where: str) -> int:
    try:
        return as_number(said) if said is not None else 0
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _restart(said: str | None, where: str) -> int:
    try:
        return seconds(said) if said else RESTART
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _selector(text: str, where: str) -> selector.Selector:
    try:
        return selector.parse(text)
    except selector.SelectorError as error:
        raise ValueError(f"{where}: {error}") from None


def _password(said: Password | None, secrets: Secrets, where: str) -> str:
    """Return a password, "" for none; raises ValueError where it should be and isn't."""
    named = said.secret_key_ref if said else None
    if named is None:
        return ""
    found = secrets.get((named.name, named.key))
    if found is None:
        if named.optional:
            return ""
        raise ValueError(
            f"{where}: Secret {named.name} has no key {named.key}, or agents may not read it; no session comes up until then:"
            " make it beside the agents, and name it in the chart's bgp.secrets"
        )
    found = found.removesuffix("\n")
    if not found.isprintable() or '"' in found or not 1 <= len(found.encode()) <= PASSWORD_MAX:
        raise ValueError(
            f'{where}: key {named.key} of Secret {named.name} must be 1 to {PASSWORD_MAX} printable bytes, none of them "'
        )
    return found
