"""Points at which a test lets the agent die as by SIGKILL, to show that any moment is a safe one to die at."""

import os
import signal

# Set by tests alone: the point's name, and how often it is passed before.
FAULT = os.environ.get("TORTIE_FAULT", "")

POINTS = (
    "add received", "add recorded", "wire made", "pod wired", "host wired", "add answered",
    "del received", "del unwired", "del released",
)  # fmt: skip


def point(name: str) -> None:
    """Die here if this is the point."""
    if name == FAULT:
        os.kill(os.getpid(), signal.SIGKILL)
