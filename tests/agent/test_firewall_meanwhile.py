"""While the table changes every packet is asked, by what held or by what holds; and an agent may end in the midst of it.

Belongs here: what packets meet during the firewall's transactions, and what is left between two of them. Does not: what holds
after these (`tests.agent.test_firewall`).
"""

import errno
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any, NamedTuple

import pytest

from tests.agent.namespaces import needs_root, run
from tests.agent.packets import ACK, Probe, packet
from tests.agent.tables import names_in, words
from tests.agent.test_firewall import HOOKS, only_from
from tests.agent.three import OUTSIDE, A, B, C, Three
from tortie.addressing.allocator import address
from tortie.agent import nfnetlink as nf
from tortie.agent import rules
from tortie.agent.desired import Pod
from tortie.agent.firewall import Firewall, NotEnforced, remove_table
from tortie.agent.matches import bytes_of
from tortie.agent.table import TABLE
from tortie.api.compiled import CompiledMetadata, Rule, RuleSet, RuleSetSpec
from tortie.policy.view import Changes

pytestmark = needs_root


FLOOD = """
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    sender.sendto(b"x", (sys.argv[1], 9))
"""
# What counts them: where they come to the first node, before its rules, and where they come to pod a.
COUNTING = """
add table inet count
add chain inet count c {{ type filter hook prerouting priority -400; }}
add counter inet count from-b; add rule inet count c udp dport 9 ip saddr {b} counter name "from-b"
add counter inet count from-c; add rule inet count c udp dport 9 ip saddr {c} counter name "from-c"
"""


class Flood:
    """Packets that b and c send to a without pause, each the first of a connection as long as nobody answers."""

    def __init__(self, three: Three) -> None:
        self._where = three.net.nodes[0].namespace, three.places[A[0]].namespace

    @property
    def counted(self) -> tuple[dict[str, int], dict[str, int]]:
        """How many came to the node from b and from c, and how many to a."""
        before, after = map(self._of, self._where)
        return before, after

    def _of(self, namespace: str) -> dict[str, int]:
        listed = json.loads(run(["nft", "-j", "list", "counters", "table", "inet", "count"], namespace))["nftables"]
        counted = {entry["counter"]["name"]: entry["counter"]["packets"] for entry in listed if "counter" in entry}
        return {name: counted[by] for name, by in (("b", "from-b"), ("c", "from-c"))}


@contextmanager
def flood(three: Three) -> Iterator[Flood]:
    """Let them come; afterwards all have arrived, or never will."""
    made = Flood(three)
    for one in made._where:
        run(["nft", COUNTING.format(b=B[0], c=C[0])], one)
    with ExitStack() as stack:
        for source in (B[0], C[0]):
            enter = ["nsenter", f"--net={three.places[source].namespace}", sys.executable, "-c", FLOOD, A[0]]
            sender = subprocess.Popen(enter)
            stack.callback(sender.wait)
            stack.callback(sender.kill)
        yield made
    three.net.settle()


DENIES = RuleSetSpec("Admin", rules=(Rule("Ingress", "Deny", ("d",)),))


@pytest.mark.parametrize("denied", [B[0], f"{B[0]}/32"], ids=["address", "range"])
def test_while_all_is_replaced_every_packet_is_asked(three: Three, denied: str) -> None:
    """By its rules as they were, or as they are: none is lost, and none passes that a set denies. The base chains stay."""
    node = three.net.nodes[0]
    three.enforce({"r": DENIES}, {"a": ("r",)}, d=(denied,))
    with flood(three) as packets:
        before = run(HOOKS, node.namespace)
        assert before.count("hook") == 6 + 1  # what counts has one of its own
        for _ in range(100):
            node.firewall.program()
        assert run(HOOKS, node.namespace) == before
    came, arrived = packets.counted
    assert min(came.values()) > 1000
    assert arrived == {"b": 0, "c": came["c"]}


# Sends what is in its first argument, without pause.
ANSWERING = """
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
while True:
    sender.sendto(bytes.fromhex(sys.argv[1]), (sys.argv[2], 0))
"""


def answer(pod: str) -> Probe:
    """Return what a pod says to c on a connection that c began to its port 80, which is the number that it is sent with."""
    return Probe(pod, C[0], "TCP", 40_000)


def known_to(three: Three) -> set[str]:
    """Return which pods of the first node the kernel knows connections of."""
    pods = {bytes_of(address(one)): one for one in (A[0], B[0])}
    found = three.net.nodes[0].kernel.connections.of(frozenset(pods))
    return {pods[one.original.source] for one in found if one.original.source in pods}


