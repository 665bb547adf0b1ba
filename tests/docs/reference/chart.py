"""chart.md: every value of the chart, with its default, what it may be, and its comment in values.yaml."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.docs.reference.markdown import GENERATED, code, prose, table

CHART = Path(__file__).parents[3] / "helm" / "tortie"

_INTRODUCTION = """\
# Chart

The values of `helm/tortie`, for `--set NAME=VALUE` or a file with `-f`. The chart refuses a misspelt name or a value that
can't be, before anything is changed. Times are in seconds.

"""


class Value(NamedTuple):
    """One value: its name with dots, its default, its comment, and what its parents' comments say."""

    name: str
    default: Any
    comment: str
    below: str  # the comment of the mapping that it is in


def page() -> str:
    """Return the page."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    rows = [
        (code(one.name), _default(one.default), code(allowed) if (allowed := _allowed(schema, one.name)) else "", _meaning(one))
        for one in values()
    ]
    return GENERATED + _INTRODUCTION + table(("Value", "Default", "May be", "Meaning"), rows)


def values() -> list[Value]:
    """Return every value, in the file's order."""
    text = (CHART / "values.yaml").read_text()
    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)
    return list(_values(root, text.splitlines(), "", ""))


def _values(node: yaml.MappingNode, lines: list[str], prefix: str, below: str) -> Iterator[Value]:
    for key, child in node.value:
        name, comment = prefix + key.value, _comment_above(lines, key.start_mark.line)
        if isinstance(child, yaml.MappingNode) and not child.flow_style and not _is_one_value(name):
            yield from _values(child, lines, f"{name}.", comment)
        else:
            yield Value(name, _loaded(child), comment, below)


def _is_one_value(name: str) -> bool:
    """Whether a mapping is given as a whole, because its form is Kubernetes' own."""
    return name.rpartition(".")[2] in {"affinity", "resources", "nodeSelector"}


def _comment_above(lines: list[str], number: int) -> str:
    found: list[str] = []
    while number and lines[number - 1].lstrip().startswith("#"):
        number -= 1
        found.insert(0, lines[number].strip(" #"))
    return " ".join(found)


def _loaded(node: yaml.Node) -> Any:
    return yaml.safe_load(yaml.serialize(node))


def _default(value: Any) -> str:
    return code(json.dumps(value)) if value != "" else "empty"


def _meaning(value: Value) -> str:
    return prose(value.comment or value.below)


def _allowed(schema: dict[str, Any], name: str) -> str:
    """Return what the schema lets a value be, where that is more than its type."""
    node = schema
    for part in name.split("."):
        node = node["properties"][part]
    node = _resolved(schema, node)
    if "enum" in node:
        return ", ".join(node["enum"])
    low, high = node.get("minimum"), node.get("maximum")
    if low is None:
        return ""
    return f"{low} or more" if high is None else f"{low} to {high}"


def _resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref", "")
    return schema["$defs"][reference.rpartition("/")[2]] if reference else node
