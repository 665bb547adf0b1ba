"""What each node's containerd begins with: the images, unpacked once for each state of them and kept in our cache.

An import takes a containerd 13 s of CPU, and each node of each cluster would make its own.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.cluster import image, processes
from tests.cluster.deploy import wait
from tests.cluster.images import archive
from tests.cluster.node import answers, ctr
from tests.cluster.terminal import say

_KEPT = 2  # the last used, beside the new one; each is half a gigabyte
_CONFIG = """
version = 2
root = "{root}"
state = "{state}/run"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
address = "{state}/socket"
[ttrpc]
address = "{state}/ttrpc"
"""


def copy(targets: list[Path]) -> None:
    """Make these folders, each the root of a containerd that has the images."""
    kept = image.archive().parent
    with (kept / ".store-lock").open("w") as lock, tempfile.TemporaryDirectory(prefix="tortie-store-") as work:
        fcntl.flock(lock, fcntl.LOCK_EX)
        archives = [archive(Path(work) / "images.tar"), image.archive()]
        digest = hashlib.sha256(archives[0].read_bytes() + archives[1].name.encode()).hexdigest()[:16]
        made = kept / f"{digest}.store"
        if not made.exists():
            _prune(kept)
            _make(made, archives, Path(work))
        os.utime(made)
        for target in targets:
            _link(made, target)


def _prune(kept: Path) -> None:
    for partial in kept.glob("*.store-partial"):
        shutil.rmtree(partial)
    for old in sorted(kept.glob("*.store"), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
        shutil.rmtree(old)


def _make(made: Path, archives: list[Path], work: Path) -> None:
    say("unpacking the images, once for this state of them (half a minute)")
    partial, config, socket = made.with_suffix(".store-partial"), work / "containerd.toml", work / "socket"
    config.write_text(_CONFIG.format(root=partial, state=work))
    containerd = processes.start(["containerd", "--config", str(config)], work / "containerd.log")
    try:
        wait("containerd answers", lambda: answers(socket))
        for one in archives:
            ctr(socket, "images", "import", str(one))
    finally:
        containerd.terminate()  # so that it closes its databases
        containerd.wait()
    partial.rename(made)


def _link(made: Path, target: Path) -> None:
    """Give a folder the same files, as links where that can be: containerd writes into its databases, and into no other."""
    linked = ["cp", "--archive", "--link", str(made), str(target)]
    if subprocess.run(linked, capture_output=True, check=False).returncode:  # on another file system
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(["cp", "--archive", str(made), str(target)], check=True)
    for database in made.rglob("*.db"):
        subprocess.run(
            ["cp", "--archive", "--remove-destination", str(database), str(target / database.relative_to(made))], check=True
        )
