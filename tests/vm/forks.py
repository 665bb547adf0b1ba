"""Programs as forks of the test's process, which has imported what they need: in the machine that takes ten seconds."""

import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path

from pyroute2 import netns

from tests.agent.acting import HEALTH_PORT, AgentNode
from tortie.cli.agent import command as agent_command

_CONTEXT = multiprocessing.get_context("fork")


class Fork:
    """One that runs in a network namespace and logs into a file until it is closed."""

    def __init__(self, namespace: str, log: Path, serve: Callable[[], None]) -> None:
        def run() -> None:
            with log.open("a", buffering=1) as output:
                sys.stdout = sys.stderr = output
                netns.setns(namespace)
                serve()

        self._process = _CONTEXT.Process(target=run, daemon=True)
        self._process.start()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.join()


class ForkedAgent(AgentNode):
    """A node whose agent is such a fork, and reaches the API server by the node's own links."""

    _fork: Fork | None = None

    def launch(self) -> None:
        """Start the agent."""
        words = ["--node", self.name, "--kubeconfig", str(self.plane.kubeconfig), "--policy-gate", "Open"]
        words += ["--health-port", str(HEALTH_PORT), "--run", str(self.run), "--state", str(self.folder / "state")]
        self._fork = Fork(self.path, self.log, lambda: agent_command.main([*words, *self.options]))

    def close(self) -> None:
        """End it."""
        if self._fork is not None:
            self._fork.close()
