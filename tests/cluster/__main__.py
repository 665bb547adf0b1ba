"""`python -m tests.cluster start [--controllers]` starts a control plane that goes on running; `stop` ends it."""

import argparse
from pathlib import Path

from tests.cluster.components import ADMIN
from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import recorded
from tests.cluster.terminal import run, say

STATE = Path(__file__).parent / ".running"


def start(folder: Path, *, controllers: bool) -> None:
    """Start a control plane in a folder unless one runs there, and print how to reach it."""
    if any(process.runs for process in recorded(folder)):
        say("it runs already; `python -m tests.cluster stop` ends it")
        print(f"export KUBECONFIG={(folder / ADMIN).absolute()}")
        return
    ControlPlane.end(folder)  # what a reboot left
    with ControlPlane(controllers=controllers, folder=folder, detached=True) as plane:
        say("it runs; `python -m tests.cluster stop` ends it")
        print(f"export KUBECONFIG={plane.kubeconfig}")


def main() -> None:
    """Start or stop."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("action", choices=("start", "stop"))
    parser.add_argument("--controllers", action="store_true", help="start kube-controller-manager too")
    parser.add_argument("--folder", type=Path, default=STATE, help="where it is kept; default: %(default)s")
    arguments = parser.parse_args()
    if arguments.action == "start":
        start(arguments.folder, controllers=arguments.controllers)
    else:
        ControlPlane.end(arguments.folder)
        say("no control plane runs")


if __name__ == "__main__":
    run(main)
