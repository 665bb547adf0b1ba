"""BGPFilters as BIRD's statements, row by row: a rule as people write it, and its line."""

from typing import NamedTuple

import pytest

from tests.routing.bgp import read
from tortie.routing.filters import functions, symbol


class Row(NamedTuple):
    """One rule, and its line; or words of what is wrong with it. `list`: in which of the four lists it is."""

    rule: str
    line: str = ""
    wrong: str = ""
    list: str = "importV4"


ANY4, TEN = "net ~ [0.0.0.0/0{0,32}]", "cidr: 10.0.0.0/8"
ROWS = {
    "all": Row("{action: Accept}", "accept;"),
    "none": Row("{action: Reject}", "reject;"),
    "in": Row(f"{{action: Accept, {TEN}, matchOperator: In}}", "if net ~ [10.0.0.0/8{8,32}] then { accept; }"),
    "not in": Row(f"{{action: Reject, {TEN}, matchOperator: NotIn}}", "if net !~ [10.0.0.0/8{8,32}] then { reject; }"),
    "equal": Row(f"{{action: Accept, {TEN}, matchOperator: Equal}}", "if net = 10.0.0.0/8 then { accept; }"),
    "not equal": Row(f"{{action: Accept, {TEN}, matchOperator: NotEqual}}", "if net != 10.0.0.0/8 then { accept; }"),
    "a range without an operator is one that routes are in": Row(
        f"{{action: Accept, {TEN}}}", "if net ~ [10.0.0.0/8{8,32}] then { accept; }"
    ),
    "IPv6, learned": Row(
        "{action: Reject, cidr: 'fd00::/8', matchOperator: NotIn}",
        "if net !~ [fd00::/8{8,128}] then { reject; }",
        list="importV6",
    ),
    "everything": Row("{action: Accept, cidr: 0.0.0.0/0, matchOperator: In}", f"if {ANY4} then {{ accept; }}"),
    "a range with host bits": Row(
        "{action: Accept, cidr: 10.1.2.3/8, matchOperator: Equal}", "if net = 10.0.0.0/8 then { accept; }"
    ),
    "IPv6": Row(
        "{action: Accept, cidr: 'fd00::/8', matchOperator: In}", "if net ~ [fd00::/8{8,128}] then { accept; }", list="exportV6"
    ),
    "an operator without a range": Row(
        "{action: Accept, matchOperator: In}", wrong="spec.importV4[0].matchOperator: In of no cidr; say which"
    ),
    "a range of the other family": Row(
        "{action: Accept, cidr: 'fd00::/8', matchOperator: In}", wrong="spec.importV4[0].cidr: fd00::/8 is no IPv4 range"
    ),
    "IPv4 among IPv6": Row(
        f"{{action: Accept, {TEN}, matchOperator: In}}",
        wrong="spec.exportV6[0].cidr: 10.0.0.0/8 is no IPv6 range",
        list="exportV6",
    ),
    "no range": Row("{action: Accept, cidr: ten}", wrong="spec.importV4[0].cidr: not a CIDR: 'ten'"),
    "lengths": Row(
        f"{{action: Accept, {TEN}, matchOperator: In, prefixLength: {{min: 16, max: 24}}}}",
        "if net ~ [10.0.0.0/8{16,24}] then { accept; }",
    ),
    "from a length": Row(
        f"{{action: Accept, {TEN}, matchOperator: In, prefixLength: {{min: 16}}}}",
        "if net ~ [10.0.0.0/8{16,32}] then { accept; }",
    ),
    "up to a length": Row(
        f"{{action: Accept, {TEN}, matchOperator: In, prefixLength: {{max: 16}}}}",
        "if net ~ [10.0.0.0/8{8,16}] then { accept; }",
    ),
    "lengths that IPv4 hasn't": Row(
        f"{{action: Accept, {TEN}, matchOperator: In, prefixLength: {{min: 4, max: 64}}}}",
        "if net ~ [10.0.0.0/8{8,32}] then { accept; }",
    ),
    "no length": Row(
        f"{{action: Accept, {TEN}, matchOperator: In, prefixLength: {{min: 24, max: 16}}}}",
        wrong="spec.importV4[0].prefixLength: no prefix in 10.0.0.0/8 is from 24 to 16 long",
    ),
    "lengths of what is equal": Row(
        f"{{action: Accept, {TEN}, matchOperator: NotEqual, prefixLength: {{min: 8, max: 16}}}}",
        "if net != 10.0.0.0/8 && net.len >= 8 && net.len <= 16 then { accept; }",
    ),
    "lengths of any route": Row("{action: Reject, prefixLength: {max: 8}}", "if net.len >= 0 && net.len <= 8 then { reject; }"),
    "from peers": Row("{action: Reject, source: RemotePeers}", "if source = RTS_BGP then { reject; }", list="exportV4"),
    "interface": Row("{action: Reject, interface: 'eth*'}", 'if ifname ~ "eth*" then { reject; }', list="exportV4"),
    "an interface that would end BIRD's text": Row(
        "{action: Reject, interface: 'a\"; accept'}",
        wrong="spec.exportV4[0].interface: 'a\"; accept' is no interface's name; * stands for any text",
        list="exportV4",
    ),
    "towards other AS": Row("{action: Reject, peerType: eBGP}", "if foreign then { reject; }"),
    "towards its own": Row("{action: Reject, peerType: iBGP}", "if ! foreign then { reject; }"),
    "community": Row(
        "{action: Accept, communities: {values: ['64512:100']}}", "if (64512,100) ~ bgp_community then { accept; }"
    ),
    "large community": Row(
        "{action: Accept, communities: {values: ['4200000000:1:100']}}",
        "if (4200000000,1,100) ~ bgp_large_community then { accept; }",
    ),
    "a community that is none": Row(
        "{action: Accept, communities: {values: ['70000:1']}}",
        wrong="spec.importV4[0].communities: '70000:1' is no community: write 64512:100, both up to 65535, or",
    ),
    "a large one that is none": Row(
        "{action: Accept, communities: {values: ['1:2:4294967296']}}", wrong="communities: '1:2:4294967296' is no community"
    ),
    "path": Row("{action: Accept, asPathPrefix: [64601, '1.10']}", "if bgp_path ~ [= 64601 65546 * =] then { accept; }"),
    "no AS number": Row(
        "{action: Accept, asPathPrefix: [ten]}", wrong="spec.importV4[0].asPathPrefix: 'ten' is no AS number: write 64512"
    ),
    "an empty path is any": Row("{action: Accept, asPathPrefix: []}", "accept;"),
    "priority": Row(
        "{action: Accept, priority: 100}", "if defined(bgp_local_pref) && bgp_local_pref = 2147483547 then { accept; }"
    ),
    "all conditions": Row(
        f"{{action: Reject, {TEN}, matchOperator: In, source: RemotePeers, interface: eth0, peerType: eBGP,"
        " communities: {values: ['1:2']}, asPathPrefix: [1], priority: 3}",
        'if net ~ [10.0.0.0/8{8,32}] && source = RTS_BGP && ifname ~ "eth0" && foreign && (1,2) ~ bgp_community'
        " && bgp_path ~ [= 1 * =] && defined(bgp_local_pref) && bgp_local_pref = 2147483644 then { reject; }",
    ),
    "add a community": Row(
        "{action: Accept, operations: [{addCommunity: {value: '64512:100'}}]}", "bgp_community.add((64512,100)); accept;"
    ),
    "add a large community": Row(
        "{action: Accept, operations: [{addCommunity: {value: '1:2:3'}}]}", "bgp_large_community.add((1,2,3)); accept;"
    ),
    "add what is none": Row(
        "{action: Accept, operations: [{addCommunity: {value: '1:99999'}}]}",
        wrong="spec.importV4[0].operations: '1:99999' is no community",
    ),
    "prepend, so that the path begins as written": Row(
        "{action: Accept, operations: [{prependASPath: {prefix: [64512, '1.10']}}]}",
        "bgp_path.prepend(65546); bgp_path.prepend(64512); accept;",
    ),
    "prepend what is none": Row(
        "{action: Accept, operations: [{prependASPath: {prefix: [0]}}]}",
        wrong="spec.importV4[0].operations: '0' is no AS number",
    ),
    "set the priority": Row(
        "{action: Accept, operations: [{setPriority: {value: 512}}]}", "bgp_local_pref = 2147483135; accept;"
    ),
    "operations, in order": Row(
        f"{{action: Accept, {TEN}, operations: [{{setPriority: {{value: 5}}}}, {{addCommunity: {{value: '1:2'}}}}]}}",
        "if net ~ [10.0.0.0/8{8,32}] then { bgp_local_pref = 2147483642; bgp_community.add((1,2)); accept; }",
    ),
    "nothing is changed of what is rejected": Row("{action: Reject, operations: [{setPriority: {value: 5}}]}", "reject;"),
}


