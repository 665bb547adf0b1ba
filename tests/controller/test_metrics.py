"""What the operator says of itself is true, while pools, nodes and blocks come and go on a real API server."""

from collections.abc import Callable

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import wait
from tests.cluster.kubectl import Kubectl
from tests.cluster.ports import HeldPort
from tests.controller.acting import Operators, active, blocks, node, pool, publish
from tests.scraped import Scraped
from tortie.addressing.state import State
from tortie.controller.metrics import METRICS as OPERATOR
from tortie.controller.metrics import NAMED, Known, View, count_write
from tortie.kube.errors import AlreadyExists, ApiError, Conflict, NotFound, NotLeading, TooManyRequests, Unreachable

Said = Callable[..., float | None]


@pytest.fixture
def port() -> int:
    held = HeldPort()
    held.release()
    return held.number


@pytest.fixture
def said(port: int) -> Said:
    """What the operator says now: `said(name, **labels)`, without `tortie_operator_`."""

    def ask(name: str, **labels: str) -> float | None:
        try:
            return Scraped.of(f"127.0.0.1:{port}").value(f"tortie_operator_{name}", **labels)
        except OSError:  # it starts
            return None

    return ask


def becomes(said: Said, value: float | None, name: str, **labels: str) -> None:
    wait(f"{name} {labels} is {value}", lambda: said(name, **labels) == value)


def test_pools_nodes_and_blocks_come_and_go(cluster: Kubectl, operators: Operators, said: Said, port: int) -> None:
    operators("--health-port", str(port), "--reclaim-delay", "0")
    becomes(said, 1, "leading")
    becomes(said, 0, "nodes")
    cluster.apply(pool(cidr="10.1.0.0/25"), node("a"))
    becomes(said, 1, "blocks", state="active")
    assert said("nodes") == said("pool_blocks_assigned", pool="pool") == said("pool_blocks_free", pool="pool") == 1
    assert said("pool_addresses_capacity", pool="pool") == said("pool_addresses_available", pool="pool") == 128
    publish(cluster, blocks(cluster)[0]["metadata"]["name"], free=60, allocations=[{"address": "10.1.0.1", "sequence": 1}])
    becomes(said, 1, "pool_addresses_allocated", pool="pool")
    becomes(said, 127, "pool_addresses_available", pool="pool")
    cluster.run("delete", "node", "a")
    becomes(said, 0, "nodes")
    becomes(said, 0, "blocks", state="active")
    becomes(said, 0, "pool_addresses_allocated", pool="pool")
    becomes(said, 0, "inert_block_seconds")
    cluster.run("delete", "ippool", "pool")
    becomes(said, None, "pool_addresses_capacity", pool="pool")


def test_a_node_that_starves_is_counted_and_named_until_it_has_its_block(
    cluster: Kubectl, operators: Operators, said: Said, port: int
) -> None:
    operators("--health-port", str(port))
    cluster.apply(pool(cidr="10.1.0.0/26"), node("a"))
    wait("a block", lambda: len(active(cluster, "a")) == 1)
    assert said("nodes_starving") == 0
    becomes(said, 1, "pool_sufficient", pool="pool")
    cluster.apply(node("b"))
    becomes(said, 1, "nodes_starving")
    becomes(said, 0, "pool_sufficient", pool="pool")
    assert said("node_starving", node="b") == 1
    assert said("node_starving", node="a") is None
    assert said("pool_blocks_free", pool="pool") == 0
    cluster.apply(pool("more", cidr="10.2.0.0/24"))
    becomes(said, 0, "nodes_starving")
    assert said("node_starving", node="b") is None


def test_pools_that_give_nothing(cluster: Kubectl, operators: Operators, said: Said, port: int) -> None:
    operators("--health-port", str(port))
    cluster.apply(pool("a-old"))
    becomes(said, 1, "pool_allocatable", pool="a-old")
    cluster.apply(pool("b-young", cidr="10.1.0.0/20"), pool("off", cidr="10.2.0.0/24", disabled=True))
    becomes(said, 0, "pool_allocatable", pool="b-young")
    becomes(said, 0, "pool_allocatable", pool="off")
    cluster.run("delete", "ippool", "a-old")
    becomes(said, 1, "pool_allocatable", pool="b-young")


