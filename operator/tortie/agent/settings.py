"""The agent's settings. Each states unit, default and what zero means."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tortie.addressing.ranges import Family

Policy = Literal["Open", "Closed"]
DETECTION = "kubernetes-internal-ip"  # the method by default


@dataclass(frozen=True, slots=True)
class Settings:
    """How an agent runs.

    Attributes:
        node: The Node's name, as in `kubectl get nodes`.
        kubeconfig: Path of a kubeconfig; "" uses the service account of the pod.
        run: Folder that a reboot empties: the socket is there.
        state: Folder that lasts: the ledger and the deferred DELs.
        cni_bin: Folder where the runtime looks for CNI plugins; "" installs none.
        cni_conf: Folder where the runtime looks for CNI configurations; "" installs none.
        plugin: The CNI plugin's file, to be installed from; "" installs none.
        mtu: Bytes that a pod's packet may have. Default 0: what the smallest of the node's links carries, less what the
            pools' encapsulation takes.
        vxlan_vni: VXLAN's network identifier, the same on all nodes, from 1 to 16777215. Default 4096.
        vxlan_port: VXLAN's UDP port, the same on all nodes. Default 4789 (RFC 7348).
        address_detection: How the node's address of each family is found, in Calico's words (`tortie.agent.detection`).
            Default: the Node's InternalIP, else the first address found.
        cooldown: Seconds that a released address rests. Default 30. Zero: it may go out again at once.
        daemonset: The agents' DaemonSet, `namespace/name`. When it is deleted Tortie is uninstalled, and an agent that ends
            cleans up. Default "": an agent never does.
        health_port: TCP port of /healthz, /readyz and /metrics on 127.0.0.1. Default 9091. Zero: none.
        metrics_address: HOST:PORT where /metrics alone is served as well, an IPv6 address as [::1]:9095. Default "": nowhere.
        policy_gate: Whether a pod waits, up to 60 s, until it is known which policies hold for it (Closed), or starts at once
            and is unprotected until then (Open). Default Closed.
        policy_gate_exempt: Namespaces whose pods start at once whatever `policy_gate` says. Default (): none.
        policy_counters: Whether packets and bytes are counted for each policy, as metrics. Default False.
    """

    node: str
    kubeconfig: str = ""
    run: Path = Path("/run/tortie")
    state: Path = Path("/var/lib/tortie")
    cni_bin: str = ""
    cni_conf: str = ""
    plugin: str = ""
    mtu: int = 0
    vxlan_vni: int = 4096
    vxlan_port: int = 4789
    address_detection: Mapping[Family, str] = field(default_factory=lambda: {4: DETECTION, 6: DETECTION})
    cooldown: float = 30.0
    daemonset: str = ""
    health_port: int = 9091
    metrics_address: str = ""
    policy_gate: Policy = "Closed"
    policy_gate_exempt: tuple[str, ...] = ()
    policy_counters: bool = False

    @property
    def socket(self) -> Path:
        """Where the CNI plugin finds the agent."""
        return self.run / "agent.sock"

    @property
    def bird(self) -> Path:
        """The folder of BIRD's configuration, which has passwords in it, and of its socket."""
        return self.run / "bird"

    @property
    def was_ready(self) -> Path:
        """The file that says that the agent was ready once since the boot."""
        return self.run / "was-ready"

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.state / "ledger.db"

    @property
    def policies(self) -> Path:
        """The file of what the agent was told to enforce."""
        return self.state / "policies.db"

    @property
    def deferred(self) -> Path:
        """The folder of DELs that came while the agent was away."""
        return self.state / "deferred"
