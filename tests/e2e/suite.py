"""A run of the suite: what it needs on the nodes, its command line, what this kernel can't do."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.assets import find
from tests.cluster.cluster import Cluster
from tests.cluster.deploy import ROOT
from tests.cluster.images import Image, busybox, layer, write
from tests.cluster.terminal import Foreseen
from tests.e2e import results
from tests.e2e.results import PASSED, SKIPPED, Progress, Result, Skip

SUITE, SERVER = "e2e.test", "agnhost"
LOGS = ROOT / "build" / "e2e"
_TICK = 0.2  # seconds
_LOG_TAIL = 3000  # characters


@dataclass(frozen=True)
class Outcome:
    """What came of a run: the suite's exit status, and each test in focus."""

    status: int
    results: list[Result]

    @property
    def failed(self) -> list[Result]:
        """Those that didn't pass, but for those that were skipped."""
        return [one for one in self.results if one.state not in (PASSED, SKIPPED)]

    @property
    def skipped(self) -> list[Result]:
        """Those that were skipped, each with the reason."""
        return [one for one in self.results if one.state == SKIPPED]

    @property
    def passed(self) -> list[Result]:
        """Those that passed."""
        return [one for one in self.results if one.state == PASSED]


def skips() -> list[Skip]:
    """Return what is left out on this machine."""
    return [] if _has_sctp() else [Skip(r"\[Feature:SCTPConnectivity\]", "this kernel has no SCTP sockets")]


def prepare(cluster: Cluster) -> None:
    """Bring the image that the tests' pods run to every node."""
    server = Image(_image(), (busybox(), layer({SERVER: find(SERVER)})), command=("pause",), entrypoint=(f"/{SERVER}",))
    archive = write(cluster.folder / f"{SERVER}.tar", server)
    for node in cluster.nodes:
        node.ctr("images", "import", str(archive))
    archive.unlink()


def run(cluster: Cluster, focus: str, tell: Callable[[str], None] = print) -> Outcome:
    """Run the tests whose names a regular expression finds, telling of each as it ends."""
    left_out, report = skips(), cluster.folder / "e2e.json"
    report.unlink(missing_ok=True)
    log = cluster.folder / "e2e.log"
    log.touch()
    with log.open(errors="replace") as lines:
        lines.seek(0, 2)
        process = cluster.start_part("e2e", _command(cluster, focus, left_out, report))
        _follow(process, lines.readline, tell)
    if not report.exists():
        raise Foreseen(f"{SUITE} ended with status {process.returncode} and no report:\n{log.read_text()[-_LOG_TAIL:]}")
    found = results.read(report, focus, left_out)
    if not found:
        raise Foreseen(f"no test of the suite has a name in which {focus} is found")
    return Outcome(process.returncode, found)


def keep_logs(cluster: Cluster) -> Path:
    """Copy the logs of a cluster that will be gone; return where."""
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir(parents=True)
    for log in cluster.folder.glob("*.log"):
        shutil.copy(log, LOGS)
    for node in cluster.nodes:  # a pod may end meanwhile
        subprocess.run([*node.enter, "cp", "-r", "/var/log/pods", str(LOGS / node.name)], check=False, timeout=60)
    return LOGS


def _command(cluster: Cluster, focus: str, left_out: list[Skip], report: Path) -> list[str]:
    return [
        "env", f"KUBECACHEDIR={cluster.folder / 'kubectl'}", str(find(SUITE)), "--provider=skeleton",
        f"--kubeconfig={cluster.plane.kubeconfig}", f"--kubectl-path={find('kubectl')}", f"--e2e-output-dir={cluster.folder}",
        f"--ginkgo.focus={focus}", *(f"--ginkgo.skip={skip.pattern}" for skip in left_out), "--ginkgo.fail-on-empty",
        "--ginkgo.seed=1", "--ginkgo.v", "--ginkgo.no-color", "--ginkgo.silence-skips", f"--ginkgo.json-report={report}",
    ]  # fmt: skip


def _follow(process: subprocess.Popen[bytes], read: Callable[[], str], tell: Callable[[str], None]) -> None:
    """Return when a process has ended and all that it wrote is told."""
    progress, begun = Progress(), ""
    while True:
        ended = process.poll() is not None  # before the last look
        while part := read():
            begun += part
            if begun.endswith("\n"):
                if told := progress.read(begun.rstrip("\n")):
                    tell(told)
                begun = ""
        if ended:
            return
        time.sleep(_TICK)


def _image() -> str:
    """Return the name under which the suite asks for the image."""
    listed = subprocess.run([str(find(SUITE)), "--list-images"], capture_output=True, text=True, check=True, timeout=60).stdout
    return next(
        name for name in listed.split() if f"/e2e-test-images/{SERVER}:" in name
    )  # where it is from is the suite's affair


def _has_sctp() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True
