"""tortiectl against a real cluster of two nodes, installed as people install it: what it prints, word for word.

What differs from run to run (times, random parts of names) is replaced before it is compared.
"""

import itertools
import json
import re
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from tests.cluster.cluster import Cluster, why_not
from tests.cluster.demo import pod, run_everywhere
from tests.cluster.deploy import NAMESPACE, rolled_out, wait
from tests.cluster.images import BUSYBOX
from tests.cluster.kubectl import Kubectl
from tests.cluster.node import Node
from tortie.api.meta import LOG_DENIALS
from tortie.cli.ctl.main import main

needs_nodes = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
VOLATILE = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*Z", "TIME"),
    (r"tortie-operator-[\w-]+", "OPERATOR"),
    (r"tortie-connectivity-\w{6}", "ROOM"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "UID"),
    (r"\bcali[0-9a-f]{11}\b", "INTERFACE"),
    (r"\b[0-9a-f]{64}\b", "CONTAINER"),
    (r"\b[0-9a-f]{32}\b", "EPOCH"),
)


@pytest.fixture(scope="module")
def two() -> Iterator[Cluster]:
    with Cluster(2) as cluster:
        cluster.install("agent.policyGateExempt={ghosts}")
        wait("pods can be made", lambda: bool(cluster.kubectl.get("serviceaccounts")["items"]))
        wait("it is rolled out", lambda: rolled_out(cluster.kubectl, 2), 60)
        cluster.kubectl.apply(*(pod(node.name) for node in cluster.nodes))
        wait("they run", lambda: run_everywhere(cluster.kubectl), 60)
        wait("they are counted", lambda: counted(cluster.kubectl) == [2, 2])
        yield cluster


def counted(kubectl: Kubectl) -> list[int]:
    return [one["status"]["addresses"]["allocated"] for one in kubectl.get("ippools")["items"]]


