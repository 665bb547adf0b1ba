"""IPAMBlock and NodeNetwork: who owns which range, said to agents by the operator and answered by them.

`spec` is written by the operator alone, `status` by the agent of the node that owns the block.
"""

from typing import Annotated, ClassVar

from pydantic import Field

from tortie.api.meta import CIDR_MAX, NAME_MAX, Column, Conditions, Model, Resource

# A /20 or /116, the largest block.
BLOCK_ADDRESSES_MAX = 4096
# Releases asked at once; the rest waits. With the longest addresses this keeps spec under 30 KB.
RELEASES_MAX = 256
# A node's blocks. 1,024 with the longest names are 0.5 MB, and hold 65,536 addresses at the default size.
NODE_BLOCKS_MAX = 1024
# Pools that one node's pods ask for.
NODE_POOLS_MAX = 256
NODE_LABELS_MAX = 256
# A condition of a NodeNetwork where nodes speak BGP: its agent writes it, and the operator tells of its changes.
SESSIONS_UP = "BGPSessionsUp"

Cidr = Annotated[str, Field(max_length=CIDR_MAX)]
Address = Annotated[str, Field(max_length=39)]
Name = Annotated[str, Field(max_length=NAME_MAX)]
Uid = Annotated[str, Field(max_length=64)]
Sequence = Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})]


class PoolReference(Model):
    """A pool, by name and by identity: a pool made again under the same name is another."""

    name: Annotated[Name, Field(description="The pool's name.")]
    uid: Annotated[Uid, Field(description="The pool's uid.")]


class Affinity(Model):
    """The node that owns a block."""

    node: Annotated[Name, Field(description="The node's name.")]
    uid: Annotated[Uid, Field(description="The uid of the Node object.")]
    machine_id: Annotated[
        str,
        Field(
            alias="machineID",
            max_length=128,
            description="The node's machine id (status.nodeInfo.machineID): the same machine keeps its blocks when its"
            " Node object is made again.",
        ),
    ] = ""


class Release(Model):
    """An allocation judged leaked, which the agent is asked to free."""

    address: Annotated[Address, Field(description="The address.")]
    sequence: Annotated[Sequence, Field(description="The sequence of the allocation meant; a later one stays.")]
    epoch: Annotated[Uid, Field(description="The ledger that the sequence counts in (status.epoch).")]
    reason: Annotated[str, Field(max_length=128, description="Why the allocation is judged leaked.")]


class IPAMBlockSpec(Model):
    """What the operator says of a block."""

    cidr: Annotated[Cidr, Field(description="The range.")]
    pool: Annotated[PoolReference, Field(description="The pool that the range was taken from.")]
    affinity: Annotated[Affinity, Field(description="The node that owns the range.")]
    active: Annotated[
        bool,
        Field(
            description="Whether the agent may allocate here: set once the operator has seen everything that was created"
            " before this block, and nothing overlaps."
        ),
    ] = False
    # Joined CIDRs: at most one in every two neighbours.
    reserved: Annotated[
        tuple[Cidr, ...],
        Field(max_length=BLOCK_ADDRESSES_MAX // 2, description="Parts that IPReservations take; never allocated."),
    ] = ()
    without: Annotated[
        tuple[Cidr, ...],
        Field(
            max_length=BLOCK_ADDRESSES_MAX // 2,
            description="Parts that the node gave back while the pool was exhausted; they are other blocks now.",
        ),
    ] = ()
    releases: Annotated[
        tuple[Release, ...], Field(max_length=RELEASES_MAX, description="Allocations that the agent is asked to free.")
    ] = ()
    cede: Annotated[
        Cidr | None,
        Field(description="A range asked back, the block or a part of it: the agent allocates nothing more there."),
    ] = None
    settled: Annotated[
        Sequence,
        Field(description="Releases up to this sequence are forgotten by every AddressSet: their addresses may go out again."),
    ] = 0
    settled_epoch: Annotated[Uid, Field(description="The ledger that settled counts in (status.epoch).")] = ""


class Allocation(Model):
    """One address in use."""

    address: Annotated[Address, Field(description="The address.")]
    sequence: Annotated[Sequence, Field(description="Counts the ledger's allocations; grows within an epoch.")]
    namespace: Annotated[str, Field(max_length=63, description="The pod's namespace; left out where it would not fit.")] = ""
    pod: Annotated[Name, Field(description="The pod's name; left out where it would not fit.")] = ""
    uid: Annotated[str, Field(max_length=36, description="The pod's uid.")] = ""
    since: Annotated[str | None, Field(description="When it was allocated.", json_schema_extra={"format": "date-time"})] = None


class IPAMBlockStatus(Model):
    """What the node's agent says of a block."""

    epoch: Annotated[Uid, Field(description="The ledger that sequences count in; a rebuilt ledger has another.")] = ""
    sequence: Annotated[Sequence, Field(description="The ledger's count when this was published.")] = 0
    allocations: Annotated[
        tuple[Allocation, ...], Field(max_length=BLOCK_ADDRESSES_MAX, description="The addresses in use.")
    ] = ()
    free: Annotated[
        int | None,
        Field(ge=0, description="Addresses that a pod can still get here. Unset until the agent first spoke."),
    ] = None
    ceded: Annotated[Cidr | None, Field(description="The range that the agent has given up, as asked in spec.cede.")] = None


class IPAMBlock(Resource):
    """A range of addresses that one node owns and its agent allocates from. Made by the operator; not for people."""

    plural: ClassVar[str] = "ipamblocks"
    short_names: ClassVar[tuple[str, ...]] = ("ipb",)
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="CIDR", path=".spec.cidr"),
        Column(name="Node", path=".spec.affinity.node"),
        Column(name="Pool", path=".spec.pool.name"),
        Column(name="Active", path=".spec.active", type="boolean"),
        Column(name="Free", path=".status.free", type="integer"),
        Column(name="Cede", path=".spec.cede", wide=True),
        Column(name="Ceded", path=".status.ceded", wide=True),
        Column(name="Age", path=".metadata.creationTimestamp", type="date"),
    )

    kind: str = "IPAMBlock"
    spec: Annotated[IPAMBlockSpec, Field(description="What the operator says of the block.")]
    status: Annotated[IPAMBlockStatus | None, Field(description="What the node's agent says of the block.")] = None


