"""objects.md: every kind, every field, from the schema that the API server enforces."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.docs.reference.markdown import GENERATED, code, prose, table
from tortie.api.crd import custom_resource_definition, structural
from tortie.api.kinds import KINDS
from tortie.api.meta import API_VERSION, Condition, Resource, Schema

_INTRODUCTION = f"""\
# Objects

All kinds of `{API_VERSION}`. All are cluster-scoped. `kubectl explain ippool.spec` shows the same in a terminal.

Unset fields are absent. A list is replaced as a whole. The API server refuses what breaks a rule when you apply it, and its
sentence names the field and the value.

"""
_CONDITIONS = """\
## Conditions

Every `status.conditions` has this form. Which conditions and reasons there are, and what to do about each, is on the page
[Troubleshooting](../troubleshooting.md#conditions).

"""
_TITLES = ("Field", "Type", "Default", "Meaning")
_FORMATS = {"date-time": "time, RFC 3339"}


class Field(NamedTuple):
    """One field: its path in the object, its schema, and the rules of objects above it that name it."""

    path: str
    schema: Schema
    required: bool
    rules: tuple[str, ...]


def page() -> str:
    """Return the page."""
    condition = structural(Condition.model_json_schema(by_alias=True), {})
    shared = _CONDITIONS + table(_TITLES, map(_row, _fields(condition, "")))
    return GENERATED + _INTRODUCTION + "\n".join(map(_kind, KINDS)) + "\n" + shared


def _kind(kind: type[Resource]) -> str:
    definition = custom_resource_definition(kind)["spec"]
    names, version = definition["names"], definition["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    lines = [f"## {kind.__name__}", prose(schema["description"]), _shown(names, version["additionalPrinterColumns"])]
    lines += [f"The object's name {prose(one['message'])}." for one in schema.get("x-kubernetes-validations", ())]
    for part in ("spec", "status"):
        if part in schema["properties"]:
            node = schema["properties"][part]
            lines += [f"### {kind.__name__} {part}", prose(node["description"]), table(_TITLES, _rows(node, part))]
    return "\n\n".join(lines)


def _shown(names: dict[str, Any], columns: list[dict[str, Any]]) -> str:
    also = "".join(f", or {code(name)}" for name in names.get("shortNames", ()))
    usual = ", ".join(c["name"] for c in columns if not c.get("priority"))
    wide = ", ".join(c["name"] for c in columns if c.get("priority"))
    return f"`kubectl get {names['plural']}`{also} shows {usual}" + (f"; `-o wide` adds {wide}." if wide else ".")


def _rows(node: Schema, part: str) -> Iterator[tuple[str, ...]]:
    """Yield a row for each field of spec or status. What has the fields of an earlier one refers to that."""
    seen: dict[str, str] = {}
    hidden = "\0"
    for field in _fields(node, f"{part}."):
        if field.path.startswith(hidden):
            continue
        below = json.dumps(_object_in(field.schema), sort_keys=True)
        row = _row(field)
        if field.path == "status.conditions":
            row, hidden = (*row[:3], f"{row[3]} See [Conditions](#conditions)."), f"{field.path}[]"
        elif below in seen:
            row, hidden = (*row[:3], f"{row[3]} Fields as those of {code(seen[below])}."), f"{field.path}["
        elif below != "null":
            seen[below] = field.path
        yield row


def _fields(node: Schema, prefix: str) -> Iterator[Field]:
    required = node.get("required", ())
    for name, child in node["properties"].items():
        rules = tuple(one["message"] for one in node.get("x-kubernetes-validations", ()) if one.get("fieldPath") == f".{name}")
        yield Field(prefix + name, child, name in required, rules)
        below = _object_in(child)
        if below is not None:
            yield from _fields(below, f"{prefix}{name}{'[]' if child['type'] == 'array' else ''}.")


def _object_in(schema: Schema) -> Schema | None:
    """Return the fields below a field: its own, or those of a list's entries."""
    node = schema.get("items", schema)
    if "properties" not in node:
        return None
    return {key: node[key] for key in ("properties", "required", "x-kubernetes-validations") if key in node}


def _row(field: Field) -> tuple[str, ...]:
    schema = field.schema
    default = code(json.dumps(schema["default"]).strip('"')) if "default" in schema else ""
    rules = [*(f"It {one}." for one in (*_messages(schema), *field.rules))]
    rules += [f"Each {one}." for one in _messages(schema.get("items", {}))]
    # A rule says more than a description that begins alike: how to go on.
    said = schema.get("description", "")
    for rule in rules:
        said = said.replace(rule.partition(":")[0] + ".", "")
    limits = ", ".join(_limits(schema))
    meaning = [said, *dict.fromkeys(rules), *([f"{limits[0].upper()}{limits[1:]}."] if limits else [])]
    return code(field.path), _type(schema), "required" if field.required else default, prose(" ".join(meaning))


def _messages(schema: Schema) -> list[str]:
    """Return the rules for a value itself; those of an object name fields of it and are shown there."""
    return [] if "properties" in schema else [one["message"] for one in schema.get("x-kubernetes-validations", ())]


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(map(code, schema["enum"]))
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if schema["type"] == "array":
        inner = schema["items"]
        return "list of objects" if "properties" in inner else f"list of: {_type(inner)}"
    return _FORMATS.get(schema.get("format", ""), str(schema["type"]))


def _limits(schema: Schema) -> Iterator[str]:
    """Yield what the type doesn't say, in words."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        yield f"from {low} to {high}"
    elif low is not None:
        yield f"at least {low}"
    if "maxItems" in schema:
        yield f"at most {schema['maxItems']} entries"
    if "pattern" in schema:
        yield f"of the form {schema['pattern']}"