def asked(cluster: Cluster, command: str, stdin: str | None = None) -> Result:
    result = CliRunner().invoke(main, [*command.split(), "--kubeconfig", str(cluster.plane.kubeconfig)], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def plain(text: str) -> str:
    """Return a text with what differs from run to run replaced, and columns one blank apart."""
    for pattern, word in VOLATILE:
        text = re.sub(pattern, word, text)
    return "\n".join(re.sub(r" {2,}", "  ", line).rstrip() for line in text.strip().splitlines())


SHOWN = {
    "status": """\
operator: 2 of 2 ready, OPERATOR leads
agents:  ready on 2 of 2 nodes
blocks:  4 on 2 nodes, 4 addresses in use

POOL  CIDR  SIZE  IN USE  FREE  %
default-ipv4-ippool  10.1.0.0/16  65536  2  65534  0.0
default-ipv6-ippool  fd00:10:1::/48  1208925819614629174706176  2  9007199254740991  0.0""",
    "node status": """\
NODE  AGENT  BLOCKS  IN USE  FREE  PUBLISHED  ROUTES  BGP  ADDRESSES  PROBLEMS
node-1  0.1.0  2  2  126  all  4  198.18.0.10/24, fd00:198:18::a/64
node-2  0.1.0  2  2  126  all  4  198.18.0.11/24, fd00:198:18::b/64""",
    "node status node-1": """\
NODE  AGENT  BLOCKS  IN USE  FREE  PUBLISHED  ROUTES  BGP  ADDRESSES  PROBLEMS
node-1  0.1.0  2  2  126  all  4  198.18.0.10/24, fd00:198:18::a/64

BLOCK  POOL  ACTIVE  IN USE  FREE  GIVEN BACK
10.1.0.0/26  default-ipv4-ippool  yes  1  63
fd00:10:1::/122  default-ipv6-ippool  yes  1  63

ROUTE TO  VIA
10.1.0.0/26
10.1.0.64/26  198.18.0.11
fd00:10:1::/122
fd00:10:1::40/122  fd00:198:18::b

ADDRESS  NAMESPACE  POD  SINCE  INTERFACE
10.1.0.0  default  pod-on-node-1  TIME  INTERFACE
fd00:10:1::  default  pod-on-node-1  TIME  INTERFACE""",
    "node routes node-1": """\
BLOCK  NODE  CARRIED BY  VIA  IN THE KERNEL  IN BIRD  PROBLEM
10.1.0.64/26  node-2  Direct  198.18.0.11  via 198.18.0.11
fd00:10:1::40/122  node-2  Direct  fd00:198:18::b  via fd00:198:18::b""",
    "version": """\
PART  VERSION  WHERE
tortiectl  0.1.0  here
operator  0.1.0  node-1
operator  0.1.0  node-2
agent  0.1.0  node-1
agent  0.1.0  node-2""",
    "ipam show": """\
POOL  CIDR  SIZE  IN USE  FREE  %
default-ipv4-ippool  10.1.0.0/16  65536  2  65534  0.0
default-ipv6-ippool  fd00:10:1::/48  1208925819614629174706176  2  9007199254740991  0.0""",
    "ipam show --blocks": """\
BLOCK  NODE  POOL  SIZE  IN USE  FREE
10.1.0.0/26  node-1  default-ipv4-ippool  64  1  63
10.1.0.64/26  node-2  default-ipv4-ippool  64  1  63
fd00:10:1::/122  node-1  default-ipv6-ippool  64  1  63
fd00:10:1::40/122  node-2  default-ipv6-ippool  64  1  63""",
    "ipam show --ip 10.1.0.64": """\
IP  STATE  POD  NODE  SINCE  CONTAINER
10.1.0.64  in use  default/pod-on-node-2  node-2  TIME  CONTAINER""",
    "ipam check": "",
}  # fmt: skip


@needs_nodes
@pytest.mark.parametrize("command", SHOWN)
def test_shown(two: Cluster, command: str) -> None:
    result = asked(two, command)
    said = plain(result.stdout)
    if command == "version":  # which replica is where is the scheduler's matter
        said = "\n".join([*said.splitlines()[:2], *sorted(said.splitlines()[2:4]), *sorted(said.splitlines()[4:])])
    assert said == SHOWN[command]
    assert result.exit_code == 0


MACHINES = ("status", "node status", "node status node-1", "version", "ipam show", "ipam check", "ipam map default-ipv4-ippool")


@needs_nodes
@pytest.mark.parametrize("command", MACHINES)
def test_for_programs(two: Cluster, command: str) -> None:
    def keys(answer: Any) -> Any:
        return sorted(answer) if isinstance(answer, dict) else [sorted(one) for one in answer]

    assert keys(json.loads(asked(two, f"{command} -o json").stdout)) == keys(
        yaml.safe_load(asked(two, f"{command} -o yaml").stdout)
    )
    assert asked(two, f"{command} -o wide").exit_code == 0


@needs_nodes
def test_a_picture_of_a_pool(two: Cluster, tmp_path: Path) -> None:
    shown = asked(two, "ipam map default-ipv4-ippool").stdout
    assert shown.startswith("default-ipv4-ippool: 10.1.0.0/25 of 10.1.0.0/16, 2 blocks of 2 nodes, 2 addresses in use")
    cells = json.loads(asked(two, "ipam map default-ipv4-ippool -o json").stdout)
    assert sum(cell["used"] for cell in cells) == 2
    asked(two, f"ipam map default-ipv4-ippool --svg {tmp_path}/map.svg")
    assert "10.1.0.0/31: node-1, 1 of 2 in use" in (tmp_path / "map.svg").read_text()
    assert "there is no IPPool 'fun'; there are default-ipv4-ippool" in asked(two, "ipam map fun").stderr


CONNECTED = """\
PATH  FAMILY  OPEN  CLOSED
node to API server  IPv4  2  0
node to Service  IPv4  2  0
node to Service  IPv6  2  0
node to node, other node  IPv4  2  0
node to node, other node  IPv6  2  0
node to pod, other node  IPv4  4  0
node to pod, other node  IPv6  4  0
node to pod, same node  IPv4  4  0
node to pod, same node  IPv6  4  0
pod to API server  IPv4  0  4
pod to Service  IPv4  4  0
pod to Service  IPv6  4  0
pod to node, other node  IPv4  4  0
pod to node, other node  IPv6  4  0
pod to node, same node  IPv4  4  0
pod to node, same node  IPv6  4  0
pod to pod, other node  IPv4  8  0
pod to pod, other node  IPv6  8  0
pod to pod, same node  IPv4  4  0
pod to pod, same node  IPv6  4  0"""


@needs_nodes
def test_paths_between_pods_and_nodes(two: Cluster) -> None:
    """The API server is outside of the nodes here and knows no way back to pods: these pools don't masquerade."""
    result = asked(two, "connectivity test")
    table, _, closed = result.stdout.partition("\n\nclosed:\n")
    assert re.sub(r"(IPv.  \d  0)  [\d.]+", r"\1", plain(table)).replace("  SLOWEST MS", "") == CONNECTED
    assert closed.count("no answer within 5 s") == 4
    assert result.exit_code == 3
    wait("it has cleaned up", lambda: not rooms(two), 60)


def rooms(cluster: Cluster) -> list[str]:
    names = (one["metadata"]["name"] for one in cluster.kubectl.get("namespaces")["items"])
    return [name for name in names if name.startswith("tortie-connectivity")]


@needs_nodes
def test_pods_that_don_t_start_are_named_with_the_reason(two: Cluster) -> None:
    result = asked(two, "connectivity test --image none.test/none:1 --timeout 5")
    assert result.exit_code == 1
    assert re.search(r"6 of 6 pods aren't ready after 5 s; on node node-[12]: .*ErrImageNeverPull", result.stderr)
    wait("it has cleaned up", lambda: not rooms(two), 60)


@needs_nodes
def test_a_port_that_is_taken_on_the_nodes_is_named(two: Cluster) -> None:
    result = asked(two, "connectivity test --node-port 10250")  # the kubelet's
    assert result.exit_code == 1
    assert re.search(r"pods have ended; on node node-[12]: .*TCP port 10250 can't be served", result.stderr)
    assert "another --node-port may be free" in result.stderr
    wait("it has cleaned up", lambda: not rooms(two), 60)


@needs_nodes
def test_one_archive_without_secrets(two: Cluster, tmp_path: Path) -> None:
    two.kubectl.run("set", "env", "-n", NAMESPACE, "deployment/tortie-operator", "PASSWORD=hunter2")
    wait("it is rolled out", lambda: rolled_out(two.kubectl, 2), 120)
    parts = ("-n", NAMESPACE, "-l", "app.kubernetes.io/name=tortie")
    wait("those of before are gone", lambda: len(two.kubectl.get("pods", *parts)["items"]) == 4, 60)
    assert asked(two, f"diagnose --file {tmp_path}/d.tar.gz").exit_code == 0
    with tarfile.open(tmp_path / "d.tar.gz") as tar:
        files = {one.name.partition("/")[2]: tar.extractfile(one).read().decode() for one in tar}  # type: ignore[union-attr]
    assert {"objects/ippools.json", "agents/node-1.json", "agents/node-2.json", "check.json", "problems.json", "errors.txt",
            "cluster/pods.json", "cluster/nodes.json", "events/tortie-system.json"} <= files.keys()  # fmt: skip
    assert len([name for name in files if name.startswith("logs/")]) == 4
    assert files["errors.txt"] == ""
    assert not any("hunter2" in text for text in files.values())
    assert '"name": "PASSWORD"' in files["cluster/deployments.json"]


GHOST = """
ip netns add ghost
export CNI_COMMAND=ADD CNI_CONTAINERID=ghost CNI_IFNAME=eth0 CNI_NETNS=/run/netns/ghost CNI_PATH=/opt/cni/bin
export CNI_ARGS='K8S_POD_NAMESPACE=ghosts;K8S_POD_NAME=ghost'
echo '{"cniVersion": "1.0.0", "name": "tortie", "type": "tortie"}' | /opt/cni/bin/tortie
"""


@needs_nodes
def test_a_leak_is_found_and_freed_and_what_is_in_use_is_not(two: Cluster) -> None:
    """The runtime asks for a pod that isn't there: so it looks when a pod's end was missed."""
    node = two.nodes[1]
    address = json.loads(shell(node, GHOST))["ips"][0]["address"].partition("/")[0]
    found = asked(two, "ipam check --settle 0.5")
    assert found.exit_code == 3
    assert f"leak  {address}  node-2  ghosts/ghost  its pod is gone; its interface is still there" in plain(found.stdout)
    report = asked(two, "ipam check --settle 0 -o json").stdout
    kept = asked(two, "ipam release --from-report -", report)
    assert kept.exit_code == 3
    assert "the interface INTERFACE uses it; it is freed when that is deleted" in plain(kept.stdout)
    shell(node, "ip netns delete ghost")
    wait("its interface is gone", lambda: address not in shell(node, "ip route show proto 201"))
    freed = asked(two, "ipam release --from-report - -o json", report)
    rows = json.loads(freed.stdout)
    assert [row["freed"] for row in rows] == [True, True], "a link's two addresses go together"
    assert address in {row["address"] for row in rows}
    assert rows[1]["why"] == f"freed with {rows[0]['address']}"
    assert freed.exit_code == 0
    again = asked(two, "ipam release --from-report -", report)
    assert "isn't there any more; look again" in again.stdout
    assert asked(two, "ipam check").exit_code == 0


@needs_nodes
def test_a_pod_that_is_there_keeps_its_address_whatever_a_report_says(two: Cluster) -> None:
    said = json.loads(asked(two, "node status node-2 -o json").stdout)
    held = next(one for one in said["allocations"] if one["pod"] == "pod-on-node-2")
    lie = {"kind": "leak", "subject": held["address"], "node": "node-2", "pod": "default/pod-on-node-2", "why": "I say so",
           "uid": held["uid"], "epoch": said["epoch"], "sequence": held["sequence"]}  # fmt: skip
    kept = asked(two, "ipam release --from-report -", json.dumps([lie]))
    assert kept.exit_code == 3
    assert "its pod is there and may use it" in kept.stdout
    kept = asked(two, "ipam release --from-report -", json.dumps([lie | {"pod": "an unknown pod", "uid": ""}]))
    assert kept.exit_code == 3
    assert "it isn't known whose it is, so it is kept" in kept.stdout


SHUT = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "shut", "annotations": {LOG_DENIALS: "true"}},
    "spec": {"podSelector": {}},
}


