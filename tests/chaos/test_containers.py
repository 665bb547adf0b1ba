"""Containers as they come and go."""

from pathlib import Path

from tests.chaos.containers import containers
from tests.cluster.network import Place
from tests.cluster.node import Node


def test_a_container_that_is_being_made_is_left_out(tmp_path: Path) -> None:
    node = Node("node-1", tmp_path, tmp_path, Place("", "", ""))
    made = node.tasks / "c"
    made.mkdir(parents=True)
    assert containers(node) == []
    (made / "config.json").touch()
    assert containers(node) == []
    (made / "config.json").write_text('{"annotations": {}}')
    (made / "init.pid").touch()
    assert containers(node) == []
