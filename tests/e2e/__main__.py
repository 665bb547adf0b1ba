"""`make e2e FOCUS=Netpol`: Kubernetes' own end-to-end suite on a real cluster. The exit status is the suite's.

`python -m tests.e2e [--focus Netpol] [--nodes 3]`.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from tests.cluster import terminal
from tests.cluster.assets import find
from tests.cluster.cluster import Cluster
from tests.cluster.terminal import say
from tests.e2e.suite import SERVER, SUITE, Outcome, keep_logs, prepare, run


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e", description=__doc__)
    parser.add_argument("--focus", default="Netpol", help="a regular expression of the tests' names; default: %(default)s")
    parser.add_argument("--nodes", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args()
    for asset in (SUITE, SERVER):
        find(asset)
    say(f"starting a control plane and {arguments.nodes} nodes")
    with Cluster(arguments.nodes) as cluster:
        cluster.install()
        prepare(cluster)
        say(f"running {arguments.focus}; the whole of what the suite says is in {cluster.folder / 'e2e.log'} while it runs")
        outcome = run(cluster, arguments.focus, partial(print, flush=True))
        logs = keep_logs(cluster) if outcome.status else None
    conclude(outcome, logs)


def conclude(outcome: Outcome, logs: Path | None) -> None:
    """Say what came of it; the exit status is the suite's."""
    for one in outcome.skipped + outcome.failed:
        print(one, flush=True)
    seconds = sum(one.seconds for one in outcome.results)
    counted = f"{len(outcome.passed)} passed, {len(outcome.failed)} failed, {len(outcome.skipped)} skipped in {seconds:.0f} s"
    if outcome.status:
        say(f"{counted}; the logs are in {logs}")
        sys.exit(outcome.status)
    say(f"{counted}; nothing is left running")


if __name__ == "__main__":
    terminal.run(main)
