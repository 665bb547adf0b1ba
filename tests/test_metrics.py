"""The metrics' names keep to Prometheus' conventions (prometheus.io/docs/practices/naming), and their page is current."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.scraped import Scraped
from tortie.cli.metrics import PARTS, page
from tortie.controller.metrics import Shown
from tortie.metrics import Declared, Metrics

ROOT = Path(__file__).parents[1]
DECLARED = [(part, one) for part, metrics in PARTS.items() for one in metrics.declared]
each = pytest.mark.parametrize(("part", "metric"), DECLARED, ids=lambda value: getattr(value, "name", value))

# Seconds and bytes are base units, and numbers have none; everything else is another unit or a part of one.
OTHER_UNITS = {
    "ms", "millis", "milliseconds", "microseconds", "us", "nanoseconds", "ns", "minutes", "hours", "days",
    "bits", "kb", "kib", "mb", "mib", "kilobytes", "megabytes", "gigabytes", "percent", "percentage",
}  # fmt: skip
# Prometheus' own, or put there by who scrapes.
TAKEN_LABELS = {"le", "quantile", "job", "instance", "namespace", "pod", "service", "container", "endpoint"}


def problems(part: str, metric: Declared) -> list[str]:
    """Return what a linter would say of a metric."""
    words = metric.name.split("_")
    rules = {
        "its name is of its part": metric.name.startswith((f"tortie_{part}_", "tortie_build_")),
        "its name has small letters": re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", metric.name),
        "a counter ends in _total and nothing else does": (words[-1] == "total") == (metric.type == "counter"),
        "an _info is a gauge": words[-1] != "info" or metric.type == "gauge",
        "a histogram ends in its unit": metric.type != "histogram" or words[-1] in ("seconds", "bytes"),
        "a unit is a base unit": not OTHER_UNITS & set(words),
        "a unit stands at the end": not {"seconds", "bytes"} & set(words[: -2 if words[-1] == "total" else -1]),
        "its name doesn't say its type": metric.type not in words,
        "its suffix isn't a histogram's": words[-1] not in ("count", "sum", "bucket", "created"),
        "its help is a sentence": re.match(r"[A-Z0-9].*[^.]\.$", metric.help),
        "its labels have small letters": all(re.fullmatch(r"[a-z][a-z_]*", label) for label in metric.labels),
        "its labels are nobody else's": not TAKEN_LABELS & set(metric.labels),
    }
    return [rule for rule, kept in rules.items() if not kept]


@each
def test_conventions(part: str, metric: Declared) -> None:
    assert problems(part, metric) == []


BROKEN = {
    "tortie_agent_things": ("counter", "Things.", ()),
    "tortie_agent_things_total": ("gauge", "Things.", ()),
    "tortie_agent_wait_ms": ("gauge", "Wait.", ()),
    "tortie_agent_seconds_waited": ("gauge", "Wait.", ()),
    "tortie_agent_wait": ("histogram", "Wait.", ()),
    "tortie_agent_wait_seconds": ("histogram", "no sentence", ()),
    "tortie_agent_gauge": ("gauge", "Things.", ()),
    "tortie_agent_requests": ("gauge", "Things.", ("job",)),
    "tortie_operator_things": ("gauge", "Things.", ()),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_breach_of_them_is_seen(name: str) -> None:
    type_, help_, labels = BROKEN[name]
    assert len(problems("agent", Declared(name, type_, labels, help_))) == 1


def test_names_are_declared_once_in_a_part() -> None:
    for metrics in PARTS.values():
        names = [one.name for one in metrics.declared]
        assert len(names) == len(set(names))


def test_the_page_is_current() -> None:
    assert (ROOT / "docs" / "reference" / "metrics.md").read_text() == page(), "run `make generate`"


def test_what_is_declared_is_served() -> None:
    """A replica that waits has no values for most, and says all the same what there is."""
    metrics: Metrics[Any] = PARTS["operator"]
    scraped = Scraped(Shown().render().decode())
    for one in metrics.declared:
        family = scraped.families[one.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (one.type, one.help)
    assert scraped.value("tortie_operator_leading") == 0
    assert not [s for s in scraped.samples if s.name.startswith("tortie_operator_pool")]
    assert not [s for s in scraped.samples if s.name.endswith("_created")]
