"""The image as `make image` builds it, once for each state of what it is made from, kept in our cache."""

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import yaml

from tests.cluster.deploy import ROOT
from tests.cluster.terminal import Foreseen, say

_PARTS = ("Dockerfile", "requirements.lock", "pyproject.toml", "image/*", "operator/**/*.py", "cni/*.go", "cni/go.*")
_LOG_TAIL = 2000  # characters
_KEPT = 4  # the last used, beside the new one: another working tree's cluster may still need its own


def name() -> str:
    """Return the image's name, as the chart asks for it."""
    version = yaml.safe_load((ROOT / "helm" / "tortie" / "Chart.yaml").read_text())["appVersion"]
    return f"docker.io/library/tortie:{version}"


def archive() -> Path:
    """Return the image's archive, built first where it isn't in the cache. Raises Foreseen."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tortie" / "image"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{_digest()}.tar"
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            target.touch()
        else:
            for old in sorted(folder.glob("*.tar"), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
                old.unlink()
            _build(target)
    return target


def _build(target: Path) -> None:
    say("building the image, once for this state of its parts (a minute)")
    partial = target.with_suffix(".partial")
    environment = {"BASE": "debian", "PYTHON": sys.executable, **os.environ}
    command = [str(ROOT / "image" / "build"), name(), str(partial)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Foreseen(f"the image can't be built:\n{done.stderr[-_LOG_TAIL:]}")
    partial.rename(target)


def _digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(found for part in _PARTS for found in ROOT.glob(part)):
        digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
