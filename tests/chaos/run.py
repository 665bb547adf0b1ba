"""The run: faults and churn by the schedule, looks in between, quiet, the audit."""

import shutil
import subprocess
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.chaos import churn
from tests.chaos.faults import Faults
from tests.chaos.judgement import Finding, always, audit
from tests.chaos.reading import glance, read
from tests.chaos.schedule import CHURN, Step, schedule
from tests.cluster.cluster import Cluster
from tests.cluster.deploy import ROOT, rolled_out, wait
from tests.cluster.kubectl import Refused
from tests.cluster.terminal import Foreseen

COOLDOWN, LEAK_GRACE = 20, 15  # seconds
VALUES = (
    f"agent.cooldown={COOLDOWN}", f"operator.leakGrace={LEAK_GRACE}",
    "operator.gracePeriod=15",  # seconds; so blocks go back within a run
    "operator.leaseDuration=6",  # seconds; a paused leader loses its lease
)  # fmt: skip
POOLS = Path(__file__).parent / "pools.yaml"
_LOOK_EVERY = 2.0  # seconds
# Seconds until everything works again.
_QUIET = 240.0
_CONTROLLERS = "kube-controller-manager"
# Seconds from quiet until nothing may be wrong any more: a leak's grace, twice because a release that was lost is asked again.
_CLEAN = 2 * LEAK_GRACE + 60.0
_TICK = 0.2  # seconds


def say(text: str) -> None:
    """Tell a line of what happens."""
    print(text, flush=True)


def prepare(cluster: Cluster) -> None:
    """Install Tortie as a run needs it; return when the first pods run."""
    cluster.install(*VALUES, pools=POOLS)
    wait("pods can be made", lambda: bool(cluster.kubectl.get("serviceaccounts")["items"]))
    cluster.kubectl.apply(*churn.workloads())
    if stuck := settle(cluster):
        raise Foreseen("; ".join(finding.what for finding in stuck))


def run(cluster: Cluster, seed: int, seconds: float) -> list[Finding]:
    """Do everything that a seed says; return what the auditor found."""
    steps = schedule(seed, seconds, [node.name for node in cluster.nodes])
    with Watch(cluster) as watch:
        perform(cluster, steps)
    # A controller whose creation of a pod was lost makes no more for 5 minutes (ExpectationsTimeout): it begins anew.
    cluster.plane.kill(_CONTROLLERS)
    cluster.plane.start(_CONTROLLERS)
    say(f"tortie: {len(steps)} steps are done, everything is mended; looked {watch.looks} times meanwhile")
    if not watch.looks:
        raise RuntimeError(f"no look took less than {COOLDOWN} s: this machine is too slow for a run that says anything")
    return [*watch.found, *settle(cluster), *last_audit(cluster)]


def perform(cluster: Cluster, steps: Iterable[Step]) -> None:
    """Do each step at its time. What is asked of the API, which may be away, is done beside the rest, one after another."""
    faults, asked = Faults(cluster), list[Future[None]]()
    began = time.monotonic()
    with ThreadPoolExecutor(1) as beside:
        try:
            for step in steps:
                while (left := began + step.at - time.monotonic()) > 0:
                    _restart(faults)
                    time.sleep(min(_TICK, left))
                if step.action in CHURN:
                    asked.append(beside.submit(_churn, cluster, step))
                else:
                    say(f"{step}: {faults.do(step)}")
        except BaseException:
            beside.shutdown(cancel_futures=True)
            raise
    for one in asked:
        one.result()
    _restart(faults)


def _churn(cluster: Cluster, step: Step) -> None:
    say(f"{step}: {churn.do(cluster.kubectl, step).strip()}")


def _restart(faults: Faults) -> None:
    for name in faults.restart_ended():
        say(f"          {name} had ended by itself and is started again")


class Watch:
    """Looks again and again, beside a run, for what must not be at any moment.

    A look that took too long says nothing: an address may have gone from one pod to another meanwhile.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")
        self._failed: Exception | None = None
        self.found: list[Finding] = []
        self.looks = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        if self._failed and value is None:
            raise self._failed

    def _run(self) -> None:
        try:
            while not self._over.wait(_LOOK_EVERY):
                self._look()
        except Exception as error:  # told by __exit__
            self._failed = error

    def _look(self) -> None:
        began = time.monotonic()
        facts = glance(self._cluster)
        if time.monotonic() - began < COOLDOWN:
            self.looks += 1
            for finding in always(facts):
                if finding not in self.found:
                    self.found.append(finding)
                    say(f"          FOUND {finding}")


def settle(cluster: Cluster) -> list[Finding]:
    """Return when everything that should run does; what doesn't, after long enough, is found.

    Parts end by themselves meanwhile: controllers that found no API server for 10 s give up.
    """
    unlike, faults = ["nothing was asked yet"], Faults(cluster)

    def is_quiet() -> bool:
        _restart(faults)
        try:
            unlike[:] = churn.not_quiet(cluster.kubectl)
            if not cluster.is_ready():
                unlike.append("not every node is Ready")
            if not rolled_out(cluster.kubectl, len(cluster.nodes)):
                unlike.append("not every operator and agent is ready")
        except Refused as refused:
            unlike[:] = [str(refused)]
        return not unlike

    began = time.monotonic()
    try:
        wait("quiet", is_quiet, _QUIET)
    except TimeoutError:
        return [Finding("stuck", why, "the cluster", f"for {_QUIET:g} s after everything was mended") for why in unlike]
    say(f"tortie: everything runs, after {time.monotonic() - began:.0f} s")
    return []


def last_audit(cluster: Cluster, seconds: float = _CLEAN) -> list[Finding]:
    """Return what the auditor finds and goes on finding."""
    found: list[Finding] = []

    def is_clean() -> bool:
        found[:] = audit(read(cluster))
        return not found

    began = time.monotonic()
    try:
        wait("nothing is wrong", is_clean, seconds)
        say(f"tortie: the auditor finds nothing, after {time.monotonic() - began:.0f} s")
    except TimeoutError:
        pass
    return found


def keep_logs(cluster: Cluster, seed: int) -> Path:
    """Copy what tells about a cluster that will be gone: every log, and the objects as they are; return where."""
    target = ROOT / "build" / f"chaos-{seed}"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for node in cluster.nodes:
        subprocess.run([*node.enter, "cp", "-r", "/var/log/pods", str(target / node.name)], check=True, timeout=60)
    for log in cluster.folder.glob("*.log"):
        shutil.copy(log, target)
    kinds = "nodes,pods,deployments,replicasets,statefulsets,jobs,events,ippools,ipamblocks,nodenetworks"
    (target / "objects.yaml").write_text(cluster.kubectl.run("get", kinds, "-A", "-o", "yaml"))
    return target
