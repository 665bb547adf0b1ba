"""The whole agent as a process: real API server, real operator, real kernel, the real CNI plugin."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.agent.acting import HEALTH_PORT, PYTHON, AgentNode, Failed
from tests.agent.namespaces import namespaces, needs_root, run
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import active, blocks, node, pool

pytestmark = [needs_root, pytest.mark.usefixtures("operator")]


@pytest.fixture
def one(control_plane: ControlPlane, cluster: Kubectl, tmp_path: Path) -> Iterator[AgentNode]:
    cluster.apply(pool(), pool("six", cidr="fd00::/64"), node("a"))
    wait("a block of each family", lambda: len(active(cluster, "a")) == 2)
    with namespaces(5) as (path, *pods), closing(AgentNode("a", control_plane, tmp_path, path, pods)) as made:
        made.start()
        wait("it knows both blocks", lambda: len(json.loads(ask(made, "report"))["blocks"]) == 2)
        yield made


def published(cluster: Kubectl) -> set[str]:
    return {a["address"] for b in blocks(cluster) for a in b.get("status", {}).get("allocations", ())}


def network(cluster: Kubectl) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.run("get", "nodenetwork", "a", "-o", "json"))
    status: dict[str, Any] = found.get("status", {})
    return status


def test_pods_get_addresses_of_the_nodes_blocks_and_reach_each_other(one: AgentNode, cluster: Kubectl) -> None:
    addresses = one.add(0), one.add(1)
    assert addresses == (["10.1.0.0", "fd00::"], ["10.1.0.1", "fd00::1"])
    for target in addresses[1]:
        run(["busybox", "ping", "-c", "1", "-W", "5", target], one.pods[0])
    wait("they are published", lambda: published(cluster) == {a for both in addresses for a in both})


def test_repeated_it_is_the_same(one: AgentNode) -> None:
    assert one.add(0) == one.add(0)
    one.cni("CHECK", 0)


def test_deleted_it_is_gone_and_the_unknown_succeeds(one: AgentNode, cluster: Kubectl) -> None:
    before = run(["ip", "link"], one.path)
    one.add(0)
    one.cni("DEL", 0)
    one.cni("DEL", 0)
    one.cni("DEL", 1, "never-added")
    assert run(["ip", "link"], one.path) == before
    wait("nothing is published", lambda: published(cluster) == set())
    with pytest.raises(Failed, match="no address is on record"):
        one.cni("CHECK", 0)


def test_a_dead_agent_is_waited_for_and_knows_what_it_knew(one: AgentNode) -> None:
    first = one.add(0)
    one.kill()
    with pytest.raises(Failed, match="agent on this node"):
        one.cni("ADD", 1, waitSeconds=0.2)
    one.cni("DEL", 0)
    one.start()
    assert one.add(1) != first
    assert run(["ip", "route", "show", "proto", "201"], one.path).count("scope link") == 1  # the deferred DEL was played


def test_told_to_it_starts_anew_as_the_same_process(one: AgentNode) -> None:
    first = one.add(0)
    os.kill(one.agent, signal.SIGHUP)
    wait("it is ready again", lambda: one.log.read_text().count("tortie.agent.process: ready") == 2)
    assert one.add(0) == first


def test_without_an_api_server(one: AgentNode, cluster: Kubectl, control_plane: ControlPlane) -> None:
    one.add(0)
    control_plane.pause("kube-apiserver")
    try:
        one.kill()
        one.start()
        for number in range(50):
            one.add(1, f"short-lived-{number}")
            one.cni("DEL", 1, f"short-lived-{number}")
        last = one.add(2)
    finally:
        control_plane.resume("kube-apiserver")
    wait("it is published", lambda: published(cluster) == {"10.1.0.0", "fd00::", *last})


FIXED: dict[str, tuple[dict[str, str], list[str] | str]] = {
    "Calico's name": ({"cni.projectcalico.org/ipAddrs": '["10.1.0.9"]'}, ["10.1.0.9"]),
    "our name": ({"tortie.dev/ip-addrs": '["10.1.0.9", "fd00::9"]'}, ["10.1.0.9", "fd00::9"]),
    "a pool": ({"cni.projectcalico.org/ipv4pools": '["pool"]'}, ["10.1.0.0", "fd00::"]),
    "an IPv6 pool": ({"cni.projectcalico.org/ipv6pools": '["fd00::/64"]'}, ["10.1.0.0", "fd00::"]),
    "a pool of the other family": (
        {"cni.projectcalico.org/ipv6pools": '["pool"]'},
        "'pool' is no enabled IPPool of that family",
    ),
    "elsewhere": ({"tortie.dev/ip-addrs": '["10.1.9.9"]'}, "10.1.9.9 of IPPool pool lies in no node's block"),
    "no pool": ({"tortie.dev/ipv4-pools": '["fun"]'}, "'fun' is no enabled IPPool of that family"),
    "no list": ({"tortie.dev/ip-addrs": "10.1.0.9"}, "must be a JSON list of texts"),
}


@pytest.mark.parametrize("row", FIXED)
def test_annotations(one: AgentNode, cluster: Kubectl, row: str) -> None:
    annotations, outcome = FIXED[row]
    metadata = {"name": "asking", "namespace": "default", "annotations": annotations}
    spec = {"nodeName": "a", "containers": [{"name": "c", "image": "none"}]}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    one.named[0] = "asking"
    try:
        if isinstance(outcome, str):
            with pytest.raises(Failed, match=outcome):
                one.add(0)
        else:
            assert one.add(0) == outcome
    finally:
        cluster.run("delete", "pod", "asking", "--force", "--grace-period=0")


def asking(cluster: Kubectl, namespace: str, **annotations: str) -> None:
    metadata = {"name": "asking", "namespace": namespace, "annotations": annotations}
    spec = {"nodeName": "a", "containers": [{"name": "c", "image": "none"}]}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def test_a_pool_that_a_pod_chose_is_asked_for_and_the_pod_waits_for_its_block(one: AgentNode, cluster: Kubectl) -> None:
    cluster.apply(pool("manual", cidr="10.2.0.0/24", assignmentMode="Manual"))
    one.named[0] = "asking"
    asking(cluster, "default", **{"tortie.dev/ipv4-pools": '["manual"]'})
    try:
        assert one.add(0) == ["10.2.0.0", "fd00::"]
        assert network(cluster)["pools"] == ["manual"]
        assert one.add(1) == ["10.1.0.0", "fd00::1"], "others get none of it"
    finally:
        cluster.run("delete", "pod", "asking", "--force", "--grace-period=0")


def test_a_namespace_with_a_pool_of_its_own_gets_addresses_of_that_alone(one: AgentNode, cluster: Kubectl) -> None:
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "blue", "labels": {"team": "blue"}}},
        pool("blue", cidr="10.3.0.0/24", namespaceSelector="team == 'blue'"),
    )
    one.named[0], one.namespace = "asking", "blue"
    asking(cluster, "blue")
    try:
        assert one.add(0) == ["10.3.0.0", "fd00::"]
    finally:
        cluster.run("delete", "pod", "-n", "blue", "asking", "--force", "--grace-period=0")


def test_an_address_of_a_block_that_the_agent_hasn_t_seen_yet_is_waited_for(one: AgentNode, cluster: Kubectl) -> None:
    """A new ledger, right after the start: the pod, its pool and the block are seen a moment later."""
    one.kill()
    for file in (one.folder / "state").glob("ledger.db*"):
        file.unlink()
    one.named[0] = "asking"
    asking(cluster, "default", **{"tortie.dev/ip-addrs": '["10.1.0.9"]'})
    try:
        one.start()
        assert one.add(0) == ["10.1.0.9"]
    finally:
        cluster.run("delete", "pod", "asking", "--force", "--grace-period=0")


def test_a_static_pod_is_known_by_its_config_hash(one: AgentNode, cluster: Kubectl) -> None:
    """The runtime names it by the hash of its manifest; the mirror at the API server has a uid of its own."""
    one.named[0] = "asking"
    asking(cluster, "default", **{"kubernetes.io/config.hash": "f" * 32, "tortie.dev/ip-addrs": '["10.1.0.9"]'})
    try:
        assert one.add(0, uid="f" * 32) == ["10.1.0.9"]
    finally:
        cluster.run("delete", "pod", "asking", "--force", "--grace-period=0")


def test_a_lost_ledger_hands_out_nothing_that_links_or_the_published_state_hold(one: AgentNode, cluster: Kubectl) -> None:
    first, second = one.add(0), one.add(1)
    wait("they are published", lambda: published(cluster) == {*first, *second})
    one.kill()
    links = [line.split("@")[0] for line in run(["ip", "-o", "-br", "link"], one.path).split("\n") if line.startswith("cali")]
    run(["ip", "link", "delete", links[0]], one.path)
    for file in (one.folder / "state").glob("ledger.db*"):
        file.unlink()
    one.start()
    third = one.add(2)
    assert third == ["10.1.0.2", "fd00::2"]
    wait("what has a link is published, and nothing else", lambda: len(published(cluster)) == 4)


def test_a_foreign_firewall_and_a_node_out_of_reach_stand_in_its_status(one: AgentNode, cluster: Kubectl) -> None:
    run(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1"], one.path)
    run(["nft", "add table inet f; add chain inet f forward { type filter hook forward priority 0; policy drop; }"], one.path)
    for command in (
        ["link", "set", "eth0", "up"],
        ["link", "set", "eth1", "up"],
        ["addr", "add", "192.0.2.7/24", "dev", "eth0"],
    ):
        run(["ip", *command], one.path)
    cluster.apply(node("b"))
    wait("b has blocks", lambda: len(active(cluster, "b")) == 2)
    body = json.dumps({"status": {"addresses": ["198.51.100.1/24"]}})
    cluster.run("patch", "nodenetwork", "b", "--subresource=status", "--type=merge", "-p", body)
    one.kill()
    one.start()
    wait("both are said", lambda: {c["status"] for c in network(cluster).get("conditions", ())} == {"False"}, 30)
    assert network(cluster)["addresses"] == ["192.0.2.7/24"]
    messages = {c["type"]: c["message"] for c in network(cluster)["conditions"]}
    assert "node b is at 198.51.100.1/24, not in this node's subnet (192.0.2.7/24)" in messages["RoutesSet"]
    assert "chain `inet f forward` drops forwarded packets" in messages["FirewallClear"]
    said = run(["busybox", "wget", "-q", "-O", "-", f"http://127.0.0.1:{HEALTH_PORT}/metrics"], one.path)
    assert "tortie_agent_routes_missing 2.0" in said
    assert "tortie_agent_foreign_firewall 1.0" in said


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing: apt-get install strace")
def test_the_answer_never_precedes_the_commit(one: AgentNode, tmp_path: Path) -> None:
    """What the kernel saw: between request and answer the ledger was synced; and where it can't be, the answer is an error."""
    trace = tmp_path / "trace"
    with traced(one, trace, "-e", "trace=fdatasync,fsync,sendto"):
        for number in range(3):
            one.add(number)
    calls = [line for line in trace.read_text().splitlines() if "sync" in line or ("sendto(" in line and "result" in line)]
    answers = [number for number, line in enumerate(calls) if "sendto(" in line]
    assert len(answers) == 3
    for before, answer in pairwise([-1, *answers]):
        assert any("sync" in line and line.endswith("= 0") for line in calls[before + 1 : answer]), calls
    failing = ("-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO")
    with traced(one, trace, *failing), pytest.raises(Failed, match="ledger"):
        one.add(3)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing: apt-get install strace")
