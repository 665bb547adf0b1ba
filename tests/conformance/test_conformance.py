"""Packets between pods of a real cluster pass where the tables say so.

Rows hold at once, one in each world: it takes agents some seconds to say that they enforce them, and packets take none.
"""

import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from tests.agent.packets import inside
from tests.cluster.cluster import Cluster, why_not
from tests.cluster.deploy import is_established, wait
from tests.conformance import change_rows, cluster_rows, network_rows, service_rows
from tests.conformance.change_rows import Change
from tests.conformance.people import NODES
from tests.conformance.rows import FAMILIES, Asked, Row, cluster_wide, expected, network
from tests.conformance.town import Sent, Spot, Town
from tests.controller.policies import CLUSTER_POLICIES, DEFINITION

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

WORLDS = 6
_SECONDS = 30.0
_TRACKS_SCTP = Path("/proc/sys/net/netfilter/nf_conntrack_sctp_timeout_closed")
ROWS: dict[str, Row] = {
    f"{table}: {name}": row
    for table, rows in {"network": network_rows.ROWS, "cluster": cluster_rows.ROWS, "service": service_rows.ROWS}.items()
    for name, row in rows.items()
}
CHANGES: dict[str, Change] = {f"change: {name}": row for name, row in change_rows.ROWS.items()}


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    with Cluster(2) as cluster:
        cluster.kubectl.apply(DEFINITION)
        wait("it is served", lambda: is_established(cluster.kubectl.get("crd", CLUSTER_POLICIES)))
        with Town(cluster.install(), WORLDS) as made:
            made.settle()
            yield made


class Holding:
    """Lets rows of a table hold, as many at once as there are worlds."""

    def __init__(self, town: Town, table: Mapping[str, Row] | Mapping[str, Change]) -> None:
        self._town, self._table = town, table
        self.now: list[str] = []
        self._number = -1

    def holds(self, name: str) -> bool:
        """Whether a row holds, and nothing else was made to hold since."""
        return name in self.now and self._town.number == self._number

    def world(self, name: str) -> int:
        """Return the world in which a row holds."""
        if not self.holds(name):
            names = list(self._table)
            start = names.index(name) // WORLDS * WORLDS
            self.now, now = [], names[start : start + WORLDS]
            self._town.hold({world: self._table[one].policies for world, one in enumerate(now, 1)})
            self.now, self._number = now, self._town.number
        return self.now.index(name) + 1


