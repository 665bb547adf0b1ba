"""IPPool: a range of addresses for pods, with Calico's field names and values.

Fields and defaults follow `projectcalico.org/v3` IPPool, so that such a manifest works when its apiVersion is changed.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from tortie.api.meta import CIDR_MAX, Column, Conditions, Model, Resource, rule, rules
from tortie.api.selector_pattern import SELECTOR_MAX_LENGTH, SELECTOR_RULE

DEFAULT_BLOCK_SIZE = {4: 26, 6: 122}
BLOCK_SIZES = {4: (20, 32), 6: (116, 128)}

# Ranges that no pod may have, each with the reason that the refusal gives.
FORBIDDEN_RANGES = (
    ("loopback", ("127.0.0.0/8", "::1/128")),
    ("link-local", ("169.254.0.0/16", "fe80::/10")),
    ("multicast", ("224.0.0.0/4", "ff00::/8")),
)

# Counts in a status saturate here: JSON readers lose precision above it (RFC 8259 section 6), and an IPv6 pool holds more.
COUNT_MAX = 2**53 - 1

EncapsulationMode = Literal["Never", "Always", "CrossSubnet"]


def _overlaps(ranges: tuple[str, ...]) -> str:
    """Return CEL that is true when `self`, a CIDR, overlaps one of `ranges`, whichever of the two is the larger."""
    return " || ".join(f"cidr('{r}').containsCIDR(self) || cidr(self).containsCIDR('{r}')" for r in ranges)


_CIDR_RULES = rules(
    rule("isCIDR(self)", "must be a CIDR such as 10.1.0.0/16 or fd00:10::/48", value="self"),
    rule(
        "!isCIDR(self) || cidr(self) == cidr(self).masked()",
        "must not have host bits set: write the range's first address, such as 10.1.0.0/16 for 10.1.2.3/16",
        value="self",
    ),
    *(
        rule(
            f"!isCIDR(self) || !({_overlaps(ranges)})",
            f"must not overlap the {name} range {' or '.join(ranges)}",
            value="self",
        )
        for name, ranges in FORBIDDEN_RANGES
    ),
)


def _family(spec: str) -> str:
    return f"cidr({spec}.cidr).ip().family()"


def _block_size(spec: str) -> str:
    """Return CEL for the block size of `spec`, its family's default where it is unset."""
    default = f"({_family(spec)} == 4 ? {DEFAULT_BLOCK_SIZE[4]} : {DEFAULT_BLOCK_SIZE[6]})"
    return f"(has({spec}.blockSize) ? {spec}.blockSize : {default})"


_IS_V4 = _family("self") + " == 4"

_SPEC_RULES = rules(
    rule("self.cidr == oldSelf.cidr", "can't be changed: make another pool and disable this one", field=".cidr"),
    rule(
        f"!isCIDR(self.cidr) || !isCIDR(oldSelf.cidr) || {_block_size('self')} == {_block_size('oldSelf')}",
        "can't be changed: make another pool and disable this one",
        field=".blockSize",
    ),
    rule(
        f"!isCIDR(self.cidr) || !has(self.blockSize) || !({_IS_V4}) || (self.blockSize >= 20 && self.blockSize <= 32)",
        "must be from 20 to 32 in an IPv4 pool",
        field=".blockSize",
    ),
    rule(
        f"!isCIDR(self.cidr) || !has(self.blockSize) || {_IS_V4} || (self.blockSize >= 116 && self.blockSize <= 128)",
        "must be from 116 to 128 in an IPv6 pool",
        field=".blockSize",
    ),
    rule(
        f"!isCIDR(self.cidr) || cidr(self.cidr).prefixLength() <= {_block_size('self')}",
        "must not be smaller than a block (blockSize, by default 26 for IPv4 and 122 for IPv6)",
        field=".cidr",
        value="self.cidr",
    ),
    rule(
        "self.ipipMode == 'Never' || self.vxlanMode == 'Never'",
        "must be Never when vxlanMode is not: a pool has one encapsulation",
        field=".ipipMode",
    ),
    rule(
        f"!isCIDR(self.cidr) || self.ipipMode == 'Never' || {_IS_V4}",
        "must be Never in an IPv6 pool: IP in IP carries IPv4 only; use vxlanMode",
        field=".ipipMode",
    ),
    rule(
        "!has(self.namespaceSelector) || self.namespaceSelector == '' || !has(self.allowedUses)"
        " || !self.allowedUses.exists(u, u == 'Tunnel')",
        "must not hold Tunnel when namespaceSelector is set: a tunnel belongs to no namespace",
        field=".allowedUses",
    ),
)

Selector = Annotated[
    str,
    Field(max_length=SELECTOR_MAX_LENGTH, json_schema_extra=rules(SELECTOR_RULE)),
]


