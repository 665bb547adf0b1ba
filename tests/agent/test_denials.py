"""Denials that are logged, and packets that are counted: by the kernel's own messages, for real packets."""

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from functools import partial

import pytest

from tests.agent.namespaces import needs_root, run
from tests.agent.packets import Node, Probe
from tests.agent.three import OUTSIDE, A, B, C, Three
from tests.kube.watching import eventually
from tortie.addressing.allocator import address
from tortie.agent import denials, nflog, rules
from tortie.agent import nfnetlink as nf
from tortie.agent.denials import Denials, NotLogged, told
from tortie.agent.firewall import Firewall
from tortie.agent.gate import Gate, Tally
from tortie.agent.rules import LOG_BURST, Counted
from tortie.api.compiled import Direction, Port, Rule, RuleSetSpec

WEB, DB = ("NetworkPolicy ns/web",), ("NetworkPolicy ns/db",)
GUARD = ("ClusterNetworkPolicy guard",)


def isolating(*ways: Direction, policies: tuple[str, ...] = WEB, log: bool = True) -> RuleSetSpec:
    return RuleSetSpec("Namespace", isolates=ways, policies=policies, log=log)


def denying(*rules: Rule, tier: str = "Admin", log: bool = True) -> RuleSetSpec:
    return RuleSetSpec("Baseline" if tier == "Baseline" else "Admin", rules=rules, policies=GUARD, log=log)


DENY_IN, DENY_OUT = (Rule(way, "Deny", sources=(f"{GUARD[0]} no",)) for way in ("Ingress", "Egress"))
PASS_IN = Rule("Ingress", "Pass", ports=(Port("UDP"),))
# Name: the RuleSets of a, then who is said to have denied a packet to it, or from it.
TO_A: dict[str, tuple[dict[str, RuleSetSpec], tuple[str, ...]]] = {
    "isolated": ({"r": isolating("Ingress")}, WEB),
    "isolated by two": ({"r": isolating("Ingress"), "s": isolating("Ingress", policies=DB)}, WEB + DB),
    "isolated by two, one asks": ({"r": isolating("Ingress", log=False), "s": isolating("Ingress", policies=DB)}, WEB + DB),
    "isolated by one, the other speaks of another way": (
        {"r": isolating("Ingress"), "s": isolating("Egress", policies=DB)},
        WEB,
    ),
    "nobody asks": ({"r": isolating("Ingress", log=False)}, ()),
    "who asks denies nothing": ({"r": isolating("Ingress", log=False), "s": isolating("Egress", policies=DB)}, ()),
    "an Admin rule": ({"g": denying(DENY_IN)}, GUARD),
    "an Admin rule that doesn't ask": ({"g": denying(DENY_IN, log=False)}, ()),
    "an Admin rule before one that asks": ({"g": denying(DENY_IN, log=False), "r": isolating("Ingress")}, ()),
    "an Admin rule behind one that passes on": ({"g": denying(PASS_IN, DENY_IN)}, GUARD),
    "isolated, as an Admin rule passes on": (
        {"g": denying(Rule("Ingress", "Pass"), DENY_IN), "r": isolating("Ingress")},
        WEB,
    ),
    "a Baseline rule": ({"g": denying(DENY_IN, tier="Baseline")}, GUARD),
}


class Said:
    """What the first node says."""

    def __init__(self, three: Three) -> None:
        node = three.net.nodes[0]
        self.gate = Gate(node.firewall)
        pods = dict.fromkeys(map(address, A), "ns/a")
        self.denials = Denials(node.kernel.log, self.gate.denied_by, pods.get)
        self.running = asyncio.create_task(self.denials.run())

    async def __aenter__(self) -> "Said":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        self.gate.close()

    def has(self, last: int) -> bool:
        return self.denials._last == last

    def kept(self) -> list[denials.Denial]:
        found: list[denials.Denial] = self.denials.after("", 0)["denials"]
        return found


