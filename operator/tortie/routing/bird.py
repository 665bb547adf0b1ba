"""BIRD's configuration for one node, as text: which routes it says, takes, and gives to the kernel. Pure.

The language is that of BIRD 2 (https://bird.network.cz/?get_doc&f=bird.html). Whatever BGPFilters say, only blocks, services
and what came by BGP is ever sent, and the kernel gets no route into a pool that something else carries.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

from tortie.addressing.ranges import BITS, Family, Range, parse
from tortie.api.bgp_input import ConfigurationSpec, Filter
from tortie.routing.filters import add, functions, pattern, symbol
from tortie.routing.peering import DEFAULT_PORT, Session, text
from tortie.routing.written import Problems

# Of routes to other nodes, so that a route of the agent's to the same block comes first (`tortie.agent.forwarding`). It also
# tells this BIRD's routes from another's.
METRIC = 768
OURS = 201  # the protocol number of the agent's routes (`tortie.agent.wire`)
# Seconds: a started BIRD keeps the kernel's routes for so long while not all peers have told theirs; tries of a connection, the
# pause after an error, and how long a silent peer counts as there.
RECOVERY, CONNECT_DELAY, CONNECT_RETRY, ERROR_WAIT, HOLD = 30, 1, 3, "1, 10", 90
_TIMES = (
    f"  hold time {HOLD}; error wait time {ERROR_WAIT}; connect delay time {CONNECT_DELAY}; connect retry time {CONNECT_RETRY};"
)
# BFD: three packets lost, of one every 200 ms.
BFD = "min rx interval 200 ms; min tx interval 200 ms; multiplier 3;"
_FAMILIES: tuple[Family, ...] = (4, 6)
_SEVERITIES = ("debug", "trace", "info", "remote", "warning", "auth", "error", "bug", "fatal")
_LEAST = {"Debug": "debug", "Info": "info", "Warning": "warning", "Error": "error", "Fatal": "fatal"}


class Advertised(NamedTuple):
    """A pool, as far as its blocks are advertised.

    Attributes:
        block: The shortest prefix that a block of it has.
        by_bgp: Whether BGP carries its packets between nodes.
        outside: Whether peers outside of the cluster are told of its blocks.
    """

    range: Range
    block: int
    by_bgp: bool = True
    outside: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """What a node's BIRD is to do.

    Attributes:
        reflects: Whether the node is a route reflector.
        blocks: The node's own.
        services: What of Services this node says; `service_ranges`: in which ranges all of these lie.
    """

    node: str
    router_id: str
    spec: ConfigurationSpec = field(default_factory=ConfigurationSpec)
    reflects: bool = False
    blocks: tuple[Range, ...] = ()
    services: tuple[Range, ...] = ()
    service_ranges: tuple[Range, ...] = ()
    pools: tuple[Advertised, ...] = ()
    sessions: tuple[Session, ...] = ()
    filters: tuple[Filter, ...] = ()


def router_id(node: str, own: str) -> str:
    """Return an identifier as an IPv4 address: the node's own, or one made of its name where it has none."""
    return own or ".".join(str(1 + byte % 254) for byte in sha256(node.encode()).digest()[:4])


def render(plan: Plan) -> tuple[str, Problems]:
    """Return the whole configuration, and what is wrong with the objects, by where."""
    found, problems = functions(plan.filters)
    lines = [*_head(plan), *_functions(plan, problems), *found, *_sources(plan, problems), *_statics(plan)]
    there, routes = {one.metadata.name for one in plan.filters}, set[str]()
    for one in plan.sessions:
        name, missing = _route_filters(one), [f for f in one.filters if f not in there]
        if missing:
            problems[one.by] = f"spec.filters: there is no BGPFilter {missing[0]}; no route is taken or said until there is"
        if name not in routes:
            routes.add(name)
            lines += _of_routes(one, name, plan, closed=bool(missing) or any(f"BGPFilter {f}" in problems for f in one.filters))
        lines += _session(one, name, plan)
    return "\n".join(lines) + "\n", problems


# --- what doesn't depend on sessions


def _head(plan: Plan) -> Iterator[str]:
    least = _LEAST.get(plan.spec.log_severity_screen or "Info", "info")
    classes = _SEVERITIES[_SEVERITIES.index(least) :]
    yield f"# Written by the agent of node {_quotable(plan.node)}: what is changed here is lost."
    yield f"log stderr {{ {', '.join(classes)} }};"
    if least == "debug":
        yield "debug protocols all;"
    yield f"router id {plan.router_id};"
    yield 'timeformat protocol "%Y-%m-%dT%H:%M:%S";'
    yield f"graceful restart wait {RECOVERY};"


