"""What of a BGP object can't be used, said before any node needs it. Pure.

Each sentence names the field, its value and the way out. What only a node can know, such as whether it has an address of the
peer's family, isn't judged here.
"""

from collections.abc import Callable

from pydantic.alias_generators import to_camel

from tortie.api.bgp_input import Configuration, Filter, Peer
from tortie.routing import filters, peering, services, written
from tortie.routing.bird import Plan, render


def of_configuration(one: Configuration) -> list[str]:
    """Return what is wrong with a configuration."""
    name, spec = one.metadata.name, one.spec
    found = []
    if name != "default" and not name.startswith("node."):
        found.append(f"metadata.name: no node follows {name!r}; name it default, or node. and a node's name")
    if name != "default":
        mesh = [field for field in peering.MESH if getattr(spec, field) is not None]
        found += [f"spec.{to_camel(field)}: it holds for all nodes alike; write it in default alone" for field in mesh]
    found += _failing(
        lambda: written.number(spec.as_number, "spec.asNumber"),
        lambda: _restart(spec.node_mesh_max_restart_time, "spec.nodeMeshMaxRestartTime"),
    )
    problems = services.advertised(spec, (), services.Endpoints(""), {})[1] | render(Plan("node", "192.0.2.1", spec))[1]
    return found + list(problems.values())


def of_peer(one: Peer) -> list[str]:
    """Return what is wrong with a peer."""
    spec = one.spec
    names = spec.peer_ip or spec.peer_selector or spec.local_workload_selector
    found = [] if names else ["spec: it names nobody to peer with; write peerIP, or peerSelector"]
    return found + _failing(
        lambda: written.endpoint(spec.peer_ip) if spec.peer_ip else None,
        lambda: written.selection(spec.peer_selector or "", "spec.peerSelector"),
        lambda: written.selection(spec.node_selector or "", "spec.nodeSelector"),
        lambda: written.number(spec.as_number, "spec.asNumber"),
        lambda: written.number(spec.local_as_number, "spec.localASNumber"),
        lambda: written.peer_address(spec.reachable_by, "spec.reachableBy") if spec.reachable_by else None,
        lambda: _restart(spec.max_restart_time, "spec.maxRestartTime"),
    )


def of_filter(one: Filter) -> list[str]:
    """Return what is wrong with a filter."""
    return list(filters.functions([one])[1].values())


def _restart(said: str | None, where: str) -> None:
    try:
        written.seconds(said or "1s")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _failing(*reads: Callable[[], object]) -> list[str]:
    """Return what can't be read."""
    found = list[str]()
    for read in reads:
        try:
            read()
        except ValueError as error:
            found.append(str(error))
    return found