def test_while_a_table_is_made_nothing_begins_in_its_middle(three: Three) -> None:
    """The kernel tracks connections since a rule that asks for it is written, and a little longer than there is one."""
    node = three.net.nodes[0]
    three.enforce({"r": DENIES}, {"a": ("r",)}, d=C[:1])
    said = packet(answer(A[0]), 80, ACK).hex()
    enter = ["nsenter", f"--net={three.places[A[0]].namespace}", sys.executable, "-c", ANSWERING, said, C[0]]
    with subprocess.Popen(enter) as sender:
        try:
            for _ in range(50):
                remove_table(node.kernel.tables)
                assert three.passes(C[0], A[0])
                node.firewall.mend()
                node.firewall.cut()
                assert not three.passes(C[0], A[0])
                assert known_to(three) == set()
        finally:
            sender.kill()


def test_what_began_in_its_middle_without_a_table_must_be_allowed_both_ways(three: Three) -> None:
    """Although a pod may send to whom it answers."""
    node = three.net.nodes[0]
    three.enforce({"r": DENIES}, {"a": ("r",)}, d=C[:1])
    run(["nft", "add table inet t; add chain inet t c { type filter hook forward priority 9; ct state new; }"], node.namespace)
    remove_table(node.kernel.tables)
    for pod in (A[0], B[0]):
        three.places[pod].send(answer(pod), 80, ACK)
    three.net.settle()
    assert known_to(three) == {A[0], B[0]}
    node.firewall.mend()
    assert {bytes_of(address(A[0]))} == {one.original.source for one in node.firewall.cut()}
    assert known_to(three) == {B[0]}


def denying(name: str, *sets: str) -> RuleSet:
    """Return a RuleSet that denies these to come in."""
    return RuleSet(CompiledMetadata(name=name), RuleSetSpec("Admin", rules=(Rule("Ingress", "Deny", sets),)))


def test_a_list_without_rules_is_closed(three: Three) -> None:
    """As a new one is to a packet that began before it was made."""
    node = three.net.nodes[0]
    three.enforce({"r": denying("r").spec}, {"a": ("r",)})
    assert three.passes(C[0], A[0])
    run(["nft", f"flush chain inet tortie {rules.list_name(('r',), 'Ingress')}"], node.namespace)
    assert not three.passes(C[0], A[0])


class Again(NamedTuple):
    """A policy that says the same in another way, by turns of 0 and 1."""

    change: Callable[[int], Changes]
    transactions: int


AGAIN = {
    "another list, of another RuleSet": Again(
        lambda turn: Changes(
            rule_sets={f"r{turn}": denying(f"r{turn}", "d"), f"r{1 - turn}": None},
            added={"d": {B[0]}},
            endpoints={"a": (f"r{turn}",)},
        ),
        2,
    ),
    "another set": Again(
        lambda turn: Changes(
            rule_sets={"r": denying("r", f"d{turn}")}, added={f"d{turn}": {B[0]}}, forgotten={f"d{1 - turn}"}
        ),
        2,
    ),
    "another set of ranges": Again(
        lambda turn: Changes(
            rule_sets={"r": denying("r", f"d{turn}")}, added={f"d{turn}": {f"{B[0]}/32"}}, forgotten={f"d{1 - turn}"}
        ),
        3,
    ),
    "a range that has the address": Again(
        lambda turn: Changes(
            rule_sets={"r": denying("r", f"d{turn}")}, added={f"d{turn}": {(B[0], f"{B[0]}/32")[turn]}},
            forgotten={f"d{1 - turn}"},
        ),
        3,
    ),
    "its address in another set": Again(
        lambda turn: Changes(
            rule_sets={"r": denying("r", "d0", "d1")}, added={f"d{turn}": {B[0]}, f"d{1 - turn}": set()},
            removed={f"d{1 - turn}": {B[0]}},
        ),
        2,
    ),
}  # fmt: skip


def begun(three: Three, row: str) -> Firewall:
    """Return the first node's firewall when it denies b by a row's turn 0, and nothing else."""
    node = three.net.nodes[0]
    node.begin_anew()
    firewall = node.firewall
    firewall.begin(node.known.values())
    firewall.enforce(Changes(endpoints={"a": ("r",), "b": ()}, rule_sets={"r": denying("r")}))
    firewall.enforce(AGAIN[row].change(0))
    return firewall


@pytest.mark.parametrize("row", AGAIN)
def test_while_a_policy_changes_every_packet_is_asked(three: Three, row: str) -> None:
    """By its rules as they were, or as they are: none is lost, and none passes that both deny."""
    firewall = begun(three, row)
    with flood(three) as packets:
        for turn in range(1, 200):
            firewall.enforce(AGAIN[row].change(turn % 2))
    came, arrived = packets.counted
    assert min(came.values()) > 1000
    assert arrived == {"b": 0, "c": came["c"]}


