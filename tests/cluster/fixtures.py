"""pytest fixtures: one real control plane a process, a clean set of objects a test."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import install, start_operator
from tests.cluster.kubectl import Kubectl
from tortie.api import kinds

KINDS = tuple(kind.plural for kind in kinds.KINDS)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A control plane with the chart installed, for all tests of this process."""
    with ControlPlane() as plane:
        install(Kubectl(plane.kubeconfig))
        yield plane


@pytest.fixture
def cluster(control_plane: ControlPlane) -> Iterator[Kubectl]:
    """The administrator's kubectl on the control plane; what the test made is gone afterwards."""
    kubectl = Kubectl(control_plane.kubeconfig)
    yield kubectl
    clean(kubectl)


@pytest.fixture
def operators(control_plane: ControlPlane, cluster: Kubectl) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start operators with their options; those that still run at the end of the test are ended before the clean-up."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> subprocess.Popen[bytes]:
        started.append(start_operator(control_plane, options=(f"--identity=replica-{len(started)}", *options)))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
    cluster.run("delete", "lease", "-n", "tortie-system", "--all")


def clean(kubectl: Kubectl) -> None:
    """Delete our objects, finalizers or not, and all Nodes."""
    plurals = ",".join((*KINDS, "nodes"))
    for item in kubectl.get(plurals)["items"]:
        if item["metadata"].get("finalizers"):
            named = f"{item['kind'].lower()}/{item['metadata']['name']}"
            kubectl.run("patch", named, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    kubectl.run("delete", plurals, "--all", "--wait=false")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Keep the end of every component's log with a failure."""
    outcome: Any = yield
    report = outcome.get_result()
    if call.when == "call" and report.failed:
        planes = {value for value in getattr(item, "funcargs", {}).values() if isinstance(value, ControlPlane)}
        for log in sorted(log for plane in planes for log in plane.folder.glob("*.log")):
            report.sections.append((f"the end of {log.name}", _tail(log)))


def _tail(log: Path) -> str:
    size = int(os.environ.get("TORTIE_LOG_TAIL", "4000"))
    return log.read_text(errors="replace")[-size:]
