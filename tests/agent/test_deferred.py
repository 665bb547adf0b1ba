"""The reading side of the queue of deferred DELs, on real folders."""

import json
import logging
import os
from pathlib import Path

import pytest

from tortie.agent.deferred import Queue

NOW = 1_700_000_000.0


def put(folder: Path, name: str, time: float = NOW, content: str | bytes | None = None, **fields: object) -> Path:
    """Put a file as the plugin would, or with other content."""
    request: dict[str, object] = {
        "command": "DEL",
        "containerID": name,
        "netns": "",
        "ifname": "eth0",
        "args": "",
        "path": "/opt/cni/bin",
    }
    request |= {"config": {"cniVersion": "1.0.0", "name": "tortie"}, "timeout": 0, **fields}
    path = folder / f"{name}.json"
    text = json.dumps(request) if content is None else content
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    os.utime(path, (time, time))
    return path


def ids(queue: Queue) -> list[str]:
    return [deferred.request.container_id for deferred in queue.waiting()]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "none")
    queue.clean(NOW)
    assert queue.waiting() == []
    assert len(queue) == 0
    queue.done([])


def test_the_oldest_file_comes_first(tmp_path: Path) -> None:
    for name, time in (("b", NOW), ("a", NOW + 1), ("d", NOW - 5), ("c", NOW)):
        put(tmp_path, name, time)
    assert len(Queue(tmp_path)) == 4
    assert ids(Queue(tmp_path)) == ["d", "b", "c", "a"]


def test_a_request_is_what_the_plugin_sent(tmp_path: Path) -> None:
    put(tmp_path, "a", netns="/run/netns/x", args="K8S_POD_NAME=web-0", config={"name": "n", "cni.dev/x": [1]})
    [deferred] = Queue(tmp_path).waiting()
    request = deferred.request
    assert (request.command, request.container_id, request.ifname) == ("DEL", "a", "eth0")
    assert (request.netns, request.args, request.config) == (
        "/run/netns/x",
        "K8S_POD_NAME=web-0",
        {"name": "n", "cni.dev/x": [1]},
    )


def test_done_ones_are_gone_and_the_others_stay(tmp_path: Path) -> None:
    for name in "abc":
        put(tmp_path, name)
    queue = Queue(tmp_path)
    first, second, _ = queue.waiting()
    first.path.unlink()  # the plugin reached the agent after all
    queue.done([first, second])
    assert ids(queue) == ["c"]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="empty"),
        pytest.param('{"command": "DEL", "containerID": "br', id="half"),
        pytest.param("[]", id="no object"),
        pytest.param(b"\xff\xfe", id="no text"),
        pytest.param('{"command": "DEL", "ifname": "eth0"}', id="no container"),
        pytest.param('{"command": "DEL", "containerID": "c"}', id="no interface"),
        pytest.param('{"command": "ADD", "containerID": "c", "ifname": "eth0"}', id="no DEL"),
        pytest.param('{"command": "DEL", "containerID": 5, "ifname": "eth0"}', id="another type"),
        pytest.param(b'{"command": "DEL", "containerID": "\xff", "ifname": "eth0"}', id="no UTF-8"),
    ],
)  # fmt: skip
def test_what_is_no_request_is_put_aside_and_blocks_nobody(
    tmp_path: Path, content: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "a", NOW)
    put(tmp_path, "bad", NOW - 1, content)
    queue = Queue(tmp_path)
    with caplog.at_level(logging.ERROR):
        assert ids(queue) == ["a"]
    assert names(tmp_path) == ["a.json", "bad.broken"]
    assert f"{tmp_path}/bad.json is no request" in caplog.text
    assert "put aside as bad.broken" in caplog.text
    caplog.clear()
    assert ids(queue) == ["a"]
    assert caplog.text == ""


def test_what_cannot_be_read_is_left_and_blocks_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "a", NOW)
    (tmp_path / "folder.json").mkdir()
    assert ids(Queue(tmp_path)) == ["a"]
    assert names(tmp_path) == ["a.json", "folder.json"]
    assert "Is a directory" in caplog.text


@pytest.mark.parametrize(
    ("age", "stays"),
    [pytest.param(0.0, True, id="being written"), pytest.param(59.0, True, id="almost"), pytest.param(60.0, False, id="left"),
     pytest.param(-3600.0, True, id="the clock was set back")],
)  # fmt: skip
def test_temporaries_that_a_crash_left_are_removed(tmp_path: Path, age: float, stays: bool) -> None:
    put(tmp_path, "a", NOW - 3600)
    temporary = tmp_path / ".123.tmp"
    temporary.write_text('{"command": "DEL"')
    os.utime(temporary, (NOW - age, NOW - age))
    queue = Queue(tmp_path)
    queue.clean(NOW)
    assert temporary.exists() == stays
    assert ids(queue) == ["a"]  # a temporary is never a request
