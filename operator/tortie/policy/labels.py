"""Kubernetes' label selectors, in one canonical form, so that equal ones are found equal."""

from collections.abc import Mapping

import msgspec

from tortie.api.policy_input import LabelSelector

Pair = tuple[str, str]


class Requirement(msgspec.Struct, frozen=True, order=True):
    """`key` In, NotIn `values`, Exists, DoesNotExist. matchLabels are In with one value."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


Selector = tuple[Requirement, ...]
EVERYTHING: Selector = ()


class BadSelector(ValueError):
    """A selector that the API server should not have taken; the message names it."""


def canonical(selector: LabelSelector) -> Selector:
    """Return a selector's requirements, ordered, each once; raises BadSelector."""
    labelled = [Requirement(key, "In", (value,)) for key, value in selector.match_labels.items()]
    if not selector.match_expressions:
        return tuple(sorted(labelled))
    found = set(labelled)
    for one in selector.match_expressions:
        if one.operator in ("In", "NotIn") and one.values:
            found.add(Requirement(one.key, one.operator, tuple(sorted(set(one.values)))))
        elif one.operator in ("Exists", "DoesNotExist") and not one.values:
            found.add(Requirement(one.key, one.operator))
        else:
            raise BadSelector(f"matchExpressions: {one.key} {one.operator} {', '.join(one.values) or 'without values'}")
    return tuple(sorted(found))


def matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether labels fulfil every requirement. As in Kubernetes, NotIn holds where the key is missing."""
    for one in selector:
        value, operator = labels.get(one.key), one.operator
        if operator == "In":
            if value not in one.values:
                return False
        elif operator == "NotIn":
            if value in one.values:
                return False
        elif (value is None) == (operator == "Exists"):
            return False
    return True


def anchors(selector: Selector) -> tuple[Pair, ...] | None:
    """Return the fewest pairs of which all that is selected has one; None where no pair is needed."""
    least: Requirement | None = None
    for one in selector:
        if one.operator == "In" and (least is None or len(one.values) < len(least.values)):
            least = one
    return None if least is None else tuple([(least.key, value) for value in least.values])
