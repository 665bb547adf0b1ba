"""BGPConfiguration, BGPPeer and BGPFilter, with the field names and values of Calico's `projectcalico.org/v3`.

What follows from them is `tortie.routing`'s. Lists and texts are bounded so that no object passes 1 MB and the rules fit the
API server's cost budget.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from tortie.api.meta import CIDR_MAX, NAME_MAX, Column, Conditions, Model, Resource, rule, rules
from tortie.api.selector_pattern import SELECTOR_MAX_LENGTH, SELECTOR_RULE

_AS_NUMBER: dict[str, Any] = {"x-kubernetes-int-or-string": True, "maxLength": 11}
# RFC 5396: asplain, or asdot as two numbers of 16 bits.
_AS_RULE = rule(
    "type(self) == int ? self >= 1 && self <= 4294967295 : string(self).matches('^[0-9]{1,10}$|^[0-9]{1,5}[.][0-9]{1,5}$')",
    "must be an AS number: from 1 to 4294967295, or a text such as '64512' or '1.10'",
    value="string(self)",
)
AsNumber = Annotated[int | str, WithJsonSchema({**_AS_NUMBER, **rules(_AS_RULE)})]
# Within lists of lists the rule would pass the API server's cost budget.
ListedAsNumber = Annotated[int | str, WithJsonSchema(_AS_NUMBER)]

Cidr = Annotated[str, Field(max_length=CIDR_MAX, json_schema_extra=rules(rule("isCIDR(self)", "must be a CIDR", value="self")))]
Address = Annotated[
    str, Field(max_length=CIDR_MAX, json_schema_extra=rules(rule("isIP(self)", "must be an IP address", value="self")))
]
Selector = Annotated[str, Field(max_length=SELECTOR_MAX_LENGTH, json_schema_extra=rules(SELECTOR_RULE))]
Name = Annotated[str, Field(max_length=NAME_MAX)]
CommunityName = Annotated[str, Field(max_length=63)]
Duration = Annotated[str, Field(max_length=32, pattern=r"^([0-9]+([.][0-9]+)?(ns|us|ms|s|m|h))+$")]
Community = Annotated[str, Field(max_length=32, pattern=r"^[0-9]+:[0-9]+(:[0-9]+)?$")]
Switch = Literal["Enabled", "Disabled"]
# The field's name and values as in Calico Enterprise; nodeMeshFailureDetectionMode is ours.
Detection = Literal["None", "BFDIfDirectlyConnected"]


class SecretKey(Model):
    """A key of a Secret."""

    name: Annotated[str, Field(max_length=NAME_MAX, description="The Secret's name.")] = ""
    key: Annotated[str, Field(max_length=NAME_MAX, description="The key in it.")]
    optional: Annotated[bool | None, Field(description="Whether the Secret or the key may be missing.")] = None


class Password(Model):
    """Where a password is kept."""

    secret_key_ref: Annotated[SecretKey | None, Field(description="A key of a Secret beside the agents.")] = None


class SpokenStatus(Model):
    """What the operator says of an object that nodes speak BGP by."""

    conditions: Annotated[
        Conditions, Field(description="Supported=False where it can't be used, or asks for what no part of Tortie does.")
    ] = ()


class CidrBlock(Model):
    """One range."""

    cidr: Annotated[Cidr, Field(description="The range, as a CIDR.")]


class NamedCommunity(Model):
    """A community's name."""

    name: Annotated[CommunityName, Field(description="The name that prefixAdvertisements use.")]
    value: Annotated[Community, Field(description="aa:nn, or aa:nn:mm for a large community (RFC 8092).")]


class PrefixAdvertisement(Model):
    """Communities of one prefix."""

    cidr: Annotated[Cidr, Field(description="The prefix.")]
    communities: Annotated[
        tuple[CommunityName, ...], Field(max_length=16, description="Names from communities, or values aa:nn or aa:nn:mm.")
    ]


_Blocks = Annotated[tuple[CidrBlock, ...], Field(max_length=1024)]


