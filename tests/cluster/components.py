"""The command lines of the control plane's parts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.network import Place

ADMIN = "admin.kubeconfig"  # the file's name in a control plane's folder


@dataclass(frozen=True)
class Site:
    """What the command lines are made from; every path lies in `folder`, in which the parts run."""

    folder: Path
    etcd_port: int
    api_port: int
    controllers: bool
    place: Place | None = None  # where it runs and is reached by nodes; None: on 127.0.0.1, without nodes

    @property
    def pki(self) -> Path:
        """The folder of keys and certificates."""
        return self.folder / "pki"

    @property
    def admin(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / ADMIN

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://127.0.0.1:{self.api_port}"


# A unix socket in the folder; etcd insists on the form host:port, and takes the whole as the name of the socket's file.
_PEER = "unix://peer:1"


def _etcd(site: Site) -> list[str]:
    return [
        f"--data-dir={site.folder / 'etcd'}",
        f"--listen-client-urls=http://127.0.0.1:{site.etcd_port}",
        f"--advertise-client-urls=http://127.0.0.1:{site.etcd_port}",
        "--socket-reuse-port",  # SO_REUSEPORT: the control plane holds the port, so nobody else gets it
        f"--listen-peer-urls={_PEER}",
        f"--initial-advertise-peer-urls={_PEER}",
        f"--initial-cluster=default={_PEER}",
        "--unsafe-no-fsync",  # the data lives as long as the folder
        "--quota-backend-bytes=4294967296",  # 4 GiB: benches write 100,000 pods
        "--heartbeat-interval=20",  # ms; the only member has nobody to wait for
        "--election-timeout=200",
        "--log-level=warn",
    ]


def _kube_apiserver(site: Site) -> list[str]:
    return [
        f"--etcd-servers=http://127.0.0.1:{site.etcd_port}",
        f"--secure-port={site.api_port}",
        "--permit-port-sharing",  # SO_REUSEPORT, as above
        f"--tls-cert-file={site.pki / 'kube-apiserver.crt'}",
        f"--tls-private-key-file={site.pki / 'kube-apiserver.key'}",
        f"--client-ca-file={site.pki / 'ca.crt'}",
        "--authorization-mode=Node,RBAC",
        "--anonymous-auth=false",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={site.pki / 'service-accounts.key'}",
        f"--service-account-signing-key-file={site.pki / 'service-accounts.key'}",
        f"--cert-dir={site.folder / 'apiserver'}",
        "--profiling=false",
        "--shutdown-delay-duration=0s",
        *_without_controllers(site),
        *_reached(site),
    ]


def _reached(site: Site) -> list[str]:
    """Return where it listens, and how it reaches kubelets."""
    if site.place is None:
        return [
            "--bind-address=127.0.0.1",
            "--advertise-address=192.0.2.1",  # RFC 5737; else the address of whatever interface has the default route
            "--service-cluster-ip-range=10.96.0.0/16",
        ]
    return [
        "--bind-address=0.0.0.0",
        f"--advertise-address={site.place.address4}",
        "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112",
        "--kubelet-preferred-address-types=InternalIP",  # nobody resolves the nodes' names
        f"--kubelet-client-certificate={site.pki / 'admin.crt'}",
        f"--kubelet-client-key={site.pki / 'admin.key'}",
    ]


def _without_controllers(site: Site) -> list[str]:
    """Let pods be made in namespaces that have no service account `default`, because nobody is there to make it."""
    return [] if site.controllers else ["--disable-admission-plugins=ServiceAccount"]


def _kube_controller_manager(site: Site) -> list[str]:
    return [
        f"--kubeconfig={site.admin}",
        f"--root-ca-file={site.pki / 'ca.crt'}",
        f"--service-account-private-key-file={site.pki / 'service-accounts.key'}",
        "--secure-port=0",  # nobody asks it anything
        "--leader-elect=false",
        "--controllers=*,-node-ipam-controller"
        + ("" if site.place else ",-node-lifecycle-controller"),  # no kubelets, no health
    ]


COMMAND_LINES: dict[str, Callable[[Site], list[str]]] = {
    "etcd": _etcd,
    "kube-apiserver": _kube_apiserver,
    "kube-controller-manager": _kube_controller_manager,
}
