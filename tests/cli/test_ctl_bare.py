"""tortiectl against a cluster in which Tortie isn't, or not wholly: each command says so, and no traceback."""

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import install
from tests.cluster.kubectl import Kubectl
from tortie.cli.ctl.main import main

EVERY = (
    "status", "node status", "version", "ipam show", "ipam show --blocks", "ipam show --ip 10.1.0.1", "ipam check",
    "ipam map pool", "ipam release --from-report -", "diagnose --file /nowhere", "connectivity test",
)  # fmt: skip


@pytest.fixture(scope="module")
def bare() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.mark.parametrize("command", EVERY)
def test_a_cluster_without_tortie_is_told_so(bare: ControlPlane, command: str) -> None:
    leak = {"kind": "leak", "subject": "10.1.0.1", "node": "a", "pod": "default/web", "why": "", "uid": "", "epoch": "",
            "sequence": 1}  # fmt: skip
    line = ["--kubeconfig", str(bare.kubeconfig), *command.split()]
    result = CliRunner().invoke(main, line, input=json.dumps([leak]))
    assert result.exception is None or isinstance(result.exception, SystemExit)
    if command == "version":  # what is not there has none
        assert result.exit_code == 0
        assert "no operator and no agent is in namespace tortie-system" in result.stderr
    else:
        assert result.exit_code == 1
        assert "is Tortie installed there?" in result.stderr or "no agent is ready" in result.stderr


REPORTS = {
    "no JSON": "sorry",
    "no list": '{"a": 1}',
    "another's": '[{"kind": "leak"}]',
    "no address": '[{"kind":"leak","subject":"x","node":"a","pod":"b/c","why":"","uid":"","epoch":"","sequence":1}]',
}


@pytest.mark.parametrize("row", REPORTS)
def test_a_report_that_is_none(bare: ControlPlane, row: str) -> None:
    command = ["--kubeconfig", str(bare.kubeconfig), "ipam", "release", "--from-report", "-"]
    result = CliRunner().invoke(main, command, input=REPORTS[row])
    assert result.exit_code == 1
    assert "is no report" in result.stderr
    assert "write one with tortiectl ipam check -o json" in result.stderr


def test_a_cluster_whose_agents_run_elsewhere(bare: ControlPlane) -> None:
    """Objects of Tortie's, and no agent to ask."""
    install(Kubectl(bare.kubeconfig))
    result = CliRunner().invoke(main, ["--kubeconfig", str(bare.kubeconfig), "status"])
    assert result.exit_code == 0
    assert "none is ready: no node gets a block" in result.stdout
    assert "no operator and no agent is in namespace tortie-system" in result.stdout
    assert "tortiectl status -n NAMESPACE" in result.stdout
