"""pytest fixtures: one real control plane a process, a clean set of objects a test."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import NAMESPACE, install, start_operator
from tests.cluster.kubectl import Kubectl, Refused
from tortie.api import kinds

KINDS = tuple(kind.plural for kind in kinds.KINDS)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A control plane with the chart installed, for all tests of this process."""
    with ControlPlane() as plane:
        install(Kubectl(plane.kubeconfig))
        yield plane


class SharedOperator:
    """An operator for tests that need one and ask no more of it: it goes on from one to the next, for a start takes seconds."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, if it doesn't run. It leads also after a test in which the API server was away."""
        if self.process is None or self.process.poll() is not None:
            self.end()
            self.process = start_operator(self.plane, options=("--lease-duration", "120"))

    def end(self) -> None:
        """End it, if it was started."""
        if self.process is not None:
            end(Kubectl(self.plane.kubeconfig), self.process)
            self.process = None


def end(kubectl: Kubectl, *operators: subprocess.Popen[bytes]) -> None:
    """End operators; the next one needn't wait for their lease."""
    for process in operators:
        process.kill()
        process.wait()
    kubectl.run("delete", "lease", "-n", NAMESPACE, "--all")


@pytest.fixture(scope="session")
def shared_operator(control_plane: ControlPlane) -> Iterator[SharedOperator]:
    shared = SharedOperator(control_plane)
    yield shared
    shared.end()


@pytest.fixture
def cluster(request: pytest.FixtureRequest, shared_operator: SharedOperator) -> Iterator[Kubectl]:
    """The administrator's kubectl on the control plane; what the test made is gone afterwards."""
    if "operator" not in request.fixturenames:
        shared_operator.end()
    kubectl = Kubectl(shared_operator.plane.kubeconfig)
    yield kubectl
    clean(kubectl)


@pytest.fixture
def operator(shared_operator: SharedOperator, cluster: Kubectl) -> None:  # noqa: ARG001 - it is there before
    """An operator with the settings that people have."""
    shared_operator.start()


@pytest.fixture
def operators(control_plane: ControlPlane, cluster: Kubectl) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start operators with their options; those that still run at the end of the test are ended before the clean-up."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> subprocess.Popen[bytes]:
        started.append(start_operator(control_plane, options=(f"--identity=replica-{len(started)}", *options)))
        return started[-1]

    yield start
    end(cluster, *started)


def clean(kubectl: Kubectl) -> None:
    """Delete our objects, finalizers or not, Nodes and Events; again, if an operator that runs has made more meanwhile."""
    plurals = ",".join(("nodes", *KINDS))
    kubectl.run("delete", f"{plurals},events", "--all", "--all-namespaces", "--wait=false")
    while items := kubectl.get(plurals)["items"]:
        for item in items:
            if item["metadata"].get("finalizers"):
                named = f"{item['kind'].lower()}/{item['metadata']['name']}"
                with suppress(Refused):  # the operator was quicker
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
