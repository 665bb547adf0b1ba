"""The page of all metrics, made from their declarations: `python -m tortie.cli.metrics FILE`."""

import sys
from pathlib import Path
from typing import Any

from tortie.agent.metrics import METRICS as AGENT
from tortie.controller.metrics import METRICS as OPERATOR
from tortie.metrics import Declared, Metrics

PARTS: dict[str, Metrics[Any]] = {"operator": OPERATOR, "agent": AGENT}
_HEAD = """\
<!-- Generated from operator/tortie by `make generate`. DO NOT EDIT. -->

# Metrics

Operator and agents serve them in Prometheus' text format at `/metrics`: always on 127.0.0.1 at their health ports (9440 and
9091), and with the chart's `metrics.enabled` on the node's own address too (`--metrics-address`). Of the operator's replicas,
the one that leads knows pools, nodes and blocks; the others say that they don't lead, and what they are.

| metric | type | labels | unit | meaning | part |
| --- | --- | --- | --- | --- | --- |
"""
_TAIL = """
Beside these there are Prometheus' usual figures of a process, `process_resident_memory_bytes`, `process_cpu_seconds_total`,
`process_start_time_seconds` and `process_open_fds` among them.
"""


def page() -> str:
    """Return the page as Markdown."""
    parts: dict[Declared, list[str]] = {}
    for part, metrics in PARTS.items():
        for declared in metrics.declared:
            parts.setdefault(declared, []).append(part)
    rows = sorted((_row(declared, " and ".join(found)) for declared, found in parts.items()), key=lambda row: row.split("`")[1])
    return _HEAD + "".join(rows) + _TAIL


def _row(declared: Declared, part: str) -> str:
    labels = ", ".join(f"`{label}`" for label in declared.labels)
    meaning = declared.help.replace("|", "\\|")
    return f"| `{declared.name}` | {declared.type} | {labels} | {_unit(declared)} | {meaning} | {part} |\n"


def _unit(declared: Declared) -> str:
    if declared.name.endswith("_seconds"):
        return "seconds"
    if declared.name.endswith("_info"):
        return "always 1"
    return "0 or 1" if declared.help.startswith("1 ") else "count"


if __name__ == "__main__":
    Path(sys.argv[1]).parent.mkdir(parents=True, exist_ok=True)
    Path(sys.argv[1]).write_text(page())
