"""IP-in-IP, which not every kernel has, on one that does."""

import sys

import pytest

from tests.vm import machine

pytestmark = pytest.mark.skipif(bool(machine.why_not()), reason=machine.why_not() or "-")
SECONDS = 400.0  # that only a broken program needs: about 100, on two cores that nobody else uses
OPTIONS = (
    "-rP",
    "-vv",
    "--tb=short",
    "--color=no",
    "--durations=0",
    "--confcutdir=tests/vm",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:logging",
)


def test_ip_in_ip_on_a_kernel_that_has_it() -> None:
    """Each row of `inside_ipip.py` passes in the machine, and none is skipped."""
    done = machine.run([sys.executable, "-m", "pytest", *OPTIONS, "tests/vm/inside_ipip.py"], seconds=SECONDS)
    assert done.status == 0, done.output
    assert " skipped" not in done.output, done.output
    sys.stdout.write(done.output)
