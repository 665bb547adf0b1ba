"""What a node says of itself as a BGP speaker, and what its BIRD is to do: all that is known, decided at once. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tortie.addressing.ranges import Family, Range
from tortie.api import lean
from tortie.routing import bird, peering, services
from tortie.routing.bird import Advertised, Plan
from tortie.routing.carriage import NodeAddress
from tortie.routing.peering import Objects, Speaker
from tortie.routing.written import Problems, Secrets


class Around(NamedTuple):
    """What a plan depends on, besides what people wrote about BGP and what other nodes say.

    Attributes:
        node: The node's own Node; its annotations are read.
        past: What it said of itself before.
        own: The node's own blocks.
    """

    node: lean.OwnNode
    past: lean.NetworkBgp | None
    addresses: Mapping[Family, NodeAddress]
    own: tuple[Range, ...]
    pools: tuple[Advertised, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """What people wrote, and what other nodes say.

    Attributes:
        unsaid: Nodes whose NodeNetwork can't be read, each with why.
        served: What this node says of Services.
    """

    objects: Objects
    speakers: tuple[Speaker, ...] = ()
    unsaid: Mapping[str, str] = field(default_factory=dict)
    secrets: Secrets = field(default_factory=dict, repr=False)
    served: frozenset[Range] = frozenset()


def say(node: lean.OwnNode, past: lean.NetworkBgp | None, objects: Objects) -> tuple[lean.NetworkBgp | None, Problems]:
    """Return what a node says of itself, as before where that can't be told; and what is wrong."""
    meta = node.metadata
    try:
        return peering.speaker(meta.name, meta.labels, meta.annotations, objects), {}
    except ValueError as error:
        return past, {f"Node {meta.name}": f"{error}; what it said before holds"}


def decide(around: Around, known: Known) -> tuple[Plan | None, str, Problems]:
    """Return the plan, as BIRD's text as well, and what is wrong; None where the node can't say what it is."""
    name, labels = around.node.metadata.name, around.node.metadata.labels
    said, wrong = say(around.node, around.past, known.objects)
    if said is None:
        return None, "", wrong
    here = Speaker(name, around.addresses, said.as_number, said.port, said.cluster_id or "", labels)
    found, problems = peering.sessions(known.objects, here, known.speakers, known.secrets)
    own, spec = around.addresses.get(4), peering.configuration(known.objects, name)
    plan = Plan(
        node=name,
        router_id=bird.router_id(name, str(own.address) if own else ""),
        spec=spec,
        reflects=bool(said.cluster_id),
        blocks=around.own,
        services=tuple(sorted(known.served)),
        service_ranges=services.ranges(spec),
        pools=around.pools,
        sessions=tuple(found),
        filters=known.objects.filters,
    )
    text, unread = bird.render(plan)
    unsaid = {f"NodeNetwork {other}": why for other, why in known.unsaid.items()}
    return plan, text, wrong | problems | unread | unsaid


def disturbs(old: Plan, new: Plan, nodes: frozenset[str]) -> bool:
    """Whether a plan ends or alters sessions of another that are there; those with nodes that are gone don't count."""
    if not old.sessions:
        return False
    there = {one.name: one for one in new.sessions}
    names = {f"node {name}" for name in nodes}
    if any(there.get(one.name) != one and (one.of in names or not one.inside) for one in old.sessions):
        return True
    # Each is in every session of BIRD's configuration.
    return _common(old) != _common(new)


def _common(plan: Plan) -> tuple[object, ...]:
    return plan.router_id, plan.spec.listen_port, plan.spec.bind_mode