@needs_root
@pytest.mark.parametrize("row", TO_A)
async def test_who_denied_a_packet(three: Three, row: str) -> None:
    rule_sets, policies = TO_A[row]
    # What b does is always said: behind that nothing is on its way any more.
    three.enforce({**rule_sets, "b": isolating("Ingress", policies=("NetworkPolicy ns/b",))}, {"a": (*rule_sets,), "b": ("b",)})
    async with Said(three) as said:
        assert not three.passes(C[0], A[0], port=8080)
        assert not three.passes(C[0], B[0])
        await eventually(lambda: said.denials._last == 1 + bool(policies))
        found = [one for one in said.kept() if one["to"] == A[0]]
        assert [one["policies"] for one in found] == [[*policies]] * bool(policies)
        for one in found:
            assert one | {"time": "", "policies": []} == {
                "time": "", "direction": "Ingress", "policies": [], "from": C[0], "fromPod": None, "to": A[0], "toPod": "ns/a",
                "protocol": "TCP", "port": 8080,
            }  # fmt: skip


@needs_root
async def test_what_is_said_of_what_a_pod_sends(three: Three) -> None:
    three.enforce({"r": isolating("Egress"), "g": denying(DENY_OUT)}, {"a": ("r",), "b": ("g",)})
    probes = [
        Probe(A[0], OUTSIDE[0], "UDP", 53),
        Probe(A[1], C[1], "SCTP", 5000),
        Probe(A[1], OUTSIDE[1], "ICMP", 0),
        Probe(B[0], C[0], "ICMP", 0),
    ]
    async with Said(three) as said:
        for one in probes:
            assert not three.passes(one.source, one.target, one.protocol, one.port)
        await eventually(lambda: said.denials._last == len(probes))
        assert [told(one) for one in said.kept()] == [
            "denied: ns/a (10.0.1.1) to 8.8.8.8, 53/UDP, by NetworkPolicy ns/web (Egress)",
            "denied: ns/a (fd00::1:1) to fd00::2:1, 5000/SCTP, by NetworkPolicy ns/web (Egress)",
            "denied: ns/a (fd00::1:1) to 2001:db8::8, ICMPv6, by NetworkPolicy ns/web (Egress)",
            "denied: 10.0.1.2 to 10.0.2.1, ICMP, by ClusterNetworkPolicy guard (Egress)",
        ]


@needs_root
async def test_more_is_denied_than_is_said(three: Three) -> None:
    three.enforce({"r": isolating("Ingress"), "b": isolating("Ingress", policies=DB)}, {"a": ("r",), "b": ("b",)})
    async with Said(three) as said:
        place = three.places[C[0]]
        probes = [(place, Probe(C[0], A[0], "UDP", 1000 + number)) for number in range(10 * LOG_BURST)]
        assert not any(three.net.exchange(probes).values()), "the limit is for what is said"
        assert not three.passes(C[0], B[0])
        await eventually(lambda: bool(said.denials._kept) and said.denials._kept[-1][1]["to"] == B[0])
        assert LOG_BURST <= said.denials._last < 3 * LOG_BURST


@needs_root
async def test_what_a_policy_stops_to_ask_for(three: Three) -> None:
    lists = {"a": ("r", "g"), "b": ("b",)}
    b = isolating("Ingress", policies=DB)
    async with Said(three) as said:
        for log, last in ((True, 2), (False, 3), (True, 5)):
            rule_sets = {"r": isolating("Ingress", log=log), "g": denying(Rule("Egress", "Deny"), log=log), "b": b}
            three.enforce(rule_sets, lists)
            assert not three.passes(C[0], A[0])
            assert not three.passes(C[0], B[0])
            await eventually(partial(said.has, last))


PACKET = nflog.Packet("x", bytes(4), bytes(4), 6, 80)
LOG: nflog.PacketLog = object()  # type: ignore[assignment]


async def nobody(_chain: str) -> tuple[Direction, tuple[str, ...]]:
    await asyncio.sleep(0)
    return "Ingress", WEB


def quiet(now: Callable[[], float] = lambda: 0.0) -> Denials:
    """Denials without a kernel."""
    return Denials(LOG, nobody, lambda _address: None, now)


