"""The audit: rows for what a person may meet, and a property: what agrees is never found, and one fault is that one alone."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tortie.addressing.allocator import Address, address
from tortie.addressing.audit import Held, NodeView, OwnedBlock, Snapshot, audit, lasting
from tortie.addressing.leaks import Claim, PodState
from tortie.addressing.ranges import parse

POOLS = ("10.0.0.0/16", "fd00::/112")


def pod(node: str, *addresses: str, uid: str = "u1", **other: Any) -> PodState:
    return PodState(uid, node, addresses=tuple(map(address, addresses)), **other)


def held(node: str, text: str, who: str = "default/web", uid: str = "u1", sequence: int = 1) -> Held:
    room, _, name = who.partition("/")
    return Held(address(text), Claim(node, room, name, uid), "e", sequence)


def block(cidr: str, node: str, *, active: bool = True, name: str = "") -> OwnedBlock:
    return OwnedBlock(name or cidr, parse(cidr), node, active)


def links(*texts: str) -> dict[str, tuple[Address, ...]]:
    return {f"cali{n}": (address(text),) for n, text in enumerate(texts)}


@dataclass(frozen=True)
class World:
    """What there is, in short; `ledger` is published and has links where a row says nothing else."""

    blocks: tuple[OwnedBlock, ...] = (block("10.0.0.0/26", "a"), block("10.0.0.64/26", "b"))
    pods: dict[str, PodState] = field(default_factory=dict)
    ledger: tuple[Held, ...] = ()
    published: tuple[Held, ...] | None = None
    links: dict[str, tuple[Address, ...]] | None = None  # of node a
    routes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    silent: tuple[str, ...] = ()

    @property
    def snapshot(self) -> Snapshot:
        nodes = {one.node for one in self.blocks} | {one.claim.node for one in self.ledger}
        return Snapshot(
            self.blocks,
            self.ledger if self.published is None else self.published,
            self.pods,
            tuple(map(parse, POOLS)),
            {node: "no answer" if node in self.silent else self._view(node) for node in nodes},
        )

    def _view(self, node: str) -> NodeView:
        mine = tuple(one for one in self.ledger if one.claim.node == node)
        wires: dict[str, tuple[Address, ...]] = {f"cali{one.address}": (one.address,) for one in mine}
        if node == "a" and self.links is not None:
            wires = self.links
        active = [one for one in self.blocks if one.active and (one.node != node or one.range.size > 1)]
        routes = {one.range for one in active} if node not in self.routes else map(parse, self.routes[node])
        return NodeView(mine, wires, frozenset(routes))


def web(node: str = "a", *addresses: str, **other: Any) -> dict[str, PodState]:
    return {"default/web": pod(node, *(addresses or ("10.0.0.1",)), **other)}


ONE = (held("a", "10.0.0.1"),)
NAMELESS = (held("a", "10.0.0.1", who="", uid=""),)

AGREES = {
    "nothing at all": World(blocks=()),
    "blocks alone": World(),
    "a pod": World(pods=web(), ledger=ONE),
    "dual stack": World(
        blocks=(block("10.0.0.0/26", "a"), block("fd00::/122", "a")),
        pods=web("a", "10.0.0.1", "fd00::1"),
        ledger=(*ONE, held("a", "fd00::1", sequence=2)),
    ),
    "IPv6 only": World(blocks=(block("fd00::/122", "a"),), pods=web("a", "fd00::1"), ledger=(held("a", "fd00::1"),)),
    "a block of one address has no route on its own node": World(
        blocks=(block("10.0.0.1/32", "a"), block("10.0.0.2/32", "b")), pods=web(), ledger=ONE
    ),
    "a static pod": World(
        pods={"kube-system/dns": pod("a", "10.0.0.1", uid="mirror", static="hash")},
        ledger=(held("a", "10.0.0.1", "kube-system/dns", "hash"),),
    ),
    "pods in the host's network": World(
        pods={f"kube-system/proxy-{n}": pod("a", "10.0.0.9", uid=str(n), host_network=True) for n in range(2)}
    ),
    "its pod is on its way out": World(pods=web(terminating=True), ledger=ONE),
    "its pod is on its way out, and its network is gone": World(pods=web(terminating=True)),
    "another has the address of one on its way out": World(
        pods={**web(terminating=True), "default/new": pod("a", "10.0.0.1", uid="u2")},
        ledger=(held("a", "10.0.0.1", "default/new", "u2"),),
    ),
    "another has the address of one that has ended": World(
        pods={**web(ended=True), "default/new": pod("a", "10.0.0.1", uid="u2")},
        ledger=(held("a", "10.0.0.1", "default/new", "u2"),),
    ),
    "its kubelet has not said the pod's address yet": World(pods={"default/web": pod("a")}, ledger=ONE),
    "the uid was left out": World(pods=web(), ledger=(held("a", "10.0.0.1", uid=""),)),
    "the uid was left out of what is published": World(
        pods=web(), ledger=ONE, published=(held("a", "10.0.0.1", who="", uid=""),)
    ),
    "a link adopted after a lost ledger": World(pods=web(), ledger=NAMELESS),
    "only the uid is known": World(pods=web(), ledger=(held("a", "10.0.0.1", who=""),)),
    "an address of another network's": World(pods=web("a", "192.168.0.1")),
    "a pod that a silent agent may not have published": World(pods=web("b", "10.0.0.65"), silent=("b",)),
    "an inert block without routes": World(blocks=(block("10.0.0.0/26", "a", active=False),)),
}


@pytest.mark.parametrize("name", AGREES)
def test_what_agrees_is_not_found(name: str) -> None:
    assert [found for found in audit(AGREES[name].snapshot) if found.kind != "silent"] == []


TWO = {**web(), "default/other": pod("b", "10.0.0.1", uid="u2")}
OVERLAPPING = (block("10.0.0.0/24", "a"), block("10.0.0.0/26", "b"), block("10.0.0.64/26", "c"), block("10.0.1.0/26", "c"))

FOUND: dict[str, tuple[World, list[tuple[str, str, str, str]]]] = {
    "two ledgers": (
        World(
            pods={**web(), "default/other": pod("b", uid="u2")}, ledger=(*ONE, held("b", "10.0.0.1", "default/other", "u2"))
        ),
        [("duplicate", "10.0.0.1", "a, b", "in use 2 times: default/other on b, default/web on a")],
    ),
    "a ledger and another's pod": (
        World(pods={"default/web": pod("a"), "default/other": pod("a", "10.0.0.1", uid="u2")}, ledger=ONE),
        [("duplicate", "10.0.0.1", "a", "in use 2 times: default/other on a, default/web on a")],
    ),
    "two that nobody knows": (
        World(ledger=(*NAMELESS, held("b", "10.0.0.1", who="", uid=""))),
        [("duplicate", "10.0.0.1", "a, b", "in use 2 times: an unknown pod on a, an unknown pod on b")],
    ),
    "one that nobody knows, and a pod of another node": (
        World(pods=web("b"), ledger=(*NAMELESS, held("b", "10.0.0.1"))),
        [("duplicate", "10.0.0.1", "a, b", "in use 2 times: an unknown pod on a, default/web on b")],
    ),
    "one without uid, whose pod has it on another node": (
        World(pods=web("b"), ledger=(held("a", "10.0.0.1", uid=""),), links={}),
        [("duplicate", "10.0.0.1", "a, b", "in use 2 times: default/web on a, default/web on b"),
         ("leak", "10.0.0.1", "a", "its pod runs on node b"),
         ("stray", "10.0.0.1", "b", "the pod has it, and no block or ledger of its node says so")],
    ),
    "its pod is gone": (World(ledger=ONE, links={}), [("leak", "10.0.0.1", "a", "its pod is gone")]),
    "its pod is gone, not its link": (
        World(ledger=ONE), [("leak", "10.0.0.1", "a", "its pod is gone; its interface is still there")],
    ),
    "its pod is gone, and its agent silent": (
        World(published=ONE, silent=("a",)),
        [("leak", "10.0.0.1", "a", "its pod is gone"),
         ("silent", "a", "a", "its agent didn't answer, so its ledger and kernel weren't looked at: no answer")],
    ),
    "its pod was made again": (
        World(pods={"default/web": pod("a", uid="u2")}, ledger=ONE, links={}),
        [("leak", "10.0.0.1", "a", "another pod has its pod's name now")],
    ),
    "its pod runs elsewhere": (
        World(pods={"default/web": pod("b")}, ledger=ONE, links={}), [("leak", "10.0.0.1", "a", "its pod runs on node b")],
    ),
    "its pod has ended": (World(pods=web(ended=True), ledger=ONE, links={}), [("leak", "10.0.0.1", "a", "its pod has ended")]),
    "its pod is in the host's network": (
        World(pods=web(host_network=True), ledger=ONE, links={}),
        [("leak", "10.0.0.1", "a", "its pod uses the host's network")],
    ),
    "a pod that no ledger knows": (
        World(pods=web()), [("stray", "10.0.0.1", "a", "the pod has it, and no block or ledger of its node says so")],
    ),
    "a pod that another node's ledger knows": (
        World(pods=web("b"), ledger=ONE, links={}),
        [("leak", "10.0.0.1", "a", "its pod runs on node b"),
         ("stray", "10.0.0.1", "b", "the pod has it, and no block or ledger of its node says so")],
    ),
    "one family of two that no ledger knows": (
        World(pods=web("a", "10.0.0.1", "fd00::1"), ledger=ONE),
        [("stray", "fd00::1", "a", "the pod has it, and no block or ledger of its node says so")],
    ),
    "an interface that no ledger knows": (
        World(links=links("10.0.0.5")), [("stray", "10.0.0.5", "a", "an interface of the node has it, and its ledger doesn't")],
    ),
    "not published": (
        World(pods=web(), ledger=ONE, published=()),
        [("unpublished", "10.0.0.1", "a", "in the ledger, and not in its block's status")],
    ),
    "published still": (
        World(pods=web("a", terminating=True), published=ONE),
        [("unpublished", "10.0.0.1", "a", "in its block's status, and not in the ledger")],
    ),
    "published as it was": (
        World(pods=web(), ledger=(held("a", "10.0.0.1", sequence=7),), published=ONE),
        [("unpublished", "10.0.0.1", "a", "in the ledger, and not in its block's status"),
         ("unpublished", "10.0.0.1", "a", "in its block's status, and not in the ledger")],
    ),
    "two blocks in one": (
        World(blocks=OVERLAPPING),
        [("overlap", "10.0.0.0/26", "a, b", "10.0.0.0/26 overlaps 10.0.0.0/24 (10.0.0.0/24)"),
         ("overlap", "10.0.0.64/26", "a, c", "10.0.0.64/26 overlaps 10.0.0.0/24 (10.0.0.0/24)")],
    ),
    "three around each other": (
        World(blocks=(block("10.0.0.0/24", "a"), block("10.0.0.0/25", "b"), block("10.0.0.0/26", "c"))),
        [("overlap", "10.0.0.0/25", "a, b", "10.0.0.0/25 overlaps 10.0.0.0/24 (10.0.0.0/24)"),
         ("overlap", "10.0.0.0/26", "a, c", "10.0.0.0/26 overlaps 10.0.0.0/24 (10.0.0.0/24)"),
         ("overlap", "10.0.0.0/26", "b, c", "10.0.0.0/26 overlaps 10.0.0.0/25 (10.0.0.0/25)")],
    ),
    "the same range twice": (
        World(blocks=(block("10.0.0.0/26", "a", name="x"), block("10.0.0.0/26", "b", name="y"))),
        [("overlap", "10.0.0.0/26", "a, b", "y overlaps x (10.0.0.0/26)")],
    ),
    "no route": (
        World(routes={"a": ("10.0.0.0/26",)}), [("route", "10.0.0.64/26", "a", "the node has no route to this block")],
    ),
    "no route to a block of one address": (
        World(blocks=(block("10.0.0.1/32", "a"), block("10.0.0.2/32", "b")), routes={"a": ()}),
        [("route", "10.0.0.2/32", "a", "the node has no route to this block")],
    ),
    "a route of before": (
        World(routes={"a": ("10.0.0.0/26", "10.0.0.64/26", "10.0.9.0/26")}),
        [("route", "10.0.9.0/26", "a", "the node has a route to this range, and no block has it")],
    ),
    "an agent that is silent": (
        World(silent=("b",)),
        [("silent", "b", "b", "its agent didn't answer, so its ledger and kernel weren't looked at: no answer")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_what_does_not_agree_is_found(name: str) -> None:
    world, expected = FOUND[name]
    assert [(one.kind, one.subject, one.node, one.why) for one in audit(world.snapshot)] == expected


def test_a_leak_names_the_very_allocation() -> None:
    (leak,) = audit(World(ledger=(held("a", "10.0.0.1", sequence=7),), links={}).snapshot)
    assert (leak.pod, leak.uid, leak.epoch, leak.sequence) == ("default/web", "u1", "e", 7)


def test_what_is_different_in_the_second_look_is_not_believed() -> None:
    """An address is released and handed out again between two looks, and each time it is not published yet."""
    one, two = (audit(World(pods=web(), ledger=(held("a", "10.0.0.1", sequence=n),), published=()).snapshot) for n in (1, 2))
    gone, later = (
        audit(World(pods=web(terminating=True), published=(held("a", "10.0.0.1", sequence=n),)).snapshot) for n in (1, 2)
    )
    assert lasting(one, two) == lasting(gone, later) == []
    assert lasting(one, one) == one


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """What agrees: nodes with blocks of one family or two, pods that are known by name, by uid, by hash or by nothing."""
    nodes = draw(st.integers(1, 3))
    families = draw(st.sampled_from([(4,), (6,), (4, 6)]))
    cidrs = {4: "10.0.{}.0/26", 6: "fd00::{}:0/122"}
    blocks = tuple(block(cidrs[family].format(n), f"n{n}") for n in range(nodes) for family in families)
    world = World(blocks=blocks)
    ledger, pods = list[Held](), dict[str, PodState]()
    for number in range(draw(st.integers(0, 6))):
        on = draw(st.integers(0, nodes - 1))
        texts = [{4: f"10.0.{on}.{number}", 6: f"fd00::{on}:{number:x}"}[family] for family in families]
        how = draw(st.sampled_from(["usual", "no uid", "nameless", "static", "terminating", "not said", "over", "host"]))
        name, uid = f"default/pod-{number}", f"u{number}"
        static = "hash" + uid if how == "static" else ""
        said = () if how == "not said" else texts
        pods[name] = pod(
            f"n{on}", *said, uid=uid, static=static, terminating=how in ("terminating", "over"),
            ended=how == "over", host_network=how == "host",
        )  # fmt: skip
        if how in ("host", "over"):
            continue
        claimed = {"no uid": (name, ""), "nameless": ("", ""), "static": (name, static)}.get(how, (name, uid))
        ledger += [held(f"n{on}", text, *claimed, sequence=number) for text in texts]
    return replace(world, pods=pods, ledger=tuple(ledger))


@given(worlds())
def test_what_agrees_has_no_finding(world: World) -> None:
    assert audit(world.snapshot) == []


def forgotten(world: World) -> World:
    return replace(world, ledger=(*world.ledger, held("n0", world_address(world, 50), "default/ghost", "ghost", 99)))


def unknown(world: World) -> World:
    return replace(world, pods={**world.pods, "default/stray": pod("n0", world_address(world, 50), uid="stray")})


def behind(world: World) -> World:
    pods = {**world.pods, "default/late": pod("n0", uid="late")}
    more = (*world.ledger, held("n0", world_address(world, 50), "default/late", "late", 99))
    return replace(world, pods=pods, ledger=more, published=world.ledger)


def nested(world: World) -> World:
    first = world.blocks[0].range.halves()[1]
    return replace(world, blocks=(*world.blocks, OwnedBlock("nested", first, "n0", active=False)))


def unrouted(world: World) -> World:
    return replace(world, routes={"n0": tuple(str(one.range) for one in world.blocks[1:])})


def mute(world: World) -> World:
    return replace(world, published=world.ledger, silent=("n0",))


def world_address(world: World, number: int) -> str:
    """Return an address of the first block that nobody has."""
    whole = world.blocks[0].range
    return str(Address(whole.family, whole.start + number))


def shared(world: World) -> World:
    """Plant a pod that has what another node's ledger holds for its own."""
    pods = {**world.pods, "default/x": pod("n0", uid="x"), "default/y": pod("n0", world_address(world, 50), uid="y")}
    return replace(world, pods=pods, ledger=(*world.ledger, held("n0", world_address(world, 50), "default/x", "x", 99)))


FAULTS: dict[str, Callable[[World], World]] = {
    "leak": forgotten, "duplicate": shared, "stray": unknown, "unpublished": behind, "overlap": nested, "route": unrouted,
    "silent": mute,
}  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
@given(world=worlds())
def test_one_fault_is_found_alone(kind: str, world: World) -> None:
    assert [found.kind for found in audit(FAULTS[kind](world).snapshot)] == [kind]