class NodeBlock(Model):
    """One block of a node, as other nodes need it for their routes."""

    name: Annotated[Name, Field(description="The IPAMBlock's name.")]
    cidr: Annotated[Cidr, Field(description="Its range.")]
    pool: Annotated[Name, Field(description="The pool, which says how packets to it are carried.")]


class NodeNetworkSpec(Model):
    """What the operator says of a node."""

    blocks: Annotated[
        tuple[NodeBlock, ...],
        Field(max_length=NODE_BLOCKS_MAX, description="The active blocks that the node owns, by name."),
    ] = ()


class NodeVxlan(Model):
    """A node's VXLAN device."""

    mac: Annotated[str, Field(max_length=17, pattern="^([0-9a-f]{2}:){5}[0-9a-f]{2}$", description="The device's MAC.")]
    addresses: Annotated[
        tuple[Annotated[str, Field(max_length=CIDR_MAX)], ...],
        Field(max_length=2, description="The device's addresses, one of each family, of the node's own blocks."),
    ] = ()


class NodeBgp(Model):
    """A node as a BGP speaker: what others need to know of it."""

    as_number: Annotated[int, Field(alias="asNumber", ge=1, le=4294967295, description="Its AS number.")]
    port: Annotated[int, Field(ge=1, le=65535, description="The TCP port that it listens on.")] = 179
    cluster_id: Annotated[
        str | None, Field(alias="clusterID", max_length=CIDR_MAX, description="Of which route reflectors it is one.")
    ] = None
    labels: Annotated[
        tuple[Annotated[str, Field(max_length=317 + 1 + 63)], ...],
        Field(max_length=NODE_LABELS_MAX, description="The Node's labels, by which BGPPeers select it, as key=value."),
    ] = ()


class NodeNetworkStatus(Model):
    """What the node's agent says of its node; grows with the agent."""

    addresses: Annotated[
        tuple[Cidr, ...],
        Field(
            max_length=2,
            description="The node's own addresses, one of each family, with the length of their subnet's prefix:"
            " 192.0.2.7/24. Nodes of one subnet reach each other directly.",
        ),
    ] = ()
    vxlan: Annotated[
        NodeVxlan | None, Field(description="The node's VXLAN device: others send there what they encapsulate for it.")
    ] = None
    ipip: Annotated[
        str | None, Field(max_length=CIDR_MAX, description="The address of the node's IP-in-IP device, of its own blocks.")
    ] = None
    bgp: Annotated[NodeBgp | None, Field(description="The node as a BGP speaker; unset where nodes don't speak it.")] = None
    mtu: Annotated[int, Field(ge=0, le=65535, description="Bytes that a pod's packet may have here.")] = 0
    pools: Annotated[
        tuple[Name, ...],
        Field(
            max_length=NODE_POOLS_MAX,
            description="Pools that pods here asked for by name or by namespace: the node gets blocks of each.",
        ),
    ] = ()
    short: Annotated[
        tuple[Name, ...],
        Field(max_length=NODE_POOLS_MAX, description="Pools of which a pod here waits for an address; none of theirs is free."),
    ] = ()
    conditions: Conditions = ()


class NodeNetwork(Resource):
    """A node's part in the pod network: its blocks, said by the operator, and its addresses, said by its agent."""

    plural: ClassVar[str] = "nodenetworks"
    short_names: ClassVar[tuple[str, ...]] = ("nnet",)
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="Blocks", path=".spec.blocks[*].cidr"),
        Column(name="Addresses", path=".status.addresses[*]"),
        Column(name="MTU", path=".status.mtu", type="integer", wide=True),
        Column(name="Routes", path='.status.conditions[?(@.type=="RoutesSet")].status', wide=True),
        Column(name="Firewall", path='.status.conditions[?(@.type=="FirewallClear")].reason', wide=True),
        Column(name="Age", path=".metadata.creationTimestamp", type="date"),
    )

    kind: str = "NodeNetwork"
    spec: Annotated[NodeNetworkSpec, Field(description="What the operator says of the node.")]
    status: Annotated[NodeNetworkStatus | None, Field(description="What the node's agent says of its node.")] = None
