"""Logs for programs: what a real operator writes is one JSON object a line."""

import json
from datetime import datetime

from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import Operators, active, node, pool


def test_each_line_is_an_object(control_plane: ControlPlane, cluster: Kubectl, operators: Operators) -> None:
    log = control_plane.log("operator")
    before = log.stat().st_size if log.exists() else 0
    operator = operators("--log-format", "json")
    cluster.apply(pool(), node("a"))
    wait("a block", lambda: len(active(cluster, "a")) == 1)
    operator.terminate()
    operator.wait(30)
    lines = [json.loads(line) for line in log.read_text()[before:].splitlines()]
    assert {"tortie.kube.lease", "tortie.controller.operator"} <= {line["logger"] for line in lines}
    for line in lines:
        assert line["level"] in ("INFO", "WARNING", "ERROR")
        assert line["message"]
        datetime.fromisoformat(line["time"])