@needs_nodes
def test_what_is_denied_is_shown_of_all_nodes(two: Cluster, tmp_path: Path) -> None:
    pods = {one["metadata"]["name"]: one["status"]["podIP"] for one in two.kubectl.get("pods")["items"]}
    here, there = sorted(pods)
    assert "nothing was denied where it is logged" in asked(two, "policy log").stderr
    two.kubectl.apply(SHUT)
    assert asked(two, "policy status default/shut --wait").exit_code == 0
    command: list[str | Path] = [
        Path(sys.executable).parent / "tortiectl",
        "policy",
        "log",
        "-f",
        "--kubeconfig",
        two.plane.kubeconfig,
    ]
    with (tmp_path / "log").open("w") as file:
        following = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            for source, target in ((here, there), (there, here)):
                two.kubectl.run("exec", source, "--", "sh", "-c", f"ping -c 1 -W 1 {pods[target]} || true")
            wait("both are said", lambda: len(denied(tmp_path / "log")) == 2)
            (old,) = (one["metadata"]["name"] for one in agents(two) if one["spec"]["nodeName"] == "node-2")
            two.kubectl.run("delete", "pod", "-n", NAMESPACE, old)
            wait("another agent is there", lambda: rolled_out(two.kubectl, 2), 60)
            two.kubectl.run("exec", here, "--", "sh", "-c", f"ping -c 1 -W 1 {pods[there]} || true")
            wait("it is followed", lambda: len(denied(tmp_path / "log")) == 3)
        finally:
            following.terminate()
            following.wait()
    assert sorted(denied(tmp_path / "log")) == [
        f"TIME  node-1  default/{there} -> default/{here} ICMP  (Ingress)  NetworkPolicy default/shut",
        f"TIME  node-2  default/{here} -> default/{there} ICMP  (Ingress)  NetworkPolicy default/shut",
        f"TIME  node-2  default/{here} -> default/{there} ICMP  (Ingress)  NetworkPolicy default/shut",
    ]
    table = f"""\
TIME  NODE  FROM  TO  PORT  DIRECTION  DENIED BY
TIME  node-2  default/{here}  default/{there}  ICMP  Ingress  NetworkPolicy default/shut"""
    assert plain(asked(two, "policy log --node node-2").stdout) == table
    rows = json.loads(asked(two, "policy log -o json").stdout)
    assert [row["to"] for row in rows] == [pods[here], pods[there]], "the oldest one first; an agent that ended keeps none"
    assert asked(two, "policy log --node nowhere").stderr.startswith("Error: no agent is ready on node nowhere")
    (agent,) = (one["metadata"]["name"] for one in agents(two) if one["spec"]["nodeName"] == "node-1")
    said = two.kubectl.run("logs", "-n", NAMESPACE, agent)
    assert f"denied: {pods[there]} to default/{here} ({pods[here]}), ICMP, by NetworkPolicy default/shut (Ingress)" in said
    two.kubectl.run("delete", "networkpolicy", "shut")


