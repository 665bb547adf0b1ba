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
    cede: str | None = None
    settled: int = 0
    settled_epoch: str = ""


class BlockAllocation(Lean, frozen=True):
    """One address in use; only counted here."""

    address: str


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


class NetworkStatus(Lean, frozen=True):
    """status of a NodeNetwork."""

    addresses: tuple[str, ...] = ()


class Network(Lean, frozen=True):
    """A NodeNetwork."""

    metadata: Metadata
    spec: NetworkSpec = NetworkSpec()
    status: NetworkStatus = NetworkStatus()


class AnnotatedMetadata(Metadata, frozen=True):
    """The part of metadata that pods are given addresses by."""

    annotations: dict[str, str] = {}


class Annotated(Lean, frozen=True):
    """A Pod or a Namespace."""

    metadata: AnnotatedMetadata


class PoolSpec(Lean, frozen=True):
    """spec of an IPPool, as far as pods choose by it."""

    cidr: str
    namespace_selector: str | None = None
    assignment_mode: str = "Automatic"
    allowed_uses: tuple[str, ...] | None = None
    disabled: bool = False


class Pool(Lean, frozen=True):
    """An IPPool."""

    metadata: Metadata
    spec: PoolSpec
