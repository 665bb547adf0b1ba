"""A real control plane on this machine: etcd, kube-apiserver and, where asked, kube-controller-manager.

Everything listens on 127.0.0.1 on free ports, keeps its data in one folder, and ends with the process that started it.
"""

import json
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.cluster import kubeconfig, processes
from tests.cluster.assets import find
from tests.cluster.certificates import Authority, write_key
from tests.cluster.components import COMMAND_LINES, Site
from tests.cluster.network import Place
from tests.cluster.ports import HeldPort
from tests.cluster.terminal import Foreseen

READY_SECONDS = 60.0  # a loaded machine may be slow; a free one is ready in under 3 s
STOP_SECONDS = 10.0
_HOSTS = ("127.0.0.1", "localhost", "kubernetes.default.svc", "10.96.0.1")
ROOT = Path(__file__).parents[2]
_LOG_TAIL = 3000  # characters


class ClusterError(Foreseen):
    """The control plane did not do as it should; the message names the part and its log."""


class ControlPlane:
    """One control plane. `kubeconfig` is the administrator's; `stop_all()` (or leaving the `with`) removes every trace.

    A `detached` one goes on running after the `with` and after this process, unless the `with` failed;
    `ControlPlane.end(folder)` ends it.
    """

    def __init__(
        self, *, controllers: bool = False, folder: Path | None = None, detached: bool = False, place: Place | None = None
    ) -> None:
        self.folder = folder.absolute() if folder else Path(tempfile.mkdtemp(prefix="tortie-cluster-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        if any(self.folder.iterdir()):  # it will be removed as a whole
            raise ClusterError(f"{self.folder} is not empty: name a folder that is, or that isn't there yet")
        self.detached = detached
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports = HeldPort(), HeldPort()
        self._site = Site(self.folder, self._ports[0].number, self._ports[1].number, controllers, place)
        self.authority = Authority(self._site.pki)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self._site.admin

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self._site.server

    @property
    def inner_server(self) -> str:
        """The API server's URL in the nodes' namespaces."""
        assert self._site.place, "no nodes"
        return f"https://{self._site.place.address4}:{self._site.api_port}"

    def __enter__(self) -> Self:
        try:
            return self.start_all()
        except BaseException:
            self.stop_all()
            raise

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if kind or not self.detached:
            self.stop_all()
        self._release_ports()  # what goes on running holds them itself

    def start_all(self) -> Self:
        """Start every part and return when the API server is ready."""
        self._prepare()
        if self._site.place:
            self._relay(self._site.place)
        for part in ("etcd", "kube-apiserver"):
            self.start(part)
        self.wait_ready()
        if self._site.controllers:  # they give up when no API server answers for 10 s
            self.start("kube-controller-manager")
            self.wait_ready()
        return self

    def stop_all(self) -> None:
        """End every part, last first, and remove the folder: nobody needs the data, so none is asked to close it."""
        for part in reversed(list(self.processes)):
            self.kill(part)
        self._release_ports()
        self.end(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def end(folder: Path) -> None:
        """End what runs detached in a folder, and remove the folder. One that isn't there is fine."""
        if (folder / processes.RECORDS).exists():
            processes.end_recorded(folder)
            shutil.rmtree(folder, ignore_errors=True)

    def start(self, part: str) -> None:
        """Start one part, on the ports and the data that it had before."""
        inside = self._site.place.enter if self._site.place and part != "kube-controller-manager" else []
        command = [*inside, str(find(part)), *COMMAND_LINES[part](self._site)]
        self.processes[part] = processes.start(command, self.log(part), detached=self.detached)

    def stop(self, part: str) -> None:
        """Ask one part to end, and make it end after ten seconds."""
        process = self.processes.pop(part)
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self, part: str) -> None:
        """End one part at once, as a crash does."""
        process = self.processes.pop(part)
        process.kill()
        process.wait()

    def pause(self, part: str) -> None:
        """Stop one part where it stands (SIGSTOP)."""
        self.processes[part].send_signal(signal.SIGSTOP)

    def resume(self, part: str) -> None:
        """Let a paused part go on."""
        self.processes[part].send_signal(signal.SIGCONT)

    def log(self, part: str) -> Path:
        """Return the path of one part's log."""
        return self.folder / f"{part}.log"

    def wait_ready(self) -> None:
        """Wait until the API server, and the controllers if started, do their work; raises ClusterError."""
        deadline = time.monotonic() + READY_SECONDS
        while not self._is_ready():
            dead = [part for part, process in list(self.processes.items()) if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                part = dead[0] if dead else next(reversed(self.processes), "kube-apiserver")
                tail = self.log(part).read_text(errors="replace")[-_LOG_TAIL:]
                raise ClusterError(f"{part} {'ended' if dead else 'is not ready'}; the end of its log:\n{tail}")
            time.sleep(0.02)

    def request(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the JSON of a request by the administrator: GET, or POST of `body`."""
        data = json.dumps(body).encode() if body is not None else None
        return json.loads(self._open(path, data, seconds=10))

    def kubeconfig_for_service_account(self, namespace: str, name: str, *, node: str = "", seconds: int = 3600) -> Path:
        """Return a kubeconfig with a token of that service account: its rights and no others; bound to a node, if named.

        One that is bound is for use on that node: its server is the one that nodes reach.
        """
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds, **(self._bound(node) if node else {})},
        }
        token = self.request(path, body)["status"]["token"]
        config = self.folder / f"{namespace}-{name}{node and '-' + node}.kubeconfig"
        server = self.inner_server if node and self._site.place else self.server
        return kubeconfig.write(config, server, self.authority.path, kubeconfig.with_token(token))

    def _bound(self, node: str) -> dict[str, Any]:
        uid = self.request(f"/api/v1/nodes/{node}")["metadata"]["uid"]
        return {"boundObjectRef": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}}

    def _prepare(self) -> None:
        """Make the keys, certificates and the administrator's kubeconfig."""
        pair = self.authority.issue("admin", groups=("system:masters",))
        place = self._site.place
        self.authority.issue("kube-apiserver", hosts=(*_HOSTS, place.address4, place.address6) if place else _HOSTS)
        write_key(self._site.pki / "service-accounts.key")
        self._tls = ssl.create_default_context(cafile=str(self.authority.path))
        self._tls.load_cert_chain(*pair)
        kubeconfig.write(self.kubeconfig, self.server, self.authority.path, kubeconfig.with_certificate(*pair))

    def _relay(self, place: Place) -> None:
        """Let the machine reach the API server in its namespace, at the same port of 127.0.0.1, and nothing else there."""
        port = str(self._site.api_port)
        command = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.cluster.relay", "-", port, place.path, port]
        self.processes["relay"] = processes.start(command, self.log("relay"), detached=self.detached)

    def _release_ports(self) -> None:
        for port in self._ports:
            port.release()

    def _is_ready(self) -> bool:
        try:
            self._open("/readyz", seconds=2)
            if "kube-controller-manager" in self.processes:  # they make it; without it no pod can be made
                self._open("/api/v1/namespaces/default/serviceaccounts/default", seconds=2)
        except OSError:  # URLError is one
            return False
        return True

    def _open(self, path: str, data: bytes | None = None, *, seconds: float) -> bytes:
        request = urllib.request.Request(self.server + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, context=self._tls, timeout=seconds) as response:
            return bytes(response.read())
