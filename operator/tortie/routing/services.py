"""Which ranges of Services a node says by BGP (Calico's meaning: `confd/pkg/backends/calico/routes.go`). Pure.

Ranges of BGPConfiguration are said whole, by every node: each passes packets on. An address is said alone where that isn't
enough: where a traffic policy is Local by the nodes that have an endpoint, as others would drop its packets; where its range is
one address, or load balancers' ranges aren't said whole, by every node. Nothing is said alone without a ready endpoint.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from tortie.addressing.allocator import address
from tortie.addressing.ranges import BITS, Range, parse
from tortie.api.bgp_input import CidrBlock, ConfigurationSpec, EndpointSlice, Service
from tortie.routing.written import Problems

# A node with this label says nothing of Services. It has to be "true", as in Calico: kubeadm gives control planes one without.
EXCLUDE = "node.kubernetes.io/exclude-from-external-load-balancers"
SERVICE_NAME = "kubernetes.io/service-name"
_TYPES = ("ClusterIP", "NodePort", "LoadBalancer")
_ADDRESS_TYPES = {"IPv4": frozenset({4}), "IPv6": frozenset({6})}

_Named = tuple[str, str]  # a Service's namespace and name


class _Ranges(NamedTuple):
    """Ranges of one kind of address.

    Attributes:
        whole: Whether they are said whole, those that are more than one address.
        single: Whether some are of one address.
    """

    all: tuple[Range, ...]
    whole: bool = True
    single: bool = False


class _Kinds(NamedTuple):
    """All that a configuration says."""

    cluster: _Ranges
    external: _Ranges
    balanced: _Ranges


class Families(NamedTuple):
    """The families in which there are ready endpoints: on any node, and on this one."""

    anywhere: frozenset[int] = frozenset()
    here: frozenset[int] = frozenset()


_NONE = Families()


class Endpoints:
    """Which Services have ready endpoints, and which on a node; learned slice by slice, of which nothing else is kept."""

    def __init__(self, node: str, slices: Iterable[EndpointSlice] = ()) -> None:
        """Begin with some slices."""
        self._node = node
        self._slices = dict[_Named, dict[str, Families]]()  # by Service, and by their names
        self._service = dict[_Named, _Named]()  # of a slice
        self._of = dict[_Named, Families]()
        for one in slices:
            self.put(one.metadata.namespace, one.metadata.name, one)

    def put(self, namespace: str, name: str, one: EndpointSlice | None) -> bool:
        """Take a slice, or that it is gone; return whether that changes where a Service has endpoints."""
        before = self._service.pop((namespace, name), None)
        if before:
            self._slices[before].pop(name)
        service = (namespace, one.metadata.labels.get(SERVICE_NAME, "")) if one else None
        if one and service:
            self._service[namespace, name] = service
            self._slices.setdefault(service, {})[name] = _families(one, self._node)
        changes = [self._sum(changed) for changed in {before, service} if changed]
        return any(changes)

    def of(self, service: _Named) -> Families:
        """Return where a Service, by namespace and name, has ready endpoints."""
        return self._of.get(service, _NONE)

    def _sum(self, service: _Named) -> bool:
        """Sum a Service's slices up; whether that is news."""
        slices, before = self._slices[service].values(), self.of(service)
        anywhere, here = (frozenset[int]().union(*sets) for sets in zip(*slices, strict=True)) if slices else _NONE
        if not slices:
            del self._slices[service]
        if anywhere:
            self._of[service] = Families(anywhere, here)
        else:
            self._of.pop(service, None)
        return self.of(service) != before


def ranges(spec: ConfigurationSpec) -> tuple[Range, ...]:
    """Return all ranges that Services' addresses may be said of; what can't be read is left out (`advertised` says so)."""
    return tuple(sorted({one for kind in _read(spec, Problems()) for one in kind.all}))


def advertised(
    spec: ConfigurationSpec, services: Iterable[Service], endpoints: Endpoints, labels: Mapping[str, str]
) -> tuple[set[Range], Problems]:
    """Return what of Services a node with these labels says, and what is wrong, by where."""
    problems = Problems()
    kinds = _read(spec, problems)
    if labels.get(EXCLUDE) == "true" or not any(kind.all for kind in kinds):
        return set(), problems
    found = {one for kind in kinds if kind.whole for one in kind.all if one.size > 1}
    for service in services:
        ready = endpoints.of((service.metadata.namespace, service.metadata.name))
        if ready.anywhere:
            try:
                found.update(_alone(service, kinds, ready))
            except ValueError as error:
                problems[f"Service {service.metadata.namespace}/{service.metadata.name}"] = str(error)
    return found, problems


def _read(spec: ConfigurationSpec, problems: Problems) -> _Kinds:
    return _Kinds(
        _ranges(spec.service_cluster_ips, "serviceClusterIPs", problems),
        _ranges(spec.service_external_ips, "serviceExternalIPs", problems),
        _ranges(spec.service_load_balancer_ips, "serviceLoadBalancerIPs", problems)._replace(
            whole=spec.service_load_balancer_aggregation != "Disabled"
        ),
    )


def _ranges(blocks: Iterable[CidrBlock], field: str, problems: Problems) -> _Ranges:
    found = list[Range]()
    for number, block in enumerate(blocks):
        try:
            found.append(parse(block.cidr))
        except ValueError as error:
            problems["BGPConfiguration"] = f"spec.{field}[{number}].cidr: {error}"
    return _Ranges(tuple(found), single=any(one.size == 1 for one in found))


def _alone(service: Service, kinds: _Kinds, ready: Families) -> Iterator[Range]:
    """Yield what is said alone of a Service with ready endpoints; raises ValueError where an address isn't one."""
    spec = service.spec
    if spec.type not in _TYPES or spec.cluster_ips[:1] in ((), ("None",), ("",)):
        return
    outside = spec.external_traffic_policy == "Local"
    inside = outside or spec.internal_traffic_policy == "Local"
    balanced = [one.ip for one in service.status.load_balancer.ingress if one.ip]
    yield from _among(spec.cluster_ips, kinds.cluster, ready, inside)
    yield from _among(spec.external_ips, kinds.external, ready, outside)
    yield from _among(balanced, kinds.balanced, ready, outside)


def _among(said: Iterable[str], its: _Ranges, ready: Families, local: bool) -> Iterator[Range]:
    every, families = local or not its.whole, ready.here if local else ready.anywhere
    if not families or not (every or its.single):
        return
    for at in map(address, said):
        within = [one for one in its.all if at.within(one)]
        if within and at.family in families and (every or any(one.size == 1 for one in within)):
            yield Range(at.family, at.value, BITS[at.family])


def _families(one: EndpointSlice, node: str) -> Families:
    """Return in which families a slice has ready endpoints."""
    ready = [end.node_name for end in one.endpoints or () if end.conditions.ready is not False]
    family = _ADDRESS_TYPES.get(one.address_type)
    if family is None or not ready:
        return _NONE
    return Families(family, family) if node in ready else Families(family)