class BGPConfigurationSpec(Model):
    """How nodes speak BGP."""

    log_severity_screen: Annotated[
        Literal["Debug", "Info", "Warning", "Error", "Fatal"] | None,
        Field(description="The least severity that the BGP daemon logs. Default Info."),
    ] = None
    node_to_node_mesh_enabled: Annotated[
        bool | None, Field(description="Whether every node peers with every other. Default true.")
    ] = None
    as_number: Annotated[AsNumber | None, Field(alias="asNumber", description="The nodes' AS number. Default 64512.")] = None
    service_load_balancer_ips: Annotated[
        _Blocks, Field(alias="serviceLoadBalancerIPs", description="Load balancer ranges to advertise.")
    ] = ()
    service_external_ips: Annotated[
        _Blocks, Field(alias="serviceExternalIPs", description="Ranges of Services' external IPs to advertise.")
    ] = ()
    service_cluster_ips: Annotated[
        _Blocks, Field(alias="serviceClusterIPs", description="Ranges of Services' cluster IPs to advertise.")
    ] = ()
    service_load_balancer_aggregation: Annotated[
        Switch | None, Field(description="Whether load balancer ranges are advertised whole. Default Enabled.")
    ] = None
    communities: Annotated[
        tuple[NamedCommunity, ...], Field(max_length=1024, description="Names for communities that tag routes.")
    ] = ()
    prefix_advertisements: Annotated[
        tuple[PrefixAdvertisement, ...], Field(max_length=128, description="Which prefixes get which communities.")
    ] = ()
    listen_port: Annotated[int | None, Field(ge=1, le=65535, description="TCP port of BGP. Default 179.")] = None
    bind_mode: Annotated[
        Literal["None", "NodeIP"] | None, Field(description="What the daemon listens on. Default None: every address.")
    ] = None
    ignored_interfaces: Annotated[
        tuple[Name, ...] | None,
        Field(max_length=256, description="Interfaces whose routes are left out; * stands for any text."),
    ] = None
    node_mesh_password: Annotated[Password | None, Field(description="Password of the peerings between nodes.")] = None
    node_mesh_max_restart_time: Annotated[
        Duration | None, Field(description="Graceful restart between nodes, such as 2m. Default 120s.")
    ] = None
    node_mesh_failure_detection_mode: Annotated[
        Detection | None,
        Field(description="How a dead node is noticed: BFD within a second, else by the hold time. Default None."),
    ] = None
    local_workload_peering_ip_v4: Annotated[
        Address | None, Field(alias="localWorkloadPeeringIPV4", description="Address at which pods peer with their node.")
    ] = None
    local_workload_peering_ip_v6: Annotated[
        Address | None, Field(alias="localWorkloadPeeringIPV6", description="IPv6 address at which pods peer with their node.")
    ] = None


class BGPConfiguration(Resource):
    """How nodes speak BGP; the one named `default` is for all, `node.NAME` for one node."""

    plural: ClassVar[str] = "bgpconfigurations"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="AS", path=".spec.asNumber"),
        Column(name="Mesh", path=".spec.nodeToNodeMeshEnabled", type="boolean"),
        Column(name="Supported", path=".status.conditions[?(@.type=='Supported')].status"),
        Column(name="Age", path=".metadata.creationTimestamp", type="date"),
    )

    kind: str = "BGPConfiguration"
    spec: Annotated[BGPConfigurationSpec, Field(description="The settings.")]
    status: Annotated[SpokenStatus | None, Field(description="Written by the operator.")] = None


_PEER_RULES = rules(
    rule("!has(self.node) || !has(self.nodeSelector)", "must be empty when nodeSelector is set", field=".node"),
    rule("!has(self.peerIP) || !has(self.peerSelector)", "must be empty when peerSelector is set", field=".peerIP"),
    rule("!has(self.asNumber) || !has(self.peerSelector)", "must be empty when peerSelector is set", field=".asNumber"),
)


