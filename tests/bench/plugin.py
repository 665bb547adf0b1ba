"""What the CNI plugin costs by itself: ADDs against a server that answers at once."""

import json
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from tests.cni.build import plugin
from tests.cni.fake_agent import RESULT

_ADDS = 200
_ANSWER = json.dumps({"result": RESULT}).encode()


def cni_binary() -> dict[str, float]:
    """Return the plugin's size in MB (10^6 bytes), and the median time of an ADD in ms.

    The time is from before the process is made until it is reaped and its output read, so fork, exec and this loop count.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agent.sock"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            answering = threading.Thread(target=_answer, args=(server,), daemon=True)
            answering.start()
            milliseconds = [_add(path) for _ in range(_ADDS)]
            answering.join()
    return {"cni_binary_overhead": statistics.median(milliseconds), "cni_binary_size": plugin().stat().st_size / 1e6}


def _add(path: Path) -> float:
    config = {"cniVersion": "1.0.0", "name": "tortie", "type": "tortie", "socket": str(path)}
    names = {"COMMAND": "ADD", "CONTAINERID": "c1", "NETNS": "/run/netns/a", "IFNAME": "eth0", "PATH": "/opt/cni/bin"}
    environment = {f"CNI_{name}": value for name, value in names.items()}
    start = time.perf_counter()
    done = subprocess.run([plugin()], input=json.dumps(config).encode(), env=environment, capture_output=True, check=False)
    taken = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"ADD failed: {done.stdout.decode()}")
    return taken * 1000


def _answer(server: socket.socket) -> None:
    for _ in range(_ADDS):
        connection, _ = server.accept()
        with connection:
            while connection.recv(1 << 16):
                pass
            connection.sendall(_ANSWER)
