"""The plugin's own tests, which reach what a process doesn't show: `go test` in `cni/`."""

import subprocess

from tests.cni.build import ROOT


def test_go() -> None:
    done = subprocess.run(["go", "test", "./..."], cwd=ROOT / "cni", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