class BGPPeerSpec(Model):
    """Who peers with whom, and how."""

    model_config = ConfigDict(json_schema_extra=_PEER_RULES)

    node: Annotated[
        str | None, Field(max_length=NAME_MAX, description="The only node that peers. Empty: see nodeSelector.")
    ] = None
    node_selector: Annotated[Selector | None, Field(description="The nodes that peer. Without it and node: all.")] = None
    peer_ip: Annotated[
        str | None,
        Field(
            alias="peerIP",
            max_length=64,
            description="The peer's address, with a port as 10.0.0.1:1179 or [fd00::1]:1179.",
            json_schema_extra=rules(
                rule(
                    "isIP(self) || (self.matches('^[^:]+:[0-9]{1,5}$') && isIP(self.split(':')[0]))"
                    " || (self.matches('^[[].*[]]:[0-9]{1,5}$') && isIP(self.substring(1, self.lastIndexOf(']'))))",
                    "must be an IP address, or one with a port such as 10.0.0.1:1179 or [fd00::1]:1179",
                )
            ),
        ),
    ] = None
    as_number: Annotated[AsNumber | None, Field(alias="asNumber", description="The peer's AS number.")] = None
    local_as_number: Annotated[
        AsNumber | None, Field(alias="localASNumber", description="The AS number that nodes use towards this peer.")
    ] = None
    peer_selector: Annotated[Selector | None, Field(description="The nodes that are peers, in place of peerIP.")] = None
    local_workload_selector: Annotated[
        Selector | None, Field(description="The pods that are peers of their node, in place of peerIP.")
    ] = None
    keep_original_next_hop: Annotated[bool, Field(description="Whether routes keep their next hop.")] = False
    next_hop_mode: Annotated[
        Literal["Auto", "Self", "Keep"] | None, Field(description="How the next hop is set. Default Auto.")
    ] = None
    password: Annotated[Password | None, Field(description="TCP MD5 password of the peering (RFC 2385).")] = None
    source_address: Annotated[
        Literal["UseNodeIP", "None"] | None, Field(description="Whether the node's address is the source. Default UseNodeIP.")
    ] = None
    max_restart_time: Annotated[Duration | None, Field(description="Graceful restart, such as 2m. Default 120s.")] = None
    num_allowed_local_as_numbers: Annotated[
        int | None,
        Field(alias="numAllowedLocalASNumbers", ge=0, description="How often the own AS may be in a path. Default 0."),
    ] = None
    ttl_security: Annotated[
        int | None, Field(ge=0, le=255, alias="ttlSecurity", description="Hops to the peer (RFC 5082). 0: not checked.")
    ] = None
    reachable_by: Annotated[Address | None, Field(description="Gateway to a peer that isn't on a connected network.")] = None
    reverse_peering: Annotated[
        Literal["Auto", "Manual"] | None, Field(description="Whether selected nodes peer back. Default Auto.")
    ] = None
    failure_detection_mode: Annotated[
        Detection | None,
        Field(description="How a dead peer is noticed: BFD within a second, else by the hold time. Default None."),
    ] = None
    filters: Annotated[tuple[Name, ...], Field(max_length=64, description="BGPFilters that hold for it, in order.")] = ()


class BGPPeer(Resource):
    """A peering of nodes with a router, or with each other."""

    plural: ClassVar[str] = "bgppeers"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="Peer", path=".spec.peerIP"),
        Column(name="AS", path=".spec.asNumber"),
        Column(name="Nodes", path=".spec.nodeSelector"),
        Column(name="Supported", path=".status.conditions[?(@.type=='Supported')].status"),
        Column(name="Age", path=".metadata.creationTimestamp", type="date"),
    )

    kind: str = "BGPPeer"
    spec: Annotated[BGPPeerSpec, Field(description="The peering.")]
    status: Annotated[SpokenStatus | None, Field(description="Written by the operator.")] = None


