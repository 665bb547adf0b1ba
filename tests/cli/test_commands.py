"""`tortie`: what a command loads."""

import subprocess
import sys

import pytest

HEAVY = {"aiohttp", "kopf", "kubernetes", "pydantic", "pyroute2"}


@pytest.mark.parametrize("command", ["ask", "probe"])
def test_what_is_run_in_many_pods_at_once_loads_no_library_of_the_processes(command: str) -> None:
    program = "import sys; from tortie.cli.main import main; main(sys.argv[1:], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, command, "--help"], capture_output=True, text=True, check=True)
    assert f"tortie.cli.{command}" in done.stdout.split()
    assert HEAVY.isdisjoint(done.stdout.split())