def test_no_process_is_started_for_a_pod(one: AgentNode, tmp_path: Path) -> None:
    """Nft is what looks for foreign firewalls, once a minute, whatever pods do."""
    with traced(one, tmp_path / "trace", "-e", "trace=execve,execveat"):
        for number in range(3):
            one.add(number)
            one.cni("DEL", number)
    started = [line for line in (tmp_path / "trace").read_text().splitlines() if "execve" in line and "nft" not in line]
    assert started == []


@contextmanager
def traced(one: AgentNode, trace: Path, *options: str) -> Iterator[None]:
    """Have strace follow the agent's system calls."""
    pid = str(one.agent)
    running = subprocess.Popen(["strace", "-f", "-y", "-o", str(trace), *options, "-p", pid], stderr=subprocess.PIPE, text=True)
    assert running.stderr
    assert "attached" in running.stderr.readline()
    try:
        yield
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=30)


def test_what_it_says_of_itself(one: AgentNode) -> None:
    one.add(0)
    ask = ["busybox", "wget", "-q", "-O", "-", f"http://127.0.0.1:{HEALTH_PORT}"]
    assert run([*ask[:-1], f"{ask[-1]}/healthz"], one.path) == "ok"
    said = run([*ask[:-1], f"{ask[-1]}/metrics"], one.path)
    assert 'tortie_agent_requests_seconds_count{command="ADD",result="ok"} 1.0' in said
    assert "tortie_agent_addresses_in_use 2.0" in said
    assert 'tortie_agent_addresses_free{pool="pool"} 63.0' in said


