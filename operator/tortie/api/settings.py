"""What people set for the cluster's addresses: IPReservation and IPAMConfiguration, with Calico's field names."""

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from tortie.api.meta import CIDR_MAX, Column, Model, Resource, rule, rules

ReservedCidr = Annotated[
    str,
    Field(
        max_length=CIDR_MAX,
        json_schema_extra=rules(
            rule(
                "isCIDR(self) || isIP(self)",
                "must be a CIDR or an address such as 10.1.0.0/28 or 10.1.0.7",
                value="self",
            )
        ),
    ),
]


class IPReservationSpec(Model):
    """What a reservation holds."""

    reserved_cidrs: Annotated[
        tuple[ReservedCidr, ...],
        Field(
            alias="reservedCIDRs",
            max_length=1024,
            description="Ranges and single addresses that only a pod gets that asks for the very address by annotation.",
        ),
    ] = ()


class IPReservation(Resource):
    """Addresses that are never given out by themselves."""

    plural: ClassVar[str] = "ipreservations"
    short_names: ClassVar[tuple[str, ...]] = ("ipr",)
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="Reserved", path=".spec.reservedCIDRs"),
        Column(name="Age", path=".metadata.creationTimestamp", type="date"),
    )

    kind: str = "IPReservation"
    spec: Annotated[IPReservationSpec, Field(description="What is reserved.")]


class IPAMConfigurationSpec(Model):
    """Settings of address management."""

    model_config = ConfigDict(json_schema_extra={})

    strict_affinity: Annotated[
        bool,
        Field(description="Calico's: whether nodes may not borrow from each other's blocks. Nodes never borrow here."),
    ] = True
    max_blocks_per_host: Annotated[
        int,
        Field(
            ge=0,
            le=1_000_000,
            description="The most blocks of each family that a node may own. 0: no limit but 1,024; more counts as 1,024.",
        ),
    ] = 0
    auto_allocate_blocks: Annotated[
        bool, Field(description="Calico's: whether nodes get further blocks by themselves. Always so here.")
    ] = True


class IPAMConfiguration(Resource):
    """Settings of address management; the one named `default` holds."""

    plural: ClassVar[str] = "ipamconfigurations"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="Max Blocks", path=".spec.maxBlocksPerHost", type="integer"),
        Column(name="Age", path=".metadata.creationTimestamp", type="date"),
    )
    name_rules: ClassVar[tuple[dict[str, str], ...]] = (
        rule("self.metadata.name == 'default'", "must be named default", value="self.metadata.name"),
    )

    kind: str = "IPAMConfiguration"
    spec: Annotated[IPAMConfigurationSpec, Field(description="The settings.")]