class IPPoolSpec(Model):
    """What a person asks of a pool."""

    model_config = ConfigDict(json_schema_extra=_SPEC_RULES)

    cidr: Annotated[
        str,
        Field(
            alias="cidr",
            max_length=CIDR_MAX,
            description="The range that the pool's addresses come from. It can't be changed.",
            json_schema_extra=_CIDR_RULES,
        ),
    ]
    block_size: Annotated[
        int | None,
        Field(
            description="Prefix length of the blocks that nodes get: 20 to 32 for IPv4 (default 26, 64 addresses), 116 to"
            " 128 for IPv6 (default 122). It can't be changed."
        ),
    ] = None
    ipip_mode: Annotated[
        EncapsulationMode,
        Field(
            alias="ipipMode",
            description="IP-in-IP encapsulation between nodes: Never, Always, or CrossSubnet (only where the nodes are in"
            " different subnets). IPv4 only.",
        ),
    ] = "Never"
    vxlan_mode: Annotated[
        EncapsulationMode,
        Field(alias="vxlanMode", description="VXLAN encapsulation between nodes: Never, Always or CrossSubnet."),
    ] = "Never"
    nat_outgoing: Annotated[
        bool, Field(description="Whether traffic from the pool to destinations outside all pools is masqueraded.")
    ] = False
    node_selector: Annotated[
        Selector,
        Field(description="Which nodes get blocks of the pool, by their labels, such as has(rack) && zone != 'b'."),
    ] = "all()"
    namespace_selector: Annotated[
        Selector | None,
        Field(
            description="Which namespaces' pods may have addresses of the pool, by the namespaces' labels. Unset or"
            " empty: all. A node gets a block of such a pool only when a pod there asks."
        ),
    ] = None
    allowed_uses: Annotated[
        tuple[Literal["Workload", "Tunnel", "LoadBalancer"], ...] | None,
        Field(
            max_length=3,
            description="What addresses may be used for. Unset: Workload and Tunnel; with a namespaceSelector: Workload.",
        ),
    ] = None
    assignment_mode: Annotated[
        Literal["Automatic", "Manual"],
        Field(description="Automatic: any pod that the selectors take. Manual: only pods that name the pool."),
    ] = "Automatic"
    disabled: Annotated[bool, Field(description="Whether the pool gives out nothing more; addresses in use stay in use.")] = (
        False
    )
    disable_bgp_export: Annotated[
        bool, Field(alias="disableBGPExport", description="Whether the pool's routes are kept out of BGP.")
    ] = False


Count = Annotated[int, Field(ge=0, le=COUNT_MAX, json_schema_extra={"format": "int64"})]


class BlockCounts(Model):
    """How many blocks a pool has. Counts above 2^53 - 1 are shown as that."""

    total: Annotated[Count, Field(description="Blocks that the pool can be split into.")]
    assigned: Annotated[Count, Field(description="Blocks that nodes own.")]
    free: Annotated[Count, Field(description="Blocks that no node owns and no reservation holds.")]


class AddressCounts(Model):
    """How many addresses a pool has. Counts above 2^53 - 1 are shown as that."""

    capacity: Annotated[Count, Field(description="Addresses in the pool.")]
    allocated: Annotated[Count, Field(description="Addresses in use.")]
    available: Annotated[Count, Field(description="Addresses neither in use nor reserved.")]


class IPPoolStatus(Model):
    """What is true of a pool now; written by the operator."""

    conditions: Conditions = ()
    block_size: Annotated[int | None, Field(description="The prefix length of the pool's blocks.")] = None
    encapsulation: Annotated[
        Literal["None", "IPIP", "IPIPCrossSubnet", "VXLAN", "VXLANCrossSubnet"] | None,
        Field(description="How packets between nodes are carried: ipipMode and vxlanMode in one word."),
    ] = None
    blocks: Annotated[BlockCounts | None, Field(description="How many blocks there are, and who has them.")] = None
    addresses: Annotated[AddressCounts | None, Field(description="How many addresses there are, and how many are used.")] = None


class IPPool(Resource):
    """A range of addresses for pods. Nodes own blocks of it; pods get addresses out of their node's blocks."""

    plural: ClassVar[str] = "ippools"
    short_names: ClassVar[tuple[str, ...]] = ("ipp",)
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="CIDR", path=".spec.cidr"),
        Column(name="Block Size", path=".status.blockSize", type="integer"),
        Column(name="Encapsulation", path=".status.encapsulation"),
        Column(name="NAT", path=".spec.natOutgoing", type="boolean"),
        Column(name="Allocated", path=".status.addresses.allocated", type="integer"),
        Column(name="Free", path=".status.addresses.available", type="integer"),
        Column(name="Blocks", path=".status.blocks.assigned", type="integer", wide=True),
        Column(name="Total", path=".status.blocks.total", type="integer", wide=True),
        Column(name="Node Selector", path=".spec.nodeSelector", wide=True),
        Column(name="Allocatable", path='.status.conditions[?(@.type=="Allocatable")].reason', wide=True),
        Column(name="Age", path=".metadata.creationTimestamp", type="date"),
    )

    kind: str = "IPPool"
    spec: Annotated[IPPoolSpec, Field(description="What is asked of the pool.")]
    status: Annotated[IPPoolStatus | None, Field(description="What is true of the pool now.")] = None