def test_gc_frees_what_the_runtime_has_no_more(one: AgentNode) -> None:
    kept, gone = one.add(0), one.add(1)
    attachments: dict[str, Any] = {"cni.dev/valid-attachments": [{"containerID": "container-0", "ifname": "eth0"}]}
    one.cni("GC", 0, **attachments)
    one.cni("CHECK", 0)
    with pytest.raises(Failed):
        one.cni("CHECK", 1)
    held = [one["address"] for one in json.loads(ask(one, "report"))["allocations"]]
    assert held == kept
    assert not set(gone) & set(held)
    assert run(["ip", "route", "show", "proto", "201"], one.path).count("dev cali") == 1


def test_addresses_go_round(one: AgentNode, cluster: Kubectl) -> None:
    """A pool of one block serves any number of short-lived pods, each address resting in between."""
    cluster.run("patch", "ippool", "pool", "--type=merge", "-p", '{"spec":{"disabled":true}}')
    cluster.apply(pool("small", cidr="10.2.0.0/28", blockSize=28))
    wait("its block", lambda: "10.2.0.0/28" in active(cluster, "a"))
    one.kill()
    one.options = ("--cooldown", "0.2")
    one.start()
    seen = [one.add(0, f"short-lived-{n}")[0] for n in range(40) if one.cni("DEL", 0, f"short-lived-{n - 1}") is None]
    assert set(seen[:16]) == {f"10.2.0.{n}" for n in range(16)}
    assert seen[16:] == (seen[:16] * 2)[:24]