def test_a_block_that_is_asked_back(cluster: Kubectl, operators: Operators, said: Said, port: int) -> None:
    operators("--health-port", str(port))
    cluster.apply(pool(nodeSelector="!has(drain)"), node("a"))
    becomes(said, 1, "blocks", state="active")
    cluster.apply(node("a", drain="now"))
    becomes(said, 1, "blocks", state="asked_back")
    assert said("blocks", state="active") == 0
    publish(cluster, blocks(cluster)[0]["metadata"]["name"], ceded="10.1.0.0/26", free=0)
    becomes(said, 0, "blocks", state="asked_back")


def test_writes_and_passes_are_counted_and_a_lost_api_server_shows(
    cluster: Kubectl, operators: Operators, said: Said, port: int, control_plane: ControlPlane
) -> None:
    operators("--health-port", str(port), "--lease-duration", "120")
    cluster.apply(pool())
    becomes(said, 1, "pool_allocatable", pool="pool")  # or the node may be seen first, and told of no blocks
    cluster.apply(node("a"))
    # It is made, and set active; its network is made; the pool's finalizer is put on.
    becomes(said, 2, "writes_total", kind="block", result="ok")
    becomes(said, 1, "writes_total", kind="network", result="ok")
    assert said("writes_total", kind="finalizer", result="ok") == 1
    becomes(said, 0, "writes_pending")
    assert said("writes_total", kind="block", result="error") == 0
    passes = said("plan_seconds_count")
    assert passes
    control_plane.kill("kube-apiserver")
    try:
        for resource in ("nodes", "ipamblocks", "nodenetworks"):
            becomes(said, 0, "stream_up", resource=resource)
    finally:
        control_plane.start("kube-apiserver")
        control_plane.wait_ready()
    for resource in ("nodes", "ipamblocks", "nodenetworks"):
        becomes(said, 1, "stream_up", resource=resource)
    cluster.apply(node("b"))
    wait("another pass", lambda: (said("plan_seconds_count") or 0) > passes)


def test_a_replica_that_waits_says_so_until_it_leads(cluster: Kubectl, operators: Operators, said: Said, port: int) -> None:
    first = operators()
    cluster.apply(pool())
    wait("one leads", lambda: bool(cluster.run("get", "ippools", "-o", "jsonpath={.items[*].status.blockSize}")))
    operators("--health-port", str(port))
    becomes(said, 0, "leading")
    assert said("pool_allocatable", pool="pool") is None
    first.terminate()
    becomes(said, 1, "leading")
    becomes(said, 1, "pool_allocatable", pool="pool")


RESULTS: dict[str, ApiError | None] = {
    "ok": None,
    "conflict": Conflict("changed", "PATCH /x"),
    "conflict, there already": AlreadyExists("there", "POST /x"),
    "conflict, gone": NotFound("gone", "PATCH /x"),
    "error": Unreachable("away", "PATCH /x"),
    "error, to wait": TooManyRequests("wait", "PATCH /x"),
    "none": NotLeading("another leads", "PATCH /x"),
}


@pytest.mark.parametrize("row", RESULTS)
def test_results_of_writes(row: str) -> None:
    def counts() -> dict[str, float | None]:
        scraped = Scraped(OPERATOR.render(View(None, leads=False)).decode())
        return {r: scraped.value("tortie_operator_writes_total", kind="status", result=r) for r in ("ok", "conflict", "error")}

    before = counts()
    count_write("status", RESULTS[row])
    changed = [result for result, count in counts().items() if count != before[result]]
    assert changed == [result for result in before if row.startswith(result)]


def test_of_thousands_that_starve_the_first_are_named() -> None:
    state = State()
    state.starving = {f"node-{number:04}": frozenset() for number in range(5000)}
    known = Known(state, {}, (), lambda: 0, {}, {})
    scraped = Scraped(OPERATOR.render(View(known, leads=True)).decode())
    assert scraped.value("tortie_operator_nodes_starving") == 5000
    named = [s.labels["node"] for s in scraped.samples if s.name == "tortie_operator_node_starving"]
    assert named == sorted(state.starving)[:NAMED]


def test_a_pool_that_can_t_be_used_gives_nothing() -> None:
    known = Known(State(), {"bad": "spec.cidr: it is none"}, (), lambda: 0, {}, {})
    scraped = Scraped(OPERATOR.render(View(known, leads=True)).decode())
    assert scraped.value("tortie_operator_pool_allocatable", pool="bad") == 0
