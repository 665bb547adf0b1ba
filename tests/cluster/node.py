"""One node: containerd, kubelet and kube-proxy in a network namespace, everything else of it in one folder."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.images import PAUSE
from tests.cluster.network import Place

PLUGINS = Path("/usr/lib/cni")  # of Debian's containernetworking-plugins
# Arguments: the node's folder, the cluster's short way to it, the plugins that every node has (containerd makes no sandbox
# without loopback). What the node's programs write into these folders is its own, as on another machine: a kubelet removes
# the logs of pods that it doesn't know.
_MACHINE = """
for part in etc opt var/lib var/log; do
    mkdir -p $1/machine/$part $1/work/$part
    mount -t overlay -o lowerdir=/$part,upperdir=$1/machine/$part,workdir=$1/work/$part overlay /$part
done
target=$(readlink -f $2)
mount -t tmpfs -o mode=755 tmpfs /run
ln -s $target $2
mkdir -p /run/netns /opt/cni/bin /etc/cni/net.d
cp $3/loopback $3/portmap /opt/cni/bin
mount --make-rshared /
"""
PODS4, PODS6 = "10.1.0.0/16", "fd00:10:1::/48"


@dataclass(frozen=True)
class Node:
    """A node of a cluster."""

    name: str
    folder: Path
    pki: Path
    place: Place

    @property
    def socket(self) -> Path:
        """Where containerd listens."""
        return self.folder / "containerd.sock"

    @property
    def enter(self) -> list[str]:
        """What a command is begun with to run on this node: its network, and its own files (see `_MACHINE`)."""
        return [*self.place.enter, f"--mount={self._mounts}"]

    @property
    def _mounts(self) -> Path:
        return self.folder / "mounts"

    @property
    def tasks(self) -> Path:
        """Containerd's folder of running containers."""
        return self.folder / "run" / "io.containerd.runtime.v2.task" / "k8s.io"

    def prepare(self) -> None:
        """Make folders and configurations."""
        self.folder.mkdir(parents=True)
        self._mounts.touch()
        made = ["unshare", f"--mount={self._mounts}", "--propagation=private", "sh", "-ec", _MACHINE, "sh"]
        subprocess.run([*made, str(self.folder), str(self.folder.parent), str(PLUGINS)], check=True, timeout=30)
        (self.folder / "containerd.toml").write_text(self._containerd())
        (self.folder / "kubelet.json").write_text(json.dumps(self._kubelet()))
        (self.folder / "kube-proxy.json").write_text(json.dumps(self._kube_proxy()))

    def commands(self, assets: dict[str, str]) -> dict[str, list[str]]:
        """Return the command lines of the node's parts, in the order in which they start."""
        kubelet = [
            assets["kubelet"], f"--config={self.folder / 'kubelet.json'}", f"--kubeconfig={self.folder / 'kubelet.kubeconfig'}",
            f"--root-dir={self.folder / 'kubelet'}", f"--cert-dir={self.folder / 'pki'}",
            f"--hostname-override={self.name}", f"--node-ip={self.place.address4},{self.place.address6}",
        ]  # fmt: skip
        proxy = [assets["kube-proxy"], f"--config={self.folder / 'kube-proxy.json'}"]
        containerd = [assets["containerd"], "--config", str(self.folder / "containerd.toml")]
        commands = {"containerd": containerd, "kubelet": kubelet, "kube-proxy": proxy}
        return {part: [*self.enter, *command] for part, command in commands.items()}

    def ctr(self, *arguments: str) -> str:
        """Return what `ctr` prints on this node's containerd."""
        return ctr(self.socket, *arguments)

    def _containerd(self) -> str:
        cri = 'plugins."io.containerd.grpc.v1.cri"'
        return f"""
version = 2
root = "{self.folder / "lib"}"
state = "{self.folder / "run"}"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt"]
[grpc]
address = "{self.socket}"
[ttrpc]
address = "{self.socket}.ttrpc"
[{cri}]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
[{cri}.containerd]
snapshotter = "overlayfs"
[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""

    def _kubelet(self) -> dict[str, Any]:
        nothing = "0%"
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{self.socket}", "address": self.place.address4,
            "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": False},
                               "x509": {"clientCAFile": str(self.pki / "ca.crt")}},
            "authorization": {"mode": "AlwaysAllow"},
            "failCgroupV1": False, "cgroupDriver": "cgroupfs", "cgroupsPerQOS": False, "enforceNodeAllocatable": [],
            "failSwapOn": False, "localStorageCapacityIsolation": False, "registerNode": True, "maxPods": 300,
            "evictionHard": {"memory.available": "1Mi", "nodefs.available": nothing, "nodefs.inodesFree": nothing,
                             "imagefs.available": nothing, "imagefs.inodesFree": nothing},
            "imageGCHighThresholdPercent": 100, "resolvConf": "", "healthzPort": 0, "enableServer": True, "readOnlyPort": 0,
            # A container that is killed again and again comes back at once: the default makes it wait up to 5 minutes.
            "featureGates": {"KubeletCrashLoopBackOffMax": True}, "crashLoopBackOff": {"maxContainerRestartPeriod": "1s"},
            "serializeImagePulls": False, "kubeAPIQPS": 200, "kubeAPIBurst": 400, "shutdownGracePeriod": "0s",
        }  # fmt: skip

    def _kube_proxy(self) -> dict[str, Any]:
        mode = "iptables" if int(self.name.rpartition("-")[2]) % 2 == 0 else "nftables"  # both are met in every cluster
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": mode,
            "clientConnection": {"kubeconfig": str(self.folder.parent / "kube-proxy.kubeconfig")},
            "hostnameOverride": self.name, "clusterCIDR": f"{PODS4},{PODS6}",
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "healthzBindAddress": "127.0.0.1:10256", "metricsBindAddress": "127.0.0.1:10249",
        }  # fmt: skip


def ctr(socket: Path, *arguments: str) -> str:
    """Return what `ctr` prints on the containerd that listens there."""
    command = ["ctr", "--address", str(socket), "--namespace", "k8s.io", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def answers(socket: Path) -> bool:
    """Whether the containerd that listens there answers."""
    try:
        ctr(socket, "version")
    except subprocess.CalledProcessError:
        return False
    return True