def test_250_pods_and_the_blocks_for_them_come_by_themselves(one: AgentNode, cluster: Kubectl) -> None:
    with namespaces(250) as one.pods:
        for number in range(250):
            one.add(number)
    assert len([cidr for cidr in active(cluster, "a") if "." in cidr]) >= 4


def ask(one: AgentNode, *arguments: str) -> str:
    return run([str(PYTHON.parent / "tortie"), "ask", *arguments, "--run", str(one.run)], one.path)


def test_asked_it_says_what_ledger_and_kernel_hold(one: AgentNode) -> None:
    given = one.add(0)
    said = json.loads(ask(one, "report"))
    assert said["node"] == "a"
    assert said["canRecord"]
    assert [held["address"] for held in said["allocations"]] == given
    (held,) = said["links"].values()
    assert sorted(held) == sorted(given)
    assert {block["cidr"]: block["used"] for block in said["blocks"]} == {"10.1.0.0/26": 1, "fd00::/122": 1}
    assert said["routes"] == [{"to": one, "via": None, "device": None} for one in ("10.1.0.0/26", "fd00::/122")]


def test_asked_to_it_frees_what_is_leaked_and_nothing_else(one: AgentNode) -> None:
    one.add(0)
    said = json.loads(ask(one, "report"))
    first = said["allocations"][0]
    release = ("release", first["address"], "--epoch", said["epoch"], "--sequence")
    with pytest.raises(subprocess.CalledProcessError) as refused:
        ask(one, *release, str(first["sequence"]))
    assert f"the interface {first['host']} uses it" in refused.value.stderr
    run(["ip", "link", "delete", first["host"]], one.path)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        ask(one, *release, str(first["sequence"] + 7))
    assert "isn't there any more" in refused.value.stderr
    with pytest.raises(subprocess.CalledProcessError) as refused:
        ask(one, "release", first["address"], "--epoch", "another", "--sequence", str(first["sequence"]))
    assert "isn't there any more" in refused.value.stderr
    freed = json.loads(ask(one, *release, str(first["sequence"])))["freed"]
    assert freed == [{"address": held["address"], "sequence": held["sequence"]} for held in said["allocations"]]
    assert json.loads(ask(one, "report"))["allocations"] == []


QUESTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"question": "why"}, "the question 'why' is none of report, release"),
    "no address": ({"question": "release"}, "KeyError('address') is missing or wrong"),
    "a bad address": ({"question": "release", "address": "ten", "epoch": "", "sequence": 1}, "not an IP address: 'ten'"),
    "a bad sequence": ({"question": "release", "address": "10.1.0.0", "epoch": "", "sequence": "x"}, "invalid literal"),
}


