"""From a policy that is applied to what `tortiectl policy status` says: operator and hollow agents, both as processes."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.cluster import processes
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import Operators, pool
from tests.controller.policies import admits, pod
from tortie.cli.ctl.main import main


@pytest.fixture
def agents(control_plane: ControlPlane, cluster: Kubectl) -> Iterator[subprocess.Popen[bytes]]:
    """One process that is the agents of the nodes h0 and h1."""
    tortie = str(Path(sys.executable).parent / "tortie")
    line = [tortie, "hollow", "--nodes", "2", "--prefix", "h", "--kubeconfig", str(control_plane.kubeconfig)]
    process = processes.start(line, control_plane.log("hollow"))
    yield process
    process.kill()
    process.wait()
    cluster.run("delete", "pods,networkpolicies", "--all", "--grace-period=0", "--force")


def status(plane: ControlPlane, *options: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Return the exit status, the row of the policy, and by node why it isn't enforced there."""
    line = ["--kubeconfig", str(plane.kubeconfig), "policy", "status", "default/db", "-o", "json", *options]
    result = CliRunner().invoke(main, line)
    (row,) = json.loads(result.stdout)
    return result.exit_code, row, {one["node"]: one["why"] for one in row["missing"]}


def test_a_policy_is_enforced_on_every_node_that_it_concerns(
    control_plane: ControlPlane, cluster: Kubectl, operators: Operators, agents: subprocess.Popen[bytes]
) -> None:
    operators()
    cluster.apply(pool())
    wait("both nodes", lambda: cluster.run("get", "nodes", "-o", "name").split() == ["node/h0", "node/h1"])
    cluster.apply(pod("db-0", "h0", "default"), pod("db-1", "h1", "default"), pod("web-0", "h0", "default"))
    cluster.apply(admits("db", "db", "web", port=80, namespace="default"))
    exit_code, row, missing = status(control_plane, "--wait", "--timeout", "30")
    assert (exit_code, row["nodes"], row["enforced"], missing) == (0, 2, 2, {})
    assert row["since"]
    shown = cluster.run("get", "nodepolicies").splitlines()
    assert [line.split()[0] for line in shown] == ["NAME", "h0", "h1"]

    agents.send_signal(signal.SIGSTOP)
    cluster.apply(admits("db", "db", "web", port=5432, namespace="default"))
    newest = {"its agent enforces generation 1 of RuleSet", "and 2 is the newest"}
    wait(
        "the operator has compiled it, and no agent has it",
        lambda: [all(part in why for part in newest) for why in status(control_plane)[2].values()] == [True, True],
    )
    assert status(control_plane)[0] == 3
    agents.send_signal(signal.SIGCONT)
    exit_code, row, missing = status(control_plane, "--wait", "--timeout", "30")
    assert (exit_code, row["enforced"], missing) == (0, 2, {})
