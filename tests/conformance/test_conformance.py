"""Packets between pods of a real cluster pass where the tables say so.

Rows hold at once, one in each world: it takes agents some seconds to say that they enforce them, and packets take none.
"""

import json
import re
import signal
from collections.abc import Iterator, Mapping
from concurrent import futures
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.agent.tables import without_editions
from tests.cluster.cluster import why_not
from tests.cluster.deploy import wait
from tests.conformance import change_rows, cluster_rows, network_rows, service_rows
from tests.conformance.change_rows import Change
from tests.conformance.people import NODES, Object, pod_of
from tests.conformance.rows import FAMILIES, Asked, Row, cluster_wide, expected, network
from tests.conformance.talks import carrying, losing, say, talk
from tests.conformance.town import Sent, Town

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

_SECONDS = 30.0
_TRACKS_SCTP = Path("/proc/sys/net/netfilter/nf_conntrack_sctp_timeout_closed")
ROWS: dict[str, Row] = {
    f"{table}: {name}": row
    for table, rows in {"network": network_rows.ROWS, "cluster": cluster_rows.ROWS, "service": service_rows.ROWS}.items()
    for name, row in rows.items()
}
CHANGES: dict[str, Change] = {f"change: {name}": row for name, row in change_rows.ROWS.items()}


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
            names, worlds = list(self._table), len(self._town.worlds)
            start = names.index(name) // worlds * worlds
            self.now, now = [], names[start : start + worlds]
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


class Changing:
    """Lets rows of changes hold, and change, as many at once as there are worlds."""

    def __init__(self, town: Town) -> None:
        self._town, self._holding, self._changed = town, Holding(town, CHANGES), dict[str, list[str]]()

    def change(self, name: str) -> tuple[int, list[str]]:
        """Return a row's world, in which all has changed, and what was wrong there before."""
        if name not in self._changed or not self._holding.holds(name):
            self._town.restore_all()
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
    town.restore_all()


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
        assert town.wrong(1, right) == [], "neither what comes is lost, nor what mustn't comes"
        rounds += 1
    assert town.wrong(1, right) == []
    town.hold({1: network("podSelector: {}", "y")})
    assert town.wrong(1, expected("no * -> y")) == []


def test_what_changed_while_no_agent_ran_is_enforced(town: Town) -> None:
    """Also of connections that are open."""
    town.hold({1: AROUND_A_RESTART})
    with ExitStack() as stack:
        ending, lasting = (
            [stack.enter_context(talk(town, 1, Asked(*pair, "TCP 80", family))) for pair in pairs for family in FAMILIES]
            for pairs in ([("z/b", "y/b"), ("z/a", "y/b")], [("y/b", "x/a"), ("y/a", "x/a")])
        )
        old = {node: _kill(town, node) for node in NODES}
        say([*ending, *lasting])
        assert losing([*ending, *lasting]) == [], "packets need no agent"
        town.hold({1: network("podSelector: {}, policyTypes: [Ingress, Egress]", "z")})
        assert carrying(town, ending) == []
        say(lasting)
        assert losing(lasting) == []
    wait("the agents are back", lambda: all(town.agent_is_back(node, before) for node, before in old.items()), _SECONDS)
    assert town.wrong(1, expected("no * -> z\nno z -> *")) == []


def _kill(town: Town, node: str) -> str:
    """Kill a node's agent, and return its container's id."""
    agent = town.agent(node)
    assert agent, node
    assert agent.send(signal.SIGKILL)
    return agent.id


# What somebody does: a pattern of the table's rules, each after its chain's name, and what is done wherever it is found.
BY_HAND = {
    "the rules that drop accept": (r"^(list-\S+-to) drop # handle (\d+)$", r"replace rule inet tortie \1 handle \2 accept"),
    "the rules of lists of policies are deleted": (r"^(list-\S+) .* # handle \d+$", r"flush chain inet tortie \1"),
    "the rules of a chain that all take are deleted": ("^", "flush chain inet tortie to-pods"),
    "a chain is deleted": ("^", "flush chain inet tortie to-pods; delete chain inet tortie to-pods"),
    "a rule is added": ("^", "insert rule inet tortie to-pods accept"),
    "the sets are emptied": (r"^ set (peers\S+) {", r"flush set inet tortie \1"),
    "the table is deleted": ("^", "delete table inet tortie"),
}


