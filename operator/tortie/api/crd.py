"""CustomResourceDefinitions, made from the pydantic models: the only place where a model becomes a schema.

The API server wants structural schemas (`apiextensions.k8s.io/v1`): no references, no unions, a type on every node. So
references are put in place, `X | None` becomes `X` (an unset field is an absent field), titles go.
"""

from typing import Any

from tortie.api.meta import GROUP, VERSION, Column, Resource, Schema

_DROPPED = ("title", "$defs", "discriminator", "additionalProperties")


def custom_resource_definition(kind: type[Resource]) -> dict[str, Any]:
    """Return the CRD of `kind`, ready to be written as YAML."""
    singular = kind.__name__.lower()
    names: dict[str, Any] = {
        "kind": kind.__name__,
        "listKind": f"{kind.__name__}List",
        "plural": kind.plural,
        "singular": singular,
        "categories": ["tortie"],
    }
    if kind.short_names:
        names["shortNames"] = list(kind.short_names)
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": object_schema(kind)},
        "additionalPrinterColumns": [_column(c) for c in kind.columns],
    }
    if "status" in kind.model_fields:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Cluster", "names": names, "versions": [version]},
    }


def object_schema(kind: type[Resource]) -> Schema:
    """Return the structural schema of a whole object of `kind`."""
    raw = kind.model_json_schema(by_alias=True, mode="validation")
    parts = {
        name: structural(raw["properties"][name], raw.get("$defs", {}))
        for name in ("spec", "status")
        if name in raw["properties"]
    }
    schema: Schema = {
        "type": "object",
        "description": _sentence(kind.__doc__),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "The version of this schema."},
            "kind": {"type": "string", "description": "The kind of object."},
            "metadata": {"type": "object"},
            **parts,
        },
    }
    if kind.name_rules:
        schema["x-kubernetes-validations"] = list(kind.name_rules)
    return schema


def structural(node: Schema, definitions: dict[str, Schema]) -> Schema:
    """Return `node` of a JSON Schema as a structural schema, with references and optional unions resolved."""
    node = _resolved(node, definitions)
    kept = {key: value for key, value in node.items() if key not in _DROPPED and not (key == "default" and value is None)}
    if "properties" in kept:
        kept["properties"] = {name: structural(child, definitions) for name, child in kept["properties"].items()}
    if isinstance(node.get("additionalProperties"), dict):
        kept["additionalProperties"] = structural(node["additionalProperties"], definitions)
    if "items" in kept:
        kept["items"] = structural(kept["items"], definitions)
        kept["x-kubernetes-list-type"] = "atomic"
    if "const" in kept:
        kept["enum"] = [kept.pop("const")]
        kept.setdefault("type", "string")
    if isinstance(kept.get("default"), list | tuple) and not kept["default"]:
        del kept["default"]
    return kept


def _resolved(node: Schema, definitions: dict[str, Schema]) -> Schema:
    """Return `node` with its reference or its optional union replaced by what it stands for; its own words win."""
    if "anyOf" in node:
        others = [branch for branch in node["anyOf"] if branch.get("type") != "null"]
        if len(others) != 1:
            raise TypeError(f"a structural schema has no unions: {node}")
        own = {key: value for key, value in node.items() if key != "anyOf"}
        return _resolved({**others[0], **own}, definitions)
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[1]]
        own = {key: value for key, value in node.items() if key != "$ref"}
        return _resolved({**target, **own}, definitions)
    return node


def _column(column: Column) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.description:
        entry["description"] = column.description
    if column.wide:
        entry["priority"] = 1
    return entry


def _sentence(doc: str | None) -> str:
    return " ".join((doc or "").split())
