"""The firewall in the kernel: what passes whatever policies say, what never does, and what ends when it is forbidden."""

import asyncio
import errno
import socket
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.agent.namespaces import needs_root, run
from tests.agent.packets import Probe, inside
from tests.agent.tables import names_in, words
from tests.agent.three import OUTSIDE, A, B, C, Three
from tests.kube.watching import eventually
from tortie.agent import nfnetlink as nf
from tortie.agent import rules
from tortie.agent.conntrack import Connection
from tortie.agent.firewall import Firewall, remove_table
from tortie.agent.gate import Gate
from tortie.agent.kernel import Kernel
from tortie.agent.table import TABLE
from tortie.api.compiled import CompiledMetadata, Port, Rule, RuleSet, RuleSetSpec
from tortie.policy.view import Changes

pytestmark = needs_root
SEES_ALL = RuleSetSpec("Namespace", isolates=("Ingress", "Egress"))
PATIENCE = 10.0  # seconds that only a broken program needs


CLOSED = {"closed": SEES_ALL}
EVERYBODY_CLOSED: dict[str, tuple[str, ...]] = dict.fromkeys("abc", ("closed",))
# Name: source, target, whether it passes where every pod is closed both ways; it does where none is.
CLOSED_ROWS = {
    "pod to pod on its node": (A[0], B[0], False),
    "pod to pod elsewhere": (A[0], C[0], False),
    "the same by IPv6": (A[1], C[1], False),
    "pod to itself": (A[0], A[0], True),
    "node to its pod": ("192.168.100.2", A[0], True),
    "node to its pod by IPv6": ("fd0f:0::2", A[1], True),
    "node to another's pod": ("192.168.100.2", C[0], False),
    "pod to its node": (A[0], "192.168.100.2", False),
    "pod to its node by IPv6": (A[1], "fd0f:0::2", False),
    "pod to another node": (A[0], "192.168.101.2", False),
    "from outside": (OUTSIDE[0], A[0], False),
    "to outside": (A[0], OUTSIDE[0], False),
    "node to node": ("192.168.100.2", "192.168.101.2", True),
    "node to outside": ("192.168.100.2", OUTSIDE[0], True),
}


def test_closed_and_open(three: Three) -> None:
    assert {name: three.passes(*row[:2]) for name, row in CLOSED_ROWS.items()} == dict.fromkeys(CLOSED_ROWS, True)
    three.enforce(CLOSED, EVERYBODY_CLOSED)
    assert {name: three.passes(*row[:2]) for name, row in CLOSED_ROWS.items()} == {n: row[2] for n, row in CLOSED_ROWS.items()}


# Name: source, target, who sends it. None of it arrives, although nothing is closed.
SPOOFED = {
    "a neighbour's address": (B[0], C[0], A[0]),
    "a neighbour's address by IPv6": (B[1], C[1], A[0]),
    "an address elsewhere": (C[0], B[0], A[0]),
    "the node's address": ("192.168.100.2", C[0], A[0]),
    "nobody's address": ("10.9.9.9", B[0], A[0]),
    "link-local, no neighbour discovery": ("fe80::1", B[1], A[0]),
    "a local pod's address from outside": (A[0], B[0], OUTSIDE[0]),
    "the same by IPv6": (A[1], B[1], OUTSIDE[0]),
}


@pytest.mark.parametrize("row", SPOOFED)
def test_spoofed_packets_are_dropped(three: Three, row: str) -> None:
    source, target, really = SPOOFED[row]
    assert three.passes(really, target) or ":" in target
    assert not three.passes(source, target, "UDP", really=really)


def test_a_pod_sends_nothing_that_nodes_take_for_each_other_s(three: Three) -> None:
    for target in (B[0], C[0], "192.168.100.2", "192.168.101.2", C[1], "fd0f:0::2"):
        source = A[":" in target]
        assert [three.passes(source, target, "UDP", port) for port in (4789, 4790)] == [False, True], target
        if "." in target:
            assert not three.passes(source, target, "IP-in-IP"), target
    assert all(three.passes(OUTSIDE[0], A[0], *what) for what in (("UDP", 4789), ("IP-in-IP",)))


