"""Lean msgspec structs for what BGP speakers are told by: BGPConfiguration, BGPPeer and BGPFilter, and Services.

They hold only what is used; a test holds those of our kinds against the pydantic models.
"""

import msgspec

from tortie.api.lean import Lean, Metadata

AsNumber = int | str


class SecretKey(Lean, frozen=True):
    """A key of a Secret."""

    key: str
    name: str = ""
    optional: bool = False


class Password(Lean, frozen=True):
    """Where a password is kept."""

    secret_key_ref: SecretKey | None = None


class CidrBlock(Lean, frozen=True):
    """One range."""

    cidr: str


class NamedCommunity(Lean, frozen=True):
    """A community's name."""

    name: str
    value: str


class PrefixAdvertisement(Lean, frozen=True):
    """Communities of one prefix."""

    cidr: str
    communities: tuple[str, ...] = ()


class ConfigurationSpec(Lean, frozen=True):
    """spec of a BGPConfiguration; None and "": not said."""

    log_severity_screen: str | None = None
    node_to_node_mesh_enabled: bool | None = None
    as_number: AsNumber | None = msgspec.field(default=None, name="asNumber")
    service_load_balancer_ips: tuple[CidrBlock, ...] = msgspec.field(default=(), name="serviceLoadBalancerIPs")
    service_external_ips: tuple[CidrBlock, ...] = msgspec.field(default=(), name="serviceExternalIPs")
    service_cluster_ips: tuple[CidrBlock, ...] = msgspec.field(default=(), name="serviceClusterIPs")
    service_load_balancer_aggregation: str | None = None
    communities: tuple[NamedCommunity, ...] = ()
    prefix_advertisements: tuple[PrefixAdvertisement, ...] = ()
    listen_port: int | None = None
    bind_mode: str | None = None
    ignored_interfaces: tuple[str, ...] | None = None
    node_mesh_password: Password | None = None
    node_mesh_max_restart_time: str | None = None
    node_mesh_failure_detection_mode: str | None = None


class Configuration(Lean, frozen=True):
    """A BGPConfiguration."""

    metadata: Metadata
    spec: ConfigurationSpec = ConfigurationSpec()


class PeerSpec(Lean, frozen=True):
    """spec of a BGPPeer."""

    node: str | None = None
    node_selector: str | None = None
    peer_ip: str | None = msgspec.field(default=None, name="peerIP")
    as_number: AsNumber | None = msgspec.field(default=None, name="asNumber")
    local_as_number: AsNumber | None = msgspec.field(default=None, name="localASNumber")
    peer_selector: str | None = None
    local_workload_selector: str | None = None
    keep_original_next_hop: bool = False
    next_hop_mode: str | None = None
    password: Password | None = None
    source_address: str | None = None
    max_restart_time: str | None = None
    num_allowed_local_as_numbers: int | None = msgspec.field(default=None, name="numAllowedLocalASNumbers")
    ttl_security: int | None = None
    reachable_by: str | None = None
    reverse_peering: str | None = None
    failure_detection_mode: str | None = None
    filters: tuple[str, ...] = ()


class Peer(Lean, frozen=True):
    """A BGPPeer."""

    metadata: Metadata
    spec: PeerSpec = PeerSpec()


class PrefixLength(Lean, frozen=True):
    """Bounds of a prefix length."""

    min: int | None = None
    max: int | None = None


class CommunityMatch(Lean, frozen=True):
    """Communities that a route must carry."""

    values: tuple[str, ...] = ()


class AddCommunity(Lean, frozen=True):
    """A community to add."""

    value: str


class PrependAsPath(Lean, frozen=True):
    """AS numbers to prepend."""

    prefix: tuple[AsNumber, ...] = ()


class SetPriority(Lean, frozen=True):
    """A priority to set."""

    value: int


class FilterOperation(Lean, frozen=True):
    """One change of a route that is accepted."""

    add_community: AddCommunity | None = None
    prepend_as_path: PrependAsPath | None = msgspec.field(default=None, name="prependASPath")
    set_priority: SetPriority | None = None


class FilterRule(Lean, frozen=True):
    """What routes a rule takes, and what becomes of them."""

    action: str
    cidr: str | None = None
    match_operator: str | None = None
    prefix_length: PrefixLength | None = None
    source: str | None = None
    interface: str | None = None
    peer_type: str | None = None
    communities: CommunityMatch | None = None
    as_path_prefix: tuple[AsNumber, ...] | None = msgspec.field(default=None, name="asPathPrefix")
    priority: int | None = None
    operations: tuple[FilterOperation, ...] | None = None


class FilterSpec(Lean, frozen=True):
    """spec of a BGPFilter."""

    export_v4: tuple[FilterRule, ...] = msgspec.field(default=(), name="exportV4")
    import_v4: tuple[FilterRule, ...] = msgspec.field(default=(), name="importV4")
    export_v6: tuple[FilterRule, ...] = msgspec.field(default=(), name="exportV6")
    import_v6: tuple[FilterRule, ...] = msgspec.field(default=(), name="importV6")


class Filter(Lean, frozen=True):
    """A BGPFilter."""

    metadata: Metadata
    spec: FilterSpec = FilterSpec()


class ServiceSpec(Lean, frozen=True):
    """spec of a Service, as far as its addresses are advertised."""

    type: str = "ClusterIP"
    cluster_ips: tuple[str, ...] = msgspec.field(default=(), name="clusterIPs")
    external_ips: tuple[str, ...] = msgspec.field(default=(), name="externalIPs")
    external_traffic_policy: str = "Cluster"
    internal_traffic_policy: str = "Cluster"


class Ingress(Lean, frozen=True):
    """One of a Service's status.loadBalancer.ingress; without an address it is a name."""

    ip: str = ""


class LoadBalancer(Lean, frozen=True):
    """status.loadBalancer of a Service."""

    ingress: tuple[Ingress, ...] = ()


class ServiceStatus(Lean, frozen=True):
    """status of a Service."""

    load_balancer: LoadBalancer = LoadBalancer()


class Service(Lean, frozen=True):
    """A Service."""

    metadata: Metadata
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class EndpointConditions(Lean, frozen=True):
    """conditions of an endpoint; None: not known, which counts as ready (Kubernetes' meaning)."""

    ready: bool | None = None


class Endpoint(Lean, frozen=True):
    """One endpoint of a slice."""

    node_name: str | None = None
    conditions: EndpointConditions = EndpointConditions()


class EndpointSlice(Lean, frozen=True):
    """An EndpointSlice; the label kubernetes.io/service-name of it names the Service."""

    metadata: Metadata
    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] | None = ()