def _sources(plan: Plan, problems: Problems) -> Iterator[str]:
    """Yield what tells BIRD of the node: its links, their subnets, and the kernel's routes, by which next hops are found."""
    yield "protocol device { scan time 10; }"
    ignored = _ignored(plan.spec, problems)
    interfaces = ", ".join([*(f"-{one}" for one in ignored), '"*"'])
    yield f"protocol direct {{ ipv4; ipv6; interface {interfaces}; }}"
    if any(one.bfd for one in plan.sessions):
        yield f'protocol bfd {{ interface "*" {{ {BFD} }}; }}'
    for family in _FAMILIES:
        foreign = " || ".join(f"ifname ~ {one}" for one in ignored)
        refuse = f"if {foreign} then reject; " if foreign else ""
        yield f"filter from_kernel{family} {{ {refuse}if krt_source = {OURS} then reject; accept; }}"
        yield f"protocol kernel kernel{family} {{"
        yield f"  learn; persist; graceful restart; scan time 10; metric {METRIC};"
        yield f"  ipv{family} {{ import filter from_kernel{family}; export filter to_kernel{family}; }};"
        yield "}"


def _ignored(spec: ConfigurationSpec, problems: Problems) -> list[str]:
    found = list[str]()
    for one in spec.ignored_interfaces or ():
        try:
            found.append(pattern(one))
        except ValueError as error:
            problems["BGPConfiguration"] = f"spec.ignoredInterfaces: {error}"
    return found


def _statics(plan: Plan) -> Iterator[str]:
    for family in _FAMILIES:
        gateways = {(one.peer, one.via) for one in plan.sessions if one.via and one.peer.family == family}
        yield from _static(f"gateways{family}", family, [f"{peer}/{BITS[family]} via {via}" for peer, via in sorted(gateways)])
        for what, ranges in (("blocks", plan.blocks), ("services", plan.services)):
            own = sorted({one for one in ranges if one.family == family})
            yield from _static(f"{what}{family}", family, [f"{one} blackhole" for one in own])


def _static(name: str, family: Family, routes: Iterable[str]) -> Iterator[str]:
    yield f"protocol static {name} {{"
    yield f"  ipv{family};"
    yield from (f"  route {one};" for one in routes)
    yield "}"


def _functions(plan: Plan, problems: Problems) -> Iterator[str]:
    """Yield what is said of a route, by family: where it lies, and what it gets."""
    values = {one.name: one.value for one in plan.spec.communities}
    for family in _FAMILIES:
        pools = [one for one in plan.pools if one.range.family == family]
        own = [one for one in plan.blocks if one.family == family]
        services = [one for one in plan.service_ranges if one.family == family]
        yield f"function in_pool{family}() {{ return {_within(_longer(one.range) for one in pools)}; }}"
        blocks = _within(_between(one.range, one.block) for one in pools)
        yield f"function is_block{family}() {{ return {blocks} && ! {_within(_longer(one) for one in own)}; }}"
        yield f"function covers_pool{family}() {{ return {_within(_shorter(one.range) for one in pools)}; }}"
        yield f"function is_service{family}() {{ return {_within(_longer(one) for one in services)}; }}"
        hidden = _within(_longer(one.range) for one in pools if not one.outside)
        yield f"function is_hidden{family}() {{ return {hidden}; }}"
        yield f'function is_ours{family}() {{ return proto = "blocks{family}" || proto = "services{family}"; }}'
        yield f"function tag{family}() {{"
        for advertised in plan.spec.prefix_advertisements:
            yield from _tags(family, advertised.cidr, advertised.communities, values, problems)
        yield "}"
        carried = _within(_longer(one.range) for one in pools if not one.by_bgp)
        yield f"filter to_kernel{family} {{"
        yield f'  if proto = "gateways{family}" then accept;'
        yield f"  if source != RTS_BGP || dest = RTD_UNREACHABLE || {carried} || is_service{family}() then reject;"
        yield "  accept;"
        yield "}"


def _tags(family: Family, cidr: str, names: Iterable[str], values: Mapping[str, str], problems: Problems) -> Iterator[str]:
    try:
        where = parse(cidr)
        statements = [add(values.get(name, name)) for name in names]
    except ValueError as error:
        problems["BGPConfiguration"] = f"spec.prefixAdvertisements: {cidr}: {error}, and none of spec.communities"
        return
    if where.family == family:
        yield from (f"  if net ~ [{_longer(where)}] then {statement}" for statement in statements)