@pytest.mark.parametrize("target", [C[0], "192.168.100.2"])
@pytest.mark.parametrize(("port", "arrives"), [(4789, False), (4790, True)])
def test_nor_does_a_service_make_it_so(three: Three, target: str, port: int, arrives: bool) -> None:
    node, probe = three.net.nodes[0].namespace, Probe(A[0], OUTSIDE[0], "UDP", 80)
    run(["nft", "add table ip t; add chain ip t c { type nat hook prerouting priority -100; }"], node)
    run(["nft", f"add rule ip t c udp dport 80 dnat to {target}:{port}"], node)
    assert three.net.exchange([(three.places[A[0]], probe)])[probe] == [three.places[target]] * arrives


@pytest.mark.parametrize(("port", "arrives"), [(4789, False), (4790, True)])
def test_nor_is_it_an_answer(three: Three, port: int, arrives: bool) -> None:
    """To what came from that port of a node, where a Service's translation may have chosen it."""
    node, pod = three.places["192.168.100.2"], three.places[A[0]]
    for asks, here, there in ((node, "192.168.100.2", A[0]), (three.places["192.168.101.2"], "192.168.101.2", A[0])):
        asks.send(Probe(here, there, "UDP", 7), port)
        three.net.settle()
        pod.send(Probe(there, here, "UDP", port), 7)
        three.net.settle()
        assert (("UDP", 7) in asks.got()) == arrives


def test_another_mac_is_dropped(three: Three) -> None:
    run(["ip", "link", "set", "eth0", "address", "02:00:00:00:00:99"], three.places[A[0]].namespace)
    assert not three.passes(A[0], C[0])


def test_router_advertisements_of_pods_are_dropped(three: Three) -> None:
    """One with the pod's own address, which any other packet may have."""
    node, pod = three.net.nodes[0].namespace, three.places[A[1]].namespace
    sender = inside(pod, lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6))
    receiver = inside(node, lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6))
    with sender, receiver:
        receiver.settimeout(PATIENCE)
        for kind in (134, 135):  # the second, a solicitation, may pass; it comes after
            sender.sendto(bytes((kind, 0, 0, 0)) + bytes(20), ("fd0f:0::2", 0))
        assert receiver.recv(2048)[0] == 135


def test_a_link_of_ours_that_nobody_knows_is_closed(three: Three) -> None:
    three.net.nodes[0].firewall.drop(three.hosts["a"])
    assert [three.passes(*pair) for pair in ((A[0], B[0]), (B[0], A[0]), ("192.168.100.2", A[0]))] == [False, False, True]


def test_tables_of_others_stay(three: Three) -> None:
    node = three.net.nodes[0]
    run(["nft", "add table inet others; add chain inet others c { type filter hook forward priority 0; }"], node.namespace)
    before = run(["nft", "list", "table", "inet", "others"], node.namespace)
    node.firewall.program()
    three.enforce(CLOSED, EVERYBODY_CLOSED)
    assert run(["nft", "list", "table", "inet", "others"], node.namespace) == before
    inside(node.namespace, lambda: remove_table(Kernel().tables))
    assert run(["nft", "list", "tables"], node.namespace).split("\n") == ["table inet others", ""]
    remove = inside(node.namespace, Kernel)
    remove_table(remove.tables)  # again: nothing is there
    remove.close()


class Talk:
    """A connection between two places, on which each can send."""

    def __init__(self, three: Three, source: str, target: str, kind: int, port: int = 80) -> None:
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        self.server = inside(three.places[target].namespace, lambda: socket.socket(family, kind))
        self.client = inside(three.places[source].namespace, lambda: socket.socket(family, kind))
        self._kind = kind
        self.server.bind((target, port))
        self.client.bind((source, 0))
        for one in (self.server, self.client):
            one.settimeout(PATIENCE)
        if kind == socket.SOCK_STREAM:
            self.server.listen(1)
            self.client.connect((target, port))
            self.accepted, _ = self.server.accept()
            self.accepted.settimeout(PATIENCE)
            for one in (self.client, self.accepted):  # nothing waits for an acknowledgement
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            self.client.connect((target, port))
            self.client.send(b"first")
            self._client_at = self.server.recvfrom(16)[1]

    def goes_on(self, three: Three) -> tuple[bool, bool]:
        """Whether what the client says arrives, and what the server says."""
        return self._arrives(three, self.client.send, self._from_client), self._arrives(three, self._answer, self.client)

    def _answer(self, data: bytes) -> object:
        return self.accepted.send(data) if self._kind == socket.SOCK_STREAM else self.server.sendto(data, self._client_at)

    @property
    def _from_client(self) -> socket.socket:
        return self.accepted if self._kind == socket.SOCK_STREAM else self.server

    def _arrives(self, three: Three, send: object, receiver: socket.socket) -> bool:
        send(b"x")  # type: ignore[operator]
        three.net.settle()
        receiver.setblocking(False)
        try:
            return bool(receiver.recv(16))
        except BlockingIOError:
            return False
        finally:
            receiver.settimeout(PATIENCE)

    def close(self) -> None:
        for one in (self.client, self.server, *([self.accepted] if self._kind == socket.SOCK_STREAM else [])):
            one.close()


