"""BIRD's configuration, row by row: objects as people write them, and the lines that matter."""

from typing import Any

import pytest

from tests.routing.bgp import Row, configured, read
from tortie.addressing.ranges import parse
from tortie.api.bgp_input import Filter
from tortie.api.lean import Metadata
from tortie.routing import bird
from tortie.routing.bird import Advertised, Plan

REFLECTOR = {"b": "244.0.0.1"}
OFF = "BGPConfiguration/default: {nodeToNodeMeshEnabled: false}\n"


def config(spec: str, has: tuple[str, ...] = (), hasnt: tuple[str, ...] = (), **more: Any) -> Row:
    return Row(f"BGPConfiguration/default: {{{spec}}}", has, hasnt, **more)


def tor(spec: str, has: tuple[str, ...] = (), hasnt: tuple[str, ...] = (), **more: Any) -> Row:
    return Row(f"{OFF}BGPPeer/tor: {{peerIP: 192.0.2.254, asNumber: 64601, {spec}}}", has, hasnt, **more)


CONFIGURATION = {
    "nothing said": config(
        "",
        (
            "log stderr { info, remote, warning, auth, error, bug, fatal };",
            "router id 192.0.2.1;",
            'protocol direct { ipv4; ipv6; interface "*"; }',
            "  local 192.0.2.1 port 179 as 64512;",
            "  neighbor 192.0.2.2 port 179 as 64512;",
            "  graceful restart on; graceful restart time 120;",
        ),
        ("debug", "strict bind", "bfd", "password", "ttl security", "allow local", "rr client"),
    ),
    "the least that is logged": config("logSeverityScreen: Warning", ("log stderr { warning, auth, error, bug, fatal };",)),
    "errors": config("logSeverityScreen: Error", ("log stderr { error, bug, fatal };",)),
    "nearly nothing": config("logSeverityScreen: Fatal", ("log stderr { fatal };",)),
    "information": config("logSeverityScreen: Info", ("log stderr { info, remote, warning, auth, error, bug, fatal };",)),
    "all that is logged": config(
        "logSeverityScreen: Debug",
        ("debug protocols all;", "log stderr { debug, trace, info, remote, warning, auth, error, bug, fatal };"),
    ),
    "AS number and port": config("asNumber: 65001, listenPort: 1790", ("  local 192.0.2.1 port 1790 as 64512;",)),
    "on the node's addresses alone": config("bindMode: NodeIP", ("  strict bind on;", "  local 192.0.2.1 port 179 as 64512;")),
    "on all": config("bindMode: None", hasnt=("strict bind",)),
    "interfaces left out": config(
        "ignoredInterfaces: [docker0, 'veth*']",
        (
            'protocol direct { ipv4; ipv6; interface -"docker0", -"veth*", "*"; }',
            'filter from_kernel6 { if ifname ~ "docker0" || ifname ~ "veth*" then reject;'
            " if krt_source = 201 then reject; accept; }",
        ),
    ),
    "an interface that would end BIRD's text": config(
        "ignoredInterfaces: ['a\"; }', docker0]",
        ('protocol direct { ipv4; ipv6; interface -"docker0", "*"; }',),
        wrong={"BGPConfiguration": "spec.ignoredInterfaces: 'a\"; }' is no interface's name; * stands for any text"},
    ),
    "password": config("nodeMeshPassword: {secretKeyRef: {name: bgp, key: mesh}}", ('  password "of the mesh";',)),
    "restart": config("nodeMeshMaxRestartTime: 90s", ("  graceful restart on; graceful restart time 90;",)),
    "BFD": config(
        "nodeMeshFailureDetectionMode: BFDIfDirectlyConnected",
        (
            "  bfd on;",
            'protocol bfd { interface "*" { min rx interval 200 ms; min tx interval 200 ms; multiplier 3; }; }',
        ),
    ),
    "communities": config(
        "communities: [{name: blue, value: '64512:1'}, {name: big, value: '64512:300:100'}],"
        " prefixAdvertisements: [{cidr: 10.1.0.0/16, communities: [blue, big, '64512:9']},"
        " {cidr: 'fd00::/8', communities: [blue]}]",
        (
            "  if net ~ [10.1.0.0/16+] then bgp_community.add((64512,1));",
            "  if net ~ [10.1.0.0/16+] then bgp_large_community.add((64512,300,100));",
            "  if net ~ [10.1.0.0/16+] then bgp_community.add((64512,9));",
            "  if net ~ [fd00::/8+] then bgp_community.add((64512,1));",
        ),
    ),
    "communities of a node": Row(
        "BGPConfiguration/default: {communities: [{name: blue, value: '64512:1'}]}\n"
        "BGPConfiguration/node.a: {prefixAdvertisements: [{cidr: 10.1.0.0/16, communities: [blue]}]}",
        ("  if net ~ [10.1.0.0/16+] then bgp_community.add((64512,1));",),
    ),
    "communities that nobody defined": config(
        "prefixAdvertisements: [{cidr: 10.1.0.0/16, communities: [red]}, {cidr: 10.2.0.0/16, communities: ['1:2']}]",
        ("  if net ~ [10.2.0.0/16+] then bgp_community.add((1,2));",),
        ("10.1.0.0/16+] then",),
        wrong={"BGPConfiguration": "spec.prefixAdvertisements: 10.1.0.0/16: 'red' is no community: write 64512:100"},
    ),
    "communities that are none": config(
        "communities: [{name: big, value: '70000:1'}], prefixAdvertisements: [{cidr: 10.1.0.0/16, communities: [big]}]",
        hasnt=("70000",),
        wrong={"BGPConfiguration": "spec.prefixAdvertisements: 10.1.0.0/16: '70000:1' is no community"},
    ),
    "communities of no range": config(
        "prefixAdvertisements: [{cidr: ten, communities: ['1:2']}]",
        wrong={"BGPConfiguration": "spec.prefixAdvertisements: ten: not a CIDR: 'ten'"},
    ),
}