@pytest.mark.parametrize("row", QUESTIONS)
def test_bad_questions_are_named(one: AgentNode, row: str) -> None:
    question, words = QUESTIONS[row]
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(str(one.run / "agent.sock"))
        asked.sendall(json.dumps(question).encode())
        asked.shutdown(socket.SHUT_WR)
        answer = json.loads(b"".join(iter(lambda: asked.recv(65536), b"")))
    assert words in answer["error"]["msg"]


def full(one: AgentNode, cluster: Kubectl) -> None:
    """Leave the node two addresses, both in use."""
    for name in ("pool", "six"):
        cluster.run("patch", "ippool", name, "--type=merge", "-p", '{"spec":{"disabled":true}}')
    cluster.apply(pool("small", cidr="10.2.0.0/31", blockSize=31))
    wait("its block", lambda: "10.2.0.0/31" in active(cluster, "a"))
    one.kill()
    one.options = ("--cooldown", "0.2")
    one.start()
    assert {*one.add(0), *one.add(1)} == {"10.2.0.0", "10.2.0.1"}


def test_exhausted_an_add_fails_with_the_reason_and_the_code_for_trying_again(one: AgentNode, cluster: Kubectl) -> None:
    full(one, cluster)
    with pytest.raises(Failed, match="all 2 IPv4 addresses of this node's 1 blocks are in use") as failed:
        one.cni("ADD", 2, waitSeconds=3)
    assert failed.value.code == 11


def test_an_agent_that_ends_lets_waiting_pods_go_to_the_next_one(one: AgentNode, cluster: Kubectl) -> None:
    full(one, cluster)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(one.add, 2, waitSeconds=60)
        wait("the ADD waits", lambda: established(one))
        ended = one.running[-1]
        ended.terminate()
        ended.wait(timeout=9)  # the kubelet kills it after 10
        one.running.remove(ended)
        one.start()
        one.cni("DEL", 0)
        assert waiting.result(timeout=60)[0] in {"10.2.0.0", "10.2.0.1"}


def established(one: AgentNode) -> bool:
    """Whether somebody is connected to the agent's socket; the kernel counts the connection to the plugin's namespace."""
    sockets = Path("/proc/net/unix").read_text().splitlines()[1:]
    return any(line.split()[5] == "03" and str(one.run) in line for line in sockets)


def test_a_ledger_that_can_t_record_is_said_to_the_runtime_and_the_kubelet(one: AgentNode, tmp_path: Path) -> None:
    one.cni("STATUS", 0)
    failing = ("-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO")
    with traced(one, tmp_path / "trace", *failing):
        with pytest.raises(Failed, match=r"no pod can start here: .*ledger.db can't be written") as failed:
            one.cni("STATUS", 0)
        assert failed.value.code == 50
        script = f"busybox wget -q -O - http://127.0.0.1:{HEALTH_PORT}/readyz 2>&1 || true"
        wait("the kubelet is told", lambda: "503" in run(["sh", "-c", script], one.path))
    one.cni("STATUS", 0)


def test_a_namespace_that_isn_t_one_leaves_nothing(one: AgentNode, cluster: Kubectl) -> None:
    good, one.pods[0] = one.pods[0], "/etc/hostname"
    with pytest.raises(Failed, match="/etc/hostname is not a network namespace"):
        one.add(0)
    one.pods[0] = good
    assert json.loads(ask(one, "report"))["allocations"] == []
    assert "cali" not in run(["ip", "link"], one.path)
    wait("nothing is published", lambda: published(cluster) == set())