KINDS = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}


def only_from(*peers: str) -> dict[str, RuleSetSpec]:
    """Let a set of peers in, and let all out."""
    return {
        "r": RuleSetSpec(
            "Namespace",
            isolates=("Ingress",),
            rules=(Rule("Ingress", "Accept", peers, (Port("TCP", 80, 81), Port("UDP", 80, 81))),),
        )
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("source", "target", "pod"),
    [(A[0], B[0], "b"), (A[1], C[1], "c"), (OUTSIDE[0], C[0], "c")],
    ids=["near", "far6", "outside"],
)
def test_a_connection_is_cut_when_it_is_forbidden_and_others_live(
    three: Three, kind: str, source: str, target: str, pod: str
) -> None:
    """By a new policy; by an address that leaves a set that accepts. It doesn't come back from either side."""
    other = {B[0]: C[0], C[1]: B[1], C[0]: B[0]}[target]
    talk, stays = Talk(three, source, target, KINDS[kind]), Talk(three, other, target, KINDS[kind], 81)
    assert talk.goes_on(three) == (True, True)
    three.enforce(only_from("s"), {pod: ("r",)}, s=(source, other))
    assert talk.goes_on(three) == (True, True), "a policy that allows it hurts neither side"
    three.enforce(only_from("s"), {pod: ("r",)}, s=(other,))
    forward, back = talk.goes_on(three)
    assert not forward
    if kind == "TCP":  # by UDP the server may talk to whom it likes: nobody isolates the client
        assert not back
    assert stays.goes_on(three) == (True, True)
    talk.close()
    stays.close()


def test_a_cut_connection_with_its_own_node_stays_cut(three: Three) -> None:
    talk = Talk(three, A[0], "192.168.100.2", socket.SOCK_STREAM)
    assert talk.goes_on(three) == (True, True)
    three.enforce(CLOSED, EVERYBODY_CLOSED)
    assert talk.goes_on(three) == (False, False)
    three.net.nodes[0].firewall.mend()
    assert three.net.nodes[0].firewall.cut() == []
    talk.close()


