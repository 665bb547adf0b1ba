"""The CNI plugin and its network configuration, put where the container runtime looks for them.

Belongs here: rendering the configuration, and placing both files so that a runtime sees each whole or not at all, the
configuration last: it is what makes the kubelet call the node ready. Does not: building the plugin.
"""

import errno
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PLUGIN = "tortie"
CONFLIST = "10-tortie.conflist"
# What takes its place while pods of an uninstalled Tortie run; any other network's comes before it.
LAST_CONFLIST = "zz-tortie-uninstalled.conflist"
NETWORK = "tortie"  # the network's name; runtimes keep results under it, so it never changes

# libcni 1.2 and newer takes the highest of cniVersions that it knows; older ones, Debian's containerd 1.6 among them, know only
# cniVersion, and 1.1.0 there would be refused. 1.0.0 is what those know.
CNI_VERSION = "1.0.0"
CNI_VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")

# What libcni takes for a network configuration; the first in order of names is the one that the runtime uses.
_SUFFIXES = frozenset({".conf", ".conflist", ".json"})

_WAYS_OUT = {
    errno.EROFS: "mount it into the agent writable",
    errno.EACCES: "let the agent run as root on the host's folder",
    errno.ENOSPC: "make room on the node's disk",
    errno.ENOENT: "mount the folder into the agent, or build the plugin with `make cni`",
}


class NotInstalled(Exception):
    """A file couldn't be put in place, or removed; the message names it, and the way out."""


@dataclass(frozen=True)
class Plugin:
    """What the network configuration tells the plugin; None stands for the plugin's own default and is left out.

    Attributes:
        socket: the agent's unix socket, /run/tortie/agent.sock by default.
        deferred: the folder where DELs wait for the agent, /var/lib/tortie/deferred by default.
        wait_seconds: how long ADD waits for the agent, 60 by default; 0 means one try.
    """

    socket: Path | None = None
    deferred: Path | None = None
    wait_seconds: float | None = None


@dataclass
class Installed:
    """What `install` did: the files that changed, and others' configurations, by name, that come before ours."""

    changed: list[Path] = field(default_factory=list)
    before_ours: list[str] = field(default_factory=list)

    @property
    def warning(self) -> str:
        """What a person must do, "" when nothing."""
        if not self.before_ours:
            return ""
        return (
            f"the runtime takes {self.before_ours[0]} and not {CONFLIST}, because its name comes first: pods get no address"
            f" from Tortie; remove from that folder what nothing needs any more: {', '.join(self.before_ours)}"
        )


def render(plugin: Plugin) -> str:
    """Return the network configuration list as JSON."""
    # Told of hostPorts, the plugin itself calls portmap, which a runtime would run for each pod.
    ours: dict[str, Any] = {"type": PLUGIN, "capabilities": {"portMappings": True}}
    if plugin.socket is not None:
        ours["socket"] = str(plugin.socket)
    if plugin.deferred is not None:
        ours["deferred"] = str(plugin.deferred)
    if plugin.wait_seconds is not None:
        ours["waitSeconds"] = plugin.wait_seconds
    conflist = {"cniVersion": CNI_VERSION, "cniVersions": CNI_VERSIONS, "name": NETWORK, "plugins": [ours]}
    return json.dumps(conflist, indent=2) + "\n"


def install(binary: Path, bin_dir: Path, conf_dir: Path, plugin: Plugin = Plugin()) -> Installed:
    """Put the plugin, and then its configuration, in place; what is there already is left alone. Raises NotInstalled."""
    done = Installed()
    with _explained(binary):
        content = binary.read_bytes()
    _place(content, bin_dir / PLUGIN, 0o755, done)
    with _explained(conf_dir):
        (conf_dir / LAST_CONFLIST).unlink(missing_ok=True)  # installed again
    _place(render(plugin).encode(), conf_dir / CONFLIST, 0o600, done)
    with _explained(conf_dir):
        done.before_ours = before_ours(path.name for path in conf_dir.iterdir() if path.is_file())
    return done


def before_ours(names: Iterable[str]) -> list[str]:
    """Return those network configurations, ordered, that a runtime takes rather than ours."""
    return sorted(name for name in names if Path(name).suffix in _SUFFIXES and name < CONFLIST)


def remove(bin_dir: Path, conf_dir: Path) -> list[Path]:
    """Remove the configuration, then the plugin, and return what was there. Raises NotInstalled.

    Pods that run keep their wire; none can be added or deleted by the runtime until another configuration is there.
    """
    removed = []
    for path in (conf_dir / CONFLIST, bin_dir / PLUGIN):
        with _explained(path), suppress(FileNotFoundError):
            path.unlink()
            _sync(path.parent)
            removed.append(path)
    return removed


def replace_conflist(conf_dir: Path, left: list[str]) -> None:
    """Put a configuration in place of ours that adds no pod and lets those go that run; the last one removes `left`.

    Raises NotInstalled.
    """
    old = conf_dir / CONFLIST
    with _explained(old):
        conflist = json.loads(old.read_text())
    for plugin in conflist["plugins"]:
        if plugin["type"] == PLUGIN:
            plugin |= {"uninstalled": True, "remove": left}
    text = json.dumps(conflist, indent=2) + "\n"
    _place(text.encode(), conf_dir / LAST_CONFLIST, 0o600, Installed())
    with _explained(old):
        old.unlink()
        _sync(conf_dir)


def _place(content: bytes, target: Path, mode: int, done: Installed) -> None:
    """Make a file hold `content`, durably; one that is read or executed meanwhile stays whole, because it is another."""
    with _explained(target):
        if _holds(target, content, mode):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        # One name, so that what a crash leaves is written over; its suffix is none that a runtime reads.
        partial = target.with_name(f".{target.name}.tmp")
        partial.unlink(missing_ok=True)
        with partial.open("xb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        _sync(target.parent)
        done.changed.append(target)


def _holds(target: Path, content: bytes, mode: int) -> bool:
    try:
        found = target.stat()
        return found.st_size == len(content) and found.st_mode & 0o777 == mode and target.read_bytes() == content
    except FileNotFoundError:
        return False


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _explained(what: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        way_out = _WAYS_OUT.get(error.errno or 0, "look at the folder on the node")
        raise NotInstalled(f"{error.strerror} @ {what}; {way_out}") from error
