"""Where the commands of the embedded Kubernetes come from: the first place that has the right version.

In order: KUBEBUILDER_ASSETS, PATH, our cache under XDG_CACHE_HOME, the official release (when its checksum is pinned and its
server answers within 3 s), else a build from the pinned Go modules in `binaries/`. The last two fill the cache, once.
"""

import fcntl
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.cluster import releases
from tests.cluster.releases import NotDownloaded
from tests.cluster.terminal import Foreseen, say

BINARIES = Path(__file__).parent / "binaries"
KUBERNETES, ETCD, HELM = "1.34.4", "3.6.8", "3.19.5"
_VERSION_SECONDS = 20.0  # for a command on PATH to say its version
_LOG_TAIL = 2000  # characters


@dataclass(frozen=True)
class Asset:
    """A command: its version, how it is asked for it, and how it is built from its Go module, in about how many minutes."""

    name: str
    version: str
    module: str
    package: str
    minutes: int  # on two cores, from an empty Go build cache
    ldflags: str = ""
    version_arguments: tuple[str, ...] = ("--version",)
    go: tuple[str, ...] = ("build",)  # what Go is asked to do

    @property
    def cached(self) -> Path:
        """Where our cache keeps it, whether or not it is there."""
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(home) / "tortie" / self.version / self.name

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"


def _kubernetes(name: str, minutes: int, package: str = "", **more: tuple[str, ...]) -> Asset:
    """Return a command of Kubernetes; without these flags it reports the version v0.0.0."""
    major, minor, _ = KUBERNETES.split(".")
    said = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    flags = " ".join(f"-X k8s.io/component-base/version.{key}={value}" for key, value in said.items())
    return Asset(name, KUBERNETES, "kubernetes", f"k8s.io/kubernetes/{package or f'cmd/{name}'}", minutes, flags, **more)


_HELM_FLAGS = f"-X helm.sh/helm/v3/internal/version.version=v{HELM}"
ASSETS = {
    asset.name: asset
    for asset in (
        Asset("etcd", ETCD, "etcd", ".", 1),
        _kubernetes("kube-apiserver", 5),
        _kubernetes("kube-controller-manager", 5),
        _kubernetes("kube-scheduler", 1),
        _kubernetes("kube-proxy", 1),
        _kubernetes("kubelet", 2),
        _kubernetes("kubectl", 2, version_arguments=("version", "--client")),
        _kubernetes("e2e.test", 5, "test/e2e", go=("test", "-c", "-vet=off")),
        _kubernetes("agnhost", 1, "test/images/agnhost"),
        Asset("helm", HELM, "helm", "helm.sh/helm/v3/cmd/helm", 2, _HELM_FLAGS, ("version", "--short")),
    )
}


class MissingAsset(Foreseen):
    """A command that is nowhere and can't be built; the message names what was tried and the way out."""


class _NotHere(Exception):
    """This place hasn't got it; the message says why."""


def find(name: str) -> Path:
    """Return the path of command `name`, fetched or built where it must be; raises MissingAsset."""
    asset, tried = ASSETS[name], []
    for place, look in _PLACES.items():
        try:
            return look(asset)
        except _NotHere as error:
            tried.append(f"  {place}: {error}")
    raise MissingAsset(
        f"{asset} is missing. Tried:\n" + "\n".join(tried) + "\nThe way out: install Go 1.24 or newer so that it can be built,"
        f" or set KUBEBUILDER_ASSETS to a folder that has {name} {asset.version}"
    )


def _from_folder(asset: Asset) -> Path:
    folder = os.environ.get("KUBEBUILDER_ASSETS")
    if not folder:
        raise _NotHere("not set")
    return _existing(Path(folder) / asset.name)


def _from_path(asset: Asset) -> Path:
    """Return the command on PATH when it says that it is exactly the version wanted."""
    found = shutil.which(asset.name)
    if found is None:
        raise _NotHere(f"no {asset.name}")
    said = _says(found, asset.version_arguments, Path(found).stat().st_mtime_ns)
    if not re.search(rf"(?<![\w.])v?{re.escape(asset.version)}(?![\w.-])", said):
        raise _NotHere(f"{found} is another version: {said.strip().splitlines()[0] if said.strip() else 'it says none'}")
    return Path(found)


@functools.cache
def _says(command: str, arguments: tuple[str, ...], _changed: int) -> str:
    """Return what a command prints about its version; asked once for each state of its file."""
    try:
        done = subprocess.run(
            [command, *arguments], capture_output=True, text=True, errors="replace", check=False, timeout=_VERSION_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stdout + done.stderr


def _from_cache(asset: Asset) -> Path:
    return _existing(asset.cached)


def _existing(path: Path) -> Path:
    if not os.access(path, os.X_OK):
        raise _NotHere(f"no {path}")
    return path


def _into_cache(fill: Callable[[Asset], None]) -> Callable[[Asset], Path]:
    """Return a place that fills the cache, unless another process did while this one waited for the lock."""

    def place(asset: Asset) -> Path:
        with _lock(asset):
            with suppress(_NotHere):
                return _from_cache(asset)
            fill(asset)
        return _from_cache(asset)

    return place


def _download(asset: Asset) -> None:
    """Fetch the release that holds the command, with the other commands in it."""
    try:
        release = releases.of(asset.name, asset.version)
        if release.checksum:
            say(f"fetching {asset} from {release.host}, once; given up when it doesn't answer within 3 s")
        releases.download(release, _put)
    except NotDownloaded as error:
        if "refused" in str(error):
            say(str(error))
        raise _NotHere(str(error)) from error


def _put(name: str, content: IO[bytes]) -> None:
    target = ASSETS[name].cached
    with _partial(target).open("wb") as file:
        shutil.copyfileobj(content, file)
    _partial(target).chmod(0o755)
    _partial(target).replace(target)


def _build(asset: Asset) -> None:
    if shutil.which("go") is None:
        raise _NotHere("no `go` on PATH")
    say(f"building {asset} from its Go module, about {asset.minutes} min on two cores, once")
    folder, partial = BINARIES / asset.module, _partial(asset.cached)
    command = ["go", *asset.go, "-tags", "tools", "-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {asset.ldflags}"]
    command += ["-o", str(partial), asset.package]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}
    built = subprocess.run(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if built.returncode:
        raise _NotHere(f"`go build` in {folder} failed:\n{built.stderr[-_LOG_TAIL:]}")
    partial.replace(asset.cached)


def _partial(target: Path) -> Path:
    """Return where a command is written before it is whole; one that was broken off is written over."""
    return target.with_name(f".{target.name}")


@contextmanager
def _lock(asset: Asset) -> Iterator[None]:
    """Hold the lock of one version's cache, so that two processes fetch and build once."""
    asset.cached.parent.mkdir(parents=True, exist_ok=True)
    with (asset.cached.parent / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process, which fetches or builds into {asset.cached.parent}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


_PLACES: dict[str, Callable[[Asset], Path]] = {
    "KUBEBUILDER_ASSETS": _from_folder,
    "PATH": _from_path,
    "cache": _from_cache,
    "release": _into_cache(_download),
    "Go module": _into_cache(_build),
}
