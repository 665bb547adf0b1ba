"""What is read of the suite's output and report, from texts as it writes them."""

import json
from pathlib import Path
from typing import Any

from tests.e2e.results import Progress, Result, Skip, read

LABELS = "[Feature:NetworkPolicy] [sig-network, Feature:NetworkPolicy]"
OUTPUT = f"""Running Suite: Kubernetes e2e suite - /tmp
Will run 3 of 7144 specs
{"-" * 30}
[SynchronizedBeforeSuite]
k8s.io/kubernetes/test/e2e/e2e.go:69
[SynchronizedBeforeSuite] PASSED [2.190 seconds]
{"-" * 30}
[sig-network] Netpol denies {LABELS}
network_policy.go:687
  STEP: Creating a policy @ 11/28/26 10:28:22.1
{"-" * 12}
• [21.604 seconds]
{"-" * 30}
[sig-network] Netpol allows {LABELS}
• [FAILED] [43.250 seconds]
[sig-network] Netpol allows {LABELS}
{"-" * 30}
[sig-network] Netpol waits {LABELS}
S [SKIPPED] [0.004 seconds]
"""


def test_one_line_a_test() -> None:
    progress = Progress()
    assert [told for line in OUTPUT.splitlines() if (told := progress.read(line))] == [
        "1/3 passed 22 s: [sig-network] Netpol denies",
        "2/3 failed 43 s: [sig-network] Netpol allows",
        "3/3 skipped 0 s: [sig-network] Netpol waits",
    ]


def spec(
    leaf: str, state: str, message: str = "", kind: str = "It", above: tuple[str, ...] | None = ("Netpol",)
) -> dict[str, Any]:
    failure = {"Failure": {"Message": message}} if message else {}
    return {
        "ContainerHierarchyTexts": above, "LeafNodeText": leaf, "LeafNodeType": kind, "State": state, "RunTime": 2_500_000_000,
        **failure,
    }  # fmt: skip


def test_a_report(tmp_path: Path) -> None:
    specs = [
        spec("", "passed", kind="SynchronizedBeforeSuite", above=None),
        spec("", "failed", "a node is not ready", kind="SynchronizedBeforeSuite", above=None),
        spec("denies [Feature:NetworkPolicy]", "passed"),
        spec("allows", "failed", "Had 3 wrong results"),
        spec("by SCTP [Feature:SCTP]", "skipped"),
        spec("on Windows", "skipped", "only on windows"),
        spec("resolves", "skipped", above=("DNS",)),
    ]
    report = tmp_path / "report.json"
    report.write_text(json.dumps([{"SpecReports": specs}]))
    assert read(report, "Netpol", [Skip(r"\[Feature:SCTP\]", "no SCTP")]) == [
        Result("SynchronizedBeforeSuite", "failed", 2.5, "a node is not ready"),
        Result("Netpol denies", "passed", 2.5),
        Result("Netpol allows", "failed", 2.5, "Had 3 wrong results"),
        Result("Netpol by SCTP", "skipped", 2.5, "no SCTP"),
        Result("Netpol on Windows", "skipped", 2.5, "only on windows"),
    ]
