"""The control plane itself: it is real, it is alone on its ports, it can be broken and mended, and it leaves nothing."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import components
from tests.cluster.assets import KUBERNETES
from tests.cluster.control_plane import ClusterError, ControlPlane
from tests.cluster.deploy import ROOT, wait
from tests.cluster.kubectl import Kubectl, Refused
from tests.cluster.processes import Recorded, record


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=True) as plane:
        yield plane


@pytest.fixture
def kubectl(plane: ControlPlane) -> Kubectl:
    return Kubectl(plane.kubeconfig)


def running(plane: ControlPlane) -> list[Recorded]:
    return [record(process.pid) for process in plane.processes.values()]


def config_map(name: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}


def test_it_is_the_version_that_we_pin(plane: ControlPlane, kubectl: Kubectl) -> None:
    assert plane.request("/version")["gitVersion"] == f"v{KUBERNETES}"
    kubectl.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}})
    assert kubectl.run("get", "nodes", "-o", "name") == "node/node-1\n"


def test_controllers_give_a_namespace_its_service_account(kubectl: Kubectl) -> None:
    kubectl.run("create", "namespace", "new")
    kubectl.run("wait", "--for=create", "serviceaccount/default", "--namespace=new", "--timeout=30s")


def test_a_service_account_has_its_rights_and_no_others(plane: ControlPlane, kubectl: Kubectl) -> None:
    kubectl.run("create", "serviceaccount", "reader")
    kubectl.run("create", "role", "reader", "--verb=get,list", "--resource=configmaps")
    kubectl.run("create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:reader")
    reader = Kubectl(plane.kubeconfig_for_service_account("default", "reader"))
    assert "kube-root-ca.crt" in reader.run("get", "configmaps")
    with pytest.raises(Refused, match='"system:serviceaccount:default:reader" cannot list resource "secrets"'):
        reader.run("get", "secrets")


@pytest.mark.parametrize("part", ["etcd", "kube-apiserver"])
def test_a_part_that_crashed_comes_back_with_its_data_and_port(plane: ControlPlane, kubectl: Kubectl, part: str) -> None:
    name, server = f"kept-by-{part}", plane.server
    kubectl.apply(config_map(name))
    plane.kill(part)
    plane.start(part)
    plane.wait_ready()
    assert plane.server == server
    assert kubectl.run("get", "configmap", name, "-o", "name") == f"configmap/{name}\n"


def test_two_at_once_know_nothing_of_each_other(plane: ControlPlane, kubectl: Kubectl) -> None:
    with ControlPlane() as other:
        kubectl.apply(config_map("ours"))
        assert "ours" not in Kubectl(other.kubeconfig).run("get", "configmaps")
        kubectl.run("get", "configmap", "ours")
        with pytest.raises(Refused, match="certificate signed by unknown authority"):
            Kubectl(plane.kubeconfig).run("get", "nodes", f"--server={other.server}")


def test_without_controllers_a_pod_needs_no_service_account_and_outlives_a_restart() -> None:
    with ControlPlane() as plane:
        kubectl = Kubectl(plane.kubeconfig)
        kubectl.run("run", "pod", "--image=none")
        for part in ("kube-apiserver", "etcd"):
            plane.stop(part)
        for part in ("etcd", "kube-apiserver"):
            plane.start(part)
        plane.wait_ready()
        assert kubectl.run("get", "pods", "-o", "name") == "pod/pod\n"


def test_the_end_leaves_no_process_and_no_folder() -> None:
    with ControlPlane() as plane:
        started = running(plane)
        assert len(started) == 2
        plane.pause("kube-apiserver")  # one that stands still ends too
    assert not any(process.runs for process in started)
    assert not plane.folder.exists()


@pytest.mark.parametrize(
    ("part", "says"),
    [
        pytest.param("etcd", "flag provided but not defined: -no-such-flag", id="etcd"),
        pytest.param("kube-apiserver", "unknown flag: --no-such-flag", id="kube-apiserver"),
        pytest.param("kube-controller-manager", "unknown flag: --no-such-flag", id="kube-controller-manager"),
    ],
)
def test_a_part_that_cannot_start_is_named(monkeypatch: pytest.MonkeyPatch, part: str, says: str) -> None:
    monkeypatch.setitem(components.COMMAND_LINES, part, lambda _site: ["--no-such-flag"])
    plane = ControlPlane(controllers=True)
    with pytest.raises(ClusterError, match=rf"(?s)^{part} ended; the end of its log:\n.*{says}"), plane:
        pass
    assert plane.processes == {}
    assert not plane.folder.exists()


def test_a_folder_with_anything_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "diary").touch()
    with pytest.raises(ClusterError, match="is not empty: name a folder that is, or that isn't there yet"):
        ControlPlane(folder=tmp_path)
    ControlPlane.end(tmp_path)
    assert (tmp_path / "diary").exists()


PARENT = textwrap.dedent("""
    import json, signal
    from tests.cluster.control_plane import ControlPlane
    from tests.cluster.processes import record
    from tests.cluster.terminal import run
    def main():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in a shell's background starts with it ignored
        with ControlPlane() as plane:
            print(json.dumps([str(plane.folder), [record(p.pid) for p in plane.processes.values()]]), flush=True)
            signal.pause()
    run(main)
""")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_parent_that_ends_takes_all_with_it(tmp_path: Path, sent: signal.Signals) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        folder, rows = json.loads(parent.stdout.readline())
        started = [Recorded(*row) for row in rows]
        assert all(process.runs for process in started)
        os.kill(parent.pid, sent)
        assert parent.wait(30) == (-sent if sent == signal.SIGKILL else 128 + sent)
    wait("no process is left", lambda: not any(process.runs for process in started))
    assert Path(folder).exists() == (sent == signal.SIGKILL)  # nobody was left to remove it
