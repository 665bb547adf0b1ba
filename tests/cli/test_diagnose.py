"""`tortiectl diagnose` where not all goes well: a right that is missing, an odd report, a namespace shared with others."""

import asyncio
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.cli.test_overview import installed, part
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import install
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import node, pool
from tortie.cli.ctl import diagnose
from tortie.cli.ctl.agents import COMPONENT
from tortie.cli.ctl.main import main
from tortie.kube.client import Client

ROOM = "diagnosed"


def named(kind: str, name: str, api: str = "v1", **parts: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": ROOM, "labels": parts.pop("labels", {})}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **parts}


def event(name: str, kind: str, about: str, *, api: str = "v1", namespace: str = ROOM) -> dict[str, Any]:
    return named("Event", name, involvedObject={"kind": kind, "name": about, "apiVersion": api, "namespace": namespace},
                 reason="Test", type="Normal", message="-")  # fmt: skip


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A namespace in which a part of Tortie's runs beside another's pod; and somebody who may read pools alone."""
    with ControlPlane() as plane:
        install(Kubectl(plane.kubeconfig))
        furnish(Kubectl(plane.kubeconfig))
        yield plane


def furnish(cluster: Kubectl) -> None:
    own = dict(label.split("=") for label in (COMPONENT + "agent").split(","))
    spec = {"nodeName": "a", "containers": [{"name": "agent", "image": "none"}], "automountServiceAccountToken": False}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ROOM}})
    cluster.apply(*(named("ServiceAccount", name) for name in ("default", "poor")))
    rule = {"apiGroups": ["tortie.dev"], "resources": ["ippools"], "verbs": ["list"]}
    binding = {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "poor"},
               "subjects": [{"kind": "ServiceAccount", "name": "poor", "namespace": ROOM}]}  # fmt: skip
    cluster.apply(
        pool(), node("a"), named("Pod", "tortie-agent-x", labels=own, spec=spec), named("Pod", "stranger", spec=spec),
        event("own", "Pod", "tortie-agent-x"), event("strange", "Pod", "stranger"),
        {**named("ClusterRole", "poor", "rbac.authorization.k8s.io/v1"), "rules": [rule]},
        {**named("ClusterRoleBinding", "poor", "rbac.authorization.k8s.io/v1"), **binding},
    )  # fmt: skip


def diagnosed(kubeconfig: Path, folder: Path) -> tuple[Result, dict[str, str]]:
    command = ["--kubeconfig", str(kubeconfig), "-n", ROOM, "diagnose", "--file", f"{folder}/d.tar.gz"]
    result = CliRunner().invoke(main, command)
    with tarfile.open(folder / "d.tar.gz") as tar:
        files = {one.name.partition("/")[2]: tar.extractfile(one).read().decode() for one in tar}  # type: ignore[union-attr]
    return result, files


def test_what_is_not_tortie_s_is_left_out_and_nothing_is_read_twice(
    plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, listed = Counter[tuple[str, str]](), Client.list_page

    async def counted(client: Client, path: str, **query: Any) -> bytes:
        asked[path, str(query)] += 1
        return await listed(client, path, **query)

    with monkeypatch.context() as patched:
        patched.setattr(Client, "list_page", counted)
        _, files = diagnosed(plane.kubeconfig, tmp_path)
    assert [one["metadata"]["name"] for one in json.loads(files["cluster/pods.json"])] == ["tortie-agent-x"]
    assert [one["metadata"]["name"] for one in json.loads(files[f"events/{ROOM}.json"])] == ["own"]
    assert [count for count in asked.values() if count > 1] == []
    assert "no agent is ready there" in files["problems.json"]
    assert "silent" in files["check.json"]
    assert "agents/a.json: no agent runs there that is ready" in files["errors.txt"]


def test_a_right_that_is_missing_costs_its_part_alone(plane: ControlPlane, tmp_path: Path) -> None:
    result, files = diagnosed(plane.kubeconfig_for_service_account(ROOM, "poor"), tmp_path)
    assert result.exit_code == 0
    assert [one["metadata"]["name"] for one in json.loads(files["objects/ippools.json"])] == ["pool"]
    for part_, why in {
        "cluster/nodes.json": "cannot list resource",
        "objects/ipamblocks.json": "cannot list resource",
        "problems.json": "ipamblocks could not be read",
        "check.json": "ipamblocks could not be read",
    }.items():
        assert part_ not in files
        assert any(line.startswith(f"{part_}: ") and why in line for line in files["errors.txt"].splitlines())
        assert f"left out: {part_}" in result.stderr


def test_an_odd_report_costs_the_comparison_alone(plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def odd(*_asked: Any) -> dict[str, Any]:
        return {"a": {"version": "9"}}

    monkeypatch.setattr(diagnose, "reports", odd)
    result, files = diagnosed(plane.kubeconfig, tmp_path)
    assert result.exit_code == 0
    assert json.loads(files["agents/a.json"]) == {"version": "9"}
    assert "check.json: KeyError: 'allocations'" in files["errors.txt"]
    assert "problems.json" in files


@pytest.mark.parametrize(("limit", "chosen"), [(1, ["n3"]), (3, ["n3", "n0", "n1"]), (0, ["n3", "n0", "n1", "n2", "n4"])])
def test_nodes_with_problems_come_first(limit: int, chosen: list[str]) -> None:
    seen = installed(5, 5)
    agents = tuple(part(f"agent-{n}", f"n{n}", ready=n != 3) for n in range(5))
    lists = {
        "nodes": seen.nodes,
        "pods": (),
        "ipamblocks": seen.blocks,
        "ippools": seen.pools,
        "nodenetworks": (),
        "leases": (),
    }

    async def run() -> list[str]:
        one = diagnose.Diagnosis(None, ROOM, limit)  # type: ignore[arg-type] # asks nobody here
        one._lists = {name: list(items) for name, items in lists.items()}
        one._lists["pods"] = [{**pod, "metadata": {**pod["metadata"], "labels": {diagnose.PART: "agent"}}} for pod in agents]
        return one._chosen(await one._overview())

    assert asyncio.run(run()) == chosen
