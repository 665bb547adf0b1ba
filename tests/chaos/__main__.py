"""`make chaos MINUTES=10 SEED=1`: faults on a real cluster, then the auditor. The exit status is 0 only if it found nothing.

`python -m tests.chaos [--minutes 10] [--seed 1] [--nodes 3]`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.judgement import Finding
from tests.chaos.run import keep_logs, prepare, run
from tests.cluster import terminal
from tests.cluster.cluster import Cluster
from tests.cluster.terminal import say


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long faults come; default: %(default)g")
    parser.add_argument("--seed", type=int, default=1, help="what every choice comes from; default: %(default)s")
    parser.add_argument("--nodes", type=int, default=3, help="default: %(default)s, at least 2")
    arguments = parser.parse_args()
    if arguments.nodes < 2:
        parser.error("--nodes: pods are asked from another node, and two operators can't be on one: at least 2")
    again = f"make chaos MINUTES={arguments.minutes:g} SEED={arguments.seed} NODES={arguments.nodes}"
    say(f"{again}: starting a control plane and {arguments.nodes} nodes")
    with Cluster(arguments.nodes) as cluster:
        prepare(cluster)
        found = run(cluster, arguments.seed, 60 * arguments.minutes)
        logs = keep_logs(cluster, arguments.seed) if found else None
    conclude(found, again, logs)


def conclude(found: Sequence[Finding], again: str, logs: Path | None) -> None:
    """Say what was found; the exit status is 0 only if that is nothing."""
    if found:
        print("\n".join(map(str, found)), flush=True)
        sys.exit(f"tortie: {len(found)} found; the logs are in {logs}; again: {again}")
    say("nothing found; nothing is left running")


if __name__ == "__main__":
    terminal.run(main)
