"""tortiectl against a real API server: what it prints, word for word, and how its line is read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from tests.cluster.assets import find
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import Operators, active, node, pool, publish, status
from tests.docs.reference.commands import contexts
from tortie.cli.ctl.main import in_front, main

SHOWN = {
    "ipam show": """\
POOL    CIDR         SIZE    IN USE    FREE    %
pool    10.1.0.0/16  65536   2         65534   0.0
six     fd00::/120   256     0         256     0.0
""",
    "ipam show -o wide": """\
POOL    CIDR         SIZE    IN USE    FREE    %    BLOCKS    BLOCK SIZE
pool    10.1.0.0/16  65536   2         65534   0.0  1         26
six     fd00::/120   256     0         256     0.0  1         122
""",
    "ipam show --blocks": """\
BLOCK        NODE    POOL    SIZE    IN USE    FREE
10.1.0.0/26  a       pool    64      2         62
fd00::/122   a       six     64      0
""",
    "ipam show --ip 10.1.0.1": """\
IP        STATE    POD          NODE    SINCE                 CONTAINER
10.1.0.1  in use   default/web  a       2026-01-02T03:04:05Z
""",
    "ipam show --ip 10.1.0.7": """\
IP        STATE    POD    NODE    SINCE    CONTAINER
10.1.0.7  free            a
""",
    "ipam show --ip 10.1.9.9": """\
IP        STATE        POD    NODE    SINCE    CONTAINER
10.1.9.9  in no block
""",
    "ipam show --ip 192.0.2.1": """\
IP         STATE       POD    NODE    SINCE    CONTAINER
192.0.2.1  in no pool
""",
}


def asked(plane: ControlPlane, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--kubeconfig", str(plane.kubeconfig), *arguments])


def test_shown(control_plane: ControlPlane, cluster: Kubectl, operators: Operators) -> None:
    operators()
    cluster.apply(pool(), pool("six", cidr="fd00::/120"), node("a"))
    wait("a block of each family", lambda: len(active(cluster, "a")) == 2)
    held = {
        "address": "10.1.0.1",
        "sequence": 1,
        "namespace": "default",
        "pod": "web",
        "uid": "u",
        "since": "2026-01-02T03:04:05Z",
    }
    publish(cluster, "10-1-0-0-26", epoch="e", allocations=[{"address": "10.1.0.0", "sequence": 2}, held], free=62)
    wait("it is counted", lambda: status(cluster).get("addresses", {}).get("allocated") == 2)
    for command, expected in SHOWN.items():
        printed = "\n".join(line.rstrip() for line in asked(control_plane, *command.split()).output.splitlines())
        assert printed == expected.rstrip("\n"), command
    assert {row["pool"]: row["used"] for row in json.loads(asked(control_plane, "ipam", "show", "-o", "json").output)} == {
        "pool": 2,
        "six": 0,
    }
    (row,) = yaml.safe_load(asked(control_plane, "ipam", "show", "--ip", "10.1.0.1", "-o", "yaml").output)
    assert row["uid"] == "u"


@pytest.mark.parametrize("text", ["ten", "10.1.0.0/26", ""])
def test_what_is_no_address_is_named(control_plane: ControlPlane, text: str) -> None:
    result = asked(control_plane, "ipam", "show", "--ip", text)
    assert result.exit_code == 2
    assert f"not an IP address: '{text}'" in result.output


def test_as_kubectl_s_plugin(control_plane: ControlPlane, cluster: Kubectl) -> None:
    cluster.apply(pool())
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [str(find("kubectl")), "tortie", "ipam", "show", "--kubeconfig", str(control_plane.kubeconfig), "-o", "json"]
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True, timeout=60)
    assert [row["pool"] for row in json.loads(done.stdout)] == ["pool"]


def test_no_cluster_at_all(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--kubeconfig", f"{tmp_path}/none", "ipam", "show"])
    assert result.exit_code == 1
    assert "there is no such kubeconfig" in result.output


LINES = {
    "where kubectl takes them": (["--context", "c", "ipam", "show"], ["--context", "c", "ipam", "show"]),
    "at the end": (["ipam", "show", "--context", "c"], ["--context", "c", "ipam", "show"]),
    "in one word": (["ipam", "--context=c", "show"], ["--context", "c", "ipam", "show"]),
    "Tortie's namespace": (["ipam", "show", "-n", "x"], ["-n", "x", "ipam", "show"]),
    "in full": (["status", "--namespace=x", "-o", "json"], ["--namespace", "x", "status", "-o", "json"]),
    "as kubectl takes it": (["status", "-nx"], ["-n", "x", "status"]),
    "as kubectl takes it, too": (["status", "-n=x"], ["-n", "x", "status"]),
    "another's option": (["connectivity", "test", "--node-port", "1"], ["connectivity", "test", "--node-port", "1"]),
    "without a value": (["status", "-n"], ["status", "-n"]),
    "from stdin": (["ipam", "release", "--from-report", "-"], ["ipam", "release", "--from-report", "-"]),
}


@pytest.mark.parametrize("row", LINES)
def test_the_cluster_may_be_named_anywhere(row: str) -> None:
    written, read = LINES[row]
    assert in_front(written) == read


def test_no_command_has_an_option_of_its_own_by_a_name_that_may_stand_anywhere() -> None:
    taken = {
        (context.command_path, name)
        for context in list(contexts("tortiectl", main))[1:]
        for option in context.command.params
        for name in (*option.opts, *option.secondary_opts)
        if name in ("-n", "--namespace", "--context", "--kubeconfig")
    }
    assert taken == set()


def test_what_comes_behind_two_dashes_is_left_alone() -> None:
    assert in_front(["run", "--", "--context", "c"]) == ["run", "--", "--context", "c"]


@pytest.mark.parametrize("command", ["diagnose --file", "ipam map pool --svg"])
def test_a_file_that_can_t_be_written_is_refused_before_anything_is_asked(tmp_path: Path, command: str) -> None:
    result = CliRunner().invoke(main, ["--kubeconfig", f"{tmp_path}/none", *command.split(), f"{tmp_path}/no/such"])
    assert result.exit_code == 2
    assert f"{tmp_path}/no/such can't be written: No such file or directory; name a file in a folder" in result.output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    assert "_TORTIECTL_COMPLETE" in CliRunner().invoke(main, ["completion", shell]).output
