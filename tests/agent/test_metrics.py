"""What an agent says of itself is true: on a real node, with a real API server that comes and goes."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.agent.acting import HEALTH_PORT, AgentNode, Failed
from tests.agent.namespaces import namespaces, needs_root, run
from tests.agent.test_agent import traced
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import active, node, pool
from tests.scraped import Scraped

pytestmark = [needs_root, pytest.mark.usefixtures("operator")]
ADDRESS = "[::1]:9095"


@pytest.fixture
def one(control_plane: ControlPlane, cluster: Kubectl, tmp_path: Path) -> Iterator[AgentNode]:
    """An agent that serves its metrics on an address, too, and owns a block."""
    cluster.apply(pool(), node("a"))
    wait("a block", lambda: len(active(cluster, "a")) == 1)
    with namespaces(3) as (path, *pods), closing(AgentNode("a", control_plane, tmp_path, path, pods)) as made:
        made.options = ("--metrics-address", ADDRESS)
        made.start()
        becomes(made, 1, "blocks", pool="pool")
        yield made


def got(one: AgentNode, address: str, path: str = "/metrics") -> str:
    """Return a page, "" where there is none."""
    return run(["sh", "-c", f"busybox wget -q -O - 'http://{address}{path}' || true"], one.path)


def said(one: AgentNode, name: str, **labels: str) -> float | None:
    return Scraped(got(one, ADDRESS)).value(f"tortie_agent_{name}", **labels)


def becomes(one: AgentNode, value: float, name: str, **labels: str) -> None:
    wait(f"{name} {labels} is {value}", lambda: said(one, name, **labels) == value)


def test_the_probes_are_not_where_the_metrics_are(one: AgentNode) -> None:
    local = f"127.0.0.1:{HEALTH_PORT}"
    assert got(one, local, "/healthz") == got(one, local, "/readyz") == "ok"
    assert got(one, ADDRESS, "/healthz") == got(one, ADDRESS, "/readyz") == ""
    assert "tortie_agent_blocks" in got(one, ADDRESS)
    assert "tortie_agent_blocks" in got(one, local)


def test_addresses_and_requests_are_counted(one: AgentNode) -> None:
    assert said(one, "addresses_free", pool="pool") == 64
    assert said(one, "addresses_in_use") == 0
    one.add(0)
    assert said(one, "addresses_free", pool="pool") == 63
    assert said(one, "addresses_in_use") == 1
    assert said(one, "requests_seconds_count", command="ADD", result="ok") == 1
    with pytest.raises(Failed):
        one.cni("CHECK", 1)
    assert said(one, "requests_seconds_count", command="CHECK", result="3") == 1
    assert said(one, "ledger_writable") == 1
    assert said(one, "pools_asked") == said(one, "foreign_firewall") == 0
    assert said(one, "routes_missing") == 1, "this namespace has no address"


def test_what_the_api_server_doesn_t_have_grows_old_until_it_has_it(one: AgentNode, control_plane: ControlPlane) -> None:
    one.add(0)
    becomes(one, 0, "blocks_unpublished")
    becomes(one, 1, "api_server_up")
    control_plane.kill("kube-apiserver")
    try:
        one.add(1)
        becomes(one, 1, "blocks_unpublished")
        becomes(one, 0, "api_server_up")
        wait("it is a second old", lambda: (said(one, "unpublished_seconds") or 0) > 1)
        assert said(one, "ledger_writable") == 1
    finally:
        control_plane.start("kube-apiserver")
        control_plane.wait_ready()
    becomes(one, 0, "blocks_unpublished")
    becomes(one, 1, "api_server_up")
    assert said(one, "unpublished_seconds") == 0


def test_a_del_that_was_deferred_is_counted_until_it_is_done(one: AgentNode) -> None:
    folder = one.folder / "state" / "deferred"
    one.add(0)
    one.kill()
    one.cni("DEL", 0)
    (request,) = folder.glob("*.json")
    one.start()
    becomes(one, 0, "addresses_in_use")
    assert said(one, "deferred_dels") == 0
    request.write_text("{}")  # what the agent hasn't looked at yet
    assert said(one, "deferred_dels") == 1
    becomes(one, 0, "deferred_dels")


def test_a_ledger_on_a_broken_disk_is_noticed_without_a_pod(one: AgentNode, tmp_path: Path) -> None:
    """Strace lets the syncs of the agent fail, as a disk does."""
    failing = ("-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO")
    with traced(one, tmp_path / "trace", *failing):
        becomes(one, 0, "ledger_writable")
    becomes(one, 1, "ledger_writable")
