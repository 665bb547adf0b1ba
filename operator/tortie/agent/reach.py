"""What the kernel needs so that this node reaches the others' blocks: decided node by node, as they change. Pure.

Belongs here: which nodes are looked at again. Does not: what carries a block (`tortie.routing.carriage`), nor the kernel
(`tortie.agent.forwarding`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tortie.addressing.ranges import Range, parse
from tortie.agent.forwarding import Entry, Neighbour, Route, Thing, place
from tortie.agent.wire import IPIP, VXLAN
from tortie.api import lean
from tortie.routing.carriage import Carried, Carrier, Node, NoWay, Way, node_of, pool_of, way

LINKS: Mapping[Carrier, str] = {"VXLAN": VXLAN, "IPIP": IPIP}


@dataclass(frozen=True, slots=True)
class Terms:
    """What all ways of a node depend on.

    Attributes:
        here: The node itself.
        bgp: Whether nodes speak BGP.
        own: The node's own blocks: no other node's claim to them counts.
    """

    here: Node
    pools: tuple[Carried, ...] = ()
    bgp: bool = False
    own: frozenset[Range] = frozenset()


@dataclass(slots=True)
class _Other:
    """Another node: the ways to it with what each takes, and what is wrong; by which device a block of it is soon reached."""

    ways: dict[Way, frozenset[Thing]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    soon: dict[str, str] = field(default_factory=dict)

    @property
    def things(self) -> set[Thing]:
        """What all ways to it take."""
        return {one for things in self.ways.values() for one in things}


class Reach:
    """Told of NodeNetworks, of which this node's own counts for nothing here."""

    def __init__(self) -> None:
        self._networks: dict[str, lean.Network] = {}
        self._others: dict[str, _Other] = {}
        self._terms: Terms | None = None
        self._dirty: dict[str, None] = {}
        self._found: dict[Range, frozenset[Thing]] = {}

    def begin(self, routes: Iterable[Route]) -> None:
        """Take the routes that the kernel has already: those to blocks that BGP carries stay until BIRD has its own."""
        self._found = {one.to: frozenset((one,)) for one in routes if one.via and not one.link}

    def put(self, name: str, network: lean.Network | None) -> None:
        """Take a NodeNetwork, or that it is gone."""
        if network is None:
            self._networks.pop(name, None)
        else:
            self._networks[name] = network
        self._dirty[name] = None

    def settle(self, terms: Terms, bird: Mapping[Range, Route] | None = None) -> tuple[set[Thing], set[Thing]]:
        """Return what isn't needed any more, and what is needed now; what takes another's place is in the latter alone.

        What led to a block that BGP carries stays until it is among BIRD's routes.
        """
        if terms != self._terms:
            self._terms = terms
            self._dirty = dict.fromkeys([*self._networks, *self._others])
        past = dict[str, set[Thing]]()
        for name in self._dirty:
            old = self._others.pop(name, _Other())
            past[name] = old.things
            network = self._networks.get(name)
            new = _other(network, terms, old.ways, self._found) if network and name != terms.here.name else _Other()
            if new.ways or new.problems:
                self._others[name] = new
        self._dirty, self._found = {}, {}
        for name, other in self._others.items() if terms.bgp else ():
            past.setdefault(name, other.things)
            other.ways |= {one: frozenset() for one in other.ways if one.carrier == "BGP" and leading(one.to, bird or {})}
        gone, come = set[Thing](), set[Thing]()
        for name, old_things in past.items():
            things = self._others.get(name, _Other()).things
            gone |= old_things - things
            come |= things - old_things
        if gone := gone - come:  # what another node has by now took its place, and isn't removed with it
            held = {place(one) for other in self._others.values() for one in other.things}
            gone = {one for one in gone if place(one) not in held}
        return gone, come

    @property
    def ways(self) -> Iterator[Way]:
        """How packets travel to each block."""
        return (one for other in self._others.values() for one in other.ways)

    @property
    def things(self) -> set[Thing]:
        """All that the kernel needs."""
        return {one for other in self._others.values() for one in other.things}

    @property
    def problems(self) -> dict[str, str]:
        """What can't be reached, and why."""
        return {what: why for other in self._others.values() for what, why in other.problems.items()}

    def problems_without(self, refused: Mapping[str, str]) -> dict[str, str]:
        """Return the problems where devices can't be made: one that a way takes is one problem, and its ways are none."""
        soon = {what: link for other in self._others.values() for what, link in other.soon.items()}
        taken = {one.link for one in self.things if isinstance(one, Route)} | {*soon.values()}
        others = {what: why for what, why in self.problems.items() if soon.get(what) not in refused}
        return {name: why for name, why in refused.items() if name in taken} | others


def leading(to: Range, bird: Mapping[Range, Route]) -> Route | None:
    """Return BIRD's route that leads to a block: to itself, or to a range that it lies in. The default route is none."""
    while to.prefix and to not in bird:
        to = to.parent()
    return bird.get(to) if to.prefix else None


def own(blocks: Iterable[Range]) -> set[Thing]:
    """Return a node's routes to its own blocks, which are under its pods' routes.

    A block of one address is its pod's route, or nobody's: a blackhole would take that route's place.
    """
    return {Route(block) for block in blocks if block.size > 1}


def _other(
    network: lean.Network, terms: Terms, past: Mapping[Way, frozenset[Thing]], there_is: Mapping[Range, frozenset[Thing]]
) -> _Other:
    """Return how another node is reached; a way of the past stays while it is about to say what the new one takes."""
    name = network.metadata.name
    try:
        there = node_of(network)
        blocks = [parse(block.cidr) for block in network.spec.blocks]
    except ValueError as error:
        why = f"its NodeNetwork can't be read: {error}; its agent mends it when it starts"
        return _Other(problems={f"to node {name}": why})
    if not there.addresses:
        return _Other()  # it starts: nobody knows its address yet, and that is no problem
    others = [block for block in blocks if block not in terms.own]
    found = [way(block, terms.here, there, pool_of(block, terms.pools), bgp=terms.bgp) for block in others]
    soon = {one.to: LINKS[one.soon] for one in found if isinstance(one, NoWay) and one.soon}
    ways = {one: things for one, things in past.items() if one.to in soon}
    ways |= {one: frozenset(_things(one, terms.here, there)) for one in found if isinstance(one, Way)}
    before = {**there_is, **{one.to: things for one, things in past.items()}}
    ways |= {one: before.get(one.to, frozenset()) for one in ways if one.carrier == "BGP"}
    problems = {str(one.to): one.why for one in found if isinstance(one, NoWay)}
    return _Other(ways, problems, {str(to): link for to, link in soon.items()})


def _things(one: Way, here: Node, there: Node) -> Iterator[Thing]:
    if one.via is not None:
        yield Route(one.to, one.via, LINKS.get(one.carrier, ""))
    outer = here.underlay(there)
    if one.via is not None and one.carrier == "VXLAN" and outer:
        yield Neighbour(one.via, there.mac)
        yield Entry(there.mac, outer.address)
