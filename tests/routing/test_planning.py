"""What a node says of itself and is to do, and which changes end sessions."""

from dataclasses import replace

import pytest

from tortie.addressing.allocator import address
from tortie.addressing.ranges import parse
from tortie.api import lean
from tortie.api.bgp_input import Configuration, ConfigurationSpec, Peer, PeerSpec
from tortie.routing import planning
from tortie.routing.bird import Plan
from tortie.routing.carriage import node_address
from tortie.routing.peering import Objects, Session, Speaker
from tortie.routing.planning import Around, Known

MESH = Objects((Configuration(lean.Metadata("default")),))
PAST = lean.NetworkBgp(64999)
B = Speaker("b", {4: node_address("192.0.2.2/24")})


def node(**annotations: str) -> lean.OwnNode:
    return lean.OwnNode(
        lean.AnnotatedMetadata("a", annotations={f"tortie.dev/{k.replace('_', '-')}": v for k, v in annotations.items()})
    )


def around(its: lean.OwnNode, past: lean.NetworkBgp | None = PAST) -> Around:
    return Around(its, past, {4: node_address("192.0.2.1/24")}, (parse("10.0.0.0/26"),), ())


def test_what_is_said_and_done() -> None:
    plan, text, problems = planning.decide(around(node(as_number="65001")), Known(MESH, (B,)))
    assert plan is not None
    assert (plan.router_id, [one.of for one in plan.sessions], problems) == ("192.0.2.1", ["node b"], {})
    assert "as 65001" in text
    assert "route 10.0.0.0/26 blackhole" in text


def test_a_wrong_annotation_ends_nothing_and_is_told() -> None:
    plan, text, problems = planning.decide(around(node(as_number="none")), Known(MESH, (B,)))
    assert plan is not None
    assert "as 64999" in text, "as before"
    assert "annotation tortie.dev/as-number of Node a: 'none' is no AS number" in problems["Node a"]
    assert "what it said before holds" in problems["Node a"]


def test_a_node_that_never_could_say_what_it_is_does_nothing() -> None:
    plan, _, problems = planning.decide(around(node(as_number="none"), None), Known(MESH, (B,)))
    assert plan is None
    assert list(problems) == ["Node a"]


def test_what_others_say_and_can_t_be_read_is_told() -> None:
    _, _, problems = planning.decide(around(node()), Known(MESH, (B,), {"c": "nonsense"}))
    assert problems == {"NodeNetwork c": "nonsense"}


def session(of: str, at: str, *, inside: bool = True) -> Session:
    return Session(of, inside, address(at), 64512, 64512)


TO_B, TO_C, TO_TOR = session("node b", "192.0.2.2"), session("node c", "192.0.2.3"), session("tor", "192.0.2.254", inside=False)
OLD = Plan("a", "192.0.2.1", sessions=(TO_B, TO_C, TO_TOR))
# What is another in the new plan, and whether that ends sessions.
CHANGES: dict[str, tuple[Plan, bool]] = {
    "nothing": (OLD, False),
    "a block more": (replace(OLD, blocks=(parse("10.0.0.0/26"),)), False),
    "a session more": (replace(OLD, sessions=(*OLD.sessions, session("node d", "192.0.2.4"))), False),
    "one less": (replace(OLD, sessions=(TO_B, TO_TOR)), True),
    "one less, and its node is gone": (replace(OLD, sessions=(TO_C, TO_TOR)), False),
    "a router less": (replace(OLD, sessions=(TO_B, TO_C)), True),
    "one is a client now": (replace(OLD, sessions=(TO_B, replace(TO_C, client="244.0.0.1"), TO_TOR)), True),
    "another password": (replace(OLD, sessions=(TO_B, replace(TO_C, password="new"), TO_TOR)), True),
    "another port": (replace(OLD, spec=ConfigurationSpec(listen_port=1179)), True),
    "bound to one address": (replace(OLD, spec=ConfigurationSpec(bind_mode="NodeIP")), True),
    "another router id": (replace(OLD, router_id="192.0.2.9"), True),
    "another community": (replace(OLD, spec=ConfigurationSpec(log_severity_screen="Debug")), False),
}


@pytest.mark.parametrize("row", CHANGES)
def test_which_changes_end_sessions(row: str) -> None:
    new, ends = CHANGES[row]
    assert planning.disturbs(OLD, new, frozenset({"c", "d"})) is ends


def test_the_first_plan_ends_none() -> None:
    assert not planning.disturbs(Plan("a", "192.0.2.1"), OLD, frozenset({"b", "c"}))


def test_a_reflector_by_its_address_is_a_node() -> None:
    """Calico's usual way: the end of such a session is one that needs a notice."""
    by_address = Objects(MESH.configurations, (Peer(lean.Metadata("rr"), PeerSpec(peer_ip="192.0.2.2")),))
    plan, _, _ = planning.decide(around(node()), Known(by_address, (B,)))
    assert plan is not None
    assert [(one.of, one.inside, one.by) for one in plan.sessions] == [("node b", True, "BGPPeer rr")]
    assert planning.disturbs(plan, replace(plan, sessions=()), frozenset({"b"}))