def _within(sets: Iterable[str]) -> str:
    """Return whether a route's prefix is one of these; BIRD takes no empty set."""
    found = ", ".join(sets)
    return f"(net ~ [{found}])" if found else "false"


def _longer(one: Range) -> str:
    return f"{one}+"


def _shorter(one: Range) -> str:
    return f"{one}-"


def _between(one: Range, shortest: int) -> str:
    return f"{one}{{{max(one.prefix, shortest)},{BITS[one.family]}}}"


def _quotable(name: str) -> str:
    """Return a name that stays within quotes and a line, whoever wrote it: BIRD knows no escapes."""
    return re.sub(r"[^A-Za-z0-9 ._-]", "?", name)


# --- sessions


def _route_filters(one: Session) -> str:
    """Return the name of what a session takes and says, which is the same for all that are alike in it."""
    kind = "node" if one.inside else "peer"
    named = f"{kind}{'_external' if one.external else ''}"
    return f"{named}_{sha256(repr(one.filters).encode()).hexdigest()[:8]}" if one.filters else named


def _of_routes(one: Session, name: str, plan: Plan, *, closed: bool) -> Iterator[str]:
    """Yield the filters of a session for both families: what is taken from the other side, and what is said to it."""
    external = "true" if one.external else "false"
    for family in _FAMILIES:
        yield f"filter from_{name}{family} {{"
        yield from ["  reject;"] if closed else _taken(one, family, external)
        yield "}"
        yield f"filter to_{name}{family} {{"
        yield from ["  reject;"] if closed else _said(one, family, external, reflects=plan.reflects)
        yield "}"


def _taken(one: Session, family: Family, external: str) -> Iterator[str]:
    yield from (f"  {symbol(f, 'import', family)}({external});" for f in one.filters)
    if one.inside:
        yield f"  if is_block{family}() || is_service{family}() then accept;"
        yield "  reject;"
    else:
        # Neither everything nor a pool's own range, unless a filter takes it: a router that says so draws all of it to itself.
        yield f"  if net.len = 0 || covers_pool{family}() || (in_pool{family}() && ! is_block{family}()) then reject;"
        yield "  accept;"


def _said(one: Session, family: Family, external: str, *, reflects: bool) -> Iterator[str]:
    yield f"  if ! is_ours{family}() && source != RTS_BGP then reject;"
    if not one.inside:
        yield f"  if is_hidden{family}() then reject;"
    yield f"  tag{family}();"
    yield from (f"  {symbol(f, 'export', family)}({external});" for f in one.filters)
    learned = f"in_pool{family}() || is_service{family}()"
    yield f"  if is_ours{family}(){f' || {learned}' if one.inside or reflects else ''} then accept;"
    yield "  reject;"


def _session(one: Session, name: str, plan: Plan) -> Iterator[str]:
    family = one.peer.family
    source = f"{text(one.source)} " if one.source else ""
    yield f"protocol bgp {one.name} {{"
    yield f'  description "{_quotable(one.of)}";'
    yield f"  local {source}port {plan.spec.listen_port or DEFAULT_PORT} as {one.local_as};"
    yield f"  neighbor {text(one.peer)} port {one.port} as {one.peer_as};"
    # Those that are in one subnet need no detour.
    yield "  direct;" if one.direct and one.ttl <= 1 else f"  multihop {one.ttl};" if one.ttl else "  multihop;"
    yield _TIMES
    yield f"  graceful restart on; graceful restart time {one.restart};"
    yield from _options(one, plan)
    yield f"  ipv{family} {{"
    yield f"    import filter from_{name}{family}; export filter to_{name}{family};"
    yield f"    {_channel(one)}"
    yield "  };"
    yield "}"


def _options(one: Session, plan: Plan) -> Iterator[str]:
    if plan.spec.bind_mode == "NodeIP":
        yield "  strict bind on;"
    if one.client:
        yield f"  rr client; rr cluster id {one.client};"
    if one.ttl:
        yield "  ttl security on;"
    if one.own_as:
        yield f"  allow local as {one.own_as};"
    if one.password:
        yield f'  password "{one.password}";'
    if one.bfd:
        yield "  bfd on;"


def _channel(one: Session) -> str:
    # A router outside may be reached by this node alone.
    hops = {"self": "next hop self; ", "keep": "next hop keep; ", "": "next hop self ebgp; " if one.inside else ""}
    # A next hop within the subnet of another than the peer (a reflector's client) is looked up as well.
    return f"{hops[one.next_hop]}gateway recursive;{' next hop prefer global;' if one.peer.family == 6 else ''}"
