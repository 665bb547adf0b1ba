"""What `connectivity test` does when it can't: against a real API server, with agents that are only objects.

No controller runs there, so a new namespace gets no ServiceAccount. Paths are tried on real nodes in test_ctl_cluster.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import wait
from tests.cluster.kubectl import Kubectl
from tortie.cli.ctl import paths
from tortie.cli.ctl.cluster import Cluster
from tortie.cli.ctl.main import main
from tortie.kube.client import Client, Forbidden

ROOM = "tortie-system"
LABELS = {"app.kubernetes.io/name": "tortie", "app.kubernetes.io/component": "agent"}


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane with an agent that says that it is ready."""
    with ControlPlane() as plane:
        kubectl = Kubectl(plane.kubeconfig)
        spec = {"nodeName": "a", "serviceAccountName": "default", "containers": [{"name": "agent", "image": "none"}]}
        kubectl.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ROOM}},
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": ROOM}},
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "agent", "namespace": ROOM, "labels": LABELS},
                "spec": spec,
            },
        )
        ready = '{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}'
        kubectl.run("patch", "pod", "agent", "-n", ROOM, "--subresource=status", "-p", ready)
        yield plane


def outcome(plane: ControlPlane) -> Result:
    return CliRunner().invoke(main, ["--kubeconfig", str(plane.kubeconfig), "connectivity", "test", "--timeout", "1"])


def rooms(plane: ControlPlane) -> dict[str, str]:
    """Return the phases of the test's namespaces."""
    found = Kubectl(plane.kubeconfig).get("namespaces")["items"]
    return {
        one["metadata"]["name"]: one["status"]["phase"] for one in found if one["metadata"]["name"].startswith("tortie-conn")
    }


def is_left(plane: ControlPlane) -> bool:
    return "Active" in rooms(plane).values()


def test_a_namespace_without_a_service_account_is_not_waited_for_for_ever(plane: ControlPlane) -> None:
    began = time.monotonic()
    result = outcome(plane)
    assert time.monotonic() - began < 10
    assert result.exit_code == 1
    assert "has no ServiceAccount after 1 s" in result.stderr
    assert "is being deleted, with all that was started" in result.stderr
    assert not is_left(plane)


def test_what_can_t_be_cleaned_up_is_said_beside_what_came_before(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(_client: Client, path: str, **_conditions: Any) -> None:
        raise Forbidden("you may not", f"DELETE {path}", status=403)

    with monkeypatch.context() as patched:
        patched.setattr(Client, "delete", refused)
        result = outcome(plane)
    assert "has no ServiceAccount after 1 s" in result.stderr
    (left,) = (name for name, phase in rooms(plane).items() if phase == "Active")
    assert f"namespace {left} is left: you may not" in result.stderr
    assert f"kubectl delete namespace {left}" in result.stderr
    Kubectl(plane.kubeconfig).run("delete", "namespace", left, "--wait=false")


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 1)])
def test_told_to_end_it_cleans_up(plane: ControlPlane, sent: signal.Signals, status: int) -> None:
    program = str(Path(sys.executable).parent / "tortiectl")
    command = [program, "--kubeconfig", str(plane.kubeconfig), "connectivity", "test", "--timeout", "60"]
    # A shell's background job starts with SIGINT ignored, and what it starts does, too.
    with subprocess.Popen(["env", "--default-signal=INT", *command], stderr=subprocess.PIPE, text=True) as running:
        wait("it has begun", lambda: is_left(plane))
        running.send_signal(sent)
        _, said = running.communicate(timeout=30)
    assert running.returncode == status
    assert "is being deleted, with all that was started" in said
    assert not is_left(plane)


def pod(name: str, phase: str = "Running", *, host: bool = False, message: str | None = None) -> dict[str, Any]:
    ended = [] if message is None else [{"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": message}}}]
    status = {"phase": phase, "podIPs": [{"ip": "10.0.0.1"}], "containerStatuses": ended}
    return {"metadata": {"name": name}, "spec": {"nodeName": "a", "hostNetwork": host}, "status": status}


READY = pod("pod-b")
READY["status"]["conditions"] = [{"type": "Ready", "status": "True"}]


@pytest.mark.parametrize(
    ("late", "said"),
    [
        pytest.param(pod("pod-a"), r"1 of 2 pods aren't ready after 0.2 s; on node a: no Event", id="doesn't serve"),
        pytest.param(pod("host", "Failed", host=True, message="taken"),
                     r"1 of 2 pods have ended; on node a: taken; another --node-port may be free", id="its port is taken"),
        pytest.param(pod("pod-a", "Failed", message=""), r"have ended; on node a: OOMKilled, exit status 137$", id="killed"),
    ],
)  # fmt: skip
def test_a_pod_that_does_not_serve_is_named(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, late: dict[str, Any], said: str
) -> None:
    async def listed(_client: Client, path: str) -> list[Any]:
        return [READY, late] if path.endswith("/pods") else []

    async def run(client: Client) -> None:
        deadline = paths._Deadline(0.2)
        if late["status"]["phase"] == "Failed":  # whenever it ended
            with pytest.raises(click.ClickException, match=said):
                await paths._serving_still(client, "room", deadline)
        with pytest.raises(click.ClickException, match=said):
            await paths._running(client, "room", 2, deadline)

    monkeypatch.setattr(paths, "list_path", listed)
    Cluster(str(plane.kubeconfig), None, ROOM).ask(run)
