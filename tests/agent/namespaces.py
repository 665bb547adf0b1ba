"""Network namespaces for tests, made and removed with certainty; they have no route out."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pyroute2 import config, netns

from tests.cluster.network import why_no_namespaces

needs_root = pytest.mark.skipif(bool(why_no_namespaces()), reason=why_no_namespaces() or "-")


config.default_communicate_timeout = 60  # seconds, in place of 2: each namespace is made by a process, on a busy machine


@contextmanager
def namespaces(count: int) -> Iterator[list[str]]:
    """Give the paths of so many new namespaces; loopback is up in the first, the node."""
    prefix = f"tt{uuid.uuid4().hex[:6]}"
    names = [f"{prefix}-{n}" for n in range(count)]
    try:
        for name in names:
            netns.create(name)
        run(["ip", "link", "set", "lo", "up"], f"/run/netns/{names[0]}")
        yield [f"/run/netns/{name}" for name in names]
    finally:
        for name in names:
            if os.path.exists(f"/run/netns/{name}"):  # noqa: PTH110 - as the kernel names it
                netns.remove(name)


def run(command: list[str], inside: str) -> str:
    """Return what a command prints in a namespace."""
    enter = ["nsenter", f"--net={inside}", *command]
    return subprocess.run(enter, capture_output=True, text=True, check=True, timeout=30).stdout


def connect(path: str) -> None:
    """Give a namespace a link `eth0`, 192.0.2.1/24 and 2001:db8::1/64, whose other end is there too."""
    run(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far"], path)
    run(["ip", "addr", "add", "192.0.2.1/24", "dev", "eth0"], path)
    run(["ip", "addr", "add", "2001:db8::1/64", "dev", "eth0", "nodad"], path)
    for link in ("eth0", "far"):
        run(["ip", "link", "set", link, "up"], path)
