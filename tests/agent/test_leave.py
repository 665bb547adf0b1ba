"""Uninstalled, or only restarted: what the agents' DaemonSet says, row by row, and a doubt counts as restarted."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubectl import Kubectl
from tortie.agent.leave import Installation
from tortie.kube.client import connect

AGENTS = {
    "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agents", "namespace": "default"},
    "spec": {
        "selector": {"matchLabels": {"app": "agents"}},
        "template": {
            "metadata": {"labels": {"app": "agents"}},
            "spec": {"containers": [{"name": "c", "image": "none"}]},
        },
    },
}  # fmt: skip

# What happens while the agent follows it, and whether that uninstalls.
ROWS = {
    "it is there": ([], True, False),
    "it is deleted": (["delete", "daemonset", "agents"], True, True),
    "it is being deleted": (["delete", "daemonset", "agents", "--cascade=foreground", "--wait=false"], True, True),
    "it was never seen": ([], False, False),
}


@pytest.mark.parametrize("row", ROWS)
async def test_uninstalled(cluster: Kubectl, control_plane: ControlPlane, row: str) -> None:
    command, exists, gone = ROWS[row]
    if exists:
        cluster.apply(AGENTS)
    try:
        assert await _is_gone(control_plane, cluster, command) is gone
    finally:
        with suppress(Exception):
            cluster.run("patch", "daemonset", "agents", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        cluster.run("delete", "daemonset", "agents", "--ignore-not-found")


async def test_an_api_server_that_doesn_t_answer_uninstalls_nothing(cluster: Kubectl, control_plane: ControlPlane) -> None:
    cluster.apply(AGENTS)

    class Away:
        def run(self, *_: str) -> None:
            control_plane.pause("kube-apiserver")

    try:
        assert not await _is_gone(control_plane, Away(), ["-"])
    finally:
        control_plane.resume("kube-apiserver")
        cluster.run("delete", "daemonset", "agents")


async def _is_gone(plane: ControlPlane, kubectl: Any, command: list[str]) -> bool:
    async with connect(str(plane.kubeconfig)) as client:
        installation = Installation(client, "default/agents")
        running = asyncio.create_task(installation.run())
        try:
            await asyncio.wait_for(installation.followed.wait(), 30)
            if command:
                await asyncio.to_thread(kubectl.run, *command)
            return await installation.is_gone()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
