"""What leaves the pools looks as if its node sent it, where a pool asks for that; by real packets."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from tests.agent.namespaces import needs_root, run
from tests.agent.packets import inside
from tests.agent.three import OUTSIDE, A, B, C, Three
from tortie.addressing.ranges import Range, parse
from tortie.agent.firewall import Firewall
from tortie.policy.view import Changes

pytestmark = needs_root
PATIENCE = 10.0  # seconds that only a broken program needs
NODE = ("192.168.100.2", "fd0f:0::2")
FIRST, SECOND = ("10.0.1.0/24", "fd00::1:0/112"), ("10.0.2.0/24", "fd00::2:0/112")
NATTED = dict.fromkeys(map(parse, FIRST), True)
OTHERS = dict.fromkeys(map(parse, SECOND), False)


@contextmanager
def bound(namespace: str, where: str, port: int = 0) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in where else socket.AF_INET
    with inside(namespace, lambda: socket.socket(family, socket.SOCK_DGRAM)) as made:
        made.settimeout(PATIENCE)
        made.bind((where, port))
        yield made


def seen(three: Three, source: str, target: str) -> str:
    """Return from where a pod's datagram seems to come; each time one of another connection, whose answer comes back."""
    with bound(three.places[source].namespace, source) as mine, bound(three.places[target].namespace, target, 5353) as its:
        mine.sendto(b"question", (target, 5353))
        _, whence = its.recvfrom(64)
        its.sendto(b"answer", whence)
        assert mine.recv(64) == b"answer"
    return str(whence[0])


# Name: the pools; who sends to whom; as whom it is seen.
ROWS: dict[str, tuple[Mapping[Range, bool], str, str, str]] = {
    "out of a pool that asks": (NATTED, A[0], OUTSIDE[0], NODE[0]),
    "the same by IPv6": (NATTED, A[1], OUTSIDE[1], "fd0f::2"),
    "out of one that doesn't": (dict.fromkeys(NATTED, False), A[0], OUTSIDE[0], A[0]),
    "out of no pool": (OTHERS, A[0], OUTSIDE[0], A[0]),
    "inside of it": (NATTED, A[0], B[0], A[0]),
    "to another pool": (NATTED | OTHERS, A[0], C[0], A[0]),
    "to another pool by IPv6": (NATTED | OTHERS, A[1], C[1], A[1]),
    "to what is no pool's any more": (NATTED, A[0], C[0], NODE[0]),
    "to another node": (NATTED, A[0], "192.168.101.2", NODE[0]),
    "into a pool that asks": (NATTED | OTHERS, C[0], A[0], C[0]),
    "no pools": ({}, A[0], OUTSIDE[0], A[0]),
}


@pytest.mark.parametrize("row", ROWS)
def test_as_whom_a_pod_is_seen(three: Three, row: str) -> None:
    pools, source, target, expected = ROWS[row]
    three.net.nodes[0].firewall.masquerade(pools)
    assert seen(three, source, target) == expected


def test_it_follows_what_pools_ask(three: Three) -> None:
    firewall = three.net.nodes[0].firewall
    for pools, expected in ((NATTED, NODE[0]), (OTHERS, A[0]), (NATTED | OTHERS, NODE[0]), ({}, A[0])):
        firewall.masquerade(pools)
        assert seen(three, A[0], OUTSIDE[0]) == expected
    firewall.masquerade(NATTED)
    firewall.mend()
    assert seen(three, A[0], OUTSIDE[0]) == NODE[0], "another table has it, too"


def test_an_agent_that_starts_changes_it_in_the_last_one_s_table(three: Three) -> None:
    """Before policies are known that table stays."""
    node = three.net.nodes[0]
    node.firewall.masquerade(NATTED)
    before = run(["nft", "-a", "list", "chain", "inet", "tortie", "to-pods"], node.namespace)
    node.firewall = Firewall(node.kernel)
    node.firewall.begin(node.known.values())
    assert seen(three, A[0], OUTSIDE[0]) == NODE[0]
    node.firewall.masquerade(OTHERS)
    assert seen(three, A[0], OUTSIDE[0]) == A[0]
    assert run(["nft", "-a", "list", "chain", "inet", "tortie", "to-pods"], node.namespace) == before
    node.firewall.enforce(Changes(endpoints=dict.fromkeys("ab", ())))
    assert seen(three, A[0], OUTSIDE[0]) == A[0]