def written(row: Row) -> str:
    return f"BGPFilter/one: {{{row.list}: [{row.rule}]}}"


@pytest.mark.parametrize("name", ROWS)
def test_rules(name: str) -> None:
    row = ROWS[name]
    lines, wrong = functions(read(written(row)).objects.filters)
    if row.wrong:
        assert row.wrong in wrong["BGPFilter one"]
        assert "peers that use it get and give no route until it is mended" in wrong["BGPFilter one"]
        assert lines == []
    else:
        assert wrong == {}
        at = lines.index(f"function {symbol('one', row.list[:6], int(row.list[-1]))}(bool foreign) {{")
        assert lines[at + 1 : at + 3] == [f"  {row.line}", "}"]


MANY = """
BGPFilter/two: {exportV4: [{action: Accept}], importV4: [{action: Reject, source: RemotePeers}, {action: Accept}]}
BGPFilter/bad: {exportV6: [{action: Accept}, {action: Accept, cidr: 10.0.0.0/8}]}
BGPFilter/one: {exportV6: [{action: Reject}]}
"""


def test_each_list_is_a_function_and_one_filters_fault_is_its_own() -> None:
    lines, wrong = functions(read(MANY).objects.filters)
    heads = [line.split("(")[0] for line in lines if line.startswith("function")]
    lists = ("export4", "import4", "export6", "import6")
    assert heads == [f"function '{name}:{one}'" for name in ("one", "two") for one in lists]
    at = lines.index("function 'two:import4'(bool foreign) {")
    assert lines[at + 1 : at + 4] == ["  if source = RTS_BGP then { reject; }", "  accept;", "}"]
    assert wrong.keys() == {"BGPFilter bad"}
    assert wrong["BGPFilter bad"].startswith("spec.exportV6[1].cidr: 10.0.0.0/8 is no IPv6 range; peers that use it")


LONG = "a" * 253
NAMES = {"my-filter": "'my-filter:import4'", "a.b-1": "'a.b-1:import4'", "x" * 40: f"'{'x' * 40}:import4'"}


def test_names() -> None:
    assert {name: symbol(name, "import", 4) for name in NAMES} == NAMES
    names = [LONG, LONG + "b", LONG[:-1] + "c", "a'b", 'a"b', "a\nb", "a b"]
    made = [symbol(name, "import", 4) for name in names]
    assert len(set(made)) == len(names)
    assert all(len(one) <= 64 and one.strip("'").replace("-", "").replace(":", "").isalnum() for one in made)
