"""The commands that leave a control plane running, and those that end it: nothing is left."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import demo
from tests.cluster.demo import NODES
from tests.cluster.deploy import ROOT
from tests.cluster.kubectl import Kubectl
from tests.cluster.processes import recorded


def command(module: str, *arguments: str) -> list[str]:
    """Return what a command prints, as lines."""
    whole = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def kubectl_of(line: str) -> Kubectl:
    """Return a kubectl with the kubeconfig that a command says to export."""
    before, _, path = line.partition("=")
    assert before == "export KUBECONFIG"
    return Kubectl(Path(path))


def test_start_and_stop(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    line = command("tests.cluster", "start", "--folder", str(folder))[-1]
    started = recorded(folder)
    kubectl_of(line).run("get", "nodes")
    assert command("tests.cluster", "start", "--folder", str(folder))[-1] == line  # it runs already
    assert recorded(folder) == started
    assert [process.runs for process in started] == [True] * 2
    command("tests.cluster", "stop", "--folder", str(folder))
    assert not any(process.runs for process in started)
    assert not folder.exists()
    command("tests.cluster", "stop", "--folder", str(folder))  # once more is fine


def test_a_foreseen_failure_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "diary").touch()
    whole = [sys.executable, "-m", "tests.cluster", "start", "--folder", str(tmp_path)]
    done = subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"tortie: {tmp_path} is not empty: name a folder that is, or that isn't there yet\n"


def test_the_demo_that_is_kept_and_ended(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    line = command("tests.cluster.demo", "--keep", "--folder", str(folder))[-1]
    started = recorded(folder)
    assert len(kubectl_of(line).get("nodes")["items"]) == len(NODES)
    assert all(process.runs for process in started)
    command("tests.cluster.demo", "--down", "--folder", str(folder))
    assert not any(process.runs for process in started)
    assert not folder.exists()


def test_the_demo_without_what_nodes_need_says_so_and_ends_with_the_blocks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "why_not", lambda: "making network namespaces needs root")
    demo.play(None, keep=False)
    out, err = capsys.readouterr()
    assert "making network namespaces needs root; so the nodes are only names here, and there are no pods" in err
    assert out.count("10.1.0.0/26") >= 1
    assert "get pods" not in out
