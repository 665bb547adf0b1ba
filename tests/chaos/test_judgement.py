"""What is found in facts that are made up: a whole cluster in which nothing is wrong, and one fault at a time in it."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from tests.chaos.judgement import Allocation, Block, Facts, Finding, Kernel, Pod, Route, Sandbox, always, audit

A, B, ELSEWHERE = ip_address("10.1.0.1"), ip_address("10.1.0.9"), ip_address("10.1.0.77")
A6 = ip_address("fd00::1")
POD_A, POD_B = Pod("d/a", "ua", "one", addresses=(A, A6)), Pod("d/b", "ub", "two", addresses=(B,))
SANDBOX_A, SANDBOX_B = Sandbox("sa", "d/a", "ua", 5, frozenset({A, A6})), Sandbox("sb", "d/b", "ub", 5, frozenset({B}))
BLOCK_A = Block("ba", ip_network("10.1.0.0/29"), "one", allocations=(Allocation(A, "d/a", "ua"),))
BLOCK_A6 = Block("ba6", ip_network("fd00::/125"), "one", allocations=(Allocation(A6),))
BLOCK_B = Block("bb", ip_network("10.1.0.8/29"), "two", allocations=(Allocation(B, "d/b", "ub"),))
KERNEL_A = Kernel((SANDBOX_A,), {5: "cali1"}, frozenset({Route(A, "cali1"), Route(A6, "cali1")}))
KERNEL_B = Kernel((SANDBOX_B,), {5: "cali1"}, frozenset({Route(B, "cali1")}))
WELL = Facts((POD_A, POD_B), (BLOCK_A, BLOCK_A6, BLOCK_B), {"one": KERNEL_A, "two": KERNEL_B})


def pods(*more: Pod) -> Facts:
    return replace(WELL, pods=(*WELL.pods, *more))


def blocks(*changed: Block) -> Facts:
    return replace(WELL, blocks=tuple({block.name: block for block in (*WELL.blocks, *changed)}.values()))


def kernel(node: str, changed: Kernel) -> Facts:
    return replace(WELL, kernels={**WELL.kernels, node: changed})


FINE: Mapping[str, Facts] = {
    "everything": WELL,
    "nothing": Facts(),
    "a pod that waits for its address": pods(Pod("d/c", "uc", "one", "Pending")),
    "a pod on the host's network, with the node's address": pods(
        Pod("d/h", "uh", "one", addresses=(ELSEWHERE,), host_network=True)
    ),
    "an ended pod whose address is another's now": pods(Pod("d/j", "uj", "two", "Succeeded", (A,))),
    "a pod that is being deleted, whose address is another's now": pods(
        Pod("d/a", "u0", "one", addresses=(A,), terminating=True)
    ),
    "a block without a part that another has": blocks(
        Block("big", ip_network("10.1.0.0/28"), "one", without=(BLOCK_A.range, BLOCK_B.range))
    ),
    "a sandbox whose link is gone already": kernel("two", replace(KERNEL_B, sandboxes=(SANDBOX_B, Sandbox("s", "d/x", "ux")))),
}


@pytest.mark.parametrize("facts", FINE.values(), ids=FINE)
def test_nothing_is_found_in(facts: Facts) -> None:
    assert audit(facts) == always(facts) == []


ALWAYS: Mapping[str, tuple[Facts, set[tuple[str, str, str]]]] = {
    "two live pods report one address": (
        pods(Pod("d/c", "uc", "two", "Pending", (A,))), {("duplicate", "10.1.0.1", "one, two")}
    ),
    "one address on two pods' eth0": (
        kernel("two", replace(KERNEL_B, sandboxes=(SANDBOX_B, Sandbox("sc", "d/c", "uc", 6, frozenset({A}))))),
        {("duplicate", "10.1.0.1", "one, two")},
    ),
    "one address on two sandboxes of one pod": (
        kernel("one", replace(KERNEL_A, sandboxes=(SANDBOX_A, Sandbox("s0", "d/a", "ua", 6, frozenset({A}))))),
        {("duplicate", "10.1.0.1", "one")},
    ),
    "two nodes have a pod's route to one address": (
        kernel("two", replace(KERNEL_B, routes=KERNEL_B.routes | {Route(A, "cali9")})), {("duplicate", "10.1.0.1", "one, two")}
    ),
    "a block inside another": (
        blocks(Block("in", ip_network("10.1.0.4/30"), "two")), {("overlap", "10.1.0.4/30", "one, two")}
    ),
    "a block around two others": (
        blocks(Block("big", ip_network("10.1.0.0/28"), "one")),
        {("overlap", "10.1.0.0/29", "one, one"), ("overlap", "10.1.0.8/29", "one, two")},
    ),
    "the same range twice": (blocks(Block("again", BLOCK_B.range, "one")), {("overlap", "10.1.0.8/29", "one, two")}),
    "a part that was given to another, and is the first one's all the same": (
        blocks(Block("big", ip_network("10.1.0.0/28"), "one", without=(BLOCK_A.range,))),
        {("overlap", "10.1.0.8/29", "one, two")},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "found"), ALWAYS.values(), ids=ALWAYS)
def test_what_must_not_be_at_any_moment(facts: Facts, found: set[tuple[str, str, str]]) -> None:
    assert {finding[:3] for finding in always(facts)} == found
    assert set(always(facts)) <= set(audit(facts))


def test_a_block_that_is_not_active_may_overlap_for_a_moment() -> None:
    facts = blocks(Block("in", ip_network("10.1.0.4/30"), "two", active=False))
    assert always(facts) == []
    assert [finding.kind for finding in audit(facts)] == ["overlap"]


QUIET: Mapping[str, tuple[Facts, Finding]] = {
    "a pod's address isn't on its eth0": (
        kernel("two", replace(KERNEL_B, sandboxes=(SANDBOX_B._replace(addresses=frozenset()),))),
        Finding("dead", "d/b", "two", "10.1.0.9 is not on its eth0"),
    ),
    "only one of its two is": (
        kernel("one", replace(KERNEL_A, sandboxes=(SANDBOX_A._replace(addresses=frozenset({A})),))),
        Finding("dead", "d/a", "one", "fd00::1 is not on its eth0"),
    ),
    "a pod without a namespace": (
        kernel("two", Kernel()), Finding("dead", "d/b", "two", "it reports 10.1.0.9 and has no network namespace")
    ),
    "a pod that runs without an address": (
        pods(Pod("d/c", "uc", "one")), Finding("dead", "d/c", "one", "it runs and reports no address")
    ),
    "no route to a pod": (
        kernel("two", replace(KERNEL_B, routes=frozenset())),
        Finding("dead", "d/b", "two", "its node has no route to 10.1.0.9 through its link"),
    ),
    "a route to a pod through another link": (
        kernel("two", replace(KERNEL_B, routes=frozenset({Route(B, "cali2")}))),
        Finding("dead", "d/b", "two", "its node has no route to 10.1.0.9 through its link"),
    ),
    "a pod that doesn't answer": (
        replace(WELL, silent=frozenset({("one", B)})), Finding("dead", "d/b", "two", "10.1.0.9 doesn't answer pods on one")
    ),
    "an allocation without a pod": (
        blocks(BLOCK_A._replace(allocations=(*BLOCK_A.allocations, Allocation(ip_address("10.1.0.2"), "d/x", "ux")))),
        Finding("leak", "10.1.0.2", "one", "block ba publishes it for d/x (ux); no live pod has it"),
    ),
    "an allocation without a name, and without a pod": (
        blocks(BLOCK_A._replace(allocations=(*BLOCK_A.allocations, Allocation(ip_address("10.1.0.2"))))),
        Finding("leak", "10.1.0.2", "one", "block ba publishes it for a pod without a name (no uid); no live pod has it"),
    ),
    "an allocation of a pod's last life": (
        blocks(BLOCK_B._replace(allocations=(Allocation(B, "d/b", "u0"),))),
        Finding("leak", "10.1.0.9", "two", "block bb publishes it for d/b (u0); d/b (ub) has it"),
    ),
    "an ended pod's allocation": (
        replace(blocks(BLOCK_A._replace(allocations=(*BLOCK_A.allocations, Allocation(ip_address("10.1.0.2"), "d/j", "uj")))),
                pods=(*WELL.pods, Pod("d/j", "uj", "one", "Succeeded", (ip_address("10.1.0.2"),)))),
        Finding("leak", "10.1.0.2", "one", "block ba publishes it for d/j (uj); no live pod has it"),
    ),
    "a link without a pod": (
        kernel("one", replace(KERNEL_A, links={5: "cali1", 6: "cali2"})),
        Finding("leak", "cali2", "one", "a pod's link, without a pod"),
    ),
    "a route without a pod": (
        kernel("one", replace(KERNEL_A, routes=KERNEL_A.routes | {Route(ELSEWHERE, "cali1")})),
        Finding("leak", "10.1.0.77", "one", "a pod's route, through cali1, without a pod that has the address"),
    ),
    "an allocation outside its block": (
        blocks(BLOCK_B._replace(allocations=(*BLOCK_B.allocations, Allocation(ELSEWHERE)))),
        Finding("outside", "10.1.0.77", "two", "block bb publishes it, which hasn't that address"),
    ),
    "a pod's address in another node's block": (
        pods(Pod("d/c", "uc", "one", "Pending", (ip_address("10.1.0.10"),))),
        Finding("outside", "10.1.0.10", "one", "d/c reports it, and no block of its node has it"),
    ),
    "a pod's address that nobody publishes": (
        blocks(BLOCK_B._replace(allocations=())),
        Finding("outside", "10.1.0.9", "two", "d/b has it, and no block of its node publishes it"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "finding"), QUIET.values(), ids=QUIET)
def test_what_must_not_be_in_quiet(facts: Facts, finding: Finding) -> None:
    assert finding in audit(facts)
    assert always(facts) == []


def test_a_sandbox_that_outlives_its_pod_is_a_leak_with_link_and_routes() -> None:
    facts = replace(WELL, pods=(POD_A,), blocks=(BLOCK_A, BLOCK_A6))
    assert [(finding.kind, finding.what) for finding in audit(facts)] == [("leak", "cali1"), ("leak", "10.1.0.9")]


def test_a_finding_reads_as_a_sentence() -> None:
    assert str(Finding("leak", "cali2", "one", "a pod's link, without a pod")) == (
        "leak: cali2 on one: a pod's link, without a pod"
    )