PEERS = {
    "in one subnet": tor(
        "", ("  direct;", '  description "BGPPeer tor";', "  neighbor 192.0.2.254 port 179 as 64601;"), ("multihop",)
    ),
    "elsewhere": Row(OFF + "BGPPeer/far: {peerIP: 203.0.113.9, asNumber: 64601}", ("  multihop;",), ("direct;",)),
    "hops": tor("ttlSecurity: 3", ("  multihop 3;", "  ttl security on;"), ("direct;",)),
    "one hop": tor("ttlSecurity: 1", ("  direct;", "  ttl security on;")),
    "one hop, in no subnet of the node": Row(
        OFF + "BGPPeer/far: {peerIP: 203.0.113.9, asNumber: 64601, ttlSecurity: 1}",
        ("  multihop 1;", "  ttl security on;"),
        ("direct;",),
    ),
    "no hops": tor("ttlSecurity: 0", ("  direct;",), ("ttl security",)),
    "source": tor("sourceAddress: None", ("  local port 179 as 64512;",)),
    "source, on the node's address alone": Row(
        "BGPConfiguration/default: {bindMode: NodeIP}\nBGPPeer/tor: {peerIP: 192.0.2.254, sourceAddress: None}",
        ("  local 192.0.2.1 port 179 as 64512;", "  strict bind on;"),
        ("  local port",),
    ),
    "AS numbers": tor("localASNumber: '1.10'", ("  local 192.0.2.1 port 179 as 65546;",)),
    "own AS": tor("numAllowedLocalASNumbers: 2", ("  allow local as 2;",)),
    "password": tor("password: {secretKeyRef: {name: bgp, key: tor}}", ('  password "s3cret";',)),
    "without its password": tor(
        "password: {secretKeyRef: {name: bgp, key: quoted}}", hasnt=("192.0.2.254",), wrong={"BGPPeer tor": "spec.password"}
    ),
    "restart": tor("maxRestartTime: 1m", ("  graceful restart on; graceful restart time 60;",)),
    "BFD": tor("failureDetectionMode: BFDIfDirectlyConnected", ("  bfd on;",)),
    "next hop of a router": tor("", ("    gateway recursive;",), ("next hop",)),
    "next hop of a node": config("", ("    next hop self ebgp; gateway recursive;",)),
    "next hop, IPv6": config("", ("    next hop self ebgp; gateway recursive; next hop prefer global;",)),
    "next hop kept": tor("keepOriginalNextHop: true", ("    next hop keep; gateway recursive;",)),
    "next hop Keep": tor("nextHopMode: Keep", ("    next hop keep; gateway recursive;",)),
    "next hop Self": tor("nextHopMode: Self", ("    next hop self; gateway recursive;",)),
    "gateway": Row(
        OFF + "BGPPeer/far: {peerIP: 203.0.113.9, asNumber: 64601, reachableBy: 192.0.2.253}",
        ("  route 203.0.113.9/32 via 192.0.2.253;", '  if proto = "gateways4" then accept;'),
    ),
    "gateway, IPv6": Row(
        OFF + "BGPPeer/far: {peerIP: '2001:db8:9::9', asNumber: 64601, reachableBy: '2001:db8::fd'}",
        ("  route 2001:db8:9::9/128 via 2001:db8::fd;",),
    ),
    "gateways of one peer": Row(
        OFF + "BGPPeer/one: {peerIP: '203.0.113.9:1', asNumber: 1, reachableBy: 192.0.2.253}\n"
        "BGPPeer/two: {peerIP: '203.0.113.9:2', asNumber: 2, reachableBy: 192.0.2.252}",
        ("  route 203.0.113.9/32 via 192.0.2.252;", "  route 203.0.113.9/32 via 192.0.2.253;"),
    ),
    "reflector": Row(
        OFF + "BGPPeer/rr: {peerSelector: has(reflector)}",
        ("  rr client; rr cluster id 244.0.0.1;",),
        here="b",
        clusters=REFLECTOR,
    ),
    "no reflector of another AS": Row(
        OFF + "BGPPeer/rr: {node: b, peerSelector: rack == '2'}", ("  neighbor 198.51.100.3 port 1179 as 64513;",), here="b"
    ),
    "names": Row(
        OFF
        + "BGPPeer/one: {peerIP: '[2001:db8::fe]:1179', asNumber: 1}\nBGPPeer/two: {peerIP: '2001:db8::fe:1179', asNumber: 2}",
        ("protocol bgp bgp6_2001_db8__fe_port_1179 {", "protocol bgp bgp6_2001_db8__fe_1179 {"),
    ),
}

