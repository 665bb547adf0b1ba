"""What BGP costs a node among 5,000: who peers with whom and BIRD's configuration, and what is said of Services."""

import statistics
import time
from collections.abc import Callable

from tortie.addressing.allocator import Address, address
from tortie.addressing.ranges import parse
from tortie.api import lean
from tortie.api.bgp_input import (
    CidrBlock,
    Configuration,
    ConfigurationSpec,
    Endpoint,
    EndpointSlice,
    Peer,
    PeerSpec,
    Service,
    ServiceSpec,
)
from tortie.api.lean import Metadata
from tortie.routing import bird, peering
from tortie.routing.bird import Advertised, Plan
from tortie.routing.peering import Objects, Speaker
from tortie.routing.services import SERVICE_NAME, Endpoints, advertised

_NODES, _REFLECTORS, _SERVICES, _ENDPOINTS = 5000, 3, 5000, 10
_POOLS = (Advertised(parse("10.0.0.0/8"), 26), Advertised(parse("fd00::/48"), 122))
_BLOCKS = (parse("10.0.0.0/26"), parse("fd00::/122"))
_ROUNDS = 7
MESH = Objects((Configuration(Metadata("default"), ConfigurationSpec()),))
REFLECTORS = Objects(
    (Configuration(Metadata("default"), ConfigurationSpec(node_to_node_mesh_enabled=False)),),
    (Peer(Metadata("reflectors"), PeerSpec(node_selector="all()", peer_selector="has(reflector)")),),
)


def _network(number: int) -> lean.Network:
    """Return the NodeNetwork of a node of both families; the first ones reflect routes."""
    reflects = number < _REFLECTORS
    labels = (f"kubernetes.io/hostname=node-{number}", "kubernetes.io/os=linux", *(("reflector=",) if reflects else ()))
    said = lean.NetworkBgp(64512, 179, "244.0.0.1" if reflects else None, labels)
    at = (f"{Address(4, (172 << 24) + (16 << 16) + number + 1)}/12", f"{Address(6, (0x20010DB8 << 96) + number + 1)}/64")
    return lean.Network(Metadata(f"node-{number:04}"), status=lean.NetworkStatus(at, bgp=said))


def _median(run: Callable[[], object]) -> float:
    taken = list[float]()
    for _ in range(_ROUNDS):
        peering.text.cache_clear()  # as if nothing had been written before
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _configured(objects: Objects, nodes: list[Speaker], number: int) -> int:
    """Return how many sessions a node has, having written all of BIRD's configuration."""
    here = nodes[number]
    found, problems = peering.sessions(objects, here, nodes, {})
    plan = Plan(
        here.name,
        "192.0.2.1",
        peering.configuration(objects, here.name),
        reflects=bool(here.cluster_id),
        blocks=_BLOCKS,
        pools=_POOLS,
        sessions=tuple(found),
    )
    text, wrong = bird.render(plan)
    assert problems | wrong == {}
    assert text.count("\nprotocol bgp ") == len(found)
    return len(found)


def rendered() -> dict[str, float]:
    """Return the seconds until a node of 5,000 has its configuration (mesh, client, reflector), and knows the others."""
    networks = [_network(number) for number in range(_NODES)]
    nodes = [one for one in map(peering.speaker_of, networks) if one]
    cases = {
        "bgp_render_5000": (MESH, _NODES - 1, 2 * (_NODES - 1)),
        "bgp_render_5000_client": (REFLECTORS, _NODES - 1, 2 * _REFLECTORS),
        "bgp_render_5000_reflector": (REFLECTORS, 0, 2 * (_NODES - 1)),
    }
    found = dict[str, float]()
    for name, (objects, number, sessions) in cases.items():
        assert _configured(objects, nodes, number) == sessions
        found[name] = _median(lambda: _configured(objects, nodes, number))  # noqa: B023 - called at once
    return {**found, "bgp_speakers_5000": _median(lambda: _heard(networks))}


def _heard(networks: list[lean.Network]) -> None:
    address.cache_clear()  # as if none had been heard of before
    assert all(map(peering.speaker_of, networks))


def services() -> dict[str, float]:
    """Return the ms until a node knows what it says of 5,000 Services, all Local, and the us for one slice of ten endpoints."""
    spec = ConfigurationSpec(service_cluster_ips=(CidrBlock("10.96.0.0/12"),))
    made, slices = list[Service](), list[EndpointSlice]()
    for number in range(_SERVICES):
        name, at = f"service-{number}", str(Address(4, (10 << 24) + (96 << 16) + number + 1))
        made.append(Service(Metadata(name, namespace="bench"), ServiceSpec("NodePort", (at,), external_traffic_policy="Local")))
        meta = Metadata(f"{name}-x", namespace="bench", labels={SERVICE_NAME: name})
        ends = (Endpoint(f"node-{(number + other) % 100}") for other in range(_ENDPOINTS))
        slices.append(EndpointSlice(meta, endpoints=tuple(ends)))
    known = Endpoints("node-7", slices)
    assert len(advertised(spec, made, known, {})[0]) == 1 + _SERVICES // 100 * _ENDPOINTS
    return {
        "bgp_services_5000": _median(lambda: advertised(spec, made, known, {})) * 1e3,
        "bgp_slice": _median(lambda: Endpoints("node-7", slices)) / _SERVICES * 1e6,
    }