def test_a_refused_rule_closes_its_endpoints_alone(three: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    node = three.net.nodes[0]
    real = rules.rule_set_chains

    def broken(name: str, spec: RuleSetSpec, terms: rules.Terms) -> rules.Chains:
        made = real(name, spec, terms)
        return {f"{name}-to": (nf.rule(nf.member("no such set")),)} if name == "bad" else made

    monkeypatch.setattr(rules, "rule_set_chains", broken)
    spec = only_from("s")["r"]
    with pytest.raises(AssertionError):  # `enforce` of the net takes no errors
        three.enforce({"bad": spec, "good": spec}, {"a": ("bad",), "b": ("good",)}, s=C[:1])
    assert node.firewall.enforce(node.view.take()) == {"bad": "the kernel refused its rules: No such file or directory"}
    assert [three.passes(C[0], one) for one in (A[0], B[0])] == [False, True]
    monkeypatch.undo()
    three.enforce({"bad": only_from("s", "s")["r"], "good": spec}, {"a": ("bad",), "b": ("good",)}, s=C[:1])
    assert [three.passes(C[0], one) for one in (A[0], B[0])] == [True, True]


def test_a_table_that_was_changed_by_hand_is_replaced_with_the_next_change(three: Three) -> None:
    node = three.net.nodes[0]
    three.enforce(only_from("s"), {"a": ("r",)}, s=C[:1])
    run(["nft", "flush set inet tortie peers4"], node.namespace)
    three.enforce(only_from("s"), {"a": ("r",)}, s=())
    three.enforce(only_from("s"), {"a": ("r",)}, s=C[:1])
    assert [three.passes(one, A[0]) for one in (C[0], B[0])] == [True, False]


def test_an_agent_that_starts_leaves_nothing_open(three: Three) -> None:
    """The table of the last one holds until what holds now is known; then it is replaced."""
    node = three.net.nodes[0]
    three.enforce(CLOSED, EVERYBODY_CLOSED)
    node.firewall = Firewall(node.kernel)
    node.firewall.begin(node.known.values())
    assert not three.passes(C[0], A[0])
    node.view = type(node.view)()
    three.enforce(only_from("s"), {"a": ("r",), "b": ("r",)}, s=C[:1])
    assert [three.passes(one, A[0]) for one in (C[0], B[0])] == [True, False]


HOOKS = ["sh", "-c", "nft -a list chains inet | grep -A1 'chain .*handle' | grep -B1 hook"]
# What was done to the table since it was made, apart from rules that are gone.
STRANGE = {
    "what others added": (
        "add chain inet tortie others",
        "add set inet tortie more { type ipv4_addr; }",
        "add counter inet tortie c",
    ),
    "a base chain of another kind": ("delete chain inet tortie to-pods", "add chain inet tortie to-pods"),
    "it filters nothing": ("add table inet tortie { flags dormant; }",),
    "a rule with a set of its own": ("insert rule inet tortie from-pods tcp dport { 80, 443 } accept",),
    "a base chain that is missing": ("delete chain inet tortie from-pods-here",),
    "a set of another kind": ("delete set inet tortie peers4", "add set inet tortie peers4 { type ipv4_addr; }"),
}


@pytest.mark.parametrize("row", STRANGE)
def test_whatever_the_table_has_it_is_replaced(three: Three, row: str) -> None:
    node = three.net.nodes[0]
    three.enforce(only_from("s", "ranges"), {"a": ("r",)}, s=C[:1], ranges=("192.0.2.0/24", "2001:db8::/32"))
    before = names_in(node.namespace)
    run(["nft", "; ".join(("flush table inet tortie", *STRANGE[row]))], node.namespace)
    handles = run(HOOKS, node.namespace)
    node.firewall.mend()
    if "base chain" not in row and "of another kind" not in row:
        assert run(HOOKS, node.namespace) == handles, "it was refilled, and not made anew"
    assert names_in(node.namespace) == before
    assert [three.passes(one, A[0]) for one in (C[0], B[0])] == [True, False]


# What somebody does by hand; each is said by the kernel, whatever it is.
BY_HAND = {
    "a rule deleted": "flush chain inet tortie to-pods",
    "a rule added": "insert rule inet tortie to-pods accept",
    "a set emptied": "flush set inet tortie peers4",
    "the table deleted": "delete table inet tortie",
    "everything deleted": "flush ruleset",
}


@pytest.mark.parametrize("row", BY_HAND)
async def test_what_somebody_changed_is_mended(three: Three, row: str) -> None:
    node = three.net.nodes[0]
    three.enforce(only_from("s"), {"a": ("r",)}, s=C[:1])
    gate = Gate(node.firewall)
    assert not node.kernel.drift.read(), "what the firewall does itself is no drift"
    before = words(node.namespace)
    watching = asyncio.create_task(node.kernel.drift.run(gate.mend))
    run(["nft", *BY_HAND[row].split()], node.namespace)
    await eventually(lambda: gate.drifts == 1 and words(node.namespace) == before)
    assert [three.passes(one, A[0]) for one in (C[0], B[0])] == [True, False]
    run(["nft", "add", "table", "inet", "others"], node.namespace)
    assert not node.kernel.drift.read(), "neither is another table, nor what mended it"
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    gate.close()


async def test_a_mending_that_failed_is_tried_again(three: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    node = three.net.nodes[0]
    three.enforce(only_from("s"), {"a": ("r",)}, s=C[:1])
    gate, real = Gate(node.firewall), node.kernel.tables.commit
    run(["nft", "insert", "rule", "inet", "tortie", "to-pods", "accept"], node.namespace)

    def refuse(_batch: nf.Batch) -> None:
        raise OSError("no memory")

    monkeypatch.setattr(node.kernel.tables, "commit", refuse)
    assert not await gate.mend()
    monkeypatch.setattr(node.kernel.tables, "commit", real)
    assert await gate.mend()
    assert (gate.drifts, three.passes(B[0], A[0])) == (1, False)
    gate.close()


async def test_a_cut_that_failed_is_tried_again(
    three: Three, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By itself, and it is said once."""
    node, tries = three.net.nodes[0], list[None]()
    talk, gate = Talk(three, C[0], A[0], socket.SOCK_STREAM), Gate(node.firewall)
    monkeypatch.setattr("tortie.agent.gate.SWEEP", 0.01)
    real = node.kernel.connections.delete

    def delete(connections: Iterable[Connection]) -> None:
        tries.append(None)
        if len(tries) < 4:
            raise OSError("no memory")
        real(connections)

    monkeypatch.setattr(node.kernel.connections, "delete", delete)
    closed = RuleSet(CompiledMetadata(name="closed"), SEES_ALL)
    await gate.enforce(Changes(rule_sets={"closed": closed}, endpoints={"a": ("closed",)}))
    await asyncio.gather(gate.settled(), gate.settled())
    await eventually(lambda: gate.cut == 1)
    assert talk.goes_on(three) == (False, False)
    assert caplog.text.count("can't be cut: no memory") == 1
    gate.close()
    talk.close()


def test_an_open_pod_that_comes_before_policies_are_known_leaves_the_last_agent_s_table(three: Three) -> None:
    node = three.net.nodes[0]
    three.enforce(CLOSED, EVERYBODY_CLOSED)
    last = node.firewall
    node.firewall = Firewall(node.kernel)
    node.firewall.begin(pod for host, pod in node.known.items() if host != three.hosts["b"])
    last.drop(three.hosts["b"])
    assert not three.passes(OUTSIDE[0], B[0])
    node.firewall.put(replace(node.known[three.hosts["b"]], is_open=True))
    assert [three.passes(OUTSIDE[0], one) for one in (B[0], A[0])] == [True, False]


def test_an_open_pod_that_has_ended_is_closed(three: Three) -> None:
    """Whatever still runs of it."""
    node = three.net.nodes[0]
    node.firewall.put(replace(node.known[three.hosts["a"]], is_open=True))
    three.enforce(only_from("s"), {"a": ("r",)}, s=C[:1])
    node.firewall.enforce(Changes(endpoints={"a": None}))
    assert not three.passes(C[0], A[0])


def test_nobody_inherits_the_connections_of_a_pod_that_is_gone(three: Three) -> None:
    node = three.net.nodes[0]
    talk, stays = Talk(three, A[0], B[0], socket.SOCK_DGRAM), Talk(three, C[0], A[0], socket.SOCK_DGRAM)
    node.firewall.drop(three.hosts["b"])
    assert {B[0]} == {str(ip_address(one.reply.source)) for one in node.firewall.cut()}
    assert stays.goes_on(three) == (True, True)
    for one in (talk, stays):
        one.close()


def test_more_refusals_than_there_is_room_to_say(three: Three) -> None:
    tables = three.net.nodes[0].kernel.tables
    batch = nf.Batch(TABLE)
    for number in range(40_000):
        batch.elements("no such set", [nf.element(bytes(4))], owner=f"r{number}")
    with pytest.raises(nf.Refused) as refused:
        tables.commit(batch)
    assert refused.value.owners["r0"] == errno.ENOENT
    assert three.passes(A[0], B[0])
    three.enforce(CLOSED, EVERYBODY_CLOSED)
    assert not three.passes(A[0], B[0])


def test_a_node_that_talks_to_its_pod_from_loopback_is_not_cut(three: Three) -> None:
    """As by `curl localhost:PORT` to a hostPort."""
    node = three.net.nodes[0].namespace
    run(["sysctl", "-q", "-w", "net.ipv4.conf.all.route_localnet=1"], node)
    run(["nft", "add table ip nat; add chain ip nat out { type nat hook output priority -100; }"], node)
    run(["nft", f"add rule ip nat out ip daddr 127.0.0.1 tcp dport 80 dnat to {A[0]}"], node)
    run(["nft", "add chain ip nat post { type nat hook postrouting priority 100; }"], node)
    run(["nft", "add rule ip nat post ip saddr 127.0.0.0/8 oifgroup 0x746f7274 masquerade"], node)
    server = inside(three.places[A[0]].namespace, lambda: socket.create_server((A[0], 80)))
    client = inside(node, socket.socket)
    with server, client:
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", 80))
        accepted, _ = server.accept()
        three.enforce(CLOSED, EVERYBODY_CLOSED)
        with accepted:
            client.send(b"x")
            accepted.settimeout(PATIENCE)
            assert accepted.recv(1) == b"x"


def test_what_was_refused_is_a_line_of_bounded_length() -> None:
    said = str(nf.Refused({f"r{number}": errno.ENOENT for number in range(1000)}))
    assert said.startswith("r0: No such file or directory; r1: ")
    assert said.endswith("r9: No such file or directory; and 990 more")