async def test_who_asks_again_is_told_what_is_new_and_what_was_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denials, "_ANSWER", 3)
    monkeypatch.setattr(denials, "MOST", 10_000)
    said = quiet()
    epoch = said.after("", 0)["epoch"]
    # What comes before each question; the number that is known; then number, missed, how many, and whether there are more.
    for packets, known, expected in (
        ([], 0, (0, 0, 0, False)),
        ([PACKET], 0, (1, 0, 1, False)),
        ([PACKET, None, *[PACKET] * 4], 1, (5, 1, 3, True)),
        ([], 5, (7, 0, 2, False)),
        ([PACKET] * (denials.KEPT + 5), 7, (15, 5, 3, True)),
        ([None], denials.KEPT + 12, (denials.KEPT + 13, 1, 0, False)),
    ):
        await said._take(packets)
        found = said.after(epoch, known)
        assert (found["number"], found["missed"], len(found["denials"]), found["more"]) == expected
    other = quiet().after(epoch, 7)
    assert (other["number"], other["missed"]) == (0, 0), "another agent's numbers begin anew"
    with pytest.raises(NotLogged):
        Denials(None, nobody, lambda _address: None).after("", 0)


async def test_who_asks_while_a_packet_is_looked_at_is_told_of_it_the_next_time() -> None:
    said = quiet()
    taking = asyncio.create_task(said._take([PACKET]))
    await asyncio.sleep(0)  # it is asked who denied it
    first = said.after("", 0)
    await taking
    second = said.after(first["epoch"], first["number"])
    assert [len(one["denials"]) for one in (first, second)] == [0, 1]


async def test_no_more_is_said_of_a_node_than_it_can_bear() -> None:
    now = [0.0]
    said = quiet(lambda: now[0])
    await said._take([PACKET] * (denials.MOST + 7))
    assert len(said._kept) == denials.MOST
    now[0] = 1.0
    await said._take([PACKET])
    assert [number for number, _ in said._kept][-2:] == [denials.MOST, denials.MOST + 8]


def v4(protocol: int, body: bytes, *, options: bytes = b"", offset: int = 0) -> bytes:
    length = 5 + len(options) // 4
    head = struct.pack(">BBHHHBBH", 0x40 | length, 0, 0, 0, offset, 64, protocol, 0)
    return head + socket.inet_aton("10.0.0.1") + socket.inet_aton("10.0.0.2") + options + body


def v6(protocol: int, body: bytes) -> bytes:
    ends = socket.inet_pton(socket.AF_INET6, "fd00::1") + socket.inet_pton(socket.AF_INET6, "fd00::2")
    return struct.pack(">IHBB", 6 << 28, len(body), protocol, 64) + ends + body


PORTS = struct.pack(">HH", 40000, 443)
# Name: what is logged of a packet; then its protocol and port, or None where nothing can be read.
HEADERS = {
    "TCP": (v4(6, PORTS), (6, 443)),
    "with options": (v4(17, PORTS, options=bytes(8)), (17, 443)),
    "ICMP": (v4(1, b"\x08\x00\x00\x00"), (1, None)),
    "a later fragment": (v4(6, PORTS, offset=100), (6, None)),
    "cut behind the addresses": (v4(6, b""), (6, None)),
    "cut in the ports": (v4(6, PORTS[:3]), (6, None)),
    "cut before": (v4(6, b"")[:19], None),
    "nothing": (b"", None),
    "no IP": (b"\x00" * 60, None),
    "IPv6": (v6(6, PORTS), (6, 443)),
    "IPv6 hop by hop, routing and destination": (
        v6(0, bytes((43, 0, *6 * b"\0")) + bytes((60, 1, *14 * b"\0")) + bytes((17, 0, *6 * b"\0")) + PORTS),
        (17, 443),
    ),
    "IPv6's first fragment": (v6(44, bytes((6, 0, 0, 1, *4 * b"\0")) + PORTS), (6, 443)),
    "IPv6's later fragment": (v6(44, bytes((6, 0, 1, 0, *4 * b"\0")) + PORTS), (6, None)),
    "IPv6 cut in an extension": (v6(0, b"\x06"), (0, None)),
    "IPv6's destination options behind its first fragment": (
        v6(44, bytes((60, 0, 0, 1, *4 * b"\0")) + bytes((6, 0, *6 * b"\0")) + PORTS),
        (6, 443),
    ),
    "IPv6 cut before": (v6(6, b"")[:39], None),
}