def test_the_node_s_network_is_said_to_be_there(one: AgentNode, cluster: Kubectl) -> None:
    run(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1"], one.path)
    for command in (
        ["link", "set", "eth0", "up"],
        ["link", "set", "eth1", "up"],
        ["addr", "add", "192.0.2.7/24", "dev", "eth0"],
    ):
        run(["ip", *command], one.path)

    def said() -> list[str]:
        conditions = cluster.get("node", "a")["status"].get("conditions", ())
        return [c["status"] for c in conditions if c["type"] == "NetworkUnavailable"]

    wait("it is said", lambda: said() == ["False"])


def test_each_add_is_one_line_with_pod_address_and_milliseconds(one: AgentNode, cluster: Kubectl) -> None:
    one.named[0] = "asking"
    asking(cluster, "default")
    try:
        one.add(0)
    finally:
        cluster.run("delete", "pod", "asking", "--force", "--grace-period=0")
    (line,) = [line for line in one.log.read_text().splitlines() if " ADD " in line]
    assert re.search(r"ADD default/asking: 10\.1\.0\.0, fd00::, [\d.]+ ms", line)


def test_a_del_that_waited_doesn_t_take_a_link_that_was_added_again(one: AgentNode) -> None:
    one.add(0)
    one.kill()
    one.cni("DEL", 0, waitSeconds=0.1)
    (file,) = (one.folder / "state" / "deferred").glob("*.json")
    text = file.read_text()
    one.start()
    wait("it is played", lambda: not file.exists())
    file.write_text(text)
    one.add(0)
    assert not file.exists()
    one.cni("CHECK", 0)


def test_without_an_api_server_pods_by_name_too(one: AgentNode, cluster: Kubectl, control_plane: ControlPlane) -> None:
    """The plugin names pods as a kubelet does; the one that the agent knows gets what it wished."""
    cluster.apply(pool("manual", cidr="10.2.0.0/24", assignmentMode="Manual"))
    one.named = {0: "asking", 1: "unknown"}
    asking(cluster, "default", **{"tortie.dev/ipv4-pools": '["manual"]'})
    try:
        assert one.add(0)[0] == "10.2.0.0"
        one.cni("DEL", 0)
        control_plane.kill("kube-apiserver")
        assert one.add(0, "again")[0] == "10.2.0.1"
        assert one.add(1)[0] == "10.1.0.0"
    finally:
        control_plane.start("kube-apiserver")
        control_plane.wait_ready()
        cluster.run("delete", "pod", "asking", "--force", "--grace-period=0")


def test_what_can_t_be_installed_ends_the_agent_with_a_sentence(one: AgentNode) -> None:
    one.kill()
    one.options = ("--plugin", "/nope", "--cni-bin", str(one.folder / "bin"), "--cni-conf", str(one.folder / "conf"))
    one.launch()
    assert one.running[-1].wait(timeout=30) == 1
    assert "Error: No such file or directory @ /nope; mount the folder into the agent" in one.log.read_text()
    assert "Traceback" not in one.log.read_text()


def test_one_agent_at_a_time(one: AgentNode) -> None:
    second = ["--node", "a", "--kubeconfig", str(one.plane.kubeconfig), "--run", f"{one.run}2", "--health-port", "0"]
    command = [str(PYTHON.parent / "tortie"), "agent", *second, "--state", str(one.folder / "state")]
    done = subprocess.run(["nsenter", f"--net={one.path}", *command], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "another agent runs on this node" in done.stderr


def test_a_status_that_a_restored_storage_brought_back_is_said_again(one: AgentNode, cluster: Kubectl) -> None:
    given = one.add(0)
    wait("it is published", lambda: published(cluster) == set(given))
    older = json.dumps({"status": {"sequence": 0, "allocations": []}})
    cluster.run("patch", "ipamblock", "10-1-0-0-26", "--subresource=status", "--type=merge", "-p", older)
    wait("it is published again", lambda: published(cluster) == set(given))


def test_a_pool_for_other_nodes_is_not_waited_for(one: AgentNode, cluster: Kubectl) -> None:
    """The only pool of the second family isn't this node's: its pods have the first."""
    cluster.run("patch", "ippool", "six", "--type=merge", "-p", '{"spec":{"nodeSelector":"has(gpu)"}}')
    wait("its block is gone", lambda: active(cluster, "a") == ["10.1.0.0/26"])
    assert one.add(0) == ["10.1.0.0"]


def test_a_reserved_address_is_for_who_asks_for_it(one: AgentNode, cluster: Kubectl) -> None:
    reserved = {"reservedCIDRs": ["10.1.0.0/30"]}
    cluster.apply({"apiVersion": "tortie.dev/v1alpha1", "kind": "IPReservation", "metadata": {"name": "r"}, "spec": reserved})
    wait("the block says so", lambda: [b["spec"].get("reserved") for b in blocks(cluster) if "." in b["spec"]["cidr"]] != [[]])
    wait("the agent knows", lambda: free_of(one) == 60)
    one.named[0] = "asking"
    asking(cluster, "default", **{"tortie.dev/ip-addrs": '["10.1.0.2"]'})
    try:
        assert one.add(0) == ["10.1.0.2"]
        assert one.add(1)[0] == "10.1.0.4"
    finally:
        cluster.run("delete", "pod", "asking", "--force", "--grace-period=0")


def free_of(one: AgentNode) -> int:
    return next(int(b["free"]) for b in json.loads(ask(one, "report"))["blocks"] if "." in b["cidr"])
