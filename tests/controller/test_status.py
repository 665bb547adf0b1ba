"""Whether a pool is large enough for its nodes, row by row."""

from typing import Any

import pytest

from tests.addressing.test_planner import node, pool, world
from tortie.addressing import ranges
from tortie.addressing.state import State
from tortie.controller.status import allocatable, pool_status, sufficient

FINE, FEW = ("True", "Sufficient"), ("False", "TooFewBlocks")
# The pool, how many nodes there are, how many of them ask for it, what is reserved; what is said.
ROWS: dict[str, tuple[dict[str, Any], int, int, str, tuple[str, str]]] = {
    "as many blocks as nodes": ({"cidr": "10.0.0.0/25"}, 2, 0, "", FINE),
    "one node more": ({"cidr": "10.0.0.0/25"}, 3, 0, "", FEW),
    "one node more that isn't its own": ({"cidr": "10.0.0.0/25", "nodes": "!has(last)"}, 3, 0, "", FINE),
    "a block is reserved": ({"cidr": "10.0.0.0/25"}, 2, 0, "10.0.0.64/26", FEW),
    "all of it is reserved": ({"cidr": "10.0.0.0/25"}, 1, 0, "10.0.0.0/8", FEW),
    "half of a block is reserved": ({"cidr": "10.0.0.0/25"}, 2, 0, "10.0.0.64/27", FINE),
    "on request, nobody asks": ({"cidr": "10.0.0.0/26", "automatic": False}, 3, 0, "", FINE),
    "on request, as many ask as there are blocks": ({"cidr": "10.0.0.0/26", "automatic": False}, 3, 1, "", FINE),
    "on request, more ask": ({"cidr": "10.0.0.0/26", "automatic": False}, 3, 2, "", FEW),
    "disabled": ({"cidr": "10.0.0.0/26", "disabled": True}, 3, 0, "", FINE),
    "being deleted": ({"cidr": "10.0.0.0/26", "deleting": True}, 3, 0, "", FINE),
    "a large one": ({"cidr": "10.0.0.0/8"}, 500, 0, "", FINE),
    "a large one of large blocks": ({"cidr": "10.0.0.0/16", "size": 24}, 257, 0, "", FEW),
    "IPv6": ({"cidr": "fd00::/8", "size": 122}, 500, 0, "", FINE),
    "a single IPv6 address": ({"cidr": "fd00::1/128", "size": 128}, 2, 0, "", FEW),
}


def made(row: str) -> State:
    spec, nodes, asking, reserved, _ = ROWS[row]
    members = [node(f"n{number:03}", **({"last": ""} if number == nodes - 1 else {})) for number in range(nodes)]
    state = world(pool(**spec), nodes=tuple(members))
    state.put_reservations([ranges.parse(reserved)] if reserved else [])
    for member in members[:asking]:
        state.put_network(member.name, (), frozenset({"p"}))
    return state


@pytest.mark.parametrize("row", ROWS)
def test_sufficient(row: str) -> None:
    state = made(row)
    gives = allocatable(state.pools["p"], 0, {})["status"] == "True"
    said = sufficient(state, state.pools["p"], (), gives=gives)
    assert (said["status"], said["reason"]) == ROWS[row][-1]


def test_it_is_one_of_the_pool_s_conditions_with_both_numbers() -> None:
    state = made("one node more")
    said = {c["type"]: c for c in pool_status(state, state.pools["p"], {}, {})["conditions"]}["Sufficient"]
    assert said["message"].startswith("2 blocks for 3 nodes: ")


def test_nodes_that_ask_no_more_are_not_counted() -> None:
    state = made("on request, more ask")
    state.put_network("n000", ())
    assert state.takers(state.pools["p"]) == 1
    state.drop_network("n001")
    assert state.takers(state.pools["p"]) == 0


def test_the_first_nodes_that_wait_are_named() -> None:
    state = made("as many blocks as nodes")
    said = sufficient(state, state.pools["p"], [f"n{number}" for number in range(7)], gives=True)
    assert (said["status"], said["reason"]) == ("False", "Exhausted")
    assert "pods wait on n0, n1, n2, n3, n4 and 2 more; " in said["message"]
