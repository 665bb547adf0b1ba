"""What all our objects share: names on the wire, metadata, conditions, and the rules that the API server enforces.

A rule is written in CEL beside the field that it guards, and ends in the CRD (`tortie.api.crd`). `kubectl apply` shows
its message behind the field's path, so a message is the rest of a sentence: "must be …".
"""

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP = "tortie.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
# Of a policy, or of a namespace for all its NetworkPolicies: "true" lets nodes log what is denied by it.
LOG_DENIALS = f"{GROUP}/log-denials"

# Long enough for any object name (RFC 1123 subdomain) and any CIDR in text (39 characters, a slash, three digits).
NAME_MAX = 253
CIDR_MAX = 43
# metav1.Condition allows 32,768; sixteen of those would be half of an object's 1 MB.
MESSAGE_MAX = 4096

Schema = dict[str, Any]


def rule(expression: str, message: str, *, field: str | None = None, value: str | None = None) -> dict[str, str]:
    """Return one entry of `x-kubernetes-validations`.

    `field` is the path that the error names, such as `.cidr`; `value` a CEL expression of the offending value, as a
    string: the API server itself shows only its type.
    """
    entry = {"rule": expression, "message": message}
    if value:
        entry["messageExpression"] = f'{json.dumps(message, ensure_ascii=False)} + "; it is " + {value}'
    if field:
        entry["fieldPath"] = field
    return entry


def rules(*entries: dict[str, str]) -> dict[str, Any]:
    """Return `entries` as the `json_schema_extra` of a field or a model."""
    return {"x-kubernetes-validations": list(entries)}


class Model(BaseModel):
    """A part of an object: camelCase on the wire, unknown fields left alone, immutable in memory."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON form, without what is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Column(Model):
    """A printer column of `kubectl get`; `wide` shows it with `-o wide` only."""

    name: str
    path: str
    type: Literal["string", "integer", "boolean", "date"] = "string"
    wide: bool = False
    description: str = ""


class ObjectMeta(Model):
    """The part of metadata that we read or write."""

    name: str
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    finalizers: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Condition(Model):
    """One aspect of an object's state, in the shape of `metav1.Condition`."""

    type: Annotated[str, Field(max_length=316, description="The aspect, such as Allocatable.")]
    status: Annotated[Literal["True", "False", "Unknown"], Field(description="Whether the aspect holds.")]
    reason: Annotated[str, Field(max_length=1024, description="One word for programs: why it holds or not.")]
    message: Annotated[str, Field(max_length=MESSAGE_MAX, description="A sentence for people: why, and what to do.")] = ""
    last_transition_time: Annotated[
        str, Field(description="When status last changed, RFC 3339.", json_schema_extra={"format": "date-time"})
    ]
    observed_generation: Annotated[int, Field(ge=0, description="The metadata.generation that this condition speaks of.")] = 0


Conditions = Annotated[
    tuple[Condition, ...],
    Field(max_length=16, description="What holds of this object now; each type stands once."),
]


class Resource(Model):
    """A whole object. Its class variables say how the API server serves it."""

    plural: ClassVar[str]
    short_names: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[tuple[Column, ...]] = ()
    name_rules: ClassVar[tuple[dict[str, str], ...]] = ()

    api_version: str = API_VERSION
    kind: str = ""
    metadata: ObjectMeta
