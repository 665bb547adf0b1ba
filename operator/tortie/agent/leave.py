"""What the agent does when it is ended for good: Tortie was uninstalled.

An agent is ended the same way when it is upgraded, restarted and uninstalled. The difference is its DaemonSet: gone, or
there. A doubt counts as there.

A runtime without any network configuration (containerd: `cni plugin not initialized`) deletes no pod either, so as long as
pods of ours run the configuration is replaced by one that adds none and lets them go, sorted last, so that any other
network's comes first. The last DEL removes it, with tunnels, plugin and all else (`cni/leave.go`).
"""

import asyncio
import logging
import shutil
from contextlib import suppress
from pathlib import Path

from tortie.agent import forwarding, overlay
from tortie.agent.firewall import remove_table
from tortie.agent.install import LAST_CONFLIST, PLUGIN, remove, replace_conflist
from tortie.agent.netlink import Netlink
from tortie.agent.nfnetlink import Refused, Socket
from tortie.agent.settings import Settings
from tortie.agent.table import TABLE
from tortie.api import lean
from tortie.kube.client import ApiError, Client
from tortie.kube.errors import NotFound
from tortie.kube.resource import Resource
from tortie.kube.stream import Stream

_log = logging.getLogger(__name__)

DAEMONSETS = Resource("apps", "v1", "daemonsets", namespaced=True)
# Seconds: the pod is given 10 in all. The second is for the news of the deletion, where the rights went with it.
_ASK, _NEWS = 3.0, 2.0


class Installation:
    """Follows the agents' own DaemonSet, `namespace/name`; "" follows nothing: then Tortie is never uninstalled."""

    def __init__(self, client: Client, daemonset: str) -> None:
        self._client = client
        namespace, _, name = daemonset.partition("/")
        self._name, self._path = name, DAEMONSETS.path(namespace=namespace)
        self._stream = Stream(client, self._path, lean.Labelled, self._on_change, field_selector=f"metadata.name={name}")
        self._seen, self._deleted = False, asyncio.Event()

    @property
    def followed(self) -> asyncio.Event:
        """Set as soon as it is known whether the DaemonSet is there."""
        return self._stream.synced

    async def run(self) -> None:
        """Serve until cancelled."""
        if self._name:
            await self._stream.run()

    async def is_gone(self) -> bool:
        """Whether the DaemonSet was seen, and is deleted."""
        if not self._seen or self._deleted.is_set():
            return self._seen
        try:
            async with asyncio.timeout(_ASK):
                found = await self._client.get(f"{self._path}/{self._name}", into=lean.Labelled)
            return bool(found.metadata.deletion_timestamp)
        except NotFound:
            return True
        except (ApiError, TimeoutError):
            with suppress(TimeoutError):
                async with asyncio.timeout(_NEWS):
                    await self._deleted.wait()
            return self._deleted.is_set()

    def _on_change(self, _old: lean.Labelled | None, new: lean.Labelled | None) -> None:
        self._seen = True
        if new is None or new.metadata.deletion_timestamp:
            self._deleted.set()
        else:
            self._deleted.clear()


def leave(settings: Settings, *, pods: int) -> None:
    """Leave the node. With pods that still run, their network stays until the last of them is deleted."""
    bin_dir, conf_dir = Path(settings.cni_bin), Path(settings.cni_conf)
    try:
        with Socket() as kernel:
            remove_table(kernel)  # nobody would tell the pods that are left of a policy's end
    except (Refused, OSError) as error:
        _log.error("nftables table inet %s can't be removed: %s; see nft list table inet %s", TABLE, error, TABLE)
    if pods:
        # The configuration last: as long as it is there, the runtime asks again after a failure.
        left = [settings.state, settings.run, bin_dir / PLUGIN, conf_dir / LAST_CONFLIST]
        replace_conflist(conf_dir, [str(path) for path in left])
        _log.info(
            "uninstalled: %d pods keep their network, and the last one's deletion removes %s", pods, ", ".join(map(str, left))
        )
        return
    remove(bin_dir, conf_dir)
    with Netlink() as kernel:
        forwarding.write(kernel, {}, forwarding.read(kernel, {}), set())
    forwarding.remove_copies(forwarding.copies().values())
    forwarding.remove_birds()
    overlay.remove_all()
    for folder in (settings.state, settings.run):  # the folders themselves are mounted here
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    _log.info("uninstalled: nothing of Tortie is left on this node")
