"""Processes that go on and are found again, and ports that stay ours."""

import os
import socket
from pathlib import Path

import pytest

from tests.cluster import processes
from tests.cluster.ports import HeldPort
from tests.cluster.processes import Recorded


def test_one_that_goes_on_is_recorded_and_ended(tmp_path: Path) -> None:
    sleeper = processes.start(["sleep", "600"], tmp_path / "log", detached=True)
    (one,) = processes.recorded(tmp_path)
    assert one == processes.record(sleeper.pid)
    assert one.runs
    processes.end_recorded(tmp_path)
    assert not one.runs
    processes.end_recorded(tmp_path)  # once more is fine
    sleeper.wait()


def test_another_process_with_the_same_id_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / processes.RECORDS).write_text(f"{os.getpid()} 1\n")
    assert processes.recorded(tmp_path) == [Recorded(os.getpid(), "1")]
    processes.end_recorded(tmp_path)


def test_a_held_port_is_for_servers_that_share_it_and_for_nobody_else() -> None:
    held = HeldPort()
    address = ("127.0.0.1", held.number)
    for _ in range(2):  # a server that died may come back
        with socket.create_server(address, reuse_port=True), socket.create_connection(address):
            pass
    with socket.socket() as other, pytest.raises(OSError, match="Address already in use"):
        other.bind(address)
    held.release()
    with socket.create_server(address):
        pass