def denied(path: Path) -> list[str]:
    """Return the lines about packets of a log that is followed."""
    return [line for line in plain(path.read_text()).splitlines() if not line.startswith("Warning")]


CHURNED = 60.0  # seconds
CHURN = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "churn"},
    "spec": {
        "replicas": 0,
        "selector": {"matchLabels": {"app": "churn"}},
        "template": {
            "metadata": {"labels": {"app": "churn"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "one", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "1000000"]}],
            },
        },
    },
}


@needs_nodes
def test_nothing_is_found_that_isn_t_so_while_pods_come_and_go(two: Cluster) -> None:
    two.kubectl.apply(CHURN)
    before, over = count_given(two), threading.Event()

    def churn() -> None:
        for replicas in itertools.cycle((8, 0)):
            if over.is_set():
                return
            two.kubectl.run("scale", "deployment", "churn", f"--replicas={replicas}")
            over.wait(4)

    with ThreadPoolExecutor(1) as other:
        churning = other.submit(churn)
        try:
            end = time.monotonic() + CHURNED
            looks = list(iter(lambda: asked(two, "ipam check -o json") if time.monotonic() < end else None, None))
        finally:
            over.set()
        churning.result()
    two.kubectl.run("delete", "deployment", "churn")
    assert [(look.stdout, look.stderr) for look in looks] == [("[]\n", "")] * len(looks)
    assert len(looks) > 1
    assert count_given(two) - before > 20, "pods came and went"


