"""Lean msgspec structs for what comes by the thousand: others' objects, and our own blocks as the planner reads them.

They hold only what is used; a test holds those of our kinds against the pydantic models.
"""

import msgspec


class Lean(msgspec.Struct, rename="camel", frozen=True, gc=False):
    """Fields in camelCase; what isn't named is skipped while decoding."""


class Metadata(Lean, frozen=True):
    """The part of metadata that streams and the planner need."""

    name: str
    uid: str = ""
    namespace: str = ""
    resource_version: str = ""
    creation_timestamp: str = ""
    labels: dict[str, str] = {}


class NodeInfo(Lean, frozen=True):
    """status.nodeInfo."""

    machine_id: str = msgspec.field(default="", name="machineID")


class NodeAddress(Lean, frozen=True):
    """One entry of a Node's status.addresses."""

    type: str
    address: str


class NodeStatus(Lean, frozen=True):
    """status of a Node."""

    node_info: NodeInfo = NodeInfo()
    addresses: tuple[NodeAddress, ...] = ()


class Node(Lean, frozen=True):
    """A Node."""

    metadata: Metadata
    status: NodeStatus = NodeStatus()


class PoolReference(Lean, frozen=True):
    """spec.pool of a block."""

    name: str
    uid: str


class Affinity(Lean, frozen=True):
    """spec.affinity of a block."""

    node: str
    uid: str
    machine_id: str = msgspec.field(default="", name="machineID")


class BlockSpec(Lean, frozen=True):
    """spec of a block."""

    cidr: str
    pool: PoolReference
    affinity: Affinity
    active: bool = False
    reserved: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    releases: tuple["BlockRelease", ...] = ()
    cede: str | None = None
    settled: int = 0
    settled_epoch: str = ""


class BlockRelease(Lean, frozen=True):
    """An allocation that the agent is asked to free."""

    address: str
    sequence: int
    epoch: str = ""
    reason: str = ""


class BlockAllocation(Lean, frozen=True):
    """One address in use, and by which pod."""

    address: str
    sequence: int = 0
    namespace: str = ""
    pod: str = ""
    uid: str = ""


class BlockStatus(Lean, frozen=True):
    """status of a block."""

    epoch: str = ""
    sequence: int = 0
    allocations: tuple[BlockAllocation, ...] = ()
    free: int | None = None
    ceded: str | None = None


class Block(Lean, frozen=True):
    """An IPAMBlock."""

    metadata: Metadata
    spec: BlockSpec
    status: BlockStatus = BlockStatus()


class NetworkBlock(Lean, frozen=True):
    """One entry of a NodeNetwork's spec.blocks."""

    name: str
    cidr: str = ""
    pool: str = ""


class NetworkSpec(Lean, frozen=True):
    """spec of a NodeNetwork."""

    blocks: tuple[NetworkBlock, ...] = ()


class Condition(Lean, frozen=True):
    """One of status.conditions."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""
    observed_generation: int = 0


class NetworkVxlan(Lean, frozen=True):
    """status.vxlan of a NodeNetwork."""

    mac: str = ""
    addresses: tuple[str, ...] = ()


class NetworkBgp(Lean, frozen=True):
    """status.bgp of a NodeNetwork."""

    as_number: int = msgspec.field(name="asNumber")
    port: int = 179
    cluster_id: str | None = msgspec.field(default=None, name="clusterID")
    labels: tuple[str, ...] = ()


class NetworkStatus(Lean, frozen=True):
    """status of a NodeNetwork."""

    addresses: tuple[str, ...] = ()
    vxlan: NetworkVxlan | None = None
    ipip: str | None = None
    bgp: NetworkBgp | None = None
    mtu: int = 0
    pools: tuple[str, ...] = ()
    short: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()


class Network(Lean, frozen=True):
    """A NodeNetwork."""

    metadata: Metadata
    spec: NetworkSpec = NetworkSpec()
    status: NetworkStatus = NetworkStatus()


class LabelledMetadata(Metadata, frozen=True):
    """The part of metadata that tells whether an object is being deleted."""

    deletion_timestamp: str = ""


class Labelled(Lean, frozen=True):
    """Any object, as far as whether it is there."""

    metadata: LabelledMetadata


class AnnotatedMetadata(Metadata, frozen=True):
    """The part of metadata that pods are given addresses by."""

    annotations: dict[str, str] = {}


class OwnNode(Lean, frozen=True):
    """The Node that an agent runs on."""

    metadata: AnnotatedMetadata
    status: NodeStatus = NodeStatus()


class Secret(Lean, frozen=True):
    """A Secret; its values are in base64."""

    metadata: Metadata
    data: dict[str, str] = {}


class Annotated(Lean, frozen=True):
    """A Pod or a Namespace."""

    metadata: AnnotatedMetadata


class PodAnnotations(Lean, frozen=True):
    """The annotation by which the runtime knows a static pod, whose mirror in the API has another uid."""

    config_hash: str = msgspec.field(default="", name="kubernetes.io/config.hash")


class PodMetadata(LabelledMetadata, frozen=True):
    """The part of a Pod's metadata that tells who it is."""

    annotations: PodAnnotations = PodAnnotations()


class PodSpec(Lean, frozen=True):
    """spec of a Pod, as far as its addresses matter."""

    node_name: str = ""
    host_network: bool = False


class PodIP(Lean, frozen=True):
    """One of status.podIPs."""

    ip: str


class PodStatus(Lean, frozen=True):
    """status of a Pod, as far as its addresses matter."""

    phase: str = ""
    pod_ips: tuple[PodIP, ...] = msgspec.field(default=(), name="podIPs")


class Pod(Lean, frozen=True):
    """A Pod, as far as its addresses matter."""

    metadata: PodMetadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class PoolSpec(Lean, frozen=True):
    """spec of an IPPool, as far as pods choose by it, and packets are carried."""

    cidr: str
    ipip_mode: str = "Never"
    vxlan_mode: str = "Never"
    nat_outgoing: bool = False
    node_selector: str | None = None
    namespace_selector: str | None = None
    assignment_mode: str = "Automatic"
    allowed_uses: tuple[str, ...] | None = None
    disabled: bool = False
    block_size: int | None = None
    disable_bgp_export: bool = msgspec.field(default=False, name="disableBGPExport")


class Pool(Lean, frozen=True):
    """An IPPool."""

    metadata: LabelledMetadata
    spec: PoolSpec