FILTER = "BGPFilter/one: {exportV4: [{action: Accept}], importV4: [{action: Reject}]}\n"
ROUTES = {
    "to and from nodes": config(
        "",
        (
            "    import filter from_node4; export filter to_node4;",
            "    import filter from_node_external4; export filter to_node_external4;",
            "  if is_block4() || is_service4() then accept;",
            "  if is_ours4() || in_pool4() || is_service4() then accept;",
        ),
    ),
    "to and from routers": tor(
        "",
        (
            "    import filter from_peer_external4; export filter to_peer_external4;",
            "  if net.len = 0 || covers_pool4() || (in_pool4() && ! is_block4()) then reject;",
            "  if is_hidden4() then reject;",
            "  if is_ours4() then accept;",
        ),
        ("from_node",),
    ),
    "a reflector tells routers all": Row(
        OFF + "BGPPeer/tor: {peerIP: 192.0.2.254, asNumber: 64601}",
        ("  if is_ours4() || in_pool4() || is_service4() then accept;",),
        here="b",
        clusters=REFLECTOR,
    ),
    "filters": Row(
        f"{FILTER}{OFF}BGPPeer/tor: {{peerIP: 192.0.2.254, asNumber: 64601, filters: [one]}}",
        (
            "  'one:export4'(true);",
            "  'one:import4'(true);",
            "  'one:export6'(true);",
            "function 'one:import4'(bool foreign) {",
        ),
    ),
    "filters within one AS": Row(
        f"{FILTER}{OFF}BGPPeer/in: {{peerSelector: has(reflector), filters: [one]}}", ("  'one:export4'(false);",)
    ),
    "filters, two": Row(
        f"{FILTER}BGPFilter/two: {{exportV4: []}}\n{OFF}BGPPeer/in: {{peerIP: 192.0.2.254, filters: [two, one]}}",
        ("  'two:export4'(false);", "  'one:export4'(false);"),
    ),
    "a filter that there isn't": tor(
        "filters: [none]",
        hasnt=("'none", "is_hidden4() then"),
        wrong={"BGPPeer tor": "spec.filters: there is no BGPFilter none; no route is taken or said until there is"},
    ),
    "one that there isn't, between nodes": Row(
        OFF + "BGPPeer/in: {peerSelector: has(reflector), filters: [none]}",
        hasnt=("'none",),
        wrong={"BGPPeer in": "spec.filters: there is no BGPFilter none"},
    ),
    "a filter that is wrong": Row(
        f"{OFF}BGPFilter/bad: {{exportV4: [{{action: Accept, cidr: ten}}]}}\n"
        "BGPPeer/tor: {peerIP: 192.0.2.254, filters: [bad]}",
        hasnt=("'bad", "is_hidden4() then"),
        wrong={"BGPFilter bad": "spec.exportV4[0].cidr: not a CIDR: 'ten'; peers that use it get and give no route"},
    ),
    "blocks": config(
        "",
        (
            "  route 10.1.0.64/26 blackhole;",
            "  route fd00:10:1::40/122 blackhole;",
            "function is_block4() { return (net ~ [10.1.0.0/16{26,32}]) && ! (net ~ [10.1.0.64/26+]); }",
            "function in_pool6() { return (net ~ [fd00:10:1::/48+]); }",
            "function covers_pool4() { return (net ~ [10.1.0.0/16-]); }",
            "function is_hidden4() { return false; }",
        ),
    ),
    "no blocks": config("", ("function is_block4() { return (net ~ [10.1.0.0/16{26,32}]) && ! false; }",), plan={"blocks": ()}),
    "no pools": config(
        "",
        ("function in_pool4() { return false; }", "function covers_pool4() { return false; }"),
        plan={"pools": (), "blocks": ()},
    ),
    "services": config(
        "",
        (
            "  route 10.96.0.0/12 blackhole;",
            "  route 203.0.113.7/32 blackhole;",
            "function is_service4() { return (net ~ [10.96.0.0/12+, 203.0.113.0/24+]); }",
            "function is_service6() { return false; }",
            "  if source != RTS_BGP || dest = RTD_UNREACHABLE || false || is_service4() then reject;",
        ),
        plan={
            "services": (parse("10.96.0.0/12"), parse("203.0.113.7/32"), parse("203.0.113.7/32")),
            "service_ranges": (parse("10.96.0.0/12"), parse("203.0.113.0/24")),
        },
    ),
    "communities are for what is passed on as well": config("", ("  tag4();",)),
}
POOLS = {
    "blockSize": ((Advertised(parse("10.1.0.0/16"), 28),), "function is_block4() { return (net ~ [10.1.0.0/16{28,32}])"),
    "a block as large as the pool": ((Advertised(parse("10.1.0.0/28"), 26),), "(net ~ [10.1.0.0/28{28,32}])"),
    "two pools": (
        (Advertised(parse("10.1.0.0/16"), 26), Advertised(parse("10.2.0.0/16"), 24)),
        "(net ~ [10.1.0.0/16{26,32}, 10.2.0.0/16{24,32}])",
    ),
    "disableBGPExport": (
        (Advertised(parse("10.1.0.0/16"), 26, outside=False), Advertised(parse("10.2.0.0/16"), 26)),
        "function is_hidden4() { return (net ~ [10.1.0.0/16+]); }",
    ),
    "modes: another carries its packets": (
        (Advertised(parse("10.1.0.0/16"), 26, by_bgp=False),),
        "  if source != RTS_BGP || dest = RTD_UNREACHABLE || (net ~ [10.1.0.0/16+]) || is_service4() then reject;",
    ),
    "modes: BGP carries them": (
        (Advertised(parse("10.1.0.0/16"), 26),),
        "  if source != RTS_BGP || dest = RTD_UNREACHABLE || false || is_service4() then reject;",
    ),
}
ROWS = {
    f"{of}: {name}": row
    for of, rows in (
        ("configuration", CONFIGURATION),
        ("peer", PEERS),
        ("routes", ROUTES),
        ("pool", {name: Row(OFF, plan={"pools": pools}) for name, (pools, _) in POOLS.items()}),
    )
    for name, row in rows.items()
}


