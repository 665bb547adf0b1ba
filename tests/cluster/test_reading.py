"""What is read without kubectl is what kubectl prints."""

import json
import socket
import threading
from pathlib import Path

import pytest

from tests.cluster.kubectl import Kubectl, Refused
from tests.cluster.reading import Reader
from tests.controller.acting import node, pool

ARGUMENTS = (
    "ippools", "ippool six", "ipp", "ippools.tortie.dev", "ippool/six", "nodes,ippools", "node a",
    "crd ippools.tortie.dev ipamblocks.tortie.dev", "nodes -l pool=b", "nodes -l pool!=b", "clusterroles", "services",
    "svc kubernetes", "serviceaccounts -n kube-system", "serviceaccounts -A", "ipamblocks --request-timeout=3s",
    "namespaces --field-selector=metadata.name=default",
)  # fmt: skip


def test_it_is_what_kubectl_prints(cluster: Kubectl) -> None:
    cluster.apply(pool(), pool("six", cidr="fd00::/64"), node("a", pool="a"), node("b", pool="b"))
    for arguments in ARGUMENTS:
        words = arguments.split()
        assert cluster.get(*words) == json.loads(cluster.run("get", *words, "-o", "json")), arguments


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param("fun", "the server doesn't have a resource type 'fun'", id="no such kind"),
        pytest.param("ippool none", 'ippools.tortie.dev "none" not found', id="no such object"),
    ],
)
def test_what_isn_t_there_is_refused(cluster: Kubectl, arguments: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        cluster.get(*arguments.split())


def test_an_answer_that_ends_in_its_middle_is_refused(cluster: Kubectl, tmp_path: Path) -> None:
    """As when an API server is killed while it answers."""
    config = json.loads(cluster.kubeconfig.read_text())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config["clusters"][0]["cluster"]["server"] = f"http://127.0.0.1:{listening.getsockname()[1]}"
        (tmp_path / "kubeconfig").write_text(json.dumps(config))

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100\r\n{")

        server = threading.Thread(target=answer)
        server.start()
        with pytest.raises(Refused, match="IncompleteRead"):
            Reader(tmp_path / "kubeconfig").get("nodes")
        server.join()


def test_a_kind_that_is_served_later_is_found(cluster: Kubectl) -> None:
    with pytest.raises(Refused):
        cluster.get("toys")
    names = {"plural": "toys", "singular": "toy", "kind": "Toy"}
    schema = {"openAPIV3Schema": {"type": "object"}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    spec = {"group": "reading.test", "scope": "Cluster", "names": names, "versions": [version]}
    kind = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "toys.reading.test"},
    }
    try:
        cluster.apply(kind | {"spec": spec})
        cluster.run("wait", "crd/toys.reading.test", "--for=condition=Established")
        assert cluster.get("toys")["items"] == []
    finally:
        cluster.run("delete", "crd", "toys.reading.test")