class Killed(BaseException):
    """The agent's end."""


def between(monkeypatch: pytest.MonkeyPatch, three: Three, then: Callable[[], object]) -> None:
    """Let something happen once, between a replacement's two transactions."""
    tables = three.net.nodes[0].kernel.tables
    real = tables.outwait

    def outwait() -> None:
        monkeypatch.setattr(tables, "outwait", real)
        then()
        real()

    monkeypatch.setattr(tables, "outwait", outwait)


def at_commit(monkeypatch: pytest.MonkeyPatch, three: Three, then: Callable[[int], object]) -> None:
    """Let something happen before each transaction, which it is told the number of."""
    tables = three.net.nodes[0].kernel.tables
    real, numbers = tables.commit, count(1)

    def commit(batch: nf.Batch) -> None:
        if batch.encoded().find(TABLE.encode() + b"\0") >= 0:  # and not what only tries
            then(next(numbers))
        real(batch)

    monkeypatch.setattr(tables, "commit", commit)


def ends_before(monkeypatch: pytest.MonkeyPatch, three: Three, number: int) -> None:
    """Let the agent end when it comes to a transaction."""

    def end(at: int) -> None:
        if at == number:
            raise Killed

    at_commit(monkeypatch, three, end)


def elements_of(three: Three) -> dict[str, Any]:
    """Return the sets and maps of the first node's table with what they have, by name."""
    listed = json.loads(run(["nft", "-j", "list", "table", "inet", "tortie"], three.net.nodes[0].namespace))["nftables"]
    made = [one for entry in listed for kind, one in entry.items() if kind in ("set", "map")]
    return {one["name"]: sorted(map(str, one.get("elem", ()))) for one in made}


def maps_of(elements: dict[str, Any]) -> dict[str, Any]:
    """Return the maps among these."""
    return {name: made for name, made in elements.items() if name.startswith(("to", "from"))}


def rules_of(three: Three) -> dict[str, list[str]]:
    """Return the rules of each chain of the first node's table."""
    listed = json.loads(run(["nft", "-j", "list", "table", "inet", "tortie"], three.net.nodes[0].namespace))["nftables"]
    made: dict[str, list[str]] = {entry["chain"]["name"]: [] for entry in listed if "chain" in entry}
    for entry in listed:
        if "rule" in entry:
            made[entry["rule"]["chain"]].append(str(entry["rule"]["expr"]))
    return made