@pytest.fixture(scope="module")
def around(town: Town) -> Holding:
    return Holding(town, {"around": Row(AROUND_A_RESTART, HELD)})


@pytest.mark.parametrize("row", BY_HAND)
def test_what_is_done_by_hand_is_mended(town: Town, around: Holding, row: str) -> None:
    """Agents are stopped meanwhile, so that it does harm; what has begun by it ends with it."""
    world, right = around.world("around"), expected(HELD)
    before, agents = [_content(town, node) for node in NODES], [town.agent(node) for node in NODES]
    with ExitStack() as stack:
        for agent in agents:
            assert agent
            stack.callback(agent.send, signal.SIGCONT)
            assert agent.send(signal.SIGSTOP)
        for node in NODES:
            _by_hand(town, node, *BY_HAND[row])
        amiss = town.amiss(world, right)
        assert amiss, "it does no harm"
        through = [one for one in amiss if not right[one] and one.on == "TCP 80" and one.target == "x/a"]
        begun = [stack.enter_context(talk(town, world, one)) for one in through]
        say(begun)
        assert losing(begun) == []
        for agent in agents:
            assert agent
            agent.send(signal.SIGCONT)
        wait("it is mended", lambda: [_content(town, node) for node in NODES] == before, _SECONDS)
        assert town.wrong(world, right) == []
        wait("what has begun is cut", lambda: not carrying(town, begun), _SECONDS)


def _by_hand(town: Town, node: str, pattern: str, command: str) -> None:
    chain, rules = "", list[str]()
    for line in town.nft(node, "-a", "list", "table", "inet", "tortie").splitlines():
        if found := re.match(r"\s+chain (\S+) {", line):
            chain = found[1]
        rules.append(f"{chain} {line.strip()}")
    todo = dict.fromkeys(one.expand(command) for one in re.finditer(pattern, "\n".join(rules), re.MULTILINE))
    town.nft(node, "-f", "-", stdin="\n".join(todo))


def _content(town: Town, node: str) -> list[str]:
    """Return the words of a node's table: where elements and chains stand says nothing."""
    if " tortie\n" not in town.nft(node, "list", "tables"):
        return []
    return sorted(without_editions(town.nft(node, "-s", "list", "table", "inet", "tortie")).replace(",", " ").split())


def test_while_pods_come_and_go_all_holds(town: Town, around: Holding) -> None:
    """They are peers and subjects of what holds: each time its sets change."""
    world, right = around.world("around"), expected(HELD)
    passing = [_passing(pod, world) for pod in ("x/a", "y/a", "y/b", "z/a")]
    rounds = 0
    with futures.ThreadPoolExecutor(1) as threads:
        over = threads.submit(_come_and_go, town, passing, 2)
        while not over.done():
            assert town.wrong(world, right) == []
            rounds += 1
        over.result()
    assert rounds > 3
    assert town.wrong(world, right) == []


def _passing(pod: str, world: int) -> Object:
    made = pod_of(pod, world)
    return {**made, "metadata": {**made["metadata"], "name": f"{made['metadata']['name']}-passing"}}


def _come_and_go(town: Town, pods: list[Object], times: int) -> None:
    listed = "\n---\n".join(map(json.dumps, pods))
    try:
        for _ in range(times):
            town.kubectl.apply(listed)
            town.kubectl.run("wait", "-f", "-", "--for=condition=Ready", "--timeout=60s", stdin=listed)
            town.kubectl.run("delete", "-f", "-", stdin=listed)
    finally:
        town.kubectl.run("delete", "-f", "-", "--ignore-not-found", stdin=listed)
