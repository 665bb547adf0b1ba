"""What the suite says: one line a test while it runs, and what came of each once it has ended."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PASSED, SKIPPED = "passed", "skipped"  # ginkgo's words
_BEGIN = re.compile(r"Will run (\d+) of \d+ specs")
_DELIMITER = "-" * 30
_END = re.compile(r"\S+(?: \[(?P<state>[A-Z ]+)\])? \[(?P<seconds>[\d.]+) seconds\]")
_LABELS = re.compile(r"( \[[^\]]*\])+$")


@dataclass(frozen=True)
class Skip:
    """Tests that are left out, and why."""

    pattern: str
    reason: str


@dataclass(frozen=True)
class Result:
    """What came of one test: ginkgo's word for it, and why it failed or was skipped."""

    name: str
    state: str
    seconds: float
    message: str = ""

    def __str__(self) -> str:
        return f"{self.state}: {self.name}" + (f": {self.message}" if self.message else "")


class Progress:
    """Makes one line a test of what ginkgo prints with -v."""

    def __init__(self) -> None:
        self._done, self._total = 0, "?"
        self._line, self._name = "", ""

    def read(self, line: str) -> str:
        """Return what is to be told about a line, "" where nothing is."""
        before, self._line = self._line, line
        if before == _DELIMITER:
            self._name = _LABELS.sub("", line)
        if begin := _BEGIN.fullmatch(line):
            self._total = begin[1]
        end = _END.fullmatch(line)
        if not end:
            return ""
        self._done += 1
        return f"{self._done}/{self._total} {(end['state'] or PASSED).lower()} {float(end['seconds']):.0f} s: {self._name}"


def read(report: Path, focus: str, skips: Sequence[Skip]) -> list[Result]:
    """Return what a report of ginkgo says about the tests in focus, those that were skipped included."""
    specs = json.loads(report.read_text())[0]["SpecReports"]
    return [_result(spec, skips) for spec in specs if _is_told(spec, focus)]


def _is_told(spec: dict[str, Any], focus: str) -> bool:
    """Whether it is a test in focus, or what is done before or after all of them and failed."""
    if spec["LeafNodeType"] == "It":
        return bool(re.search(focus, _name(spec)))
    return bool(spec["State"] != PASSED)


def _result(spec: dict[str, Any], skips: Sequence[Skip]) -> Result:
    name, message = _name(spec), (spec.get("Failure") or {}).get("Message", "")
    if spec["State"] == SKIPPED:
        message = message or next((skip.reason for skip in skips if re.search(skip.pattern, name)), "")
    return Result(_LABELS.sub("", name), spec["State"], spec["RunTime"] / 1e9, message)


def _name(spec: dict[str, Any]) -> str:
    return " ".join([*(spec["ContainerHierarchyTexts"] or ()), spec["LeafNodeText"] or spec["LeafNodeType"]])
