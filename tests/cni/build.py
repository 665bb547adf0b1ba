"""The commands that these tests execute, built once for each state of their sources into our cache."""

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.cluster.terminal import Foreseen, say

ROOT = Path(__file__).parents[2]
CNITOOL = Path(__file__).parent / "cnitool"
_LOG_TAIL = 2000  # characters


@functools.cache
def plugin() -> Path:
    """Return the path of the CNI plugin `tortie`, built as `make cni` does; its folder holds nothing else to execute."""
    return _built("tortie", ROOT / "cni", ".")


@functools.cache
def cnitool() -> Path:
    """Return the path of the CNI project's `cnitool`."""
    return _built("cnitool", CNITOOL, "github.com/containernetworking/cni/cnitool")


def _built(name: str, module: Path, package: str) -> Path:
    """Return a command of a Go module out of the cache, built there first if it isn't there. Raises Foreseen without Go."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    target = Path(home) / "tortie" / "built" / _digest(module) / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _build(module, package, target)
    return target


def _digest(module: Path) -> str:
    """Return what names the state of a module's sources, tests left out."""
    digest = hashlib.sha256()
    for path in sorted(path for path in module.iterdir() if path.suffix in {".go", ".mod", ".sum"}):
        if not path.name.endswith("_test.go"):
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _build(module: Path, package: str, target: Path) -> None:
    if shutil.which("go") is None:
        raise Foreseen(f"{target.name} can't be built: no `go` on PATH; install Go 1.24 or newer")
    say(f"building {target.name} from {module.relative_to(ROOT)}, once for this state of its sources")
    partial = target.with_name(f".{target.name}")
    command = ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", str(partial), package]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}
    done = subprocess.run(command, cwd=module, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Foreseen(f"`go build {package}` in {module} failed:\n{done.stderr[-_LOG_TAIL:]}")
    partial.replace(target)