@pytest.mark.parametrize("name", ROWS)
def test_lines(name: str) -> None:
    row = ROWS[name]
    text, wrong = configured(read(row.written), row.here, row.clusters, **row.plan)
    lines = text.splitlines()
    assert [one for one in row.has if one not in lines] == [], text
    assert [one for one in row.hasnt if one in text] == [], text
    assert wrong.keys() == row.wrong.keys(), wrong
    assert [where for where, words in row.wrong.items() if words not in wrong[where]] == [], wrong


@pytest.mark.parametrize("name", POOLS)
def test_pools(name: str) -> None:
    pools, words = POOLS[name]
    assert words in configured(read(OFF), pools=pools)[0]


def test_a_session_without_its_filters_says_and_takes_nothing() -> None:
    text, _ = configured(read(ROWS["routes: a filter that there isn't"].written))
    closed = [line for line in text.splitlines() if line.startswith(("filter from_peer", "filter to_peer"))]
    assert len(closed) == 4
    assert all(f"{line}\n  reject;\n}}\n" in text for line in closed)


def test_filters_come_before_what_holds_without_them() -> None:
    lines = configured(read(ROWS["routes: filters"].written))[0].splitlines()
    said = lines[lines.index(next(one for one in lines if one.startswith("filter to_peer"))) :]
    order = [
        "  if is_hidden4() then reject;",
        "  tag4();",
        "  'one:export4'(true);",
        "  if is_ours4() then accept;",
        "  reject;",
    ]
    assert [one for one in said[: said.index("}")] if one in order] == order


def test_names_that_nobody_should_have_stay_within_their_quotes() -> None:
    """The API server takes no such names; nor would a stolen node's words make BIRD do more than it should."""
    nasty = 'x";\nprotocol kernel evil { export all; }\n#'
    filters = (Filter(Metadata(nasty)),)
    text, _ = bird.render(Plan(nasty, "192.0.2.1", filters=filters))
    assert "\nprotocol kernel evil" not in text
    assert '";' not in text.splitlines()[0]
    session = configured(read(OFF + "BGPPeer/tor: {peerIP: 192.0.2.254}"))[0]
    assert '  description "BGPPeer tor";' in session


def test_router_ids() -> None:
    assert bird.router_id("a", "192.0.2.1") == "192.0.2.1"
    made = {bird.router_id(f"node-{number}", "") for number in range(100)}
    assert len(made) == 100
    assert all(all(1 <= int(byte) <= 254 for byte in one.split(".")) for one in made)
