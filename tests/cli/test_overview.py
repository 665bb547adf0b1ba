"""What `tortiectl status` calls a problem: rows of what there is, and what is said of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tortie.cli.ctl.overview import Overview, Problem, problems, troubled
from tortie.cli.ctl.status import summary

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def thing(name: str, **parts: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}, **parts}


def part(name: str, node: str, *, ready: bool = True) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    spec = {"nodeName": node, "containers": [{"image": "tortie:1"}]}
    return thing(name, spec=spec, status={"conditions": conditions})


def pool(name: str = "pool", **spec: Any) -> dict[str, Any]:
    return thing(name, spec={"cidr": "10.0.0.0/16", **spec})


def lease(seconds_ago: float) -> dict[str, Any]:
    renewed = (NOW - timedelta(seconds=seconds_ago)).isoformat()
    return thing("tortie-operator", spec={"holderIdentity": "one", "renewTime": renewed, "leaseDurationSeconds": 15})


def daemonset(desired: int) -> dict[str, Any]:
    return thing("tortie-agent", status={"desiredNumberScheduled": desired})


def installed(nodes: int = 2, agents: int = 2) -> Overview:
    """Return an installation in which all is well, where there are as many agents as nodes."""
    return Overview(
        namespace="tortie-system",
        operators=(part("operator", "n0"),),
        agents=tuple(part(f"agent-{n}", f"n{n}") for n in range(agents)),
        lease=lease(1),
        nodes=tuple(thing(f"n{n}") for n in range(nodes)),
        pools=(pool(),),
        blocks=tuple(thing(f"b{n}", spec={"affinity": {"node": f"n{n}"}, "active": True}) for n in range(agents)),
        networks=(),
        daemonset=daemonset(agents),
    )


def network(name: str, message: str) -> dict[str, Any]:
    condition = {"type": "FirewallClear", "status": "False", "reason": "ForeignFirewallDrops", "message": message}
    return thing(name, status={"conditions": [condition]})


def small(reason: str, message: str) -> dict[str, Any]:
    condition = {"type": "Sufficient", "status": "False", "reason": reason, "message": message}
    return {**pool(), "status": {"conditions": [condition]}}


LOOK = "kubectl get pods -n tortie-system -o wide --field-selector spec.nodeName="
BLOCKS = "kubectl get ippools -o wide: is one enabled, with free blocks, whose nodeSelector takes the node?"
NO_AGENT, NO_BLOCK = "no agent is ready there: its pods don't start", "it has no block, so its pods wait for an address"
DOWN = tuple(part(f"agent-{n}", f"n{n}", ready=False) for n in range(7))

ROWS: dict[str, tuple[Overview, list[Problem]]] = {
    "all is well": (installed(), []),
    "nodes that the DaemonSet doesn't mean": (installed(nodes=4), []),
    "an agent that is missing": (
        replace(installed(nodes=3), daemonset=daemonset(3)),
        [Problem("node n2", NO_AGENT, f"{LOOK}n2"), Problem("node n2", NO_BLOCK, BLOCKS)],
    ),
    "a DaemonSet that nobody has counted yet": (
        replace(installed(agents=0), daemonset=daemonset(0)),
        [Problem("nodes n0, n1", NO_AGENT, f"{LOOK}n0"), Problem("nodes n0, n1", NO_BLOCK, BLOCKS)],
    ),
    "many nodes have one problem": (
        replace(installed(7, 7), agents=DOWN), [Problem("nodes n0, n1, n2, n3, n4 and 2 more", NO_AGENT, f"{LOOK}n0")],
    ),
    "two nodes have the same, one another": (
        replace(installed(3, 3), networks=(network("n0", "x"), network("n1", "y"), network("n2", "x"))),
        [Problem("nodes n0, n2", "FirewallClear is False (ForeignFirewallDrops): x", "tortiectl node status n0"),
         Problem("node n1", "FirewallClear is False (ForeignFirewallDrops): y", "tortiectl node status n1")],
    ),
    "no node has a block": (replace(installed(), blocks=()), [Problem("nodes n0, n1", NO_BLOCK, BLOCKS)]),
    "pools for namespaces alone": (replace(installed(), blocks=(), pools=(pool(namespaceSelector="all()"),)), []),
    "pools on demand alone": (replace(installed(), blocks=(), pools=(pool(assignmentMode="Manual"),)), []),
    "one pool of two is ahead of need": (
        replace(installed(), blocks=(), pools=(pool(assignmentMode="Manual"), pool("other"))),
        [Problem("nodes n0, n1", NO_BLOCK, BLOCKS)],
    ),
    "a pool that is too small": (
        replace(installed(), pools=(small("TooFewBlocks", "1 blocks for 2 nodes: apply a bigger IPPool"),)),
        [Problem("IPPool pool", "Sufficient is False (TooFewBlocks): 1 blocks for 2 nodes: apply a bigger IPPool",
                 "kubectl describe ippool pool")],
    ),
    "the operator's clock is behind": (replace(installed(), lease=lease(44)), []),
    "the operator's clock is ahead": (replace(installed(), lease=lease(-600)), []),
    "none leads": (
        replace(installed(), lease=lease(46)),
        [Problem("operator", "none leads", "kubectl logs -n tortie-system deployment/tortie-operator")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_problems(row: str) -> None:
    seen, expected = ROWS[row]
    assert problems(seen, NOW) == expected


def test_nothing_is_found_in_a_namespace_without_tortie() -> None:
    first = problems(replace(installed(), operators=(), agents=(), namespace="elsewhere"), NOW)[0]
    assert first.what == "no operator and no agent is in namespace elsewhere"
    assert "-n NAMESPACE" in first.remedy


def test_the_nodes_that_count_are_those_that_should_have_an_agent() -> None:
    assert summary(installed(nodes=4))["agents"] == "ready on 2 of 2 nodes"


def test_who_is_in_trouble() -> None:
    assert troubled(replace(installed(nodes=3), daemonset=daemonset(3), networks=(network("n0", "x"),))) == {"n0", "n2"}