class PrefixLength(Model):
    """Bounds of a prefix length."""

    min: Annotated[int | None, Field(ge=0, le=128, description="The least. Default: the cidr's own.")] = None
    max: Annotated[int | None, Field(ge=0, le=128, description="The most. Default 32, IPv6 128.")] = None


class CommunityMatch(Model):
    """Communities that a route must carry."""

    values: Annotated[tuple[Community, ...], Field(min_length=1, max_length=1, description="The community.")]


class AddCommunity(Model):
    """A community to add."""

    value: Annotated[Community, Field(description="aa:nn or aa:nn:mm.")]


class PrependAsPath(Model):
    """AS numbers to prepend."""

    prefix: Annotated[tuple[ListedAsNumber, ...], Field(min_length=1, max_length=10, description="The AS numbers, in order.")]


class SetPriority(Model):
    """A priority to set."""

    value: Annotated[int, Field(ge=1, le=2147483646, description="The priority; a lower one is preferred.")]


class FilterOperation(Model):
    """One change of a route that is accepted."""

    add_community: Annotated[AddCommunity | None, Field(description="Add a community.")] = None
    prepend_as_path: Annotated[PrependAsPath | None, Field(alias="prependASPath", description="Prepend AS numbers.")] = None
    set_priority: Annotated[SetPriority | None, Field(description="Set the priority.")] = None


class FilterRule(Model):
    """What routes a rule takes, and what becomes of them."""

    action: Annotated[Literal["Accept", "Reject"], Field(description="What becomes of a route that matches.")]
    cidr: Annotated[Cidr | None, Field(description="The range that matchOperator compares with.")] = None
    match_operator: Annotated[
        Literal["Equal", "NotEqual", "In", "NotIn"] | None, Field(description="How the route's prefix relates to cidr.")
    ] = None
    prefix_length: Annotated[PrefixLength | None, Field(description="Bounds of the route's prefix length.")] = None
    source: Annotated[Literal["RemotePeers"] | None, Field(description="Only routes learned from peers.")] = None
    interface: Annotated[str | None, Field(max_length=64, description="Only routes by this interface; * is any text.")] = None
    peer_type: Annotated[Literal["eBGP", "iBGP"] | None, Field(description="Only towards such peers.")] = None
    communities: Annotated[CommunityMatch | None, Field(description="Only routes that carry these.")] = None
    as_path_prefix: Annotated[
        tuple[ListedAsNumber, ...] | None,
        Field(alias="asPathPrefix", max_length=16, description="Only routes whose AS path begins so."),
    ] = None
    priority: Annotated[int | None, Field(ge=1, le=2147483646, description="Only routes of this priority.")] = None
    operations: Annotated[
        tuple[FilterOperation, ...] | None, Field(max_length=10, description="Changes of a route that is accepted, in order.")
    ] = None


# 64 of the longest rules in each of the four lists stay under 1 MB.
_Rules = Annotated[tuple[FilterRule, ...], Field(max_length=64)]


class BGPFilterSpec(Model):
    """Rules by direction and family, the first that matches holds."""

    export_v4: Annotated[_Rules, Field(alias="exportV4", description="Rules for IPv4 routes sent to a peer.")] = ()
    import_v4: Annotated[_Rules, Field(alias="importV4", description="Rules for IPv4 routes learned from a peer.")] = ()
    export_v6: Annotated[_Rules, Field(alias="exportV6", description="Rules for IPv6 routes sent to a peer.")] = ()
    import_v6: Annotated[_Rules, Field(alias="importV6", description="Rules for IPv6 routes learned from a peer.")] = ()


class BGPFilter(Resource):
    """Which routes go to a peer and come from it; BGPPeers name it."""

    plural: ClassVar[str] = "bgpfilters"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="Supported", path=".status.conditions[?(@.type=='Supported')].status"),
        Column(name="Age", path=".metadata.creationTimestamp", type="date"),
    )

    kind: str = "BGPFilter"
    spec: Annotated[BGPFilterSpec, Field(description="The rules.")]
    status: Annotated[SpokenStatus | None, Field(description="Written by the operator.")] = None
