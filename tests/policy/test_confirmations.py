"""Endpoints that Deny rules name as peers are marked, with the addresses that the sets hold."""

from typing import NamedTuple

import pytest

from tests.policy.compiling import put
from tests.policy.oracle import Object
from tortie.policy.compiler import Compiler

ENDPOINTS = {"web": "10.0.0.1", "db": "10.0.1.1", "new": ""}
HTTP = [{"destinationNamedPort": "http"}]


class Row(NamedTuple):
    """`held` counts the sets that hold each address of a marked endpoint."""

    rules: Object
    held: dict[str, dict[str, int]]


def deny(direction: str, peers: str, *listed: Object, action: str = "Deny", **more: object) -> Object:
    return {direction: [{"action": action, peers: list(listed), **more}]}


def app(name: str) -> Object:
    return {"pods": {"podSelector": {"matchLabels": {"app": name}}}}


ROWS = {
    "a peer by label": Row(deny("ingress", "from", app("web")), {"web": {"10.0.0.1": 1}}),
    "a peer of an egress rule": Row(deny("egress", "to", app("db")), {"db": {"10.0.1.1": 1}}),
    "two sets that take it": Row(deny("ingress", "from", app("web"), {"namespaces": {}}), {
        "web": {"10.0.0.1": 2}, "db": {"10.0.1.1": 1}, "new": {}}),
    "one without an address": Row(deny("ingress", "from", app("new")), {"new": {}}),
    "Accept names it": Row(deny("ingress", "from", app("web"), action="Accept"), {}),
    "a network covers it": Row(deny("egress", "to", {"networks": ["10.0.0.0/8"]}), {}),
    "a named port that it has": Row(deny("egress", "to", app("web"), protocols=HTTP), {"web": {"10.0.0.1": 1}}),
    "a named port that it lacks": Row(deny("egress", "to", app("db"), protocols=HTTP), {}),
    # Whoever calls a port so may come to lie in the network: `new` has no address yet. `web` lies in it.
    "a named port in a network": Row(
        deny("egress", "to", {"networks": ["10.0.0.0/24"]}, protocols=HTTP), {"web": {"10.0.0.1": 1}, "new": {}}),
    "a named port in another network": Row(
        deny("egress", "to", {"networks": ["10.9.0.0/24"]}, protocols=HTTP), {"web": {"10.0.0.1": 0}, "new": {}}),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_confirmations(row: str) -> None:
    compiler = Compiler()
    put(compiler, "namespaces", {"metadata": {"name": "a", "labels": {}}})
    for name in ENDPOINTS:
        ports = [{"name": "http", "containerPort": 80}] if name != "db" else []
        put(compiler, "pods", {"metadata": {"namespace": "a", "name": name, "uid": name, "labels": {"app": name}},
                               "spec": {"nodeName": "n1", "containers": [{"ports": ports}]}})  # fmt: skip
    put(compiler, "blocks", {"name": "b", "node": "n1", "claims": {one: name for name, one in ENDPOINTS.items() if one}})
    spec = {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, **ROWS[row].rules}
    put(compiler, "clusternetworkpolicies", {"metadata": {"name": "policy"}, "spec": spec})
    changes = compiler.take()
    policy = changes.node_policies["n1"]
    assert policy is not None
    marked = {one.name: one.confirmed for group in policy.groups if group.confirm for one in group.endpoints}
    chunks = [chunk.addresses for chunk in changes.address_sets.values() if chunk]
    assert {name: {a: sum(a in held for held in chunks) for a in found} for name, found in marked.items()} == ROWS[row].held
    assert not any(one.confirmed for group in policy.groups if not group.confirm for one in group.endpoints)


def test_an_address_that_comes_is_told() -> None:
    compiler = Compiler()
    put(compiler, "namespaces", {"metadata": {"name": "a", "labels": {}}})
    meta = {"namespace": "a", "name": "web", "uid": "u", "labels": {"app": "web"}}
    put(compiler, "pods", {"metadata": meta, "spec": {"nodeName": "n1"}})
    spec = {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, **ROWS["a peer by label"].rules}
    put(compiler, "clusternetworkpolicies", {"metadata": {"name": "policy"}, "spec": spec})
    assert confirmed(compiler) == ()
    put(compiler, "blocks", {"name": "b", "node": "n1", "claims": {"10.0.0.1": "u"}})
    assert confirmed(compiler) == ("10.0.0.1",)
    put(compiler, "blocks", {"name": "b", "node": "n1", "claims": {}})
    assert confirmed(compiler) == ()


def confirmed(compiler: Compiler) -> tuple[str, ...]:
    policy = compiler.take().node_policies["n1"]
    assert policy is not None
    ((endpoint,),) = (group.endpoints for group in policy.groups)
    return endpoint.confirmed