@pytest.fixture(scope="module")
def rows(town: Town) -> Holding:
    return Holding(town, ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_row(town: Town, rows: Holding, row: str) -> None:
    if any(port.startswith("SCTP") for port in ROWS[row].ports) and not _TRACKS_SCTP.exists():
        pytest.skip(
            "this kernel tracks no connections of SCTP (CONFIG_NF_CT_PROTO_SCTP): to it all packets of two hosts are one"
        )
    assert town.wrong(rows.world(row), ROWS[row].expected()) == []


def test_a_row_can_fail(town: Town) -> None:
    """What passes and must not, and what doesn't and should, is found: each question, and no other one."""
    town.hold({1: network_rows.ingress("from: [OF_Y]")})
    right = expected("no * -> x\nyes y -> x")
    assert town.wrong(1, right) == []
    turned = {asked: not passes if asked.target == "x/b" else passes for asked, passes in right.items()}
    assert [one.partition(":")[0] for one in town.wrong(1, turned)] == [str(one) for one in turned if one.target == "x/b"]


# Who sends, and in whose name; `service` is the address of a service.
SPOOFS = {
    "as a pod of its node": ("x/a", "x/c"),
    "as a pod of another node": ("x/a", "y/a"),
    "as its node": ("x/a", "n1"),
    "as another node": ("x/a", "n2"),
    "as a host outside": ("x/a", "far"),
    "as its service": ("x/a", "service"),
}


@pytest.mark.parametrize("row", SPOOFS)
def test_nobody_gets_what_a_pod_sends_in_another_name(town: Town, row: str) -> None:
    """There are no policies, so it is the source alone."""
    town.hold({})
    sender, name = SPOOFS[row]
    honest, lies = list[Sent](), list[Sent]()
    for asked in (asked for asked in expected("") if asked.source == sender and asked.target not in (sender, name)):
        probe = town.sent(1, asked)
        honest.append(probe)
        source = town.target(1, asked._replace(target=sender, via="service"))[0]
        if name != "service":
            source = town.addresses(1)[name][asked.family == "v6"]
        lies.append(Sent(probe.spot, probe.probe._replace(source=source)))
    assert all(outcome.got for outcome in town.exchange(honest))
    assert [outcome.got for outcome in town.exchange(lies)] == [()] * len(lies)


def test_nobody_outside_sends_in_the_name_of_a_pod_to_its_node(town: Town) -> None:
    town.hold({})
    probes = [town.sent(1, Asked("far", "x/c", on, family)) for family in FAMILIES for on in ("TCP 80", "UDP 80", "ICMP")]
    assert all(outcome.got for outcome in town.exchange(probes))
    pair = town.addresses(1)["x/a"]
    lies = [Sent(spot, probe._replace(source=pair[":" in probe.target])) for spot, probe in probes]
    assert [outcome.got for outcome in town.exchange(lies)] == [()] * len(lies)


def test_a_lie_opens_no_policy(town: Town) -> None:
    """Neither pods of the peer's node nor others get in by its address."""
    town.hold({1: network_rows.ingress("from: [A_OF_Y]")})
    for sender in ("y/b", "y/c", "x/a", "x/b"):
        asked = [Asked(sender, "x/c", on, family) for family in FAMILIES for on in ("TCP 80", "UDP 80", "ICMP")]
        honest = [town.sent(1, one) for one in asked]
        lies = [Sent(spot, probe._replace(source=town.addresses(1)["y/a"][":" in probe.target])) for spot, probe in honest]
        assert [outcome.got for outcome in town.exchange(lies)] == [()] * len(lies)


CONNECTIONS = [("y/a", "x/a"), ("y/b", "x/a"), ("y/a", "x/b"), ("y/b", "x/b"), ("x/a", "x/a"), ("x/b", "x/b")]


@pytest.mark.parametrize("via", ["", "service"])
@pytest.mark.parametrize("family", FAMILIES)
def test_connections_of_isolated_pods(town: Town, family: str, via: str) -> None:
    """Both ends are isolated in both directions; what is allowed is the way of the first packet, and answers follow it."""
    ports = "ports: [{port: 80}, {port: 80, protocol: UDP}]"
    town.hold({
        1: network("podSelector: {}, policyTypes: [Ingress, Egress]")
        + network("podSelector: {}, policyTypes: [Ingress, Egress]", "y")
        + network_rows.ingress(f"from: [OF_Y], {ports}")
        + network_rows.egress(f"to: [{{namespaceSelector: {{matchLabels: {{ns: x}}}}}}], {ports}", "y")
    })  # fmt: skip
    for source, target in CONNECTIONS:
        for protocol in ("TCP", "UDP"):
            asked = Asked(source, target, f"{protocol} 80", family, via)
            assert _talk(town, asked) == b"HELLO", asked


def _talk(town: Town, asked: Asked) -> bytes:
    """Return what a server of the target's answers to a client of the source's."""
    kind = socket.SOCK_STREAM if asked.on.startswith("TCP") else socket.SOCK_DGRAM
    family = socket.AF_INET6 if asked.family == "v6" else socket.AF_INET
    own = town.addresses(1)[asked.target][asked.family == "v6"]
    with (
        _socket(town.spot(1, asked.target), family, kind) as server,
        _socket(town.spot(1, asked.source), family, kind) as client,
    ):
        server.bind((own, 80))
        if kind == socket.SOCK_STREAM:
            server.listen()
        client.connect(town.target(1, asked))
        client.sendall(b"hello")
        if kind == socket.SOCK_STREAM:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(_SECONDS)
                connection.sendall(connection.recv(16).upper())
        else:
            said, whom = server.recvfrom(16)
            server.sendto(said.upper(), whom)
        return client.recv(16)


def _socket(spot: Spot, family: int, kind: int) -> socket.socket:
    made = inside(spot.namespace, lambda: socket.socket(family, kind))
    made.settimeout(_SECONDS)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


class Changing:
    """Lets rows of changes hold, and change, as many at once as there are worlds."""

    def __init__(self, town: Town) -> None:
        self._town, self._holding, self._changed = town, Holding(town, CHANGES), dict[str, list[str]]()

    def change(self, name: str) -> tuple[int, list[str]]:
        """Return a row's world, in which all has changed, and what was wrong there before."""
        if name not in self._changed or not self._holding.holds(name):
            for world in self._town.worlds:
                self._town.restore(world)
            self._holding.world(name)
            now = {one: self._holding.world(one) for one in self._holding.now}
            self._changed = {one: self._town.wrong(world, expected(CHANGES[one].before)) for one, world in now.items()}
            for one, world in now.items():
                CHANGES[one].do(self._town, world)
            wait("the policies are enforced", self._town.enforces, _SECONDS)
        return self._holding.world(name), self._changed[name]


@pytest.fixture(scope="module")
def changing(town: Town) -> Iterator[Changing]:
    yield Changing(town)
    for world in town.worlds:
        town.restore(world)


@pytest.mark.parametrize("row", CHANGES)
def test_change(town: Town, changing: Changing, row: str) -> None:
    world, wrong_before = changing.change(row)
    assert wrong_before == []
    after = expected(CHANGES[row].after)
    if row.partition(": ")[2] not in change_rows.POLICIES:  # that a set has other addresses is nowhere said
        with suppress(TimeoutError):  # what follows says better what is wrong
            wait("it is as it should be", lambda: not town.wrong(world, after), 10)
    assert town.wrong(world, after) == []


AROUND_A_RESTART = (
    network("podSelector: {}, ingress: [{from: [OF_Y, {ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: 80}]}]")
    + cluster_wide("egress: [{action: Deny, to: [POD_Y_A]}]", subject="{namespaces: {matchLabels: {ns: z}}}")
)  # fmt: skip
HELD = """
no  * -> x
yes y -> x on TCP 80
yes far -> x on TCP 80 v4
no  z -> y/a
"""


@pytest.mark.parametrize("node", NODES)
def test_while_an_agent_starts_anew_all_holds(town: Town, node: str) -> None:
    town.hold({1: AROUND_A_RESTART})
    right, old = expected(HELD), _kill(town, node)
    rounds = 0
    while not town.agent_is_back(node, old) or rounds < 2:
        amiss = town.amiss(1, right)
        assert [str(asked) for asked in amiss if not right[asked]] == [], "it must not come, and did"
        # What is on its way at the moment in which one table takes the other's place may be lost; sent again, it comes.
        assert town.wrong(1, dict.fromkeys(amiss, True)) == []
        rounds += 1
    assert town.wrong(1, right) == []
    town.hold({1: network("podSelector: {}", "y")})
    assert town.wrong(1, expected("no * -> y")) == []


def test_what_changed_while_no_agent_ran_is_enforced(town: Town) -> None:
    town.hold({1: AROUND_A_RESTART})
    old = {node: _kill(town, node) for node in NODES}
    town.hold({1: network("podSelector: {}, policyTypes: [Ingress, Egress]", "z")})
    assert all(town.agent_is_back(node, before) for node, before in old.items())
    assert town.wrong(1, expected("no * -> z\nno z -> *")) == []


def _kill(town: Town, node: str) -> str:
    """Kill a node's agent, and return its container's id."""
    agent = town.agent(node)
    assert agent, node
    assert agent.send(signal.SIGKILL)
    return agent.id
