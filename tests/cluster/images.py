"""Container images made here, without a registry: busybox, also as the sandbox that holds a pod's namespaces."""

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.terminal import Foreseen

BUSYBOX, PAUSE = "tortie.test/busybox:1", "tortie.test/pause:1"


@dataclass(frozen=True)
class Image:
    """An image: its name, its layers, bottom first, and what a container runs if it isn't told."""

    name: str
    layers: tuple[bytes, ...]
    command: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()


def archive(path: Path) -> Path:
    """Write both images as an archive that `ctr images import` takes; they share their one layer."""
    layers = (busybox(),)
    return write(path, Image(BUSYBOX, layers, ("/bin/sh",)), Image(PAUSE, layers, ("/bin/sleep", "2147483647")))


def write(path: Path, *images: Image) -> Path:
    """Write images as an archive that `ctr images import` takes."""
    layers = {_digest(layer): layer for image in images for layer in image.layers}
    manifest = []
    with tarfile.open(path, "w") as tar:
        for digest, layer in layers.items():
            _add(tar, f"{digest}.tar", layer)
        for image in images:
            digests = [_digest(layer) for layer in image.layers]
            config = {
                "architecture": "amd64", "os": "linux",
                "config": {"Entrypoint": image.entrypoint, "Cmd": image.command, "Env": ["PATH=/bin"]},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
            }  # fmt: skip
            file = f"{image.name.partition('/')[2].replace('/', '-').replace(':', '-')}.json"
            _add(tar, file, json.dumps(config).encode())
            manifest.append({"Config": file, "RepoTags": [image.name], "Layers": [f"{digest}.tar" for digest in digests]})
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    return path


def layer(commands: dict[str, Path]) -> bytes:
    """Return a layer of commands, by their path in the image."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, path in commands.items():
            _add(tar, name, path.read_bytes(), 0o755)
    return buffer.getvalue()


def busybox() -> bytes:
    """Return a layer of a shell with all that busybox can. Raises Foreseen."""
    command = shutil.which("busybox")
    if command is None:
        raise Foreseen("busybox is missing: apt-get install busybox-static")
    applets = subprocess.run([command, "--list"], capture_output=True, text=True, check=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("bin", "etc", "tmp", "proc", "sys", "dev", "root", "www"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        _add(tar, "bin/busybox", Path(command).read_bytes(), 0o755)
        _add(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        for applet in applets:
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
    return buffer.getvalue()


def _digest(layer: bytes) -> str:
    return hashlib.sha256(layer).hexdigest()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