def test_what_packets_look_into_stays_until_none_is_asked_by_it(three: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old sets and maps with all that they have, and chains that only these lead to."""
    node = three.net.nodes[0]
    three.enforce(only_from("s", "ranges"), {"a": ("r",)}, s=C[:1], ranges=("192.0.2.0/24", "2001:db8::/32"))
    run(["nft", "add chain inet tortie others; add rule inet tortie others ip saddr @local4 drop"], node.namespace)
    before, rules_before = elements_of(three), rules_of(three)
    seen = list[dict[str, Any]]()
    between(monkeypatch, three, lambda: seen.extend((elements_of(three), rules_of(three))))
    node.firewall.program()
    elements, chains = seen
    assert {name: elements.get(name) for name in before} == before
    assert chains["others"] == rules_before["others"]
    assert set(elements_of(three)) == {f"{name}.1" for name in before}
    assert "others" not in rules_of(three)


@pytest.mark.parametrize("row", AGAIN)
def test_a_change_takes_away_last(three: Three, monkeypatch: pytest.MonkeyPatch, row: str) -> None:
    """What rules name, and what maps lead to, is there a transaction before, and stays until it is done."""
    firewall = begun(three, row)
    seen = list[tuple[dict[str, list[str]], dict[str, Any]]]()
    at_commit(monkeypatch, three, lambda _: seen.append((rules_of(three), elements_of(three))))
    firewall.enforce(AGAIN[row].change(1))
    monkeypatch.undo()
    seen.append((rules_of(three), elements_of(three)))
    assert len(seen) == AGAIN[row].transactions + 1
    (rules_before, elements_before), (rules_after, elements_after) = seen[0], seen[-1]
    for _, elements in seen:
        for name in elements_before.keys() & elements_after.keys():
            assert set(elements[name]) >= set(elements_before[name]) & set(elements_after[name])
    rules, elements = seen[-2]
    if "list" in row:
        assert maps_of(elements) == maps_of(elements_before)
        assert set(rules) == set(rules_before) | set(rules_after)
    else:
        assert rules == rules_after
        for name in elements_before.keys() | elements_after.keys():
            assert set(elements[name]) == {*elements_before.get(name, ()), *elements_after.get(name, ())}, name


# A row, and the transaction that its agent doesn't come to.
ENDS_BEFORE = [(row, number) for row, again in AGAIN.items() for number in range(1, again.transactions + 1)]


@pytest.mark.parametrize(("row", "number"), ENDS_BEFORE)
def test_an_agent_that_ends_in_the_midst_of_a_change(
    three: Three, monkeypatch: pytest.MonkeyPatch, row: str, number: int
) -> None:
    """What both policies deny is denied, and the next agent leaves nothing of the old one."""
    firewall = begun(three, row)
    with monkeypatch.context() as patched:
        ends_before(patched, three, number)
        with pytest.raises(Killed):
            firewall.enforce(AGAIN[row].change(1))
    assert [three.passes(one, A[0]) for one in (B[0], C[0])] == [False, True]
    begun(three, row)
    after = words(three.net.nodes[0].namespace)
    remove_table(three.net.nodes[0].kernel.tables)
    begun(three, row)
    assert after == words(three.net.nodes[0].namespace)
    assert [three.passes(one, A[0]) for one in (B[0], C[0])] == [False, True]


# Name: the transaction of a replacement that an agent doesn't come to, and how many agents.
ENDS = {
    "before the first": (1, 1),
    "when ranges are there, and no rules": (2, 1),
    "when nothing is deleted yet": (3, 1),
    "so does the next one, without rules": (2, 2),
    "so does the next one, and deletes nothing": (3, 2),
}


@pytest.mark.parametrize("row", ENDS)
def test_an_agent_that_ends_in_the_midst_of_a_replacement(three: Three, monkeypatch: pytest.MonkeyPatch, row: str) -> None:
    """What is enforced holds, the next agent can write to it, and removes what was left."""
    node, (number, times) = three.net.nodes[0], ENDS[row]

    def hold() -> None:
        three.enforce(only_from("s", "ranges"), {"a": ("r",), "b": ("r",)}, s=C[:1], ranges=("192.0.2.0/24",))

    hold()
    before, last = names_in(node.namespace), node.firewall
    run(["nft", "add chain inet tortie others { type filter hook forward priority 5; }"], node.namespace)
    for _ in range(times):
        with monkeypatch.context() as patched:
            ends_before(patched, three, number)
            with pytest.raises(Killed):
                last.program()
        assert names_in(node.namespace) != before
        assert [three.passes(one, A[0]) for one in (C[0], OUTSIDE[0])] == [True, False]
    node.begin_anew()
    node.firewall.begin(node.known.values())
    node.firewall.put(Pod("other", "other", "02:00:00:00:00:09", (address("10.0.1.9"),), is_open=True))
    (in_force,) = re.findall(r"@macs[.\d]*", str(rules_of(three)["spoofing"]))
    assert "'other'" in str(elements_of(three)[in_force.removeprefix("@")])
    node.firewall.drop("other")
    hold()
    assert names_in(node.namespace) == before
    assert [three.passes(one, target) for target in (A[0], B[0]) for one in (C[0], OUTSIDE[0])] == [True, False] * 2


def test_a_second_transaction_that_is_refused(three: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody's rule names what is to be deleted: the table is made anew."""
    node = three.net.nodes[0]
    three.enforce(only_from("s"), {"a": ("r",)}, s=C[:1])
    before = names_in(node.namespace)
    theirs = "add chain inet tortie others; add rule inet tortie others ip saddr @local4 drop"
    between(monkeypatch, three, lambda: run(["nft", theirs], node.namespace))
    node.firewall.program()
    assert names_in(node.namespace) == before
    assert [three.passes(one, A[0]) for one in (C[0], B[0])] == [True, False]


def test_a_second_transaction_that_fails(three: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first one made holds; the next change replaces it all again."""
    node = three.net.nodes[0]
    three.enforce(only_from("s"), {"a": ("r",)}, s=C[:1])
    before = names_in(node.namespace)

    def fail() -> None:
        raise OSError(errno.ENOBUFS, "no memory")

    between(monkeypatch, three, fail)
    with pytest.raises(NotEnforced):
        node.firewall.program()
    assert [three.passes(one, A[0]) for one in (C[0], B[0])] == [True, False]
    three.enforce(only_from("s"), {"a": ("r",)}, s=B[:1])
    assert names_in(node.namespace) == before
    assert [three.passes(one, A[0]) for one in (C[0], B[0])] == [False, True]
