"""Which addresses a pod wants, row by row."""

from dataclasses import replace
from typing import Any

import pytest

from tortie.addressing import selector
from tortie.addressing.allocator import OwnBlock, address
from tortie.addressing.ranges import parse
from tortie.addressing.wants import Landscape, NoPool, PodFacts, Refused, UsablePool, Wanted, wanted

BLUE = selector.parse("team == 'blue'")
POOLS = (
    UsablePool("four", parse("10.1.0.0/16")),
    UsablePool("six", parse("fd00::/64")),
    UsablePool("other", parse("10.2.0.0/16"), automatic=False),
    UsablePool("off", parse("10.3.0.0/16"), disabled=True),
    UsablePool("blue", parse("10.4.0.0/16"), namespaces=BLUE),
    UsablePool("gpu", parse("10.5.0.0/16"), nodes=selector.parse("has(gpu)")),
)
LANDSCAPE = Landscape(
    POOLS,
    (OwnBlock("b", parse("10.1.0.0/26"), "four"),),
    owner=lambda one: "node-2" if one.within(parse("10.1.9.0/26")) else "",
    node_labels={"zone": "a"},
)
V4, V6 = Wanted(4, frozenset({"four"})), Wanted(6, frozenset({"six"}))
OTHER = Wanted(4, frozenset({"other"}), chosen=True)
IP, V4POOLS = "tortie.dev/ip-addrs", "tortie.dev/ipv4-pools"
CALICO = "cni.projectcalico.org/ipv4pools"

ROWS: dict[str, tuple[dict[str, Any], list[Wanted]]] = {
    "no wish: both families": ({}, [V4, V6]),
    "a pool by name": ({"annotations": {V4POOLS: '["other"]'}}, [OTHER, V6]),
    "a pool by CIDR": ({"annotations": {CALICO: '["10.2.0.0/16"]'}}, [OTHER, V6]),
    "the namespace's wish": ({"namespace_annotations": {CALICO: '["other"]'}}, [OTHER, V6]),
    "the pod's before the namespace's": (
        {"annotations": {CALICO: '["four"]'}, "namespace_annotations": {CALICO: '["other"]'}},
        [replace(V4, chosen=True), V6],
    ),
    "a namespace's own pool": ({"namespace_labels": {"team": "blue"}}, [Wanted(4, frozenset({"blue"}), chosen=True), V6]),
    "a fixed address": ({"annotations": {IP: '["10.1.0.7"]'}}, [Wanted(4, fixed=address("10.1.0.7"))]),
}
REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "no JSON": ({IP: "10.1.0.7"}, "must be a JSON list of texts"),
    "no list": ({IP: '"10.1.0.7"'}, "must be a JSON list of texts"),
    "an empty list": ({IP: "[]"}, "must be a JSON list of texts"),
    "no address": ({IP: '["ten"]'}, "not an IP address: 'ten'"),
    "two of a family": ({IP: '["10.1.0.7", "10.1.0.8"]'}, "second IPv4 address"),
    "another node's": ({IP: '["10.1.9.9"]'}, "10.1.9.9 of IPPool four belongs to node node-2: let the pod run there"),
    "of a disabled pool": ({IP: '["10.3.0.1"]'}, "10.3.0.1 lies in IPPool off, which is disabled"),
    "of another namespace's pool": ({IP: '["10.4.0.1"]'}, "IPPool blue, which is not for this namespace"),
    "a pool for other nodes": ({V4POOLS: '["gpu"]'}, "'gpu' is no enabled IPPool of that family for this node"),
    "no node's": ({IP: '["10.1.8.8"]'}, "10.1.8.8 of IPPool four lies in no node's block, as far as is known here"),
    "nobody's": ({IP: '["192.0.2.1"]'}, "192.0.2.1 lies in no IPPool"),
    "an unknown pool": ({V4POOLS: '["fun"]'}, "'fun' is no enabled IPPool"),
    "a disabled pool": ({V4POOLS: '["off"]'}, "'off' is no enabled IPPool"),
    "a pool of the other family": ({V4POOLS: '["six"]'}, "'six' is no enabled IPPool of that family"),
    "another namespace's pool": ({V4POOLS: '["blue"]'}, "IPPool blue is not for this namespace"),
}


@pytest.mark.parametrize("row", ROWS)
def test_wanted(row: str) -> None:
    facts, outcome = ROWS[row]
    assert wanted(PodFacts(**facts), LANDSCAPE) == outcome


@pytest.mark.parametrize("row", REFUSED)
def test_refused_with_annotation_and_value(row: str) -> None:
    annotations, words = REFUSED[row]
    with pytest.raises(Refused, match=words) as refusal:
        wanted(PodFacts(annotations), LANDSCAPE)
    assert f"annotation {next(iter(annotations))}" in str(refusal.value)


def test_no_pool_at_all() -> None:
    with pytest.raises(NoPool, match="no IPPool that is enabled"):
        wanted(PodFacts(), Landscape())