def count_given(cluster: Cluster) -> int:
    """Return how often the ledgers gave and took."""
    return sum(json.loads(asked(cluster, f"node status {node.name} -o json").stdout)["sequence"] for node in cluster.nodes)


def shell(node: Node, script: str) -> str:
    return subprocess.run([*node.enter, "sh", "-ec", script], capture_output=True, text=True, check=True, timeout=60).stdout


@needs_nodes
def test_problems_are_named_with_what_to_do(two: Cluster) -> None:
    two.kubectl.run(
        "patch", "ippool", "default-ipv6-ippool", "--type=merge", "-p", '{"spec":{"allowedUses":["Workload","LoadBalancer"]}}'
    )
    name = next(one["metadata"]["name"] for one in agents(two) if one["spec"]["nodeName"] == "node-2")
    two.plane.pause("node-2-kubelet")  # so that it isn't started again at once
    try:
        two.kubectl.run("delete", "pod", "-n", NAMESPACE, name, "--force", "--grace-period=0")
        said = plain(asked(two, "status").stdout)
        assert "agents:  ready on 1 of 2 nodes" in said
        assert "node node-2  no agent is ready there: its pods don't start  kubectl get pods -n tortie-system" in said
        wait("the pool says so", lambda: "taken but not done yet: allowedUses: LoadBalancer" in asked(two, "status").stdout)
        assert "node-2  silent" in plain(asked(two, "node status").stdout)
        found = asked(two, "ipam check --settle 0")
        assert "silent  node-2  node-2  its agent didn't answer" in plain(found.stdout)
    finally:
        two.plane.resume("node-2-kubelet")
        two.kubectl.run("patch", "ippool", "default-ipv6-ippool", "--type=merge", "-p", '{"spec":{"allowedUses":null}}')
    wait("it is rolled out", lambda: rolled_out(two.kubectl, 2), 120)


def agents(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.kubectl.get("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=agent")[
        "items"
    ]
    return found