@pytest.mark.parametrize("row", HEADERS)
def test_headers(row: str) -> None:
    data, expected = HEADERS[row]
    found = nflog.packet("r-to", data)
    assert (found and (found.protocol, found.port)) == expected


# --- counters


def counting(three: Three) -> Node:
    """Return the first node, whose firewall counts."""
    node = three.net.nodes[0]
    node.begin_anew()
    node.firewall = Firewall(node.kernel, counts=True)
    for pod in node.known.values():
        node.firewall.put(pod)
    return node


@needs_root
def test_what_policies_decide_is_counted(three: Three) -> None:
    node = counting(three)
    web = Rule("Ingress", "Accept", None, (Port("TCP", 80),), (f"{WEB[0]} ingress[0]", f"{DB[0]} ingress[1]"))
    rule_sets = {
        "r": RuleSetSpec("Namespace", isolates=("Ingress",), rules=(web,), policies=WEB + DB),
        "g": denying(DENY_IN, Rule("Egress", "Pass", sources=(f"{GUARD[0]} on",)), log=False),
    }
    three.enforce(rule_sets, {"a": ("r",), "b": ("g",)})
    for target, port in ((A[0], 80), (A[1], 80), (A[0], 81), (B[0], 80)):
        three.passes(C[0] if "." in target else C[1], target, port=port)
    three.passes(B[0], C[0])
    found = {one: packets for one, (packets, _) in node.firewall.counters().items()}
    both = {Counted(one, "Ingress", "Accept"): 2 for one in WEB + DB} | {Counted(one, "Ingress", "Deny"): 1 for one in WEB + DB}
    assert found == {**both, Counted(GUARD[0], "Ingress", "Deny"): 1}
    assert all(octets >= 40 for _, octets in node.firewall.counters().values())
    three.enforce({"r": rule_sets["r"]}, {"a": ("r",)})
    assert {one: packets for one, (packets, _) in node.firewall.counters().items()} == both, (
        "a policy that is gone isn't counted"
    )
    more = RuleSetSpec("Namespace", isolates=("Ingress",), rules=(web,), policies=WEB)
    three.enforce({"r": more}, {"a": ("r",)})
    assert node.firewall.counters()[Counted(WEB[0], "Ingress", "Accept")][0] == 2, "a changed policy's counters go on"
    before = node.firewall.counters()
    node.firewall.program()
    assert node.firewall.counters() == before, "those of a table that is replaced, too"


@needs_root
def test_parts_of_a_ruleset_that_is_split_are_one_policy(three: Three) -> None:
    node = counting(three)
    three.enforce({"r": isolating("Ingress"), "r-1": isolating("Ingress")}, {"a": ("r", "r-1")})
    assert not three.passes(C[0], A[0])
    assert {one: packets for one, (packets, _) in node.firewall.counters().items()} == {Counted(WEB[0], "Ingress", "Deny"): 1}
    assert node.firewall.denied_by(rules.list_name(("r", "r-1"), "Ingress")) == ("Ingress", WEB)


@needs_root
def test_what_the_kernel_doesn_t_know_isn_t_asked_of_it(three: Three) -> None:
    tables = three.net.nodes[0].kernel.tables
    assert tables.takes(*rules.LOGGING)
    assert tables.takes(nf.counted(nf.TRIED))
    assert not tables.takes(nf.counted("none such"))
    assert "tortie-tries" not in run(["nft", "list", "tables"], three.net.nodes[0].namespace)


def test_counters_that_begin_anew_are_counted_on() -> None:
    one, other = Counted("p", "Ingress", "Accept"), Counted("q", "Ingress", "Deny")
    tally = Tally()
    for read, total in (
        ({one: (3, 300)}, {one: (3, 300)}),
        ({one: (5, 500), other: (1, 60)}, {one: (5, 500), other: (1, 60)}),
        ({one: (2, 200), other: (1, 60)}, {one: (7, 700), other: (1, 60)}),
        ({one: (2, 200)}, {one: (7, 700)}),
        ({}, {}),
    ):
        tally.take(read)
        assert tally.total == total, json.dumps([str(read)])
