"""Container images made here, without a registry: busybox, also as the sandbox that holds a pod's namespaces."""

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

from tests.cluster.terminal import Foreseen

BUSYBOX, PAUSE = "tortie.test/busybox:1", "tortie.test/pause:1"


def archive(path: Path) -> Path:
    """Write both images as an archive that `ctr images import` takes; they share their one layer."""
    layer = _layer()
    digest = hashlib.sha256(layer).hexdigest()
    commands = {BUSYBOX: ["/bin/sh"], PAUSE: ["/bin/sleep", "2147483647"]}
    manifest = []
    with tarfile.open(path, "w") as tar:
        _add(tar, "layer.tar", layer)
        for name, command in commands.items():
            config = {
                "architecture": "amd64", "os": "linux", "config": {"Cmd": command, "Env": ["PATH=/bin"]},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            }  # fmt: skip
            file = f"{name.partition('/')[2].replace(':', '-')}.json"
            _add(tar, file, json.dumps(config).encode())
            manifest.append({"Config": file, "RepoTags": [name], "Layers": ["layer.tar"]})
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    return path


def _layer() -> bytes:
    busybox = shutil.which("busybox")
    if busybox is None:
        raise Foreseen("busybox is missing: apt-get install busybox-static")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("bin", "etc", "tmp", "proc", "sys", "dev", "root", "www"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        _add(tar, "bin/busybox", Path(busybox).read_bytes(), 0o755)
        _add(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        for applet in applets:
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
